"""What a method names, tried on a hand-made batch; a process of its own, since the driver has no PyTorch.

`airls_ray/data/check_method.py` runs `python -m airls_ray.learning.try_method` (see `airls_ray/trial.py`).
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from airls_ray.config.method_doors import FilterConfig, TermConfig, TransformConfig
from airls_ray.config.method_section import MethodConfig
from airls_ray.config.prm_sections import PRMConfig
from airls_ray.credit.own import kept_rows, transformed, with_terms
from airls_ray.errors import DoorError
from airls_ray.grading.learned_outcomes import outcomes_of
from airls_ray.objectives.own_loss import CheckedLoss
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser
from airls_ray.prm.named_objective import NamedObjective, accuracies_of
from airls_ray.prm.objective import Actions, RowSums
from airls_ray.trial import main_of

CALL_SECONDS = 20.0
"""Longest time of one trial."""

# Two groups of three rollouts: right and wrong, without an answer, cut off, without a token.
_OUTCOMES = (1.0, 0.0, 0.5, 0.0, 0.0, 1.0)
_GROUPS = (0, 0, 0, 1, 1, 1)
_LENGTHS = (3, 2, 8, 1, 0, 4)
_STEPS = (2, 1, 3, 1, 0, 2)


def try_method(
    method: MethodConfig,
    prm: PRMConfig,
    max_response_tokens: int,
    *,
    reference: bool,
    refill: bool = False,
    step_rewards: bool = True,
) -> None:
    """Call everything that a method names in its lists, an objective of the user's own, and a loss that
    is not the default.

    Args:
        method: of the configuration.
        prm: of the configuration.
        max_response_tokens: the sampler's limit.
        reference: whether the policy's loss gets log-probabilities of a reference model.
        refill: whether groups that filters leave out are replaced, before a PRM has scored.
        step_rewards: whether a PRM or a reward may give steps rewards.

    Raises:
        DoorError: one does not open, raises, hangs, or returns something else than it must.
    """
    if refill:
        _check_refill(method)
    if not step_rewards:
        _check_steps(method)
    with deadline():
        _try_objective(method, prm)
    with deadline():
        _try_outcomes(method)
    with deadline():
        _try_rules(method, max_response_tokens)
    with deadline():
        _try_loss(method, max_response_tokens, reference)


def _try_objective(method: MethodConfig, prm: PRMConfig) -> None:
    named = method.prm_objective
    traits = named.traits()
    if traits is None or named.door().source == "built-in":
        return
    objective = NamedObjective(named, traits, prm)
    whose = f"{named.where}: {named.name}"
    if traits.needs_row_sums:
        objective.prepare(_row_sums())
    actions = _actions(4)
    loss, sums = objective.loss(actions)
    check_gradient(loss, actions.f, "f of its actions", whose)
    frame = {"loss": float(loss.detach()), "weight": 1.0, "output_abs": 1.0}
    metrics = objective.metrics({**{name: float(value) for name, value in sums.items()}, **frame})
    if prm.accuracy_ceiling < 1.0:
        accuracies_of(metrics, named.name)
    objective.loss(_actions(0))  # a rank may have a micro-batch without sequences


def _check_refill(method: MethodConfig) -> None:
    for one in method.filters:
        if "rewards" in one.open().needed:
            raise DoorError(
                f"{one.where}: {one.name} takes the step rewards of a PRM, which are not there yet when the "
                "groups that it leaves out are to be replaced: set train.refill_rounds=0"
            )


def _check_steps(method: MethodConfig) -> None:
    made = any("answer_gains" in one.open().needed for one in method.transforms)
    if method.step_weight > 0 and not made:
        raise DoorError(
            "method.step_weight above 0 needs step rewards, which method.step_transforms only change here: "
            "name a PRM (method.prm_objective), a reward per step (task.reward) or information_gain"
        )


def _try_outcomes(method: MethodConfig) -> None:
    if not method.outcomes.labels:
        return
    known = {
        "answers": ["4", "5", "4", None, None, "4"],
        "groups": np.array(_GROUPS),
        "problem_ids": [f"p{group}" for group in _GROUPS],
        "details": [{} for _ in _GROUPS],
        "lengths": np.array(_LENGTHS),
        "truncated": np.array([length >= max(_LENGTHS) for length in _LENGTHS]),
    }
    outcomes_of(method.outcomes, known)


def _try_rules(method: MethodConfig, max_response_tokens: int) -> None:
    rewards = torch.sin(torch.arange(float(sum(_STEPS))))
    outcomes = torch.tensor(_OUTCOMES)
    known: dict[str, Any] = {
        "outcomes": outcomes,
        "groups": torch.tensor(_GROUPS),
        "lengths": torch.tensor(_LENGTHS),
        "truncated": torch.tensor([length >= max(_LENGTHS) for length in _LENGTHS]),
    }
    step_rows = torch.repeat_interleave(torch.arange(len(_STEPS)), torch.tensor(_STEPS))
    scored = dict(known)
    if method.prm_objective.name != "none":
        scored |= {"rewards": rewards, "step_rows": step_rows}
    kept_rows([one for one in method.filters if one.prm], known, len(_OUTCOMES))  # the PRM has not scored yet
    learns = _twice(method.row_filters, lambda: kept_rows(method.filters, scored, len(_OUTCOMES)))
    of_steps = {
        "step_rows": step_rows,
        "groups": known["groups"],
        "outcomes": outcomes,
        "learns": learns,
        "answer_gains": lambda intro: 0.5 * rewards,
    }
    _twice(method.step_transforms, lambda: transformed(rewards, method.transforms, of_steps))
    more = {
        "unanswered": outcomes == 0.5,
        "max_response_tokens": max_response_tokens,
        "mean_logprobs": -0.25 * outcomes - 0.25,
        "mean_logprobs_alone": -0.5 * outcomes - 0.5,
    }
    _twice(method.outcome_terms, lambda: with_terms(outcomes, method.terms, scored | more))


def _twice(named: Sequence[TransformConfig | TermConfig | FilterConfig], call: Any) -> Tensor:
    """Every rank calls it by itself, so all must get the same."""
    first: Tensor = call()
    if not torch.equal(first, call()):
        names = ", ".join(one.name for one in named)
        raise DoorError(
            f"{named[0].where}: {names} gives another result for the same values when it is called again, "
            "and every rank calls it for itself: make it a function of what it gets"
        )
    return first


def _try_loss(method: MethodConfig, max_response_tokens: int, reference: bool) -> None:
    named = method.policy_loss
    if named.name == named.unopened and not named.options:
        return
    loss_of = CheckedLoss(named.door(), named.where, named.open())
    normaliser = PolicyNormaliser(sum(_LENGTHS), len(_LENGTHS) - 1, max_response_tokens)
    for lengths in (_LENGTHS, ()):
        inputs = _loss_inputs(lengths, reference or method.kl_coefficient > 0)
        loss, _ = loss_of(inputs, method, normaliser)
        if lengths:
            check_gradient(loss, inputs.logprobs, "logprobs", f"{named.where}: {named.name}")


def check_gradient(loss: Tensor, leaf: Tensor, what: str, whose: str) -> None:
    """Check that the gradient of a loss reaches what it must, and is finite.

    Raises:
        DoorError: it is not so; `what` names the leaf, `whose` the loss.
    """
    (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
    if gradient is None or not bool(gradient.any()):
        raise DoorError(f"{whose} returned a loss whose gradient does not reach {what}")
    if not bool(gradient.isfinite().all()):
        raise DoorError(f"{whose} returned a loss whose gradient is not finite ({gradient.tolist()[:4]} ...)")


def _actions(sequences: int) -> Actions:
    """A micro-batch of sequences with two actions each, on both sides in turn."""
    count = 2 * sequences
    place = torch.arange(float(count))
    rows = torch.repeat_interleave(torch.arange(sequences), 2)
    weights = torch.full((count,), 1.0 / max(count, 1))
    expert = rows % 2 == 0
    return Actions(
        f=(-1.0 - 0.5 * torch.sin(place)).requires_grad_(),
        log_base=-1.0 - 0.5 * torch.cos(place),
        rows=rows,
        sequences=torch.arange(sequences),
        expert_weights=weights * expert,
        policy_weights=weights * ~expert,
    )


def _row_sums() -> RowSums:
    """Of the sequences of `_actions(4)`."""
    actions = _actions(4)
    by_row = [
        torch.zeros(4, dtype=torch.float64).index_add(0, actions.rows, values.detach().double())
        for values in (actions.f, actions.log_base, actions.policy_weights)
    ]
    return RowSums(
        phi=by_row[0],
        log_pi=by_row[1],
        lengths=torch.full((4,), 2),
        policy_weights=by_row[2],
        problems=torch.tensor([0, 0, 1, 1]),
        rollouts=2,
    )


def _loss_inputs(lengths: Sequence[int], reference: bool) -> PolicyLossInputs:
    tokens = sum(lengths)
    place = torch.arange(float(tokens))
    logprobs = -1.0 - 0.5 * torch.sin(place)
    return PolicyLossInputs(
        logprobs=logprobs.clone().requires_grad_(),
        old_logprobs=logprobs + 0.1 * torch.cos(place),
        advantages=torch.sin(2.0 * place + 1.0),
        row_offsets=torch.tensor([0, *torch.tensor(lengths, dtype=torch.int64).cumsum(0).tolist()]),
        reference_logprobs=logprobs - 0.1 if reference else None,
        entropy=torch.full((tokens,), 0.5, requires_grad=True),
        sampler_logprobs=logprobs + 0.05,
    )


@contextlib.contextmanager
def deadline() -> Iterator[None]:
    """Interrupt what takes too long with a TimeoutError, in the middle of whose code it is."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it has not returned within {CALL_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, CALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _try_given(given: Mapping[str, Any]) -> None:
    torch.set_num_threads(1)
    try_method(
        MethodConfig.model_validate(given["method"]),
        PRMConfig.model_validate(given["prm"]),
        given["max_response_tokens"],
        reference=given["reference"],
        refill=given["refill"],
        step_rewards=given["step_rewards"],
    )


if __name__ == "__main__":
    sys.exit(main_of(_try_given))
