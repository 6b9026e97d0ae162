"""Weights by the names of a model's folder, which are not always those of its modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


def as_saved(model: Any, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield weights under the names and in the shapes that a folder of the model has, which vLLM loads.

    They differ for mixtures of experts: transformers holds the experts of a layer as one tensor, and a folder
    has each by itself. All others are passed on as they are.

    Args:
        model: of transformers.
        weights: (name of a parameter of the model, full tensor).
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import revert_weight_conversion

    known = getattr(model, "_weight_conversions", None)
    if not (get_model_conversion_mapping(model, add_legacy=False) if known is None else known):
        yield from weights
        return
    for name, weight in weights:  # one by one, so that no more than one is there twice
        yield from revert_weight_conversion(model, {name: weight}).items()
