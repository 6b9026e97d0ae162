"""Step losses that learn from the outcomes of whole solutions: formulas by plain loops in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from airls_ray.config.schema import PRMConfig
from airls_ray.config.supervised_section import StepLossConfig
from airls_ray.objectives.step_loss import StepLossInputs, StepNormaliser, known_to

NONE = math.nan


def solutions(count: int, seed: int = 0) -> tuple[list[list[float]], list[float]]:
    """Logits of the steps of each solution, and its outcome; one in ten has none."""
    random = np.random.default_rng(seed)
    logits = [random.normal(size=random.integers(1, 12)).tolist() for _ in range(count)]
    outcomes = np.where(random.random(count) < 0.1, NONE, random.integers(0, 5, size=count) / 4)
    return logits, outcomes.tolist()


def inputs(logits: list[list[float]], outcomes: list[float]) -> StepLossInputs:
    """The outcome as the label of the last step, as `supervised_prm.labels=outcome` gives it."""
    labels = [[*[NONE] * (len(row) - 1), y] for row, y in zip(logits, outcomes, strict=True)]
    return StepLossInputs.of(
        torch.tensor([x for row in logits for x in row], dtype=torch.float64, requires_grad=True),
        torch.tensor([y for row in labels for y in row], dtype=torch.float64),
        torch.tensor([row for row, values in enumerate(labels) for _ in values], dtype=torch.int64),
        torch.tensor([at for values in labels for at in range(len(values))], dtype=torch.int64),
    )


def loss_by(name: str, given: StepLossInputs, normaliser: StepNormaliser, **options: Any) -> torch.Tensor:
    known = known_to(given, normaliser, PRMConfig())
    loss: torch.Tensor = StepLossConfig(name=name, options=options).open()(known)[0]
    return loss


@pytest.mark.parametrize("count", [4, 3000])
def test_contributions_are_taught_by_their_sum_alone(count: int) -> None:
    """The gradient 2 (sum - outcome) / solutions is the same for all steps of one."""
    logits, outcomes = solutions(count)
    used = [(row, y) for row, y in zip(logits, outcomes, strict=True) if y == y]
    given, normaliser = inputs(logits, outcomes), StepNormaliser(len(used), len(used))
    loss = loss_by("spa_rl", given, normaliser)
    assert loss.item() == pytest.approx(sum((sum(row) - y) ** 2 for row, y in used) / len(used), rel=1e-12)
    loss.backward()
    assert given.logits.grad is not None
    expected = [
        0.0 if y != y else 2 * (sum(row) - y) / len(used)
        for row, y in zip(logits, outcomes, strict=True)
        for _ in row
    ]
    assert given.logits.grad.tolist() == pytest.approx(expected, abs=1e-12)
    half = count // 2
    parts = [
        loss_by("spa_rl", inputs(logits[rows], outcomes[rows]), normaliser)
        for rows in (slice(0, half), slice(half, count), slice(count, count))
    ]
    assert sum(part.item() for part in parts) == pytest.approx(loss.item(), rel=1e-12)


def test_contributions_of_repeated_steps_are_found_from_outcomes() -> None:
    """Each solution is a choice of steps from six, whose parts in the outcome least squares gives, too."""
    random = np.random.default_rng(1)
    chosen = random.integers(0, 6, size=(500, 4))
    parts = np.array([0.25, 0.1, -0.2, 0.0, 0.2, 0.05])
    outcomes = parts[chosen].sum(1) + 0.4
    counts = np.stack([(chosen == kind).sum(1) for kind in range(6)], 1)
    wanted = np.linalg.lstsq(counts, outcomes, rcond=None)[0]
    found = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([found], max_iter=200, tolerance_grad=1e-12)
    rows = torch.arange(500).repeat_interleave(4)
    labels = torch.tensor([[NONE, NONE, NONE, y] for y in outcomes]).flatten()

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        steps = found[torch.tensor(chosen).flatten()]
        given = StepLossInputs.of(steps, labels.double(), rows, torch.arange(4).repeat(500))
        loss = loss_by("spa_rl", given, StepNormaliser(500, 500))
        loss.backward()
        return loss

    optimiser.step(closure)
    assert found.detach().numpy() == pytest.approx(wanted, abs=1e-5)
