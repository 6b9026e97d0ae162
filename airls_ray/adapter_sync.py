"""Whether the engines get a policy's adapter alone, and what they start from then. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from airls_ray.errors import ModelError

if TYPE_CHECKING:
    from airls_ray.config.schema import Config

ADAPTER_FOLDER = "adapter"
"""In a saved model's folder: its adapter in peft's format."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_SETTINGS = "adapter_config.json"
ENGINE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that an engine of vLLM 0.32 can be started for (`vllm/config/lora.py`, `MaxLoRARanks`)."""
_ENGINE_TARGETS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
"""Linear layers that vLLM adapts in every model of the Llama and Qwen families."""


def engine_rank(rank: int) -> int:
    """Return the least of `ENGINE_RANKS` that holds adapters of `rank`, which is at most the last of them."""
    return min(known for known in ENGINE_RANKS if known >= rank)


def merged_because(config: Config) -> str | None:
    """Return why the engines get merged weights though `rollout.engine.lora` asks for the adapter; None where
    they get the adapter, or where it does not ask."""
    lora, engine = config.policy.lora, config.rollout.engine
    if engine.lora == "merged":
        return None
    end = "so the engines get merged weights (rollout.engine.lora=merged)"
    if engine.weight_transfer == "nccl":
        return f"rollout.engine.weight_transfer=nccl sends whole weights alone, {end}"
    if lora.rank > ENGINE_RANKS[-1]:
        return (
            f"vLLM takes adapters up to rank {ENGINE_RANKS[-1]}, and policy.lora.rank is {lora.rank}, {end}"
        )
    unknown = [name for name in lora.target_modules if name not in _ENGINE_TARGETS]
    if unknown:
        return f"vLLM may not adapt {unknown[0]} (policy.lora.target_modules), {end}"
    return None


def sends_adapter(config: Config) -> bool:
    """Whether a weight sync sends the policy's adapter alone."""
    return config.rollout.engine.lora == "adapter" and merged_because(config) is None


def engine_model(config: Config, policy: str) -> str:
    """Return the model that the engines load at their start.

    Args:
        config: decides whether they get adapters.
        policy: folder or hub name of the policy. A checkpoint holds the merged model, on which its adapter
            would count twice: engines that get adapters load what the adapter was trained on.

    Raises:
        ModelError: that model is gone, or the checkpoint does not name it.
    """
    settings = Path(policy) / ADAPTER_FOLDER / ADAPTER_SETTINGS
    if not sends_adapter(config) or not settings.is_file():
        return policy
    try:
        base = str(json.loads(settings.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError):
        raise ModelError(
            f"{settings} does not say which model the adapter was trained on: resume from another checkpoint"
        ) from None
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise ModelError(
            f"the adapter in {policy} was trained on {base}, which is gone: put that model back, or set "
            "rollout.engine.lora=merged"
        )
    return base
