"""What the engine computes: a prefix once, however short a model's responses are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from actors.rollout.engine import Request
from actors.rollout.vllm_engine import VLLMEngine
from airls_ray.config.schema import EngineConfig
from airls_ray.errors import RequestRefused
from tests.e2e.engines import cached_tokens

EOS = 1
PREFIX = [2 + at % 20 for at in range(40)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMEngine]:
    folder: Path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=24, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=96,
            eos_token_id=EOS, pad_token_id=0, bos_token_id=None,
        )
    ).save_pretrained(folder)  # fmt: skip
    config = EngineConfig(kv_cache_gib=0.05, max_sequences=16)
    engine = VLLMEngine(folder, config, dtype="float32", context_tokens=96, eos_ids=[EOS])
    yield engine
    del engine


def test_a_prefix_of_forty_tokens_is_not_computed_again(engine: VLLMEngine) -> None:
    engine.forget_prefixes()
    assert cached_tokens(engine, [*PREFIX, 5]) == 0
    assert cached_tokens(engine, [*PREFIX, 6]) >= 32


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (Request([5], 4, 0.0, 3, 0), "n must be 1 when using greedy sampling"),
        (Request([5], 1, 2.5, 3, 0), "temperature must be in"),
        (Request([], 1, 1.0, 3, 0), "cannot be empty"),
        (Request([5] * 97, 1, 1.0, 3, 0), "97"),
    ],
    ids=["greedy", "temperature", "empty", "long"],
)
def test_what_the_engine_refuses_is_said_and_changes_nothing(
    engine: VLLMEngine, refused: Request, why: str
) -> None:
    fine = Request([5, 6], 3, 1.0, 6, 7)
    before = engine.run([fine])
    with pytest.raises(RequestRefused, match=why):
        engine.run([fine, refused])
    if refused.samples == 1:  # else each sample is asked for by itself
        with pytest.raises(RequestRefused, match=why):
            engine.run_interruptible([fine, refused], 0, lambda: None)
    [after] = engine.run([fine])
    assert [list(one.tokens) for one in after] == [list(one.tokens) for one in before[0]]


def test_top_k_and_top_p_leave_the_most_probable_tokens(engine: VLLMEngine) -> None:
    [[best]] = engine.run([Request([5, 6], 1, 0.0, 1, 0)])
    for limits in ({"top_k": 1}, {"top_p": 1e-6}):
        [samples] = engine.run([Request([5, 6], 8, 1.0, 1, 3, (), **limits)])
        assert {tuple(one.tokens) for one in samples} == {tuple(best.tokens)}
    [free] = engine.run([Request([5, 6], 8, 1.0, 1, 3)])
    assert len({tuple(one.tokens) for one in free}) > 1


def test_a_shared_prefix_changes_no_sample(engine: VLLMEngine) -> None:
    children = [Request([*PREFIX, token], 4, 1.0, 12, 100 * token) for token in (5, 6, 7)]
    engine.forget_prefixes()
    together = engine.run(children)
    for child, shared in zip(children, together, strict=True):
        engine.forget_prefixes()
        [alone] = engine.run([child])
        assert [list(one.tokens) for one in alone] == [list(one.tokens) for one in shared]
        for one, other in zip(alone, shared, strict=True):
            assert list(one.logprobs) == pytest.approx(list(other.logprobs), abs=1e-4)
