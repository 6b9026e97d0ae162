"""What tests of the real engine share."""

from __future__ import annotations

from typing import Any

from actors.rollout.vllm_engine import VLLMEngine


def cached_tokens(engine: VLLMEngine, prompt: list[int]) -> int:
    """Tokens of a prompt that the engine did not have to compute."""
    from vllm import SamplingParams

    request: Any = {"prompt_token_ids": prompt}
    [output] = engine._llm.generate(request, SamplingParams(max_tokens=1, detokenize=False), use_tqdm=False)
    return output.num_cached_tokens or 0
