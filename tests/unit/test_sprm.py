"""SPRM's loss: agreeing steps, balanced classes, as in the authors' program, by plain loops in float64."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import gmean

from airls_ray.config.schema import PRMConfig
from airls_ray.config.supervised_section import StepLossConfig
from airls_ray.evaluation.steps import aggregate_log_scores, aggregate_steps, log_scores
from airls_ray.objectives.step_loss import StepNormaliser, known_to
from tests.unit.test_outcome_losses import inputs, of_update, solutions


def authors_loss(logits: list[list[float]], outcomes: list[float], right_weight: float = 1.5) -> float:
    """`dp_actor.py` of MetaStone-S1, over one micro-batch, step by step."""
    used = [
        (x, y > 0.5)
        for row, y in zip(logits, outcomes, strict=True)
        for x in row
        if y == y and (x > 0 if y > 0.5 else x < 0)
    ]
    rights = 1 + sum(right for _, right in used)
    wrongs = 1 + sum(not right for _, right in used)
    total = weighted = 0.0
    for x, right in used:
        weight = right_weight * wrongs / (rights + wrongs) if right else rights / (rights + wrongs)
        weighted += weight * math.log1p(math.exp(-abs(x)))
        total += weight
    return weighted / (total + 1e-5)


def share(logits: list[list[float]], outcomes: list[float], update: Any, **options: Any) -> Any:
    """The loss of a micro-batch and its gradient."""
    given = inputs(logits, outcomes)
    known = known_to(given, StepNormaliser(1, 1), PRMConfig(), update)
    loss, sums = StepLossConfig(name="sprm", options=options).open()(known)
    loss.backward()
    assert given.logits.grad is not None
    return loss.item(), given.logits.grad.tolist(), float(sums["agreeing_steps"])


@pytest.mark.parametrize("count", [5, 3000])
@pytest.mark.parametrize("weight", [1.5, 0.5])
def test_steps_that_agree_with_the_outcome_learn_it_with_balanced_classes(count: int, weight: float) -> None:
    logits, outcomes = solutions(count)
    first, second, none, whole = of_update(logits, outcomes, [0] * count)
    loss, gradient, agreeing = share(logits, outcomes, whole, right_weight=weight)
    assert loss == pytest.approx(authors_loss(logits, outcomes, weight), rel=1e-12)
    assert agreeing == whole.agreeing.sum()
    half = count // 2
    parts = [
        share(logits[rows], outcomes[rows], update, right_weight=weight)
        for rows, update in ((slice(0, half), first), (slice(half, None), second), (slice(count, None), none))
    ]
    assert sum(part[0] for part in parts) == pytest.approx(loss, rel=1e-12)
    assert [x for part in parts for x in part[1]] == pytest.approx(gradient, abs=1e-15)


def test_the_gradient_is_that_of_differences_and_none_at_steps_that_disagree() -> None:
    logits, outcomes = solutions(40)
    _, gradient, _ = share(logits, outcomes, of_update(logits, outcomes, [0] * 40)[-1])
    found = iter(gradient)
    disagreeing = 0
    for row, y in enumerate(outcomes):
        for at, x in enumerate(logits[row]):
            value = next(found)
            if y != y or (x < 0 if y > 0.5 else x > 0):
                assert value == 0.0
                disagreeing += 1
                continue
            both = []
            for step in (1e-6, -1e-6):
                logits[row][at] = x + step
                both.append(authors_loss(logits, outcomes))
            logits[row][at] = x
            assert value == pytest.approx((both[0] - both[1]) / 2e-6, rel=1e-4, abs=1e-9)
    assert 20 < disagreeing < len(gradient) - 20


def test_where_no_step_agrees_nothing_is_learned() -> None:
    logits, outcomes = [[-1.0, -0.5], [2.0], [0.0]], [1.0, 0.0, 1.0]
    update = of_update(logits, outcomes, [0, 1, 2])[-1]
    assert share(logits, outcomes, update) == (0.0, [0.0] * 4, 0.0)


@pytest.mark.parametrize("traces", [3, 2000])
def test_the_geometric_mean_over_steps(traces: int) -> None:
    random = np.random.default_rng(0)
    offsets = np.concatenate([[0], random.integers(1, 9, size=traces).cumsum()])
    scores = random.random(offsets[-1])
    scores[offsets[1]] = 0.0
    expected = [float(gmean(scores[a:b])) for a, b in pairwise(offsets)]
    found = aggregate_steps(scores, offsets, "geometric_mean")
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    assert found[1] == 0.0
    logs = aggregate_log_scores(log_scores(scores), offsets, "geometric_mean")
    assert np.exp(logs).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_mean_of_a_long_response_does_not_underflow() -> None:
    logs = np.full(4000, math.log(0.7))
    offsets = np.array([0, 4000])
    assert aggregate_log_scores(logs, offsets, "geometric_mean")[0] == pytest.approx(math.log(0.7))
    assert torch.tensor(aggregate_steps(np.full(4000, 0.7), offsets, "geometric_mean")[0]) == pytest.approx(
        0.7
    )
