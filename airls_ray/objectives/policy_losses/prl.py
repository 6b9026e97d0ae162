"""The KL to the reference as a process reward at the ends of steps, without a model (PRL, arXiv 2601.10201).

    A'_t = A_t - (1 / eta) sum_{j >= e(t)} (log pi_old(y_j) - log pi_ref(y_j))    e(t): last token of its step

As in the authors' program (`ray_trainer.py`), where a step is a fixed number of tokens, too. 1 / eta is
`method.kl_coefficient`, which is then not in the loss itself. Published: an eta of 200, so
`kl_coefficient: 0.005`, with the advantage of `grpo`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from airls_ray.errors import DoorError
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser
from airls_ray.objectives.policy_losses import clipped

if TYPE_CHECKING:
    from airls_ray.config.schema import MethodConfig


def loss(
    inputs: PolicyLossInputs, *, config: MethodConfig, normaliser: PolicyNormaliser, step_tokens: int = 256
) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the surrogate of `clipped` with the process reward added to the advantages.

    Args:
        inputs: the micro-batch.
        config: coefficients and aggregation.
        normaliser: sizes of the update.
        step_tokens: length of a step [P]; the last one ends with the response.

    Returns:
        See `clipped`.

    Raises:
        DoorError: `method.kl_coefficient` is 0, or a step has no token.
        ValueError: a coefficient is set but the input that it weighs is missing.
    """
    if config.kl_coefficient == 0:
        raise DoorError(
            "method.policy_loss: prl takes its 1 / eta from method.kl_coefficient, which is 0; set it (0.005 "
            "is published)"
        )
    if step_tokens < 1:
        raise DoorError(f"method.policy_loss: step_tokens of prl must be at least 1, but is {step_tokens}")
    if inputs.reference_logprobs is None:
        raise ValueError("method.policy_loss=prl needs reference_logprobs, but none are given")
    to_go = rest_at_step_ends(
        inputs.old_logprobs - inputs.reference_logprobs, inputs.row_offsets, step_tokens
    )
    shaped = replace(inputs, advantages=inputs.advantages - config.kl_coefficient * to_go)
    return clipped.loss(
        shaped, config=config.model_copy(update={"kl_coefficient": 0.0}), normaliser=normaliser
    )


def rest_at_step_ends(values: Tensor, row_offsets: Tensor, step_tokens: int) -> Tensor:
    """Sum from the last token of a token's step to the end of its response: [R].

    Args:
        values: [R].
        row_offsets: int64 [B + 1].
        step_tokens: steps of a response end after so many tokens each, and with it.
    """
    lengths = row_offsets.diff()
    starts = torch.repeat_interleave(row_offsets[:-1], lengths)
    last = torch.repeat_interleave(row_offsets[1:], lengths) - 1
    place = torch.arange(values.numel(), device=values.device) - starts
    ends = torch.minimum(starts + (place // step_tokens + 1) * step_tokens - 1, last)
    running = values.double().cumsum(0)
    return (running[last] - running[ends]).to(values.dtype) + values[ends]
