"""The output layer that a scalar head's model had as a language model, for a loss on texts beside the scores.

A tied one is the input embedding, which learns along. Another one stays as it was: it is read from the folder
that the PRM starts from, is no part of the token classifier, and is not saved with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from airls_ray.models.modules import ScalarHeadModule


def put_text_head(module: ScalarHeadModule, output: nn.Module | None) -> None:
    """Give a scalar head's module the output layer of its language model.

    Args:
        module: where it goes.
        output: a loaded language model's output layer, which is copied; None for a tied one.
    """
    embedding = module.model.get_input_embeddings()
    given: Any = embedding if output is None else output
    rows, columns = given.weight.shape
    layer = nn.Linear(columns, rows, bias=getattr(given, "bias", None) is not None, device="meta")
    if output is None:
        layer.weight = embedding.weight  # the same parameter, not a copy
    else:
        for name, value in output.named_parameters():
            kept = torch.empty_like(value).copy_(value.detach())
            setattr(layer, name, nn.Parameter(kept, requires_grad=False))
    module.text_head = layer
