"""A loss of labelled steps and a label rule, tried on hand-made rollouts; a process of its own.

`python -m airls_ray.learning.try_step_labels` is what `try_method` is for methods.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.config.supervised_section import LabelRuleConfig, StepLossConfig, SupervisedPRMConfig
from airls_ray.errors import DoorError
from airls_ray.learning.try_method import check_gradient, deadline
from airls_ray.objectives.own_loss import CheckedLoss
from airls_ray.objectives.step_loss import RESERVED, Solutions, StepLossInputs, StepNormaliser, known_to
from airls_ray.objectives.whole_solutions import whole_solutions
from airls_ray.prm.label_rule import LabelRule
from airls_ray.prm.step_labels import Completions, distinct_prefixes, label_steps
from airls_ray.prm.step_labels import known_to as known_to_rule
from airls_ray.tensors.segments import segment_sum
from airls_ray.trial import main_of

# Two groups of three rollouts: several steps, one, none; values rise, fall, and are 0 twice in a row.
_PROBLEMS = ("a", "a", "a", "b", "b", "b")
_RESPONSES: tuple[list[int], ...] = ([1, 2, 3], [1, 4, 5, 6], [7], [1, 2], [], [8, 9, 1, 2])
_OUTCOMES = (1.0, 0.0, 0.5, 0.0, 0.0, 1.0)
_CORRECT = (2, 4, 0, 0, 1, 4, 3, 0)
_FIRST_ERRORS = (3, 1, 0, 1, -1, 4)
_MADE = (4, 4, 4, 0, 4, 4, 4, 4)

_NONE = float("nan")
_LABELS = ((1.0, 0.75, 0.0), (_NONE, 1.0, 0.0, 1.0), (0.25,), (_NONE, _NONE, 1.0), (0.0, 0.0))
_TOLERANCE = 1e-4


def try_label_rule(named: LabelRuleConfig) -> None:
    """Call a label rule on rollouts of two problems.

    Raises:
        DoorError: it does not open, raises, hangs, or returns something else than a label for each step.
    """
    rollouts = pa.table(
        {
            "problem_id": list(_PROBLEMS),
            "prompt": [[3]] * len(_PROBLEMS),
            "response": list(_RESPONSES),
            "step_ends": [list(range(1, len(row) + 1)) for row in _RESPONSES],
            "outcome": list(_OUTCOMES),
        }
    )
    completed = first_errors = None
    with deadline():
        rule: LabelRule = named.open()
        if rule.needs_completions:
            found = Completions(*(torch.tensor(one).numpy() for one in (_MADE, _CORRECT)))
            completed = distinct_prefixes(rollouts), found
        if rule.needs_search:
            first_errors = torch.tensor(_FIRST_ERRORS).numpy()
        label_steps(named, known_to_rule(rollouts, completed, first_errors))


def try_step_loss(named: StepLossConfig, config: PRMConfig) -> None:
    """Call a loss on the steps of several solutions, on those of each alone, and on none.

    Raises:
        DoorError: it does not open, raises, hangs, returns something else than a loss with gradient and sums,
            or its micro-batches do not add up.
    """
    whose = f"{named.where}: {named.name}"
    labelled = sum(label == label for row in _LABELS for label in row)
    normaliser = StepNormaliser(labelled, len(_LABELS))
    with deadline():
        loss_of = CheckedLoss(named.door(), named.where, named.open(), RESERVED)

        def loss_at(first: int, end: int) -> tuple[Tensor, Tensor]:
            inputs = _inputs(first, end)
            return loss_of(known_to(inputs, normaliser, config, _solutions(first, end)))[0], inputs.logits

        whole, logits = loss_at(0, len(_LABELS))
        check_gradient(whole, logits, "logits", whose)
        parts = sum(float(loss_at(row, row + 1)[0].detach()) for row in range(len(_LABELS)))
        if abs(parts - float(whole.detach())) > _TOLERANCE * max(1.0, abs(parts)):
            raise DoorError(
                f"{whose} returned {float(whole.detach()):.4g} for a micro-batch and {parts:.4g} in all for "
                "its solutions one by one: divide sums by normaliser.steps or normaliser.rollouts, and "
                "compare steps of one solution only"
            )
        loss_at(0, 0)  # a rank may have a micro-batch without solutions


def _inputs(first: int, end: int) -> StepLossInputs:
    """The steps of the solutions `first` to `end` - 1 of `_LABELS`."""
    rows = _LABELS[first:end]
    place = torch.arange(float(sum(map(len, _LABELS[:end]))))[sum(map(len, _LABELS[:first])) :]
    return StepLossInputs.of(
        (2.0 * torch.sin(place + 1.0)).requires_grad_(),
        torch.tensor([label for row in rows for label in row]),
        torch.tensor([row for row, labels in enumerate(rows) for _ in labels], dtype=torch.int64),
        torch.tensor([at for labels in rows for at in range(len(labels))], dtype=torch.int64),
    )


def _solutions(first: int, end: int) -> Solutions:
    """All of `_LABELS`, of two problems with right and wrong solutions, for a micro-batch of some."""
    every = _inputs(0, len(_LABELS))
    whole = whole_solutions(every.logits.detach().double(), every.labels, every.weights, every.step_rows)
    problems = torch.tensor([0, 0, 0, 1, 1])
    agrees = (every.logits.detach() > 0) == (whole.labels > 0.5)[every.step_rows]
    agreeing = segment_sum(agrees.double(), every.step_rows, len(_LABELS))
    own = torch.arange(first, end)
    ends = torch.tensor([len(row) for row in _LABELS]).cumsum(0)
    lasts = every.logits.detach().double()[ends - 1]
    return Solutions(whole.sums, whole.labels.double(), problems, own, lasts, agreeing)


def _try_given(given: Mapping[str, Any]) -> None:
    torch.set_num_threads(1)
    section = SupervisedPRMConfig.model_validate(given["supervised_prm"])
    try_step_loss(section.step_loss, PRMConfig.model_validate(given["prm"]))
    if given["rule"]:
        try_label_rule(section.labels)


if __name__ == "__main__":
    sys.exit(main_of(_try_given))
