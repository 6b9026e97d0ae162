"""Adapters in a real vLLM engine: exact, of the right version, and nothing left of the ones before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.rollout.engine import Request, Sample
from actors.rollout.vllm_engine import VLLMEngine
from airls_ray.adapter_sync import ENGINE_RANKS
from airls_ray.config.schema import EngineConfig
from airls_ray.weights import WeightBuffer, pack_weights
from tests.e2e.engines import cached_tokens, save_model

EOS, CONTEXT, RANK, ALPHA = 1, 128, 3, 5.0
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), CONTEXT, kv_heads=1)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[VLLMEngine]:
    config = EngineConfig(kv_cache_gib=0.05, max_sequences=16, lora="adapter")
    engine = VLLMEngine(
        folder, config, dtype="float32", context_tokens=CONTEXT, eos_ids=[EOS], lora_rank=RANK
    )
    yield engine
    del engine


def adapter(folder: Path, seed: int, version: int, targets: list[str] = TARGETS) -> tuple[WeightBuffer, Any]:
    """A random adapter, packed, and the model with W + alpha / rank * B A computed in float64."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = []
    for name, layer in model.named_modules():
        if name.rsplit(".", 1)[-1] not in TARGETS:
            continue
        a = torch.randn(RANK, layer.in_features, generator=generator) * 0.2
        b = torch.randn(layer.out_features, RANK, generator=generator) * 0.2
        merged = layer.weight.double() + ALPHA / RANK * b.double() @ a.double()
        layer.weight.data = merged.float()
        prefix = f"base_model.model.{name}"
        weights += [(f"{prefix}.lora_A.weight", a), (f"{prefix}.lora_B.weight", b)]
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": targets}
    buffer = pack_weights(weights, version, json.dumps(settings))
    buffer.data.flags.writeable = False
    return buffer, model


def requests() -> list[Request]:
    prompts = [[2 + (7 * at + i) % 20 for at in range(10)] for i in range(4)]
    return [Request(prompt, 2, 1.0, 24, seed=number) for number, prompt in enumerate(prompts)]


def largest_difference(model: Any, answers: list[list[Sample]], version: int | None = None) -> float:
    """Between the engine's log-probabilities of its tokens (of a version) and the model's, in nats."""
    worst, compared = 0.0, 0
    for request, samples in zip(requests(), answers, strict=True):
        for one in samples:
            tokens = torch.tensor([[*request.prompt, *one.tokens]])
            with torch.no_grad():
                logits = model(tokens).logits[0, len(request.prompt) - 1 : -1]
            own = torch.log_softmax(logits, -1).gather(1, tokens[0, len(request.prompt) :, None])[:, 0]
            different = (own - torch.tensor(list(one.logprobs))).abs()
            if version is not None and one.versions is not None:
                different = different[torch.tensor(list(one.versions)) == version]
            compared += different.numel()
            worst = max(worst, float(different.max()) if different.numel() else 0.0)
    assert compared > 20
    return worst


def test_the_engine_samples_with_each_new_adapter_and_its_own_weights(
    engine: VLLMEngine, folder: Path
) -> None:
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert largest_difference(base, engine.run(requests())) < 1e-4
    for version in (1, 2, 2):  # a version comes twice where learners are rebuilt
        buffer, model = adapter(folder, seed=version + engine._adapter._number, version=version)
        engine.update_weights(buffer)
        answers = engine.run(requests())
        assert largest_difference(model, answers) < 1e-4 < largest_difference(base, answers)
        assert engine._llm.llm_engine.get_weight_version() == str(version)
        assert len(engine._llm.llm_engine.list_loras()) == 1


def test_no_prefix_of_the_old_adapter_is_used_again(engine: VLLMEngine, folder: Path) -> None:
    prompt = [2 + at % 20 for at in range(70)]
    assert cached_tokens(engine, prompt) == 0
    assert cached_tokens(engine, prompt) > 0
    engine.update_weights(adapter(folder, 11, 11)[0])
    assert cached_tokens(engine, prompt) == 0


def test_an_adapter_that_comes_while_it_samples_is_that_of_the_tokens_after(
    engine: VLLMEngine, folder: Path
) -> None:
    old, old_model = adapter(folder, 20, 20)
    new, new_model = adapter(folder, 21, 21)
    engine.update_weights(old)
    mail = iter([None] * 5 + [new])
    answers = engine.run_interruptible(requests(), 20, lambda: next(mail, None))
    spans = [one.versions for group in answers for one in group if one.versions is not None]
    assert spans and all(set(one) == {20, 21} for one in spans)
    for version, model in ((20, old_model), (21, new_model)):
        both = [[one for one in group if one.versions is not None] for group in answers]
        assert largest_difference(model, both, version) < 1e-4


def test_an_adapter_that_vllm_refuses_leaves_the_one_before(engine: VLLMEngine, folder: Path) -> None:
    good, model = adapter(folder, 30, 30)
    engine.update_weights(good)
    broken = pack_weights(
        [("base_model.model.model.layers.0.router.lora_A.weight", torch.ones(3, 64))], 31, good.adapter
    )
    with pytest.raises(Exception, match="router"):
        engine.update_weights(broken)
    engine.forget_prefixes()
    assert largest_difference(model, engine.run(requests())) < 1e-4
    assert engine._llm.llm_engine.get_weight_version() == "30"


def test_the_ranks_are_those_of_vllm() -> None:
    from vllm.config.lora import MaxLoRARanks

    assert get_args(MaxLoRARanks) == ENGINE_RANKS
