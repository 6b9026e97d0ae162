"""Outcomes by the vote on a question's other wording, and samplers that keep both wordings together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from actors.train.start import training_problems
from actors.train.tracking import LoopState
from airls_ray.config import load_config
from airls_ray.data.problem_sampler import Candidate
from airls_ray.errors import DoorError
from airls_ray.grading.outcome_rules.cross_vote import outcomes as cross_vote
from airls_ray.problem_samplers.pairs import choose


@pytest.mark.parametrize(
    ("rollouts", "wanted"),
    [
        # problem, pair, answer: the original's majority is 7, the rephrasing's 3
        (
            [("a", "q", "7"), ("a", "q", "7"), ("a", "q", "3"), ("b", "q", "3"), ("b", "q", "7")],
            [0, 0, 1, 0, 1],
        ),
        ([("a", "q", "7"), ("b", "r", "7")], [0, 0]),  # no partner there
        ([("a", None, "7"), ("b", None, "7")], [0, 0]),
        ([("a", "q", "7"), ("a", "q", None), ("b", "q", None)], [0, 0, 0]),  # no answer to go by
        ([("a", "q", None), ("b", "q", None)], [0, 0]),
        ([("a", 4, "7"), ("b", 4, "7")], [1, 1]),
    ],
)
def test_cross_votes_by_hand(rollouts: list[tuple[str, Any, str | None]], wanted: list[float]) -> None:
    problems, pairs, answers = zip(*rollouts, strict=True)
    details = [{} if pair is None else {"pair": pair} for pair in pairs]
    assert cross_vote(answers, problems, details).tolist() == wanted


def test_cross_votes_are_those_of_two_counters_over_thousands_of_rollouts() -> None:
    """As the authors' program: the counter of one wording labels the rollouts of the other one."""
    rng = Random(0)
    rows = [(f"{pair}{side}", pair, rng.choice(["1", "2", "3", None])) for pair in range(150) for side in "ab"
            for _ in range(16)]  # fmt: skip
    rng.shuffle(rows)
    counters: dict[str, Counter[str]] = {}
    for problem, _, answer in rows:
        if answer is not None:
            counters.setdefault(problem, Counter())[answer] += 1
    wanted = []
    for problem, _, answer in rows:
        other = problem[:-1] + ("b" if problem.endswith("a") else "a")
        wanted.append(float(answer == counters[other].most_common(1)[0][0]))
    problems, pairs, answers = zip(*rows, strict=True)
    got = cross_vote(answers, problems, [{"of": pair} for pair in pairs], field="of")
    assert got.tolist() == wanted
    assert 0 < sum(wanted) < len(wanted)


def paired_files(folder: Path, pairs: int) -> list[str]:
    """Settings of a task whose file has both wordings of so many questions, first all of one kind."""
    rows = [
        {
            "problem_id": f"{number}{side}",
            "prompt": f"{side}: {number}?",
            "answer": str(number),
            "details": {"pair": number},
        }
        for side in "ab"
        for number in range(pairs)
    ]
    files = {"train": rows, "test": [{"prompt": "1+1?", "answer": "2"}]}
    for name, several in files.items():
        text = "".join(json.dumps(row) + "\n" for row in several)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return ["task=file", *(f"task.{name}_file={folder / name}.jsonl" for name in files)]


@pytest.mark.parametrize(
    ("pairs", "count", "wanted"),
    [
        (["q", "r", "s", "r", "q"], 4, [1, 3, 0, 4]),
        (["q", "r", "r", "q"], 2, [1, 2]),
        (["q", "q", "q"], 4, [0, 1]),  # the third waits for a fourth
        (["q", None, "r", None], 2, []),
    ],
)
def test_pairs_are_taken_as_they_become_complete(
    pairs: list[str | None], count: int, wanted: list[int]
) -> None:
    candidates = [
        Candidate(str(at), "", {} if one is None else {"pair": one}) for at, one in enumerate(pairs)
    ]
    assert choose(candidates, count) == wanted


def test_an_iteration_has_both_wordings_of_each_question_of_a_shuffled_file(tmp_path: Path) -> None:
    sampler = ["train.problem_sampler={name: pairs, window: 80}", "train.problems_per_iteration=16"]
    config = load_config(None, [*paired_files(tmp_path, 40), *sampler])
    problems = training_problems(config, LoopState(), None)
    seen: set[str] = set()
    for iteration in range(20):
        names = problems.choose(iteration, 16)["problem_id"].to_pylist()
        assert len(set(names)) == 16
        assert [one[:-1] for one in names[::2]] == [one[:-1] for one in names[1::2]]
        problems.seen(iteration, [(name, [0.0]) for name in names])
        seen |= set(names)
    assert len(seen) == 80


def test_pairs_of_an_odd_number_of_problems_are_refused(tmp_path: Path) -> None:
    config = load_config(None, [*paired_files(tmp_path, 4), "train.problem_sampler=pairs"])
    with pytest.raises(DoorError, match="takes two problems at a time, and 3 are asked for"):
        training_problems(config, LoopState(), None).choose(0, 3)
