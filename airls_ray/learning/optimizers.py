"""The optimisers of a learner: AdamW for all weights, or Muon for the matrices of the layers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import nn

from airls_ray.config.schema import LearnerConfig
from airls_ray.errors import ConfigError

Named = Iterable[tuple[str, nn.Parameter]]

MUON_MOMENTUM = 0.95
"""As published, with Nesterov's step and five Newton-Schulz iterations."""
_IN_A_LAYER = re.compile(r"\b(?!score\.)\w+\.\d+\.")
"""In a numbered list of modules, whatever its name (`layers`, GPT-2's `h`), but not in a head of two layers,
which has `score.0.weight`."""
_LAST_SHARE = 0.1
"""What a decayed learning rate keeps: updates never stop having an effect."""


def learning_rate(config: LearnerConfig, update: int) -> float:
    """Learning rate of optimiser update `update` (from 0).

    A linear rise over the warm-up; from the first update on a linear fall to a tenth, where
    `lr_decay_updates` is set.
    """
    rise = min(1.0, (update + 1) / config.lr_warmup_updates) if config.lr_warmup_updates else 1.0
    done = min(1.0, update / config.lr_decay_updates) if config.lr_decay_updates else 0.0
    return config.learning_rate * rise * (1.0 - (1.0 - _LAST_SHARE) * done)


def make_optimizers(named: Named, config: LearnerConfig) -> list[torch.optim.Optimizer]:
    """Return PyTorch's own optimisers of a single process: AdamW, or Muon and AdamW.

    Raises:
        ConfigError: Muon is asked for, and there is nothing for it.
    """
    if config.optimizer == "adamw":
        return [make_adamw([parameter for _, parameter in named], config)]
    matrices, others = _for_muon(named)
    muon = torch.optim.Muon(
        matrices,
        lr=learning_rate(config, 0),
        weight_decay=config.weight_decay,
        momentum=MUON_MOMENTUM,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, make_adamw(others, config)]


def make_adamw(parameters: list[nn.Parameter], config: LearnerConfig) -> torch.optim.AdamW:
    """Return AdamW in its fused form: one kernel per step, the fastest on CPU as on a GPU."""
    return torch.optim.AdamW(
        parameters,
        lr=learning_rate(config, 0),
        betas=config.adam_betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def layer_matrices(named: Named) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Part parameters into the matrices of the numbered layers and all else.

    The rest is what Muon is not for: embeddings, the output layer, heads, and all vectors.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in named:
        (matrices if parameter.ndim == 2 and _IN_A_LAYER.search(name) else others).append(parameter)
    return matrices, others


def _for_muon(named: Named) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What `layer_matrices` gives.

    Raises:
        ConfigError: no matrix.
    """
    matrices, others = layer_matrices(named)
    if not matrices:
        raise ConfigError(
            "optimizer=muon is for the matrices of a model's numbered layers, and nothing that learns here "
            "is one: set optimizer=adamw"
        )
    return matrices, others


def muon_ratio(rows: int, columns: int) -> float:
    """Muon's learning rate over AdamW's for a matrix [rows, columns].

    0.2 sqrt(max(rows, columns)): an orthogonal update of that size has the root mean square of AdamW's
    ("Muon is Scalable for LLM Training", arXiv 2502.16982, eq. 4), so one rate serves both.
    """
    return 0.2 * math.sqrt(max(rows, columns))


def muon_groups(named: Named, config: LearnerConfig) -> list[dict[str, Any]]:
    """Return the groups of DeepSpeed's `MuonWithAuxAdam`: one for each shape of matrix, and AdamW's.

    A group's learning rate is `ratio` times the learner's: DeepSpeed multiplies the update of a tall matrix
    by sqrt(rows / columns), and knows no other factor. Its weight decay goes by the learner's own rate.

    Raises:
        ConfigError: there is nothing for Muon.
    """
    matrices, others = _for_muon(named)
    rate = learning_rate(config, 0)
    groups: list[dict[str, Any]] = []
    for (rows, columns), same in groupby(sorted(matrices, key=_shape), key=_shape):
        ratio = muon_ratio(rows, columns) / math.sqrt(max(1.0, rows / columns))
        groups.append(
            {
                "params": list(same),
                "use_muon": True,
                "lr": rate * ratio,
                "ratio": ratio,
                "momentum": MUON_MOMENTUM,
                "weight_decay": config.weight_decay / ratio,
                "ns_method": "standard",
            }
        )
    decay = {"betas": config.adam_betas, "eps": 1e-8, "weight_decay": config.weight_decay}
    groups.append({"params": others, "use_muon": False, "lr": rate, "ratio": 1.0, **decay})
    return groups


def set_learning_rate(groups: Iterable[dict[str, Any]], rate: float) -> None:
    """Give each group `rate` times its `ratio` (1 where it has none)."""
    for group in groups:
        group["lr"] = rate * group.get("ratio", 1.0)


def _shape(parameter: nn.Parameter) -> tuple[int, int]:
    rows, columns = parameter.shape
    return rows, columns
