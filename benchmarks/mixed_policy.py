"""A policy of about 15 million parameters from nothing whose responses have very different lengths.

Trained policies of a task with one form of answer write responses of nearly one length. This one ends a
response at every token with nearly the same probability, so that lengths are nearly geometric: of a mean of
160 tokens one in nine has fewer than 20, and one in 25 is cut at 512.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common

if TYPE_CHECKING:
    from airls_ray.config.schema import Config

SIZES = (
    "model.hidden_size=384", "model.layers=8", "model.heads=6", "model.head_dim=64",
    "model.intermediate_size=1152", "model.context_tokens=640",
)  # fmt: skip
"""15.3 M parameters."""
MEAN_TOKENS = 160
_CONSTANT = 1.0
"""What every embedding has in its first place; a new one has a deviation of 0.02 there."""
_NEVER = 1e9
"""One padding token in so many tokens."""


def mixed_policy(config: Config) -> Path:
    """Return the folder of the policy, made once."""
    folder = common.RUNS / f"mixed_{common.digest(config.model.model_dump_json())}_seed_{config.seed}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        write_mixed_policy(config, folder, MEAN_TOKENS)
        (folder / "ready").touch()
    return folder


def write_mixed_policy(config: Config, folder: Path, mean_tokens: float) -> None:
    """Write a new policy whose chance of an end is about 1 / `mean_tokens` at every token.

    An output layer has no bias. So every embedding gets a constant in its first place, which is still there
    behind the last norm, and the output rows of the end of sequence and of padding read that place alone.

    Raises:
        ValueError: the model's output layer is tied to its embeddings.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if config.model.tie_embeddings:
        raise ValueError("an output layer that is tied to the embeddings cannot have rows of its own")
    codec = common.new_policy(config, folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = _CONSTANT
        special = torch.tensor([codec.eos_id, codec.pad_id])
        others = torch.tensor([at for at in range(codec.vocab_size) if at not in special])
        generator = torch.Generator().manual_seed(config.seed)
        drawn = torch.randint(len(others), (8, 256), generator=generator)
        hidden = model.model(others[drawn]).last_hidden_state
        weight = model.lm_head.weight
        rest = (hidden @ weight[others].T).logsumexp(dim=-1).mean()
        once_in = torch.tensor([mean_tokens - 1.0, _NEVER])
        weight[special] = 0.0
        weight[special, 0] = (rest - once_in.log()) / hidden[..., 0].mean()
    model.save_pretrained(folder)
