"""Tasks of the user's own: the forms that they may have, and what is said of those that are none."""

from __future__ import annotations

import pickle
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from airls_ray.config import Config, load_config
from airls_ray.config.load import dump_config, load_run_config, with_absolute_paths
from airls_ray.config.named import find_doors
from airls_ray.config.task_choice import OwnTaskConfig, from_parent, to_graders
from airls_ray.config.task_sections import CountdownTaskConfig
from airls_ray.errors import ConfigError, DataError, DoorError
from airls_ray.tasks import Problem, Task, make_task
from airls_ray.tasks.base import CutsSteps, Grade, MakesDetours, WrapsPrompts
from airls_ray.tasks.own import grade_of, make_own_task, problem_of

EXAMPLES = Path(__file__).parents[2] / "examples"


class Sums:
    """The shortest task."""

    def __init__(self, largest: int = 9) -> None:
        self.largest = largest

    def problem(self, rng: Random) -> tuple[str, int]:
        a, b = rng.randint(0, self.largest), rng.randint(0, self.largest)
        return f"{a}+{b}=", a + b

    def grade(self, problem: Problem, response: str) -> bool:
        return response == problem.answer


class Counted:
    """Gives its own stream."""

    steps = 3

    def problems(self, split: str, seed: int) -> Any:
        first = 0 if split == "train" else 10**6
        return ({"prompt": str(number), "answer": "x", "level": 3} for number in count(first))

    def grade(self, problem: Problem, response: str) -> float:
        return 0.5

    def step_truth(self, problem: Problem, steps: list[str]) -> list[bool]:
        return [True] * self.steps


def made(found: Any, **options: Any) -> Task:
    task: Task = make_own_task(found, options)
    return task


def prompts(task: Task, split: Any, count: int, seed: int = 0, start: int = 0) -> list[str]:
    return [one.prompt for one in islice(task.problems(split, seed, start), count)]


def test_problems_drawn_one_by_one_are_two_splits_without_a_common_prompt() -> None:
    task = made(Sums, largest=99)
    train, test = prompts(task, "train", 2000), prompts(task, "test", 500)
    assert len(set(test)) == 500 and not set(train) & set(test)


def test_a_stream_goes_on_where_it_is_asked_to() -> None:
    for task in (made(Sums, largest=99), made(Counted)):
        assert prompts(task, "train", 30, start=1020) == prompts(task, "train", 1050)[1020:]


def test_the_test_set_has_the_size_that_was_asked_for() -> None:
    assert len(prompts(made(Counted, test_problems=7), "test", 100)) == 7
    assert len(prompts(made(Sums, largest=99, test_problems=7), "test", 100)) == 7
    assert prompts(made(Counted, test_problems=7), "test", 100, start=5) == ["1000005", "1000006"]


def test_training_problems_that_end_are_a_sentence() -> None:
    class Ends(Counted):
        def problems(self, split: str, seed: int) -> Any:
            return [("a", "b"), ("c", "d")]

    with pytest.raises(DataError, match="training problems of the task ends end after 2: yield them without"):
        prompts(made(Ends), "train", 3)
    assert prompts(made(Ends), "test", 3) == ["a", "c"]


def test_what_is_left_out_has_defaults() -> None:
    task = made(Sums)
    problem = next(task.problems("train", 0))
    assert (task.vocabulary(), task.step_delimiter, task.name) == (None, "\n", "sums")
    assert task.step_truth(problem, ["a"]) is None and task.grade(problem, problem.answer) == Grade(1.0, None)
    assert not isinstance(task, CutsSteps | WrapsPrompts | MakesDetours)


def test_what_a_class_has_beside_is_used() -> None:
    class Wraps(Sums):
        name = "mine"
        step_rule = "lines"

        def wrap(self, prompt: str) -> tuple[str, str]:
            return "", prompt

    task = made(Wraps)
    assert isinstance(task, WrapsPrompts) and isinstance(task, CutsSteps) and task.name == "mine"


@pytest.mark.parametrize(
    ("given", "prompt", "answer", "traces", "details"),
    [
        (("a", 3), "a", "3", (), {}),
        ({"prompt": "a", "answer": "b", "traces": "t"}, "a", "b", ("t",), {}),
        (
            {"prompt": "a", "answer": "b", "traces": ["t", "u"], "level": 2},
            "a",
            "b",
            ("t", "u"),
            {"level": 2},
        ),
        ({"prompt": "a", "answer": "b", "details": {"x": (1, 2)}}, "a", "b", (), {"x": [1, 2]}),
        (Problem("id", "a", "b", ("t",), {"x": 1}), "a", "b", ("t",), {"x": 1}),
    ],
)
def test_a_problem_may_be_written_in_any_natural_form(
    given: Any, prompt: str, answer: str, traces: Any, details: Any
) -> None:
    found = problem_of(given, "mine")
    assert (found.prompt, found.answer, found.traces, found.details) == (prompt, answer, traces, details)


