"""What the engine computes: a prefix once, however short a model's responses are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch
from transformers import Qwen3ForCausalLM

from actors.rollout.engine import Request
from actors.rollout.vllm_engine import VLLMEngine
from airls_ray.config.schema import EngineConfig
from airls_ray.errors import RequestRefused
from airls_ray.truncation import WHOLE, Truncation
from tests.e2e.engines import cached_tokens, save_model

EOS = 1
PREFIX = [2 + at % 20 for at in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), context=96)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[VLLMEngine]:
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


def test_top_k_top_p_and_min_p_leave_the_most_probable_tokens(engine: VLLMEngine) -> None:
    [[best]] = engine.run([Request([5, 6], 1, 0.0, 1, 0)])
    for limits in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        [samples] = engine.run([Request([5, 6], 8, 1.0, 1, 3, truncation=Truncation(**limits))])
        assert {tuple(one.tokens) for one in samples} == {tuple(best.tokens)}
    [free] = engine.run([Request([5, 6], 8, 1.0, 1, 3)])
    assert len({tuple(one.tokens) for one in free}) > 1


CUTS = [
    Truncation(top_p=0.6),
    Truncation(top_k=3),
    Truncation(min_p=0.5),
    Truncation(0.9, 5, 0.2),
    WHOLE,
]


@pytest.mark.parametrize("interruptible", [False, True])
def test_log_probabilities_are_the_whole_policys_whatever_the_sampler_leaves_out(
    engine: VLLMEngine, folder: Path, interruptible: bool
) -> None:
    plain = Request([5, 6, 7], 4, 0.7, 8, 11)
    before = engine.run([plain])
    requests = [replace(plain, temperature=t, truncation=cut) for t in (1.0, 0.7) for cut in CUTS]
    requests.append(Request([5, 6, 7], 1, 0.0, 8, 0))
    found = engine.run_interruptible(requests, 0, lambda: None) if interruptible else engine.run(requests)
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for request, samples in zip(requests, found, strict=True):
        for one in samples:
            tokens = torch.tensor([[*request.prompt, *one.tokens]])
            with torch.no_grad():
                logits = model(tokens).logits[0, len(request.prompt) - 1 : -1]
            whole = torch.log_softmax(logits / (request.temperature or 1.0), -1)
            own = whole.gather(1, tokens[0, len(request.prompt) :, None])[:, 0]
            assert list(one.logprobs) == pytest.approx(own.tolist(), abs=1e-4)
            least = whole.max(-1).values + log(request.truncation.min_p or 1e-9)
            assert (own >= least - 1e-4).all()
    assert engine.run([plain]) == before  # whoever asks for no truncation gets what he got


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
