"""How much a step raises the probability of the right answer; the outcome at the end (IGPO, 2510.14967)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def transform(
    rewards: Tensor,
    step_rows: Tensor,
    outcomes: Tensor,
    answer_gains: Callable[[str], Tensor],
    intro: str = "",
) -> Tensor:
    """Return r + p_t - p_{t-1}, and r + o at the last step [S]; p = exp(mean log pi(answer | q, steps to t)).

    Information gain of IGPO (arXiv 2510.14967, and its authors' program); its turns are reasoning steps here.
    r is the PRM's reward, 0 where there is none. The outcome is in it: `method.step_weight: 1`.

    Args:
        rewards: float [S].
        step_rows: int64 [S].
        outcomes: float [N].
        answer_gains: of the text between a step and the answer, float [S], 0 at a last step. It costs a pass
            of the policy over every beginning of every response.
        intro: that text, such as a line feed and "#### "; none: the answer stands right behind the step.
    """
    last = torch.ones_like(step_rows, dtype=torch.bool)
    last[:-1] = step_rows[1:] != step_rows[:-1]
    gains = answer_gains(intro).to(rewards.dtype)
    return rewards + torch.where(last, outcomes[step_rows].to(rewards.dtype), gains)