def test_identifiers_come_from_the_content_unless_they_are_given() -> None:
    assert (
        problem_of(("a", "b"), "t").problem_id == problem_of({"prompt": "a", "answer": "b"}, "t").problem_id
    )
    assert problem_of(("a", "b"), "t").problem_id != problem_of(("a", "c"), "t").problem_id
    assert problem_of(Problem("id", "a", "b"), "t").problem_id == "id"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a text", "gave 'a text' as a problem"),
        ({"prompt": "a"}, "as a problem: it must be"),
        ({"prompt": 3, "answer": "b"}, "whose prompt or trace is 3"),
        ({"prompt": " ", "answer": "b"}, "whose prompt or trace is ' '"),
        ({"prompt": "a", "answer": None}, "whose answer is None"),
        ({"prompt": "a", "answer": "b", "traces": [None]}, "whose prompt or trace is None"),
        ({"prompt": "a", "answer": "b", "details": {"x": {1}}}, "cannot be written as JSON"),
        ({"prompt": "a", "answer": "b", "level": float("nan")}, "cannot be written as JSON"),
    ],
)
def test_what_is_no_problem_is_a_sentence(given: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        problem_of(given, "mine")


@pytest.mark.parametrize("given", [None, "right", float("nan"), 1.5, -0.1, (1, 2, 3), [], (None, "x")])
def test_what_is_no_verdict_raises(given: Any) -> None:
    with pytest.raises(ValueError, match="an outcome is a number from 0 to 1"):
        grade_of(given)


def test_a_verdict_may_be_a_number_or_come_with_the_answer() -> None:
    assert grade_of(True) == Grade(1.0, None) and grade_of((0.25, 7)) == Grade(0.25, "7")
    assert grade_of(Grade(0.5, "x", "why")) == Grade(0.5, "x", "why")


def test_verdicts_on_another_number_of_steps_raise() -> None:
    task, problem = made(Counted), Problem("", "a", "b")
    assert task.step_truth(problem, ["a", "b", "c"]) == [True, True, True]
    with pytest.raises(ValueError, match="3 verdicts on 2 steps"):
        task.step_truth(problem, ["a", "b"])


@pytest.mark.parametrize(
    ("found", "options", "said"),
    [
        (len, {}, "a task is a class"),
        (Sums(), {}, "a task is a class"),
        (type("A", (), {}), {}, r"has no method grade\(problem, response\)"),
        (type("A", (), {"grade": Sums.grade}), {}, "has neither problem"),
        (Sums, {"larges": 3}, "takes no option 'larges' .did you mean 'largest'"),
    ],
)
def test_what_is_no_task_is_a_sentence(found: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DoorError, match=said):
        make_own_task(found, options)


def example(overrides: tuple[str, ...] = ()) -> Config:
    return load_config(EXAMPLES / "own_task.yaml", overrides)


def test_another_task_than_that_of_the_base_starts_the_section_anew_but_for_what_all_tasks_have(
    tmp_path: Path,
) -> None:
    (tmp_path / "base.yaml").write_text("task: {operations: 3, reward: length, test_problems: 9}")
    (tmp_path / "own.yaml").write_text("base: base.yaml\ntask: {name: countdown, numbers: 4}")
    task = load_config(tmp_path / "own.yaml").task
    assert isinstance(task, CountdownTaskConfig) and (task.numbers, task.test_problems) == (4, 9)
    assert [one.name for one in task.reward] == ["length"]


def test_the_example_is_right_by_brute_force() -> None:
    task = make_task(example().task)
    for problem in islice(task.problems("train", 0), 200):
        a, b, c = map(int, problem.prompt[:-1].split())
        assert problem.answer == str(sorted((a, b, c))[2])
        steps = [f"{part};" for part in problem.traces[0].split(";")[:-1]]
        assert task.grade(problem, problem.traces[0]) == Grade(1.0, problem.answer)
        assert task.step_truth(problem, steps) == [True, True]
        assert task.step_truth(problem, ["1 2 1;", "x;"]) == [False, False]


def test_the_code_travels_with_the_configuration_to_machines_without_the_file(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text((EXAMPLES / "own_task.py").read_text())
    config = load_config(None, [f"task={file}:Largest"])
    pickled, written = pickle.dumps(config), to_graders(config.task)
    file.unlink()
    for section in (pickle.loads(pickled).task, from_parent(written)):
        assert prompts(make_task(section), "train", 3) == prompts(make_task(example().task), "train", 3)


def test_a_command_that_asks_no_rewards_does_not_count_them_as_loaded() -> None:
    config = load_config({"task": {"name": "arithmetic", "reward": "length"}})
    assert [one.kind for one in find_doors(config)] == ["reward"]
    assert find_doors(config, "task", "supervised_prm.labels") == []


def test_settings_are_the_same_whether_their_code_was_looked_up_or_not() -> None:
    one, other = example(), example()
    one.task.door()  # type: ignore[union-attr]
    assert one == other
    assert one.task != example(("task.options={numbers: 9}",)).task


def test_a_run_folder_that_names_a_task_of_its_own_is_refused_unless_trusted(tmp_path: Path) -> None:
    dump_config(with_absolute_paths(example()), tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"names code of its own .*own_task.py:Largest"):
        load_run_config(tmp_path, trust=False)
    assert isinstance(load_run_config(tmp_path, trust=True).task, OwnTaskConfig)
    to_look_at = load_run_config(tmp_path).task
    assert isinstance(to_look_at, OwnTaskConfig)
    with pytest.raises(ConfigError, match=r"task.name of this run folder names code of its own .*--trust"):
        make_task(to_look_at)
    assert make_task(load_run_config(tmp_path, ["task=arithmetic"]).task).name == "arithmetic"


def test_a_part_of_a_mixture_from_a_run_folder_is_not_opened_either(tmp_path: Path) -> None:
    own = example().task.model_dump(mode="json")
    mixture = {"name": "mixture", "parts": [{"task": own}, {"task": {"name": "arithmetic"}}]}
    dump_config(with_absolute_paths(load_config({"task": mixture})), tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="names code of its own"):
        next(make_task(load_run_config(tmp_path).task).problems("train", 0))
    assert next(make_task(load_run_config(tmp_path, trust=True).task).problems("train", 0))


def test_a_task_that_is_misspelt_is_said_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"no task 'arithmatic' .did you mean 'arithmetic'"):
        load_config(None, ["task=arithmatic"])
