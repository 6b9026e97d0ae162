"""The judge task: questions of critics from labelled files, both labels equally often, verdicts graded."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from airls_ray.config import load_config
from airls_ray.data.problems import ProblemStream
from airls_ray.errors import DataError, DoorError
from airls_ray.planning import make_plan
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem, Task
from airls_ray.tasks.families.judge import Judge

ROOT = Path(__file__).resolve().parents[2]
YES, NO = "Verification: Is the step correct (Yes/No)? Yes", "Verification: Is the step correct (Yes/No)? No"


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Problem i has the steps i.0, i.1 and i.2; the last is wrong in every third one, and unknown in 1."""
    return [
        {
            "problem": f"problem {at}",
            "steps": [f"step {at}.{step}" for step in range(3)],
            "labels": [True, True, None if at == 1 else at % 3 != 0],
            "correct": float(at % 4 == 0),
        }
        for at in range(first, first + count)
    ]


def write(path: Path, given: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(path)


def files(folder: Path, train: int = 30, test: int = 12) -> dict[str, str]:
    return {
        "train_file": write(folder / "train.jsonl", rows(train)),
        "test_file": write(folder / "test.jsonl", rows(test, first=100000)),
    }


def opened(options: dict[str, Any]) -> Task:
    return make_task(load_config({"task": {"name": "judge", "options": options}}).task)


def epoch(task: Task, size: int, number: int = 0, seed: int = 0) -> list[Problem]:
    return list(islice(task.problems("train", seed, number * size), size))


def number(prompt: str) -> int:
    """Of the problem in a question."""
    found = re.search(r"problem (\d+)", prompt)
    assert found is not None
    return int(found[1])


def judged_step(prompt: str) -> str:
    """The step that R-PRM's template asks about."""
    return prompt.rpartition("Now Step: ")[2].splitlines()[0]


def test_each_labelled_step_is_asked_of_with_those_before_it(tmp_path: Path) -> None:
    task = opened({**files(tmp_path), "balance": False})
    asked = {judged_step(one.prompt): one for one in epoch(task, 89)}
    wanted = {
        f"step {at}.{step}": "right" if step < 2 or at % 3 else "wrong"
        for at in range(30)
        for step in range(3)
        if (at, step) != (1, 2)
    }
    assert {step: one.answer for step, one in asked.items()} == wanted
    assert "Previous Steps: step 4.0\nstep 4.1\nNow Step: step 4.2\n" in asked["step 4.2"].prompt
    assert "Question: problem 4\n" in asked["step 4.2"].prompt


def test_an_epoch_asks_of_both_labels_equally_often_and_draws_the_larger_anew(tmp_path: Path) -> None:
    """3,000 problems: 1,000 wrong steps and 7,999 right ones."""
    task = opened(files(tmp_path, train=3000))
    drawn = [epoch(task, 2000, number) for number in range(2)]
    for found in drawn:
        assert Counter(one.answer for one in found) == {"right": 1000, "wrong": 1000}
        assert len({one.problem_id for one in found}) == 2000
    right = [{one.prompt for one in found if one.answer == "right"} for found in drawn]
    # 1,000 of 7,999 twice: 125 in common by chance, with a standard deviation of 10
    assert 80 < len(right[0] & right[1]) < 170
    firsts = [one.answer for one in drawn[0][:200]]
    assert 60 < firsts.count("right") < 140  # the two are mixed


@pytest.mark.parametrize("start", [0, 7, 20, 33])
def test_a_resumed_stream_goes_on_where_it_ended(tmp_path: Path, start: int) -> None:
    task = opened(files(tmp_path))
    whole = list(islice(task.problems("train", 5), 60))
    assert list(islice(task.problems("train", 5, start), 60 - start)) == whole[start:]
    assert list(islice(task.problems("train", 6), 20)) != whole[:20]


def test_the_test_set_is_one_draw_whatever_the_seed(tmp_path: Path) -> None:
    task = opened({**files(tmp_path), "test_problems": 6})
    found = list(task.problems("test", 0))
    assert found == list(task.problems("test", 9)) and list(task.problems("test", 0, 2)) == found[2:]
    assert Counter(one.answer for one in found) == {"right": 3, "wrong": 3}
    places = [judged_step(one.prompt) for one in found]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("response", "answer", "found"),
    [
        (f"It holds.\n{YES}", "right", (1.0, "right")),
        (f"It holds.\n{YES}", "wrong", (0.0, "right")),
        (f"It does not.\n{NO}", "wrong", (1.0, "wrong")),
        ("It is right.", "right", (0.0, None)),
        ("", "wrong", (0.0, None)),
        (f"{NO}\n{YES}", "right", (0.0, "wrong")),
    ],
)
def test_a_response_is_right_when_its_verdict_is_the_label(
    tmp_path: Path, response: str, answer: str, found: tuple[float, str | None]
) -> None:
    grade = opened(files(tmp_path)).grade(Problem("p", "asked", answer), response)
    assert (grade.outcome, grade.answer) == found


