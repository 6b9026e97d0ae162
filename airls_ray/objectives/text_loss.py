"""A language model's loss on right solutions beside that of a scalar head (GRM, arXiv 2406.10216).

    L = (1 - w) L_steps + w mean over right solutions of -log sigmoid(beta log p(solution))

Hidden states stay what they were. The variant of their program with texts of right solutions alone
and no reference model (`sft_only`, `reference_free`); published w 0.01 and beta 0.1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from airls_ray.config.schema import PRMConfig
from airls_ray.errors import ConfigError

BETA = 0.1


def check_text_loss(weight: float, config: PRMConfig, *, adversarial: bool = False) -> None:
    """Refuse a PRM's form that has no place for the loss, and training by an `adversarial` objective.

    Raises:
        ConfigError: so it is.
    """
    if not weight:
        return
    if adversarial:
        raise ConfigError(
            "supervised_prm.text_loss stands beside a loss on labels of steps, and the method learns without "
            "them: take method=orm, or set text_loss to 0"
        )
    wanted = {"parameterisation": "scalar_head", "head": "linear", "outcome_head": None, "shaping": False}
    for name, value in wanted.items():
        given = getattr(config, name)
        if given != value:
            raise ConfigError(
                f"supervised_prm.text_loss needs prm.{name}={_told(value)} (a linear head with one output), "
                f"but it is {_told(given)}: set it, or text_loss to 0"
            )
    if config.learner.zero_stage == 3 or config.learner.lora.rank:
        raise ConfigError(
            "supervised_prm.text_loss needs prm.learner.zero_stage below 3 and no LoRA (the output layer is "
            "beside the model): change them, or set text_loss to 0"
        )


def text_loss(logprobs: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return the sum over the solutions of -log sigmoid(beta log p), divided by `count`: a scalar.

    Args:
        logprobs: float32 [K], nats, of the tokens of right solutions.
        rows: int64 [K], the solution of each token.
        count: right solutions of the whole update, over all ranks.
    """
    if not logprobs.numel():
        return logprobs.sum()  # 0, with a gradient
    present, index = torch.unique(rows, return_inverse=True)
    sums = logprobs.new_zeros(present.numel()).index_add(0, index, logprobs)
    return -logsigmoid(BETA * sums).sum() / max(count, 1)


def _told(value: object) -> str:
    return "null" if value is None else str(value).lower()
