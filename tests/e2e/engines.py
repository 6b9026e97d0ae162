"""What tests of the real engine share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from actors.rollout.vllm_engine import VLLMEngine


def save_model(folder: Path, context: int, kv_heads: int = 2) -> Path:
    """Save a policy of 24 tokens (0 pads, 1 ends) that takes `context` of them; returns the folder."""
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=24, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=kv_heads, head_dim=32, max_position_embeddings=context,
            eos_token_id=1, pad_token_id=0, bos_token_id=None,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def cached_tokens(engine: VLLMEngine, prompt: list[int]) -> int:
    """Tokens of a prompt that the engine did not have to compute."""
    from vllm import SamplingParams

    request: Any = {"prompt_token_ids": prompt}
    [output] = engine._llm.generate(request, SamplingParams(max_tokens=1, detokenize=False), use_tqdm=False)
    return output.num_cached_tokens or 0
