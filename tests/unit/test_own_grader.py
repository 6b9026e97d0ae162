"""Graders of the user's own: what they get and may say, and that nobody but a grader process runs them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from airls_ray.config import Config, load_config
from airls_ray.config.load import dump_config, load_run_config, with_absolute_paths
from airls_ray.config.named import find_doors
from airls_ray.config.task_choice import from_parent, to_graders
from airls_ray.data.check_answers import stated_answer
from airls_ray.errors import ConfigError, DoorError
from airls_ray.grading.worker import _verdict
from airls_ray.tasks import Problem, make_task
from airls_ray.tasks.base import Grade

OWN = """
def within(response, answer, row, tolerance=0.1):
    near = abs(float(response) - float(answer)) <= tolerance * row.get("scale", 1)
    return float(near), response.strip()
def shouted(response): return response.isupper()
class Marked:
    def __init__(self, most=1.0): self.most = most
    def grade(self, response, answer, answer_marker):
        return self.most if response.endswith(answer_marker + answer) else 0
def much(response): return 2
def odd(respond): return 1
class Nothing: pass
"""
RUNS = "within = 1\nraise SystemExit('it ran')\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def config_of(grader: str, *more: str) -> Config:
    files = ["task=file", "task.train_file=a.jsonl", "task.test_file=b.jsonl"]
    return load_config(None, [*files, f"task.grader={grader}", *more])


def grade(grader: str, response: str, answer: str = "1", **details: Any) -> Grade:
    return make_task(config_of(grader).task).grade(Problem("", "p", answer, (), details), response)


def test_a_function_of_the_names_that_it_takes_judges(own: Path) -> None:
    assert grade(f"{own}:within", "1.05 ") == Grade(1.0, "1.05")
    assert grade(f"{own}:within", "1.5").outcome == 0.0
    assert grade(f"{own}:within", "1.5", scale=10).outcome == 1.0
    assert grade(f"{own}:shouted", "AH") == Grade(1.0, None)


def test_options_are_keywords_of_the_function_or_of_a_class(own: Path) -> None:
    assert grade(f"{{name: '{own}:within', options: {{tolerance: 1}}}}", "1.5").outcome == 1.0
    assert grade(f"{{name: '{own}:Marked', options: {{most: 0.5}}}}", "so ####1").outcome == 0.5


def test_a_grader_that_raises_or_says_no_outcome_has_given_no_verdict(own: Path) -> None:
    def verdict(name: str, response: str) -> list[Any]:
        task = make_task(config_of(f"{own}:{name}").task)
        found: list[Any] = json.loads(_verdict(task, ["p", "1", "{}", response, []]))
        return found

    outcome, answer, _, reason, trace = verdict("within", "none")
    assert (outcome, answer, reason) == (0.0, None, "raised") and "own.py" in trace
    assert verdict("much", "x")[3] == "raised"
    assert "an outcome is a number from 0 to 1" in verdict("much", "x")[4]
    assert verdict("within", "1")[3:] == ["graded", None]


def test_problems_with_choices_are_graded_by_letter_whatever_the_grader(own: Path) -> None:
    details = {"permutation": [1, 0], "choices": ["x", "y"]}
    assert grade(f"{own}:much", "The answer is (A).", "B", **details) == Grade(1.0, "B")


def test_nobody_but_who_grades_runs_it(own: Path) -> None:
    own.write_text(RUNS)
    config = config_of(f"{own}:within")
    task, written = make_task(config.task), to_graders(config.task)
    assert stated_answer(config.task, Problem("", "p", "1")) is None
    assert find_doors(config)[0].kind == "grader"
    made = make_task(from_parent(written))
    for one in (task, made):
        with pytest.raises(DoorError, match="raises at import: SystemExit: it ran"):
            one.grade(Problem("", "p", "1"), "1")


def test_the_code_travels_to_graders_and_to_machines_without_the_file(own: Path) -> None:
    config = config_of(f"{own}:within")
    sent, written = pickle.dumps(config), to_graders(config.task)
    own.unlink()
    for section in (pickle.loads(sent).task, from_parent(written)):
        assert make_task(section).grade(Problem("", "p", "1"), "1").outcome == 1.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("odd", r"takes 'respond', which nobody gives it \(did you mean 'response'\?\)"),
        ("Nothing", r"has no method grade\(response, answer\)"),
    ],
)
def test_what_is_no_grader_is_one_sentence(own: Path, name: str, said: str) -> None:
    with pytest.raises(DoorError, match=rf"task\.grader: .*:{name} {said}.*copy from .*graders/exact\.py"):
        grade(f"{own}:{name}", "1")


def test_the_built_in_ones_state_an_answer_as_they_read_it() -> None:
    for grader, marker in (("math", "####"), ("exact", "####"), ("exact", "=>"), ("exact", "")):
        task = config_of(grader, f"task.answer_marker='{marker}'").task
        problem = Problem("", "p", "7")
        stated = stated_answer(task, problem)
        assert stated is not None and make_task(task).grade(problem, stated) == Grade(1.0, "7")


SETTINGS = ("task.grader", "task.steps", "task.format")


def folder_of(tmp_path: Path, setting: str, name: str) -> Path:
    config = config_of("math", f"{setting}={{name: '{name}', options: {{a: 1}}}}")
    dump_config(with_absolute_paths(config), tmp_path / "config.yaml")
    return tmp_path


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_folder_that_names_code_is_refused_unless_trusted(
    tmp_path: Path, own: Path, setting: str
) -> None:
    folder = folder_of(tmp_path, setting, f"{own}:within")
    with pytest.raises(ConfigError, match=r"names code of its own \(.*own\.py:within\).*--trust"):
        load_run_config(folder, trust=False)
    with pytest.raises(ConfigError, match="names code of its own"):  # options are not the name
        load_run_config(folder, [f"{setting}.options.a=2"], trust=False)
    assert load_run_config(folder, [f"{setting}={own}:within"], trust=False)
    assert load_run_config(folder, trust=True)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("mixed", [False, True])
def test_commands_that_open_none_refuse_it_where_it_is_used(
    tmp_path: Path, own: Path, setting: str, mixed: bool
) -> None:
    own.write_text(RUNS)
    folder = folder_of(tmp_path, setting, f"{own}:within")
    if mixed:
        part = load_config(folder / "config.yaml").task.model_dump(mode="json")
        dump_config(
            load_config({"task": {"name": "mixture", "parts": [{"task": part}]}}), folder / "config.yaml"
        )
    config = load_run_config(folder)
    config = pickle.loads(pickle.dumps(config))  # it may go to another process, and stays refused there
    with pytest.raises(ConfigError, match=r"this run folder names code of its own \(.*own\.py:within"):
        if setting == "task.grader":
            to_graders(config.task)
        else:  # a format is opened as a file is read
            next(make_task(config.task).problems("test", 0))
