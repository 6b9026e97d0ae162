"""The sizes of a decoder-only transformer, from its config.json, and its parameter count."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airls_ray.config.schema import Config
from airls_ray.errors import ModelError
from airls_ray.models.check import check_model_folder
from airls_ray.tasks import make_task

_SPECIAL_TOKENS = 2  # <pad> and <eos> of airls_ray/text/tokenizer_files.py


@dataclass(frozen=True)
class ModelShape:
    """What a Qwen2, Qwen3, Llama or Mistral model is made of; all sizes count elements."""

    hidden: int
    """Width."""
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Width of the gated MLP."""
    vocab: int
    tied: bool
    """Whether the output layer is the input embedding."""
    qkv_bias: bool = False
    output_bias: bool = False
    """Bias of the attention's output projection."""
    mlp_bias: bool = False
    qk_norm: bool = False
    """RMS norms over each head of queries and keys (Qwen3)."""
    context: int | None = None
    """Longest sequence that the model takes, in tokens."""

    @property
    def q_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Parameters of one transformer layer: attention, gated MLP, two RMS norms."""
        h, q, kv, f = self.hidden, self.q_width, self.kv_width, self.intermediate
        attention = 2 * h * q + 2 * h * kv
        attention += (q + 2 * kv) * self.qkv_bias + h * self.output_bias
        attention += 2 * self.head_dim * self.qk_norm
        mlp = 3 * h * f + (2 * f + h) * self.mlp_bias
        return attention + mlp + 2 * h

    @property
    def parameters(self) -> int:
        """Parameters of the causal language model; a tied output layer counts once."""
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * self.layer_parameters + self.hidden

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of the linear layers of a transformer layer, by their name."""
        h, q, kv, f = self.hidden, self.q_width, self.kv_width, self.intermediate
        return {
            "q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h),
            "gate_proj": (h, f), "up_proj": (h, f), "down_proj": (f, h),
        }  # fmt: skip

    @property
    def layer_matrices(self) -> int:
        """Parameters of all linear layers inside the transformer layers, without biases."""
        return self.layers * sum(rows * columns for rows, columns in self.linear_layers.values())

    def adapter_parameters(self, rank: int, targets: Sequence[str]) -> int:
        """Parameters of LoRA's A [rank, inputs] and B [outputs, rank] on `targets`, in all layers."""
        sizes = [sum(self.linear_layers[name]) for name in targets if name in self.linear_layers]
        return self.layers * rank * sum(sizes)

    def head_parameters(self, labels: int) -> int:
        """Parameters of a token classifier on this backbone (a linear head with bias, no output layer)."""
        body = self.vocab * self.hidden + self.layers * self.layer_parameters + self.hidden
        return body + labels * (self.hidden + 1)


PUBLISHED: Mapping[str, ModelShape] = {
    # config.json of https://huggingface.co/Qwen/Qwen2.5-7B-Instruct: 7,615,616,512 parameters
    "Qwen/Qwen2.5-7B-Instruct": ModelShape(
        hidden=3584, layers=28, heads=28, kv_heads=4, head_dim=128, intermediate=18944, vocab=152064,
        tied=False, qkv_bias=True, context=32768,
    ),
    # config.json of https://huggingface.co/Qwen/Qwen2.5-3B-Instruct: 3,085,938,688 parameters
    "Qwen/Qwen2.5-3B-Instruct": ModelShape(
        hidden=2048, layers=36, heads=16, kv_heads=2, head_dim=128, intermediate=11008, vocab=151936,
        tied=True, qkv_bias=True, context=32768,
    ),
    # config.json of https://huggingface.co/Qwen/Qwen2.5-1.5B-Instruct: 1,543,714,304 parameters
    "Qwen/Qwen2.5-1.5B-Instruct": ModelShape(
        hidden=1536, layers=28, heads=12, kv_heads=2, head_dim=128, intermediate=8960, vocab=151936,
        tied=True, qkv_bias=True, context=32768,
    ),
    # config.json of https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct: 494,032,768 parameters
    "Qwen/Qwen2.5-0.5B-Instruct": ModelShape(
        hidden=896, layers=24, heads=14, kv_heads=2, head_dim=64, intermediate=4864, vocab=151936,
        tied=True, qkv_bias=True, context=32768,
    ),
    # config.json of https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct: 134,515,008 parameters
    "HuggingFaceTB/SmolLM2-135M-Instruct": ModelShape(
        hidden=576, layers=30, heads=9, kv_heads=3, head_dim=64, intermediate=1536, vocab=49152,
        tied=True, context=8192,
    ),
    # config.json of https://huggingface.co/Qwen/Qwen3-4B-Base: 4,022,468,096 parameters
    "Qwen/Qwen3-4B-Base": ModelShape(
        hidden=2560, layers=36, heads=32, kv_heads=8, head_dim=128, intermediate=9728, vocab=151936,
        tied=True, qk_norm=True, context=32768,
    ),
}  # fmt: skip
"""Models that the configurations name, so that they can be planned without a network."""


