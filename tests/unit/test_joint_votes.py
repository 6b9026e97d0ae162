"""Votes by frequency and score against plain loops over all subsets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from airls_ray.config.search_section import VoteConfig
from airls_ray.evaluation.joint_votes import (
    best_shares,
    hybrid_shares,
    joint_values,
    reward_frequency_shares,
)
from airls_ray.search.records import Leaf, choose, expected_outcome

Answer = str | None
Samples = Sequence[tuple[Answer, float, float]]
"""Answer, score, correctness."""


def hybrid_by_hand(samples: Samples, share: float) -> float:
    answers = [answer for answer, _, _ in samples if answer is not None]
    votes = {answer: answers.count(answer) for answer in answers}
    most = max(votes.values(), default=0)
    if most / len(samples) > share:
        leaders = [answer for answer, count in votes.items() if count == most]
        right = [[one for answer, _, one in samples if answer == leader] for leader in leaders]
        return sum(sum(one) / len(one) for one in right) / len(right)
    best = max(score for _, score, _ in samples)
    tied = [one for _, score, one in samples if score == best]
    return sum(tied) / len(tied)


def reward_frequency_by_hand(samples: Samples, weight: float) -> float:
    """Mean score and count of each answer, scaled by their least and largest; then their weighted sum."""
    answers = sorted({answer for answer, _, _ in samples if answer is not None})
    if not answers:
        return 0.0
    rows = {answer: [one for one in samples if one[0] == answer] for answer in answers}
    reward = {answer: sum(row[1] for row in rows[answer]) / len(rows[answer]) for answer in answers}
    count = {answer: float(len(rows[answer])) for answer in answers}

    def scaled(of: dict[str, float]) -> dict[str, float]:
        low, high = min(of.values()), max(of.values())
        return {name: (value - low) / (high - low) if high > low else 1.0 for name, value in of.items()}

    rewards, counts = scaled(reward), scaled(count)
    value = {answer: weight * rewards[answer] + (1 - weight) * counts[answer] for answer in answers}
    winners = [answer for answer in answers if value[answer] >= max(value.values()) - 1e-9]
    right = [sum(row[2] for row in rows[answer]) / len(rows[answer]) for answer in winners]
    return sum(right) / len(right)


def random_samples(seed: int, count: int) -> list[tuple[Answer, float, float]]:
    """Scores in eighths, so that sums are exact and ties are many."""
    rng = np.random.default_rng(seed)
    answers = [[None, "a", "b", "c"][at] for at in rng.integers(0, 4, count)]
    scores = (rng.integers(0, 9, count) / 8).tolist()
    return [(one, score, float(one == "b")) for one, score in zip(answers, scores, strict=True)]


def columns(problems: Sequence[Samples]) -> tuple[Any, Any, Any]:
    answers = [[one[0] for one in samples] for samples in problems]
    scores, right = (np.array([[one[at] for one in samples] for samples in problems]) for at in (1, 2))
    return answers, right, scores


@pytest.mark.parametrize("setting", [0.0, 0.3, 0.5, 0.85, 1.0])
@pytest.mark.parametrize(
    ("way", "by_hand"), [("hybrid", hybrid_by_hand), ("reward_frequency", reward_frequency_by_hand)]
)
def test_curves_equal_all_subsets(
    way: str, by_hand: Callable[[Samples, float], float], setting: float
) -> None:
    problems = [random_samples(seed, 7) for seed in range(10)]
    found = joint_values(*columns(problems), range(1, 8), share=setting, weight=setting)[way]
    for k in range(1, 8):
        for at, samples in enumerate(problems):
            wanted = [by_hand([samples[i] for i in picks], setting) for picks in combinations(range(7), k)]
            assert found[k][at] == pytest.approx(np.mean(wanted), abs=1e-12), (k, at)


def test_many_problems_of_many_samples_equal_the_loop() -> None:
    problems = [random_samples(seed, 64) for seed in range(500)]
    found = joint_values(*columns(problems), [64], share=0.3, weight=0.7)
    for way, by_hand, setting in (
        ("hybrid", hybrid_by_hand, 0.3),
        ("reward_frequency", reward_frequency_by_hand, 0.7),
    ):
        wanted = [by_hand(samples, setting) for samples in problems]
        np.testing.assert_allclose(found[way][64], wanted, atol=1e-12)


def test_shares_by_hand() -> None:
    answers: list[Answer] = ["a", "b", "b", None]
    scores = np.array([0.9, 0.2, 0.4, 0.9])
    assert best_shares(scores).tolist() == [0.5, 0.0, 0.0, 0.5]
    assert hybrid_shares(answers, scores, 0.4).tolist() == [0.0, 0.5, 0.5, 0.0]
    assert hybrid_shares(answers, scores, 0.5).tolist() == [0.5, 0.0, 0.0, 0.5]  # half is not above half
    assert reward_frequency_shares(answers, scores, 0.6).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert reward_frequency_shares(answers, scores, 0.4).tolist() == [0.0, 0.5, 0.5, 0.0]
    assert reward_frequency_shares(answers, scores, 0.5).tolist() == [0.5, 0.25, 0.25, 0.0]
    assert reward_frequency_shares([None], np.array([0.3]), 0.5).tolist() == [0.0]


def test_equal_means_that_differ_in_their_last_digit_are_equal() -> None:
    scores = np.array([0.7, 0.7, 0.7, 0.7])  # (0.7 + 0.7 + 0.7) / 3 is a little less than 0.7
    shares = reward_frequency_shares(["a", "a", "a", "b"], scores, 0.9)
    assert shares.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])


def leaf(log_score: float, answer: Answer, outcome: float) -> Leaf:
    return Leaf(0, log_score, log_score, 0.0, answer, outcome)


@pytest.mark.parametrize("shift", [0.0, -3000.0])
def test_the_rules_of_a_search_take_log_scores_of_any_size(shift: float) -> None:
    """Densities of long responses: only their ratios count."""
    scores = np.log([0.9, 0.2, 0.4, 0.3]) + shift
    leaves = [leaf(float(s), a, float(a == "b")) for s, a in zip(scores, ["a", "b", "b", "c"], strict=True)]
    assert choose(leaves, "hybrid", VoteConfig(share=0.6)) == 0
    assert choose(leaves, "hybrid", VoteConfig(share=0.4)) == 1
    assert expected_outcome(leaves, "reward_frequency", VoteConfig(reward_weight=0.9)) == 0.0
    assert expected_outcome(leaves, "reward_frequency", VoteConfig(reward_weight=0.1)) == 1.0


def test_without_answers_they_fall_back_to_the_score() -> None:
    leaves = [leaf(-1.0, None, 0.0), leaf(-0.5, None, 1.0)]
    for rule in ("hybrid", "reward_frequency"):
        assert choose(leaves, rule) == 1 and expected_outcome(leaves, rule) == 1.0
        assert choose([], rule) is None and expected_outcome([], rule) == 0.0
