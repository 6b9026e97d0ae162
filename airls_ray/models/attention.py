"""Which attention a model computes with, and whether its rows may lie packed in one line.

Rows in one line must not see each other. transformers reads off the positions where a row begins, and tells
each kernel in its own way: flash attention gets the rows' cumulative lengths, flex attention a mask of blocks
of which it skips the empty ones. PyTorch's fused attention and plain products get a mask of tokens x tokens
entries, so that a line costs the square of all its tokens.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.utils import is_flash_attn_2_available, is_kernels_available

from airls_ray.errors import ModelError
from airls_ray.models.logits import caps_attention

AttentionName = Literal["auto", "sdpa", "eager", "flex_attention", "flash_attention_2"]
Kernel = Literal["sdpa", "eager", "flex_attention", "flash_attention_2"]
_SHORT_ROWS = 128
"""Up to this context, plain matrix products are faster in bfloat16 on a CPU than PyTorch's fused attention,
whose backward pass takes 0.4 of a training step there: a step is 1.6 times as fast at 24 and 48 tokens,
1.3 times at 128 and 0.8 times at 512; in float32 nothing is gained (`benchmarks/attention.py`)."""
_FLASH_WIDTHS = range(8, 257)
"""Widths of a head that flash attention 2 takes (README of Dao-AILab/flash-attention)."""
_ATTENTION_LAYERS = frozenset(("attention", "full_attention", "sliding_attention", "chunked_attention"))
"""Names in `layer_types` of a configuration."""
_GRAPHS = 64
"""Compiled forms of flex attention that a process keeps. PyTorch's limit of 8 is soon met (with and without
gradients, packed or not, any length, a window or none), and beyond it the whole score matrix is computed."""


@dataclass(frozen=True)
class Machine:
    """What this process can compute with."""

    gpu: bool
    """It sees a GPU."""
    flash: bool = False
    """The package flash-attn (2) is installed, for a GPU that it takes (Ampere or newer)."""
    flex: bool = False
    """PyTorch can compile flex attention for that GPU: Triton and a C compiler, Ampere or newer."""

    @classmethod
    def here(cls) -> Machine:
        """Ask this process."""
        if not torch.cuda.is_available():
            return cls(gpu=False)
        recent = torch.cuda.get_device_capability() >= (8, 0)
        return cls(gpu=True, flash=recent and is_flash_attn_2_available(), flex=recent and _compiles())


@dataclass(frozen=True)
class AttentionTraits:
    """What of a model decides which attention it can have."""

    dtype: Literal["float32", "bfloat16"]
    context: int | None
    """Longest row in tokens, where the model says it."""
    head_dim: int
    """Width of a head, of the widest."""
    capped: bool = False
    """It caps the scores of its attention, which PyTorch's fused kernel leaves out."""
    flash: bool = True
    """transformers has flash attention for it."""
    fused: bool = True
    """transformers has PyTorch's fused attention for it; GPT-OSS has a sink in every head, which that leaves
    out."""

    @classmethod
    def of(cls, model: Any, dtype: Literal["float32", "bfloat16"]) -> AttentionTraits:
        """Read them off a transformers model."""
        text = model.config.get_text_config()
        # Where layers differ, as in Gemma 4, each has a configuration of its own.
        layers = text.per_layer_config if getattr(text, "is_heterogeneous", False) else [text]
        return cls(
            dtype=dtype,
            context=getattr(text, "max_position_embeddings", None),
            head_dim=max(map(_head_dim, layers)),
            capped=caps_attention(model.config),
            # Some take other kernels alone than flash attention 2.
            flash=bool(model._supports_flash_attn)
            and not getattr(model, "_compatible_flash_implementations", None),
            fused=bool(model._supports_sdpa),
        )


def check_attention(asked: AttentionName, machine: Machine) -> None:
    """Check that this process can compute with the attention that was asked for.

    Raises:
        ModelError: it cannot.
    """
    if asked in ("flex_attention", "flash_attention_2") and not machine.gpu:
        raise ModelError(
            f"model.attention={asked} needs a GPU, and this process sees none: set gpus in the resources of "
            "its actor, or take auto"
        )
    if asked == "flex_attention" and not machine.flex:
        raise ModelError(
            "model.attention=flex_attention needs Triton, a C compiler and an Ampere GPU or a newer one: "
            "install gcc and PyTorch for CUDA, or take auto"
        )
    if asked == "flash_attention_2" and not (machine.flash or is_kernels_available()):
        raise ModelError(
            "model.attention=flash_attention_2 needs the package flash-attn and an Ampere GPU or a newer "
            "one: pip install flash-attn, or take auto"
        )


