"""Which search for which problem: by hand, against a plain loop, and where nothing can be gained."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from airls_ray.cli import main as cli
from airls_ray.errors import DataError
from airls_ray.search.compute_plan import (
    Outcomes,
    best_strategy,
    difficulty_bins,
    plan_search,
    read_outcomes,
    two_fold_accuracy,
)
from airls_ray.search.journal import Journal, key_of
from tests.unit.test_search_records import record


def outcomes(seed: int, strategies: int = 6, problems: int = 90) -> Outcomes:
    rng = np.random.default_rng(seed)
    return Outcomes(
        tuple(("beam", 2**at) for at in range(strategies)),
        rng.integers(0, 3, (strategies, problems)) / 2,
        rng.integers(1, 9, (strategies, problems)).astype(float) * np.arange(strategies, 0, -1)[:, None],
        rng.integers(0, 40, problems) / 40,
    )


def best_by_hand(found: Outcomes, members: list[int], budget: float) -> int | None:
    rows = []
    for at in range(len(found.strategies)):
        cost = sum(found.costs[at, m] for m in members) / len(members)
        if cost <= budget + 1e-9:
            rows.append((-sum(found.outcomes[at, m] for m in members), cost, at))
    return min(rows)[2] if rows else None


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("budget", [3.0, 9.0, 20.0, 100.0])
def test_the_best_within_a_budget_is_that_of_a_loop(seed: int, budget: float) -> None:
    found = outcomes(seed)
    members = np.random.default_rng(seed).permutation(90)[:4]
    chosen = best_strategy(found.outcomes[:, members], found.costs[:, members], budget)
    assert chosen == best_by_hand(found, members.tolist(), budget)


def test_bins_are_quantiles_the_hardest_first() -> None:
    ease = np.random.default_rng(0).random(1003)
    bins = difficulty_bins(ease, 5)
    assert sorted(len(part) for part in bins) == [200, 200, 201, 201, 201]
    assert sorted(np.concatenate(bins).tolist()) == list(range(1003))
    assert all(ease[low].max() < ease[high].min() for low, high in pairwise(bins))


def test_a_strategy_that_is_right_in_its_bin_alone_is_found_there() -> None:
    """Search 0 solves the hard half, search 1 the easy half: each alone is right on one half of them."""
    ease = np.arange(40) / 40
    right = np.array([ease < 0.5, ease >= 0.5], dtype=float)
    found = Outcomes((("beam", 4), ("best_of_n", 4)), right, np.ones((2, 40)), ease)
    [row] = plan_search(found, [1.0], bins=2)
    assert (row["accuracy"], row["one_for_all"]) == (1.0, pytest.approx(0.5, abs=0.15))
    assert [(one["algorithm"], one["up_to"]) for one in row["bins"]] == [
        ("beam", pytest.approx(19 / 40)),
        ("best_of_n", pytest.approx(39 / 40)),
    ]


def test_choosing_by_luck_gains_nothing_on_the_other_half() -> None:
    """All searches are right by the same chance: the best of one half is one of many on the other."""
    rng = np.random.default_rng(3)
    right = (rng.random((30, 4000)) < 0.4).astype(float)
    found = Outcomes(tuple(("beam", at) for at in range(30)), right, np.ones((30, 4000)), rng.random(4000))
    bins = difficulty_bins(found.ease, 20)
    accuracy = two_fold_accuracy(found, bins, 1.0)
    assert accuracy == pytest.approx(0.4, abs=0.03)
    seen = np.mean([right[:, part].mean(axis=1).max() for part in bins])
    assert seen > 0.45  # what the same half would have promised


def test_two_folds_are_those_of_a_loop() -> None:
    found, bins = outcomes(5), difficulty_bins(outcomes(5).ease, 4)
    rng = np.random.default_rng(7)
    right = 0.0
    for part in bins:
        first, second = np.array_split(rng.permutation(part), 2)
        for here, there in ((first, second), (second, first)):
            chosen = best_by_hand(found, here.tolist(), 15.0)
            assert chosen is not None
            right += sum(found.outcomes[chosen, problem] for problem in there)
    assert two_fold_accuracy(found, bins, 15.0, seed=7) == pytest.approx(right / 90)


def test_budgets_without_a_search_are_left_out() -> None:
    found = outcomes(1)
    assert plan_search(found, [0.5]) == []
    by_default = plan_search(found, None)
    assert {row["budget"] for row in by_default} <= set(found.costs.mean(axis=1).tolist())
    assert [row["budget"] for row in by_default] == sorted(row["budget"] for row in by_default)


def searched(problems: int = 12) -> list[dict[str, Any]]:
    """Problem i scores i / 12; Best-of-N solves the easy half, beam search the hard one for twice as much."""
    made = []
    for at in range(problems):
        one = record(at)
        leaves = [{**leaf, "score": at / 12, "outcome": float(at >= 6)} for leaf in one["leaves"]]
        made.append({**one, "leaves": leaves, "outcome": float(at >= 6), "policy_tokens": 10})
        made.append({**one, "algorithm": "beam", "outcome": float(at < 6), "policy_tokens": 20})
    return made


@pytest.mark.parametrize("difficulty", ["score", "success"])
def test_records_say_outcome_cost_and_difficulty(difficulty: Any) -> None:
    found = read_outcomes(searched(), "policy_tokens", difficulty)
    assert found.strategies == (("best_of_n", 4), ("beam", 4))
    assert found.outcomes.sum(axis=1).tolist() == [6.0, 6.0]
    assert found.costs.mean(axis=1).tolist() == [10.0, 20.0]
    wanted = [at / 12 if difficulty == "score" else float(at >= 6) for at in range(12)]
    assert found.ease.tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[1:], "was run on other problems"),
        (lambda rows: [{**rows[0], "scorer": "oracle"}, *rows[1:]], "several scorers"),
        (lambda rows: [row for row in rows if row["algorithm"] == "beam"], "no record is of best_of_n"),
    ],
)
def test_records_that_do_not_fit_are_one_sentence(change: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_outcomes(change(searched()), "policy_tokens", "score")


def test_the_command_writes_a_plan_and_its_table(tmp_path: Path, capsys: Any) -> None:
    journal = Journal(tmp_path / "search", {}, resume=False)
    journal.add(searched())
    table = journal.write_parquet([key_of(one) for one in searched()])
    plan = tmp_path / "plan.yaml"
    assert cli.run(["plan-search", str(table), "--output", str(plan), "--bins", "2"]) == 0
    written = yaml.safe_load(plan.read_text())
    assert (written["difficulty"], written["axis"], written["problems"]) == ("score", "policy_tokens", 12)
    cheap, dear = written["budgets"]
    assert (cheap["budget"], cheap["accuracy"], dear["budget"], dear["accuracy"]) == (10.0, 0.5, 20.0, 1.0)
    assert [one["algorithm"] for one in dear["bins"]] == ["beam", "best_of_n"]
    assert "by difficulty" in capsys.readouterr().out


def test_too_few_problems_for_the_bins_are_one_sentence(tmp_path: Path, capsys: Any) -> None:
    journal = Journal(tmp_path / "search", {}, resume=False)
    journal.add(searched())
    table = journal.write_parquet([key_of(one) for one in searched()])
    assert cli.run(["plan-search", str(table), "--output", str(tmp_path / "p.yaml"), "--bins", "9"]) == 2
    assert "fewer than two problems" in capsys.readouterr().err


def test_the_difficulty_is_that_of_the_widest_best_of_n() -> None:
    rows = searched()
    wide = [
        {**row, "budget": 8, "leaves": [{**one, "score": 1.0 - one["score"]} for one in row["leaves"]]}
        for row in rows
        if row["algorithm"] == "best_of_n"
    ]
    wanted = [1.0 - at / 12 for at in range(12)]
    assert read_outcomes([*rows, *wide], "policy_tokens", "score").ease.tolist() == pytest.approx(wanted)
    assert read_outcomes([*wide, *rows], "policy_tokens", "score").ease.tolist() == pytest.approx(wanted)
