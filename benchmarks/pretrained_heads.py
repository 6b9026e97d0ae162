"""Linear heads on hidden states of sentences, one for each objective of `airls_ray.objectives`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrained_states import REFERENCE, Question

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

UPDATES, RATE = 200, 3e-3
OBJECTIVES = {
    "outcome, last_step": "outcome labels, last sentence (ORM)",
    "outcome, all_steps": "outcome labels, every sentence",
    "airl, all": "AIRL, references against all",
    "airl, failed": "AIRL, references and right ones against failed",
    "repirl": "rePIRL, references and right ones against failed",
}
"""What a head learns, and how it is called."""


@dataclass(frozen=True)
class Steps:
    """All sentences of all solutions, one after the other; S of them, N solutions."""

    states: torch.Tensor
    """[S, layers, hidden]."""
    solution: torch.Tensor
    """int64 [S]."""
    question: torch.Tensor
    """int64 [N]."""
    reference: torch.Tensor
    """bool [N]: the data set's own."""
    right: torch.Tensor
    """bool [N]."""
    generator: list[str]
    answers: list[str | None]
    log_prob: torch.Tensor
    """[N], mean over the solution's tokens, nats."""


def load(questions: list[Question], folder: Path) -> Steps:
    """Read the files of the questions."""
    import torch

    states: list[torch.Tensor] = []
    solution: list[int] = []
    question: list[int] = []
    log_prob: list[float] = []
    solutions = [one for each in questions for one in each.solutions]
    for at, each in enumerate(questions):
        for found in torch.load(folder / f"{each.number:05d}.pt", weights_only=True):
            states.append(found["states"].float())
            solution += [len(question)] * len(found["states"])
            question.append(at)
            log_prob.append(float(found["log_prob"]))
    return Steps(
        torch.cat(states),
        torch.tensor(solution),
        torch.tensor(question),
        torch.tensor([one.generator == REFERENCE for one in solutions]),
        torch.tensor([one.correct for one in solutions]),
        [one.generator for one in solutions],
        [one.answer for one in solutions],
        torch.tensor(log_prob),
    )


@dataclass(frozen=True)
class Head:
    """A linear head on one layer's standardised states."""

    layer: int
    """Its place among the layers of the states."""
    mean: torch.Tensor
    """[hidden], of the sentences that it learned from."""
    deviation: torch.Tensor
    """[hidden]."""
    linear: torch.nn.Linear

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Its outputs [S] for `states` [S, layers, hidden]."""
        import torch

        with torch.no_grad():
            scores: torch.Tensor = self.linear((states[:, self.layer] - self.mean) / self.deviation)[:, 0]
        return scores


def fit(steps: Steps, used: torch.Tensor, layer: int, decay: float, objective: str, seed: int) -> Head:
    """Train a linear head on the solutions `used` [N]."""
    import torch

    rows = torch.nonzero(used[steps.solution])[:, 0]
    return _train(steps.states[rows, layer], _loss(steps, rows, objective), layer, decay, seed)


def fit_labels(states: torch.Tensor, right: NDArray[np.bool_], layer: int, decay: float, seed: int) -> Head:
    """Train a linear head on the labels `right` [S] of the steps of `states` [S, layers, hidden]."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    labels = torch.as_tensor(right).float()
    return _train(states[:, layer], lambda f: binary_cross_entropy_with_logits(f, labels), layer, decay, seed)


def _train(
    states: torch.Tensor,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    layer: int,
    decay: float,
    seed: int,
) -> Head:
    """A head that lowers the loss of its outputs [S] for `states` [S, hidden] of one layer."""
    import torch

    torch.manual_seed(seed)
    mean, deviation = states.mean(0), states.std(0) + 1e-6
    states = (states - mean) / deviation
    linear = torch.nn.Linear(states.shape[1], 1)
    torch.nn.init.zeros_(linear.weight)
    optimiser = torch.optim.AdamW(linear.parameters(), lr=RATE, weight_decay=decay)
    for _ in range(UPDATES):
        optimiser.zero_grad()
        loss_of(linear(states)[:, 0]).backward()
        optimiser.step()
    return Head(layer, mean, deviation, linear)


def _loss(steps: Steps, rows: torch.Tensor, objective: str) -> Any:
    """The loss of a head's outputs at the sentences `rows`."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    from airls_ray.objectives.airl import DiscriminatorInputs, class_weights, discriminator_loss
    from airls_ray.objectives.repirl import repirl_loss

    solution = steps.solution[rows]
    right, reference = steps.right[solution], steps.reference[solution]
    length = torch.bincount(solution, minlength=len(steps.question))[solution]
    kind, _, how = objective.partition(", ")
    if kind == "outcome":
        last = torch.ones(len(rows), dtype=torch.bool)
        last[:-1] = solution[1:] != solution[:-1]
        weights = (~reference).float() * (last.float() if how == "last_step" else 1.0 / length)
        weights = weights / weights.sum()
        return lambda f: (
            weights * binary_cross_entropy_with_logits(f, right.float(), reduction="none")
        ).sum()
    expert = reference if how == "all" else reference | right
    weights = class_weights(steps.question[solution], expert, pair_by_problem=True)
    if kind == "airl":
        return lambda f: discriminator_loss(DiscriminatorInputs(f, expert.float(), weights))[0]
    # Nobody knows the generators' densities: all failed solutions of a question weigh the same.
    return lambda f: (
        repirl_loss(f, weights * expert, weights * ~expert)[0] + 0.1 * (weights * f.square()).sum()
    )