def choose_attention(
    asked: AttentionName, traits: AttentionTraits, machine: Machine, path: Path | str
) -> Kernel:
    """Return the attention that a model computes with.

    `auto`: in bfloat16 on a GPU flash attention where it is installed, else PyTorch's fused one. Plain
    products for short rows in bfloat16 on a CPU, and where flash attention is not there for models that
    cap their scores or have no fused one. Flex attention is taken by name alone: nobody has measured it on a
    GPU yet.

    Args:
        asked: the setting.
        traits: of the model.
        machine: what the process can compute with.
        path: of the model, for the message.

    Raises:
        ModelError: what was asked for leaves the cap of the model's scores out.
    """
    if asked == "sdpa" and traits.capped:
        raise ModelError(
            f"{path} caps the scores of its attention (attn_logit_softcapping), which attention=sdpa leaves "
            "out: take auto, eager, flex_attention or flash_attention_2"
        )
    if asked != "auto":
        return asked
    flash = machine.flash and traits.flash and traits.head_dim in _FLASH_WIDTHS
    if flash and machine.gpu and traits.dtype == "bfloat16":
        return "flash_attention_2"
    short = traits.context is not None and traits.context <= _SHORT_ROWS
    if traits.capped or not traits.fused or (short and traits.dtype == "bfloat16" and not machine.gpu):
        return "eager"
    return "sdpa"


def set_attention(model: Any, kernel: Kernel) -> None:
    """Let a transformers model compute with `kernel`."""
    if model.config._attn_implementation != kernel:
        model.set_attn_implementation(kernel)
    if kernel == "flex_attention":
        limits: Any = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, _GRAPHS)


def attention_of(model: Any) -> str:
    """Name of the attention that a transformers model computes with."""
    return str(model.config._attn_implementation or "eager")


def packs_well(attention: str) -> bool:
    """Whether the cost of a packed line is that of its rows, and not the square of the whole line."""
    return attention == "flex_attention" or "flash" in attention


def row_ends(model: Any, positions: Tensor) -> dict[str, Any]:
    """Return what tells flash attention where the rows of a packed line end; nothing for other attention.

    transformers would look for it in the positions again in every layer, and wait for the GPU each time.

    Args:
        model: of transformers.
        positions: [1, total], 0 where a row begins.
    """
    known = type(model).__module__.startswith("transformers.")  # a folder's own code may not take them
    if not known or not attention_of(model).startswith("flash"):
        return {}
    starts = (positions[0] == 0).nonzero()[:, 0]
    ends = torch.nn.functional.pad(starts, (0, 1), value=positions.shape[1]).to(torch.int32)
    longest = int(ends.diff().max())
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def rows_stay_apart(model: Any) -> bool:
    """Whether the rows of a packed line do not see each other.

    Layers that carry a state from token to token (linear attention, state spaces, convolutions: Qwen3.5,
    Granite 4, LFM2) carry it into the next row, and some older models do not read the positions. So a row
    is read behind two different ones, six tokens each time.

    Args:
        model: a backbone of transformers, on its device.
    """
    weight = model.get_input_embeddings().weight
    positions = torch.tensor([[0, 1, 2, 3, 0, 1]], device=weight.device)
    found = []
    with torch.no_grad():
        for before in ([1, 2, 3, 4], [4, 3, 2, 1]):
            ids = (
                torch.tensor([[*before, 5, 6]], device=weight.device)
                % model.config.get_text_config().vocab_size
            )
            output = model(
                input_ids=ids,
                attention_mask=None,
                position_ids=positions,
                use_cache=False,
                **row_ends(model, positions),
            )
            found.append(output.last_hidden_state[0, 4:].float())
    difference = float((found[0] - found[1]).norm() / found[0].norm())
    # Equal shapes, so that but for the order of sums in experts all is the same.
    return difference < (1e-5 if weight.dtype == torch.float32 else 1e-2)


def keeps_keys_and_values(model: Any) -> bool:
    """Whether all that a model carries from token to token are keys and values, which can be cut anywhere.

    Layers of other kinds (linear attention, state spaces, convolutions) carry one state of all tokens.

    Args:
        model: of transformers.
    """
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    return not getattr(model, "_is_stateful", False) and set(kinds) <= _ATTENTION_LAYERS


@contextmanager
def decoding_attention(model: Any) -> Iterator[None]:
    """Inside the block a model with flex attention, which is compiled for whole rows, can decode."""
    before = attention_of(model)
    if before == "flex_attention":
        model.set_attn_implementation("eager" if caps_attention(model.config) else "sdpa")
    try:
        yield
    finally:
        if before == "flex_attention":
            model.set_attn_implementation(before)


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _compiles() -> bool:
    """Whether Triton is there, and the C compiler with which it builds what starts a kernel."""
    from torch.utils._triton import has_triton

    return has_triton() and any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))
