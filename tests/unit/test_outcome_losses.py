"""Step losses that learn from the outcomes of whole solutions: formulas by plain loops in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from airls_ray.config.schema import PRMConfig
from airls_ray.config.supervised_section import StepLossConfig
from airls_ray.objectives.step_loss import Solutions, StepLossInputs, StepNormaliser, known_to
from airls_ray.objectives.whole_solutions import pairs_of_problems

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


# ------------------------------------------------------------------- solutions against each other
def agreeing(logits: list[float], outcome: float) -> int:
    """Steps whose logit has the sign of the outcome."""
    return sum(x > 0 if outcome > 0.5 else x < 0 for x in logits)


def of_update(logits: list[list[float]], outcomes: list[float], problems: list[int]) -> list[Solutions]:
    """What a loss gets of an update in three micro-batches, of which the last is empty, and of it whole."""
    labelled = [row for row, y in enumerate(outcomes) if y == y]
    own = torch.tensor([labelled.index(row) if row in labelled else -1 for row in range(len(outcomes))])
    half = len(outcomes) // 2
    return [
        Solutions(
            torch.tensor([sum(logits[row]) for row in labelled], dtype=torch.float64),
            torch.tensor([outcomes[row] for row in labelled], dtype=torch.float64),
            torch.tensor([problems[row] for row in labelled]),
            own[part],
            torch.tensor([logits[row][-1] for row in labelled], dtype=torch.float64),
            torch.tensor([agreeing(logits[row], outcomes[row]) for row in labelled], dtype=torch.float64),
        )
        for part in (slice(0, half), slice(half, None), slice(len(outcomes), None), slice(None))
    ]


def shares(name: str, count: int, problems: list[int], **options: Any) -> tuple[list[float], list[float]]:
    """The loss and its gradients over all steps, of the whole and added up over micro-batches."""
    logits, outcomes = solutions(count)
    normaliser = StepNormaliser(1, sum(y == y for y in outcomes))
    *parts, whole = of_update(logits, outcomes, problems)
    half, losses, gradients = count // 2, [], []
    places = (slice(0, half), slice(half, None), slice(count, None), slice(None))
    for place, update in zip(places, (*parts, whole), strict=True):
        given = inputs(logits[place], outcomes[place])
        known = known_to(given, normaliser, PRMConfig(), update)
        loss = StepLossConfig(name=name, options=options).open()(known)[0]
        loss.backward()
        assert given.logits.grad is not None
        losses.append(loss.item())
        gradients.append(given.logits.grad)
    assert sum(losses[:3]) == pytest.approx(losses[3], rel=1e-12)
    torch.testing.assert_close(torch.cat(gradients[:3]), gradients[3])
    return losses[3:], gradients[3].tolist()


@pytest.mark.parametrize(("count", "size"), [(12, 4), (1200, 8)])
@pytest.mark.parametrize(
    ("name", "options", "score"),
    [
        ("implicit_prm_dpo", {"beta": 0.5}, lambda steps: 0.5 * steps.sum()),
        ("cooper", {}, lambda steps: steps[-1]),
    ],
)
def test_right_solutions_are_compared_with_all_wrong_ones_of_their_problem(
    name: str, options: dict[str, float], score: Callable[[torch.Tensor], torch.Tensor], count: int, size: int
) -> None:
    """The loss over pairs by a loop, and PyTorch's gradient of it, over the micro-batches of an update."""
    problems = [row // size for row in range(count)]
    (loss,), gradient = shares(name, count, problems, **options)
    logits, outcomes = solutions(count)
    steps = [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in logits]
    pairs = [
        torch.log(1 + torch.exp(score(steps[j]) - score(steps[i])))
        for i in range(count)
        for j in range(problems[i] * size, (problems[i] + 1) * size)
        if outcomes[i] > 0.5 >= outcomes[j]
    ]
    wanted = torch.stack(pairs).mean()
    assert loss == pytest.approx(wanted.item(), rel=1e-12)
    wanted.backward()
    expected = [x for row in steps for x in (row * 0 if row.grad is None else row.grad).tolist()]
    assert gradient == pytest.approx(expected, abs=1e-12)


def test_a_micro_batch_makes_no_matrix_of_all_solutions_by_all() -> None:
    sizes: list[int] = []

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor):
                sizes.append(found.numel())
            return found

    count, own = 300, 4
    zeros = torch.zeros(count, dtype=torch.float64)
    right, problems = (torch.arange(count) % 2).double(), torch.arange(count) // 6
    update = Solutions(zeros, right, problems, torch.arange(own), zeros, zeros)
    with Seen():
        pairs_of_problems(torch.zeros(own), torch.ones(own, dtype=torch.bool), zeros, update)
    assert max(sizes) == own * count


def test_a_problem_with_one_kind_of_outcome_has_no_pair() -> None:
    given = inputs([[0.5], [1.0, 2.0], [0.1]], [1.0, 1.0, 0.0])
    update = Solutions(
        torch.tensor([0.5, 3.0, 0.1]),
        torch.tensor([1.0, 1, 0]),
        torch.tensor([0, 0, 1]),
        torch.arange(3),
        torch.tensor([0.5, 2.0, 0.1]),
        torch.tensor([1.0, 2, 0]),
    )
    known = known_to(given, StepNormaliser(3, 3), PRMConfig(), update)
    loss = StepLossConfig(name="implicit_prm_dpo").open()(known)[0]
    loss.backward()
    assert given.logits.grad is not None and not given.logits.grad.any() and loss.item() == 0.0


@pytest.mark.parametrize("count", [6, 2000])
@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_single_solutions_are_valued_above_a_reference_point(count: int, shift: float) -> None:
    """KTO's loss by a loop; the gradient by differences, at a point that stays as it was."""
    logits, outcomes = solutions(count)
    logits = [[x + shift for x in row] for row in logits]
    used = [row for row, y in enumerate(outcomes) if y == y]
    point = max(0.0, sum(sum(logits[row]) for row in used) / len(used))
    assert (point > 1.0) == (shift > 0)

    def value(row: int, total: float) -> float:
        gain = 0.3 * (total - point)
        right = outcomes[row] > 0.5
        return (1.2 if right else 0.8) * (1 - 1 / (1 + math.exp(-gain if right else gain))) / len(used)

    given = inputs(logits, outcomes)
    update = of_update(logits, outcomes, [0] * count)[3]
    known = known_to(given, StepNormaliser(1, len(used)), PRMConfig(), update)
    options = {"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.8}
    loss = StepLossConfig(name="implicit_prm_kto", options=options).open()(known)[0]
    assert loss.item() == pytest.approx(sum(value(row, sum(logits[row])) for row in used), rel=1e-12)
    loss.backward()
    assert given.logits.grad is not None
    rows = given.step_rows.tolist()
    for place in range(0, len(rows), max(len(rows) // 50, 1)):
        row, step = rows[place], 1e-5
        total = sum(logits[row])
        slope = (value(row, total + step) - value(row, total - step)) / (2 * step) if row in used else 0.0
        assert given.logits.grad[place].item() == pytest.approx(slope, abs=1e-9)
    shares("implicit_prm_kto", count, [0] * count, **options)
