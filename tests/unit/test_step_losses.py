"""Built-in label rules and step losses of published PRMs: the formulas in plain numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from airls_ray.config.schema import PRMConfig
from airls_ray.config.supervised_section import LabelRuleConfig, StepLossConfig
from airls_ray.objectives.step_loss import StepLossInputs, StepNormaliser, known_to

NONE = math.nan
LABELS = ((1.0, 1.0, 0.0, 1.0, 0.0), (1.0, NONE, 1.0), (0.0, 0.0), (NONE, NONE))
LOGITS = ((0.3, -0.5, 1.0, 0.2, -2.0), (0.7, 5.0, -0.1), (0.4, -0.4), (3.0, 2.0))


def steps_of(rows: slice = slice(None), labels: Any = LABELS) -> StepLossInputs:
    logits, labels = LOGITS[rows], labels[rows]
    return StepLossInputs.of(
        torch.tensor([x for row in logits for x in row], dtype=torch.float64, requires_grad=True),
        torch.tensor([y for row in labels for y in row], dtype=torch.float64),
        torch.tensor([row for row, values in enumerate(labels) for _ in values], dtype=torch.int64),
        torch.tensor([at for values in labels for at in range(len(values))], dtype=torch.int64),
    )


def loss_by(name: str, given: StepLossInputs, **options: Any) -> torch.Tensor:
    named = StepLossConfig(name=name, options=options)
    loss: torch.Tensor = named.open()(known_to(given, StepNormaliser(8, 3), PRMConfig()))[0]
    return loss


def pqm_by_hand(labels: tuple[float, ...], logits: tuple[float, ...], zeta: float) -> float:
    right = [q for q, y in zip(logits, labels, strict=True) if y == 1.0]
    wrong = sum(math.exp(q + zeta) for q, y in zip(logits, labels, strict=True) if y == 0.0)
    terms = [-math.log(1.0 / (1.0 + wrong))] if wrong else []
    for place, q in enumerate(right):
        terms.append(-math.log(math.exp(q) / (1.0 + sum(math.exp(x) for x in right[: place + 1]) + wrong)))
    return sum(terms) / len(terms) if terms else 0.0


def test_pqm_is_the_papers_formula_over_each_solution_and_shares_add_up() -> None:
    whole = sum(pqm_by_hand(*one, 4.0) for one in zip(LABELS, LOGITS, strict=True)) / 3
    assert loss_by("pqm", steps_of()).item() == pytest.approx(whole, rel=1e-12)
    parts = [loss_by("pqm", steps_of(rows)) for rows in (slice(0, 1), slice(1, 4), slice(4, 4))]
    assert sum(part.item() for part in parts) == pytest.approx(whole, rel=1e-12)
    other = sum(pqm_by_hand(*one, 1.0) for one in zip(LABELS, LOGITS, strict=True)) / 3
    assert loss_by("pqm", steps_of(), zeta=1.0).item() == pytest.approx(other, rel=1e-12)


def test_pqm_presses_wrong_steps_lifts_the_last_right_one_and_leaves_those_without_a_label() -> None:
    given = steps_of()
    loss_by("pqm", given).backward()
    assert given.logits.grad is not None
    first, second, third, fourth = given.logits.grad.split([len(row) for row in LOGITS])
    assert first[2] > 0 and first[4] > 0 and bool((third > 0).all())
    assert first[3] < 0 and second[2] < 0
    assert second[1] == 0 and bool((fourth == 0).all())


OUTCOMES = ((NONE, NONE, NONE, NONE, 1.0), (NONE, NONE, 0.0), (NONE, 0.25), (NONE, NONE))


def test_the_implicit_prm_reads_the_outcome_of_the_sum_over_a_solution() -> None:
    given = steps_of(labels=OUTCOMES)
    expected = 0.0
    for labels, logits in zip(OUTCOMES, LOGITS, strict=True):
        if labels[-1] == labels[-1]:
            p = 1 / (1 + math.exp(-0.5 * sum(logits)))
            expected -= labels[-1] * math.log(p) + (1 - labels[-1]) * math.log(1 - p)
    loss = loss_by("implicit_prm", given, beta=0.5)
    assert loss.item() == pytest.approx(expected / 3, rel=1e-12)
    loss.backward()
    grad = given.logits.grad
    assert grad is not None
    assert len(set(grad[:5].tolist())) == 1 and float(grad[0]) < 0 < float(grad[5])  # one for all its steps
    assert grad[-2:].tolist() == [0.0, 0.0]
    parts = [
        loss_by("implicit_prm", steps_of(rows, OUTCOMES), beta=0.5)
        for rows in (slice(0, 2), slice(2, 4), slice(4, 4))
    ]
    assert sum(part.item() for part in parts) == pytest.approx(loss.item(), rel=1e-12)


def test_relative_progress_asks_whether_a_step_keeps_the_value_before_it() -> None:
    known = {
        "values": np.array([0.5, 0.4, 0.3, 0.0, 0.25, 1.0]),
        "positions": np.array([0, 1, 2, 3, 0, 1]),
        "outcomes": np.array([0.0, 1.0]),
        "groups": np.array([0, 0]),
        "step_rows": np.array([0, 0, 0, 0, 1, 1]),
    }
    rule = LabelRuleConfig(name="relative_progress").open()
    unused = {"completions": 0, "correct": 0, "last": 0}
    # Before the first step half of the rollouts are right: 0.5, 0.8, 0.75, 0; 0.5 and 4 times the value.
    assert rule({**known, **unused}).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    loose = LabelRuleConfig(name="relative_progress", options={"least": 0.5}).open()
    assert loose({**known, **unused}).tolist() == [1.0, 1.0, 1.0, 0.0, 1.0, 1.0]
