"""The binary search for the first wrong step: against brute force, in what it costs, and as labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.rollout.engine import Sample
from airls_ray.config.supervised_section import LabelRuleConfig
from airls_ray.learning.try_step_labels import try_label_rule
from airls_ray.prm.first_errors import UNKNOWN, find_first_errors
from airls_ray.prm.label_rule import LabelRule
from airls_ray.tasks import make_task
from airls_ray.text.codec import build_tokenizer
from tests.unit import prm_label_fakes
from tests.unit.prm_label_fakes import TASK, SteppingEngine, config, label, workers


class Counted:
    """Answers for prefixes from a table, and what was asked."""

    def __init__(self, right: list[list[bool]]) -> None:
        self.right, self.asked, self.rounds = right, [[0] * len(row) for row in right], 0

    def __call__(self, rollouts: np.ndarray, steps: np.ndarray) -> np.ndarray:
        self.rounds += 1
        for row, step in zip(rollouts.tolist(), steps.tolist(), strict=True):
            self.asked[row][step] += 1
        return np.array([self.right[r][s] for r, s in zip(rollouts.tolist(), steps.tolist(), strict=True)])


def wrong_solutions(count: int, most: int, *, monotone: bool, seed: int = 0) -> list[list[bool]]:
    """Whether each prefix of each solution has a right completion; the last, the whole of it, has none."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        steps = int(random.integers(1, most + 1))
        first = int(random.integers(0, steps))
        right = [at < first for at in range(steps)] if monotone else (random.random(steps) < 0.5).tolist()
        rows.append([*right[:-1], False])
    return rows


def search(right: list[list[bool]]) -> tuple[np.ndarray, Counted]:
    """All of one problem, which a rollout of a step solves."""
    probe = Counted([*right, [True]])
    steps = np.array([len(row) for row in probe.right])
    outcomes = np.array([*[0.0] * len(right), 1.0])
    return find_first_errors(steps, outcomes, np.zeros(len(steps), np.int64), probe)[:-1], probe


@pytest.mark.parametrize(("count", "most"), [(50, 4), (4000, 70)])
def test_the_search_finds_what_looking_at_every_prefix_finds(count: int, most: int) -> None:
    right = wrong_solutions(count, most, monotone=True)
    found, _ = search(right)
    assert found.tolist() == [row.index(False) for row in right]


@pytest.mark.parametrize(("count", "most"), [(50, 4), (4000, 70)])
def test_the_search_asks_for_the_logarithm_of_the_steps(count: int, most: int) -> None:
    """No prefix twice, never the whole solution, and as many rounds as the longest needs."""
    right = wrong_solutions(count, most, monotone=False)
    _, probe = search(right)
    costs = [sum(row) for row in probe.asked[:-1]]
    assert all(max(row) <= 1 and row[-1] == 0 for row in probe.asked)
    assert all(cost <= math.ceil(math.log2(len(row))) for cost, row in zip(costs, right, strict=True))
    assert probe.rounds == math.ceil(math.log2(max(map(len, right))))
    plain = sum(len(row) - 1 for row in right)
    assert count < 1000 or sum(costs) < 0.2 * plain


def test_where_chance_mends_a_solution_the_search_still_ends_between_right_and_wrong() -> None:
    right = wrong_solutions(3000, 40, monotone=False, seed=1)
    found, _ = search(right)
    for row, first in zip(right, found.tolist(), strict=True):
        assert not row[first] and (first == 0 or row[first - 1])


def test_right_solutions_and_problems_that_nothing_solves_are_not_searched() -> None:
    probe = Counted([[False] * 5] * 4)
    outcomes, groups = np.array([1.0, 0.0, 0.5, 0.25]), np.array([0, 1, 1, 1])
    found = find_first_errors(np.array([5, 4, 3, 0]), outcomes, groups, probe)
    assert found.tolist() == [5, UNKNOWN, UNKNOWN, UNKNOWN] and probe.rounds == 0
    none = np.zeros(0, np.int64)
    assert find_first_errors(none, none.astype(float), none, probe).tolist() == []