@pytest.mark.parametrize("critic", ["gen_orm", "think_prm_outcome"])
def test_a_critic_of_whole_solutions_is_asked_once_and_labelled_by_the_outcome(
    tmp_path: Path, critic: str
) -> None:
    task = opened({**files(tmp_path), "critic": critic, "balance": False})
    found = epoch(task, 30)
    assert len({one.prompt for one in found}) == 30
    for one in found:
        at = number(one.prompt)
        assert one.answer == ("right" if at % 4 == 0 else "wrong")
        assert f"step {at}.2" in one.prompt


def test_without_an_outcome_a_solution_is_right_when_all_its_steps_are(tmp_path: Path) -> None:
    given = [{k: v for k, v in row.items() if k != "correct"} for row in rows(9)]
    options = {**files(tmp_path), "train_file": write(tmp_path / "t.jsonl", given)}
    found = epoch(opened({**options, "critic": "gen_orm", "balance": False}), 8)
    right = {number(one.prompt): one.answer for one in found}
    assert right == {at: "right" if at % 3 else "wrong" for at in range(9) if at != 1}


def test_the_instruction_can_be_ones_own(tmp_path: Path) -> None:
    task = opened({**files(tmp_path), "instruction": "Say Yes or No."})
    assert next(task.problems("train", 0)).prompt.startswith("Say Yes or No.\n\nQuestion: ")


def test_problems_come_as_a_run_takes_them(tmp_path: Path) -> None:
    table = ProblemStream(opened(files(tmp_path)), "train", 0).take(20)
    assert Counter(table["answer"].to_pylist()) == {"right": 10, "wrong": 10}


@pytest.mark.parametrize(
    ("critic", "said"),
    [
        ("think_prm", "asks of several steps at once"),
        ("gen_prm", "in a conversation"),
        ("oracle", "no critic 'oracle'"),
        ("no.such", "no critic 'no.such'"),
    ],
)
def test_a_critic_that_cannot_be_trained_is_one_sentence(tmp_path: Path, critic: str, said: str) -> None:
    with pytest.raises(DoorError, match=said):
        Judge(**files(tmp_path), critic=critic)


def test_files_that_cannot_be_learned_from_are_one_sentence(tmp_path: Path) -> None:
    given = files(tmp_path)
    one_label = write(tmp_path / "one.jsonl", [{**row, "labels": [True] * 3} for row in rows(5)])
    with pytest.raises(DataError, match=r"one\.jsonl labels all as right: give a file with both"):
        next(opened({**given, "train_file": one_label}).problems("train", 0))
    with pytest.raises(DataError, match="occurs in both"):
        next(opened({**given, "test_file": given["train_file"]}).problems("train", 0))


def test_the_example_asks_of_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(ROOT / "examples" / "judge.yaml")
    task = make_task(config.task)
    assert Counter(one.answer for one in task.problems("test", 0)) == {"right": 5, "wrong": 5}
    assert {one.answer for one in islice(task.problems("train", 0), 16)} == {"right", "wrong"}


def test_the_example_fits_the_cluster_that_it_starts() -> None:
    plan = make_plan(load_config(ROOT / "examples" / "judge.yaml"), gpus_per_node=8, gpu_memory_gib=80)
    assert not plan.warnings
