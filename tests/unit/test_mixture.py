"""Mixtures: shares of the parts, streams that go on where they stopped, and graders of their own."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airls_ray.config import Config, load_config
from airls_ray.config.load import with_absolute_paths
from airls_ray.config.task_choice import from_parent, to_graders
from airls_ray.errors import ConfigError, DataError
from airls_ray.evaluation.rollouts import outcomes_by_part
from airls_ray.grading.pool import GradeRequest
from airls_ray.grading.reward_calls import Row, read_reward
from airls_ray.grading.reward_table import row_of
from airls_ray.tasks import Problem, Task, make_task
from airls_ray.text.messages import HISTORY
from tests.unit.row_files import write

THREE = {"task": {"name": "arithmetic", "operations": 3, "test_problems": 20}, "weight": 3, "label": "short"}
SIX = {"task": {"name": "arithmetic", "operations": 6, "test_problems": 20}, "label": "long"}


ONE = """
class One:
    step_delimiter = "\\n\\n"
    def problem(self, rng): return "a", "b"
    def grade(self, problem, response): return 1
"""


def config_of(*parts: dict[str, Any], **settings: Any) -> Config:
    return load_config({"task": {"name": "mixture", "parts": list(parts), **settings}})


def mixture(*parts: dict[str, Any], **settings: Any) -> Task:
    return make_task(config_of(*parts, **settings).task)


def take(task: Task, split: Any, count: int, start: int = 0, seed: int = 0) -> list[Problem]:
    return list(islice(task.problems(split, seed, start), count))


def label_of(problem: Problem) -> str:
    return problem.problem_id.partition("/")[0]


def test_training_problems_come_by_the_weights() -> None:
    counts = Counter(map(label_of, take(mixture(THREE, SIX), "train", 4000)))
    assert counts["short"] == pytest.approx(3000, abs=4 * (4000 * 0.25 * 0.75) ** 0.5)


def test_a_stream_goes_on_where_it_is_asked_to() -> None:
    task = mixture(THREE, SIX)
    assert take(task, "train", 20, start=37) == take(task, "train", 57)[37:]
    assert take(task, "test", 20, start=7) == take(task, "test", 27)[7:]
    assert take(task, "train", 20, seed=1) != take(task, "train", 20, seed=2)


def test_each_part_gives_what_it_gives_alone() -> None:
    asked = [one.prompt for one in take(mixture(THREE, SIX), "train", 200) if label_of(one) == "long"]
    alone = make_task(load_config({"task": SIX["task"]}).task)
    from airls_ray.seeding import derive_seed

    stream = alone.problems("train", derive_seed(0, "part", "long"))
    assert asked == [one.prompt for one in islice(stream, len(asked))]


def test_every_test_problem_comes_once_up_to_the_size() -> None:
    problems = take(mixture(THREE, SIX), "test", 1000)
    assert Counter(map(label_of, problems)) == {"short": 20, "long": 20}
    assert len({one.problem_id for one in problems}) == 40
    assert len(take(mixture(THREE, SIX, test_problems=13), "test", 1000)) == 13


def test_each_problem_is_judged_by_its_own_part() -> None:
    task = mixture(THREE, SIX)
    for problem in take(task, "train", 40):
        (trace,) = problem.traces
        steps = [f"{one};" for one in trace.split(";")[:-1]]
        assert task.grade(problem, trace).outcome == 1.0 and task.step_truth(problem, steps) == [True] * len(
            steps
        )
        assert task.grade(problem, trace + "1+1=2;").answer is None  # a chain of another length


def test_a_problem_of_no_part_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="is of no part of this mixture"):
        mixture(THREE, SIX).grade(Problem("x", "1+1=", "2"), "1+1=2;")


@pytest.fixture
def file(tmp_path: Path) -> dict[str, Any]:
    for name, rows in (("train", "ab"), ("test", "c")):
        lines = [json.dumps({"prompt": row, "answer": "1", "traces": ["#### 1"]}) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    return {
        "name": "file",
        "train_file": str(tmp_path / "train.jsonl"),
        "test_file": str(tmp_path / "test.jsonl"),
    }


def test_the_words_of_a_part_are_around_its_problems_alone(file: dict[str, Any]) -> None:
    worded = {**file, "prompt_template": "Q: {prompt}?", "system_prompt": "Be brief."}
    task = mixture({"task": worded, "label": "a"}, {"task": {**file, "grader": "exact"}, "label": "b"})
    found = {label_of(one): one for one in take(task, "train", 20)}
    assert found["a"].prompt in ("Q: a?", "Q: b?") and found["b"].prompt in ("a", "b")
    assert found["a"].details[HISTORY] == [{"role": "system", "content": "Be brief."}]
    assert HISTORY not in found["b"].details or not found["b"].details[HISTORY]
    assert task.grade(found["b"], "#### 1.0").outcome == 0.0  # exact
    assert task.grade(found["a"], "\\boxed{1.0}").outcome == 1.0  # as mathematics
    assert task.vocabulary() is None


def test_a_reward_of_trls_form_gets_text_or_messages_as_the_data_of_a_part_has_them(
    tmp_path: Path, file: dict[str, Any]
) -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]
    row = {"prompt": [*turns, {"role": "user", "content": "m"}], "answer": "1"}
    (tmp_path / "messages.jsonl").write_text(json.dumps(row))
    said = {**file, "system_prompt": "Be brief."}
    task = mixture(
        {"task": said, "label": "text"},
        {"task": {**said, "train_file": str(tmp_path / "messages.jsonl")}, "label": "messages"},
    )

    def score(prompts: list[Any], completions: list[Any], **columns: Any) -> Any:
        assert set(columns) == {"answer", "steps", "correct", "part"}
        return prompts[0], completions[0]

    reward = read_reward(score, {})
    seen = {
        label_of(one): reward.call([Row(one.prompt, "r", one.answer, (), 1.0, one.details)])
        for one in take(task, "train", 20)
    }
    assert seen["text"][0] in ("a", "b") and seen["text"][1] == "r"
    assert seen["messages"] == (row["prompt"], [{"role": "assistant", "content": "r"}])


def test_a_part_that_trains_on_another_parts_test_problem_is_a_sentence(
    file: dict[str, Any], tmp_path: Path
) -> None:
    swapped = write(tmp_path / "d.jsonl", {"prompt": "d", "answer": "1"})
    other = {**file, "train_file": file["test_file"], "test_file": str(swapped)}
    task = mixture({"task": file, "label": "a"}, {"task": other, "label": "b"})
    with pytest.raises(DataError, match=r"'c'.* occurs in both the training problems of b and"):
        next(task.problems("train", 0))


def test_words_of_all_parts_are_the_vocabulary() -> None:
    task = mixture(
        {"task": {"name": "arithmetic", "modulus": 3}},
        {"task": {"name": "arithmetic", "modulus": 5}, "label": "b"},
    )
    assert sorted(task.vocabulary() or []) == sorted(["0", "1", "2", "3", "4", "+", "-", "*", "=", ";"])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "task.parts"),
        ([{**THREE, "weight": 0}], "weight must be greater than 0, but is 0"),
        ([THREE, {**SIX, "label": "short"}], "two parts would be called short: give one another `label`"),
        ([{"task": {**THREE["task"], "reward": "length"}}], "move them to task.reward"),
        ([{"task": {"name": "mixture", "parts": [THREE]}}], "but is 'mixture'"),
        ([{"task": {"name": "arithmetic", "operatoins": 3}}], "did you mean task.parts.0.task.operations?"),
    ],
)
def test_a_wrong_mixture_is_a_sentence(parts: list[Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(*parts)
    assert said in str(caught.value)


def test_parts_that_end_their_steps_in_different_ways_are_a_sentence(file: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"different ways \(short by delimiter ';', file by lines"):
        mixture(THREE, {"task": {**file, "steps": "lines"}})


def test_graders_get_the_users_own_parts_and_files_get_whole_paths(
    tmp_path: Path, file: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.py"
    own.write_text(ONE)
    config = config_of(
        {"task": {"name": f"{own}:One"}},
        {"task": {"name": "file", "train_file": "train.jsonl", "test_file": "test.jsonl"}},
    )
    written = to_graders(config.task)
    own.unlink()
    made = make_task(from_parent(written))
    asked = Problem("x", "a", "b", (), {"part": {"label": "One", "prompt": "a"}})
    assert made.grade(asked, "c").outcome == 1.0
    monkeypatch.chdir(tmp_path)
    task: Any = with_absolute_paths(config).task
    assert task.parts[1].task.train_file == tmp_path / "train.jsonl"


def test_data_sets_of_the_hub_keep_their_names(file: dict[str, Any]) -> None:
    hub = {**file, "train_file": "hub:openai/gsm8k:main:train"}
    config = with_absolute_paths(config_of({"task": hub, "label": "a"}, {"task": file, "label": "b"}))
    parts: Any = config.task
    assert str(parts.parts[0].task.train_file) == "hub:openai/gsm8k:main:train"
    assert str(with_absolute_paths(load_config({"task": hub})).task.train_file).startswith("hub:")  # type: ignore[union-attr]


def test_outcomes_are_measured_part_by_part() -> None:
    rollouts = pa.table({"problem_id": ["a/1", "a/2", "b/1", "b/1"]})
    grades = pa.table({"outcome": np.array([1.0, 0.0, 1.0, 1.0])})
    assert outcomes_by_part(rollouts, grades, ["a", "b", "c"]) == {
        "outcome/a": 0.5, "share/a": 0.5, "outcome/b": 1.0, "share/b": 0.5,
    }  # fmt: skip
    assert outcomes_by_part(rollouts, grades, [""]) == {}


@pytest.mark.parametrize(("details", "seen"), [({"part": "of a book"}, "asked"), ({}, "asked")])
def test_a_reward_sees_the_prompt_that_the_part_gave(details: dict[str, Any], seen: str) -> None:
    wrapped = {"part": {"label": "short", "prompt": "1+1="}}
    asked = [
        row_of(GradeRequest("asked", "2", json.dumps(one), "2"), 1.0).prompt for one in (wrapped, details)
    ]
    assert asked == ["1+1=", seen]


def test_a_part_whose_label_begins_anothers_has_its_own_problems_alone() -> None:
    rollouts = pa.table({"problem_id": ["a/1", "ab/1", "ab/2"]})
    grades = pa.table({"outcome": [1.0, 0.0, 0.0]})
    assert outcomes_by_part(rollouts, grades, ["a", "ab"]) == {
        **{"outcome/a": 1.0, "share/a": pytest.approx(1 / 3)},
        **{"outcome/ab": 0.0, "share/ab": pytest.approx(2 / 3)},
    }