@pytest.mark.parametrize(
    ("soft", "expected"),
    [
        (False, [1, 1, 1, 1, 0, None, None, None, None, 1, 0, None]),
        (True, [None, None, 1, 0.5, 0, None, None, None, None, None, 0, None]),
    ],
)
def test_steps_are_labelled_up_to_the_first_wrong_one(soft: bool, expected: list[float | None]) -> None:
    """A right rollout; one that is wrong from its second step; one of an unsolved problem; one at its end."""
    known = {
        "first_errors": np.array([3, 1, -1, 1, 0]),
        "step_rows": np.array([0, 0, 0, 1, 1, 1, 2, 2, 1, 3, 3, 2]),
        "positions": np.array([0, 1, 2, 0, 1, 2, 0, 1, 3, 0, 1, 2]),
        "last": np.array([0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 1], bool),
        "completions": np.array([0, 0, 0, 4, 4, 4, 0, 0, 0, 0, 0, 0]),
        "correct": np.zeros(12, int),
        "values": np.array([0, 0, 1, 0.5, 0, 0.25, 0, 0, 0, 0, 0, 0]),
    }
    rule: LabelRule = LabelRuleConfig(name="omega_prm", options={"soft": soft}).open()
    assert rule.needs_search and rule.needs_completions
    labels = np.asarray(rule({**known, "outcomes": 0, "groups": 0})).tolist()
    assert [None if math.isnan(value) else value for value in labels] == expected
    try_label_rule(LabelRuleConfig(name="omega_prm", options={"soft": soft}))


# ------------------------------------------------------------------------------- sampled labels
class LongEngine(SteppingEngine):
    """As many steps of a token as there is room for, or some less."""

    def _chain(self, seed: int, limit: int) -> Sample:
        random, room = np.random.default_rng(seed), (limit - 1) // 2
        words = random.integers(2, 4, size=random.integers(min(3, room), room + 1)).tolist()
        tokens = [token for word in words for token in (word, self.delimiter)]
        return Sample([*tokens, self.eos], [-1.0] * (len(tokens) + 1), "stop")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(prm_label_fakes, "SteppingEngine", LongEngine)
    build_tokenizer(make_task(TASK), tmp_path)
    return tmp_path


def labelled(folder: Path, rule: str, count: int = 1, **section: Any) -> tuple[pa.Table, Any, list[Any]]:
    settings = config(labels=rule, completions=2, **section)
    locals_ = workers(folder, settings, count)
    table, cost = label(folder, settings, locals_, problems=60)
    return table, cost, locals_


def searched(hard: list[float]) -> list[float | None]:
    """Labels of a wrong solution from those of all its prefixes, by halves."""
    low, high = -1, len(hard) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if hard[middle] else (low, middle)
    return [*[1.0] * high, 0.0, *[None] * (len(hard) - 1 - high)]


def test_labels_by_search_are_those_of_all_prefixes_for_fewer_completions(folder: Path) -> None:
    """Completions of a prefix are the same in both, since their seeds come from the prefix."""
    every, plain, _ = labelled(folder, "math_shepherd_hard")
    found, cost, ((worker),) = labelled(folder, "omega_prm")
    assert found.drop_columns("labels").equals(every.drop_columns("labels"))
    solved = {row["problem_id"] for row in every.to_pylist() if row["outcome"] > 0.5}
    expected = [
        [None] * len(row["labels"])
        if row["problem_id"] not in solved
        else [1.0] * len(row["labels"])
        if row["outcome"] > 0.5
        else searched(row["labels"])
        for row in every.to_pylist()
    ]
    assert found["labels"].to_pylist() == expected
    lengths = {len(row["labels"]) for row in every.to_pylist()}
    assert max(lengths) >= 7 and any(None in row for row in expected)
    assert cost["completions"] == 2 * cost["distinct_prefixes"] < 0.4 * plain["completions"]
    assert cost["prefixes"] == plain["prefixes"]
    calls = worker.engine.calls[1:]  # after the rollouts: a call for each round
    assert 2 <= len(calls) <= math.ceil(math.log2(max(lengths)))
    assert sum(len(prompts) for prompts, _ in calls) == cost["distinct_prefixes"]


def test_labels_by_search_do_not_depend_on_the_number_of_workers(folder: Path) -> None:
    (one, cost, _), (three, other, _) = (labelled(folder, "omega_prm", count) for count in (1, 3))
    assert one.equals(three)
    assert {**cost, "seconds": 0} == {**other, "seconds": 0}
