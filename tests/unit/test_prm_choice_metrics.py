"""Choosing among samples by a PRM's scores, against plain enumeration of all subsets."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from airls_ray.evaluation.prm_metrics import (
    SampleScores,
    sample_values,
    summarise_values,
)


# ----------------------------------------------------------------------- choosing among samples
def random_samples(
    seed: int, problems: int = 3, samples: int = 5
) -> tuple[list[list[list[float]]], Any, Any]:
    """Step scores in eighths (sums are exact), answers with ties and none, verdicts."""
    rng = np.random.default_rng(seed)
    steps = [
        [(rng.integers(1, 9, rng.integers(1, 4)) / 8).tolist() for _ in range(samples)]
        for _ in range(problems)
    ]
    answers = [[[None, "a", "b"][i] for i in rng.integers(0, 3, samples)] for _ in range(problems)]
    return steps, answers, [[float(answer == "b") for answer in row] for row in answers]


def as_samples(steps: list[list[list[float]]]) -> SampleScores:
    flat = [one for row in steps for one in row]
    return SampleScores(np.array([s for one in flat for s in one]), np.cumsum([0, *map(len, flat)]))


PLAIN = {"last": lambda s: s[-1], "min": min, "prod": math.prod, "mean": lambda s: sum(s) / len(s)}


def chosen(rule: str, scores: list[float], answers: list[str | None], right: list[float]) -> float:
    """What one set of samples is worth, in plain Python."""
    if rule == "best":
        top = [r for s, r in zip(scores, right, strict=True) if s == max(scores)]
        return sum(top) / len(top)
    tally: dict[str, float] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            tally[answer] = tally.get(answer, 0.0) + (score if rule == "weighted" else 1.0)
    winners = [answer for answer, votes in tally.items() if votes == max(tally.values())]
    return winners.count("b") / len(winners) if winners else 0.0


@pytest.mark.parametrize("how", list(PLAIN))
def test_every_way_of_choosing_equals_all_subsets(how: str) -> None:
    for seed in range(6):
        steps, answers, correct = random_samples(seed)
        values = sample_values(as_samples(steps), np.array(correct), answers, [1, 2, 4])
        for p, row in enumerate(steps):
            scores = [PLAIN[how](one) for one in row]
            for way, rule in (
                (f"best/{how}", "best"),
                (f"weighted/{how}", "weighted"),
                ("majority", "majority"),
            ):
                for k in (1, 2, 4):
                    wanted = [
                        chosen(rule, *([column[i] for i in s] for column in (scores, answers[p], correct[p])))
                        for s in combinations(range(5), k)
                    ]
                    assert values[way][k][p] == pytest.approx(np.mean(wanted), abs=1e-12), (way, k)


def test_pass_at_k_bounds_every_way_and_one_sample_is_the_mean() -> None:
    steps, answers, correct = random_samples(3)
    values = sample_values(
        as_samples(steps), np.array(correct), answers, [1, 2, 4], log_probs=np.zeros((3, 5))
    )
    assert len(values) == 4 + 4 * 4
    for curve in values.values():
        assert all((curve[k] <= values["oracle"][k] + 1e-12).all() for k in (1, 2, 4))
        assert curve[1] == pytest.approx(np.mean(correct, axis=1))


@pytest.mark.parametrize("how", list(PLAIN))
def test_a_sample_without_steps_scores_lowest(how: str) -> None:
    steps = [[[0.01], [], [0.02, 0.01]]]
    values = sample_values(as_samples(steps), np.array([[0.0, 1.0, 0.0]]), None, [2, 3])
    assert values[f"best/{how}"][3].tolist() == [0.0]


def test_without_answers_there_are_no_votes() -> None:
    values = sample_values(as_samples([[[0.5], [0.6]]]), np.array([[0.0, 1.0]]), None, [2])
    assert set(values) == {"mean", "oracle", *(f"best/{how}" for how in PLAIN)}


def test_a_summary_gives_the_mean_over_problems_with_its_interval() -> None:
    accuracies = np.array([1.0] * 60 + [0.0] * 40)
    one = summarise_values({"best/min": {4: accuracies}})["best/min"][4]
    half = 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert one["accuracy"] == pytest.approx(0.6)
    assert one["low"] == pytest.approx(0.6 - half, abs=0.02)
    assert one["high"] == pytest.approx(0.6 + half, abs=0.02)