def parse_shape(config: Mapping[str, Any], where: str) -> ModelShape:
    """Read a config.json in Hugging Face format.

    Args:
        config: its content.
        where: names it in errors.

    Raises:
        ModelError: the model type is another one than qwen2, qwen3, llama and mistral, or a size is missing.
    """
    kind = config.get("model_type")
    if kind not in ("qwen2", "qwen3", "llama", "mistral"):
        raise ModelError(
            f"{where} is a {kind} model, and only qwen2, qwen3, llama and mistral can be planned"
        )
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        # A missing or null head_dim is derived; Qwen3's class has a default of its own.
        head_dim = config.get("head_dim") or (128 if kind == "qwen3" else hidden // heads)
        bias = bool(config.get("attention_bias", False)) and kind != "mistral"
        return ModelShape(
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(head_dim),
            intermediate=int(config["intermediate_size"]),
            vocab=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=bias or kind == "qwen2",
            output_bias=bias and kind != "qwen2",
            mlp_bias=bool(config.get("mlp_bias", False)) and kind == "llama",
            qk_norm=kind == "qwen3",
            context=config.get("max_position_embeddings"),
        )
    except KeyError as error:
        raise ModelError(f"{where} has no {error.args[0]}: save the model again") from None


def shape_of_path(path: str, context_tokens: int) -> ModelShape | str:
    """Return the shape of a model folder or hub name, or a sentence that says why it is not known.

    A hub name is looked up in the local hub cache, then in `PUBLISHED`; nothing is downloaded.

    Raises:
        ModelError: a local folder is broken or does not take `context_tokens`.
    """
    if check_model_folder(path, context_tokens=context_tokens).is_folder:
        return _parsed(Path(path) / "config.json")
    cached = _cached_config(path)
    if cached is not None:
        return _parsed(cached)
    if path in PUBLISHED:
        return PUBLISHED[path]
    return f"the sizes of {path} are not known before it is downloaded"


def policy_shape(config: Config) -> ModelShape | str:
    """Return the policy's shape (`model.path`, or the new model that `model` describes), or why not.

    Raises:
        ModelError: see `shape_of_path`.
    """
    if config.model.path is not None:
        return shape_of_path(config.model.path, config.model.context_tokens)
    model = config.model
    words = make_task(config.task).vocabulary()
    if words is None and not model.vocabulary:
        return f"task {config.task.name} has no vocabulary of its own, and model.path is not set"
    return ModelShape(
        hidden=model.hidden_size,
        layers=model.layers,
        heads=model.heads,
        kv_heads=model.heads,
        head_dim=model.head_dim,
        intermediate=model.intermediate_size,
        vocab=model.vocabulary if words is None else len(words) + _SPECIAL_TOKENS,
        tied=model.tie_embeddings,
        qk_norm=True,  # a new model is a Qwen3
        context=model.context_tokens,
    )


def _parsed(file: Path) -> ModelShape | str:
    try:
        return parse_shape(json.loads(file.read_text(encoding="utf-8")), str(file))
    except ModelError as error:  # another architecture trains as well; only its memory is not known
        return str(error)


def _cached_config(name: str) -> Path | None:
    """The newest config.json of a hub name in the local cache (layout of huggingface_hub)."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    found = cache.glob(f"models--{name.replace('/', '--')}/snapshots/*/config.json")
    return max(found, key=lambda file: file.stat().st_mtime, default=None)
