"""Backbones and heads from safetensors: without the code that some folders bring, and without an output
layer over the whole vocabulary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModel, Qwen2Model

from airls_ray.errors import ModelError
from airls_ray.models.load import DType, quiet_transformers
from airls_ray.models.logits import LogitForm, caps_attention
from airls_ray.prm.forms import QWEN_PRM

_OTHER_HEADS = ("v_head", "value_head", "score", "regression_layer")
"""First part of the weights' names of heads beside a language model; `v_head` is TRL's and Skywork's."""


def load_backbone(folder: Path, architecture: str | None, dtype: DType) -> Any:
    """Load a decoder without its head; what the folder has beside the decoder is left alone.

    Raises:
        ModelError: it cannot be loaded, or weights of the decoder are missing or have another shape.
    """
    source: Any = Qwen2Model if architecture == QWEN_PRM else AutoModel
    try:
        with quiet_transformers():
            model, report = source.from_pretrained(
                str(folder),
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"the model {folder} cannot be loaded: {reason}") from error
    lacking = sorted(report["missing_keys"]) + sorted(str(one[0]) for one in report["mismatched_keys"])
    if lacking:
        raise ModelError(
            f"{folder} does not hold the weights that its config.json promises: {lacking[0]} is missing or "
            f"has another shape ({len(lacking)} such weights)"
        )
    if caps_attention(model.config):
        model.set_attn_implementation("eager")
    return model


def linear_head(folder: Path) -> nn.Module:
    """Return the head of a token classifier, `score`: one label, or two.

    Raises:
        ModelError: there is none, or it has another number of labels.
    """
    return _labels_checked(folder, _linear(folder, "score"))


def two_layer_head(folder: Path) -> nn.Module:
    """Return the head of Qwen2.5-Math-PRM: `score.0`, ReLU, `score.2`, which gives two labels.

    The names and the shape are those that vLLM's `qwen2_rm` loads; not run on the real weights.

    Raises:
        ModelError: there is none.
    """
    head = nn.Sequential(
        _linear(folder, "score.0"), nn.ReLU(), _labels_checked(folder, _linear(folder, "score.2"))
    )
    return head


def token_pair_head(folder: Path, backbone: Any, minus: int, plus: int) -> nn.Module:
    """Return the two rows of a language model's output layer, as a module that gives the model's logits of
    `minus` and `plus`.

    Raises:
        ModelError: the folder has no output layer of its own and does not share the input embeddings, or it
            has a head beside it, which was trained in its place.
    """
    other = next((name for name in sorted(_shards(folder)) if name.split(".")[0] in _OTHER_HEADS), None)
    if other is not None:
        raise ModelError(
            f"{folder} has a head of its own ({other}) beside the language model, which no form here reads: "
            "take another PRM"
        )
    rows = [minus, plus]
    if backbone.config.tie_word_embeddings:
        head = _as_linear(backbone.get_input_embeddings().weight.detach()[rows], None)
    else:
        has_bias = "lm_head.bias" in _shards(folder)
        bias = _tensor(folder, "lm_head.bias", rows) if has_bias else None
        head = _as_linear(_tensor(folder, "lm_head.weight", rows), bias)
    return _TokenPairHead(head, LogitForm.of(backbone.config))


class _TokenPairHead(nn.Module):
    """Two rows of an output layer, and what the model does to their outputs."""

    def __init__(self, rows: nn.Linear, form: LogitForm) -> None:
        super().__init__()
        self.rows = rows
        self.form = form

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits [R, 2] of hidden states [R, hidden]."""
        return self.form(self.rows(hidden))


def has_weight(folder: Path, name: str) -> bool:
    """Whether the folder's safetensors hold a tensor of this name."""
    return name in _shards(folder)


def _labels_checked(folder: Path, head: nn.Linear) -> nn.Linear:
    if head.out_features not in (1, 2):
        raise ModelError(
            f"the head of {folder} gives {head.out_features} labels, but a PRM's gives 1 (right) or 2 "
            "(wrong, right): it is another kind of classifier"
        )
    return head


def _linear(folder: Path, name: str) -> nn.Linear:
    weight = _tensor(folder, f"{name}.weight")
    bias = _tensor(folder, f"{name}.bias") if has_weight(folder, f"{name}.bias") else None
    return _as_linear(weight, bias)


def _as_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def _tensor(folder: Path, name: str, rows: Sequence[int] | None = None) -> Tensor:
    """Read one tensor, or some of its rows only."""
    shards = _shards(folder)
    if name not in shards:
        raise ModelError(
            f"{folder} holds no weight {name}, so it is no PRM of this form: give another --form"
        )
    try:
        with safe_open(shards[name], framework="pt") as file:
            if rows is None:
                whole: Tensor = file.get_tensor(name)
                return whole
            part = file.get_slice(name)
            return torch.cat([part[row : row + 1] for row in rows])
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{shards[name]} cannot be read ({error}): copy it again") from error


def _shards(folder: Path) -> dict[str, Path]:
    """Return for each tensor the file that holds it."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if not single.is_file() and index.is_file():  # of both, transformers reads the single file
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in names.items()}
    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single)
