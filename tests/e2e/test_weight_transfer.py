"""New weights in a real vLLM engine: exact, of the right version, and nothing left of the old ones."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from actors.rollout.engine import Request, Sample, Sampling
from actors.rollout.vllm_engine import VLLMEngine
from actors.weights.weight_transfer import ObjectStoreTransferEngine
from airls_ray.config.schema import EngineConfig
from airls_ray.models.saved_names import as_saved
from airls_ray.weights import WeightBuffer, pack_weights
from tests.e2e.conftest import REPOSITORY, environment
from tests.e2e.engines import cached_tokens

VOCABULARY = 40
EOS = 1
CONTEXT = 256
PROTOCOL = ("start_weight_update", "update_weights", "finish_weight_update")


@dataclass
class Pair:
    """An engine and the model that it must agree with."""

    engine: VLLMEngine
    model: Any

    def change(self, version: int) -> WeightBuffer:
        """New random weights for the model, packed (read-only, as Ray maps them)."""
        generator = torch.Generator().manual_seed(version)
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
        weights = as_saved(self.model, self.model.named_parameters())  # a tied weight occurs once
        buffer = pack_weights(weights, version)
        buffer.data.flags.writeable = False
        return buffer

    def largest_difference(self, prompts: list[list[int]]) -> float:
        """Between the log-probabilities of sampled tokens, engine against transformers, in nats."""
        answers = self.engine.generate(prompts, list(range(len(prompts))), Sampling(3, 1.0, 20))
        worst = 0.0
        for prompt, samples in zip(prompts, answers, strict=True):
            for sample in samples:
                tokens = torch.tensor([prompt + list(sample.tokens)])
                with torch.no_grad():
                    logits = self.model(tokens).logits[0, len(prompt) - 1 : -1]
                ours = torch.log_softmax(logits, -1).gather(1, tokens[0, len(prompt) :, None])[:, 0]
                worst = max(worst, float((ours - torch.tensor(list(sample.logprobs))).abs().max()))
        return worst


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=CONTEXT,
            tie_word_embeddings=request.param, eos_token_id=EOS, pad_token_id=0, bos_token_id=None,
        )
    ).save_pretrained(folder)  # fmt: skip
    engine = make_engine(folder)
    yield Pair(engine, AutoModelForCausalLM.from_pretrained(folder))
    del engine


def make_engine(folder: Path) -> VLLMEngine:
    config = EngineConfig(kv_cache_gib=0.05, max_sequences=16)
    return VLLMEngine(folder, config, dtype="float32", context_tokens=CONTEXT, eos_ids=[EOS])


def prompts(length: int, count: int = 4) -> list[list[int]]:
    return [[(7 * i + j) % (VOCABULARY - 2) + 2 for j in range(length)] for i in range(count)]


def test_the_engine_samples_with_the_new_weights_exactly(pair: Pair) -> None:
    before = pair.engine.generate(prompts(10), [0] * 4, Sampling(1, 0.0, 12))
    assert pair.largest_difference(prompts(10)) < 1e-4
    for version in (1, 2):  # the second reload must start from the state that the first one left
        pair.engine.update_weights(pair.change(version))
        assert pair.largest_difference(prompts(10)) < 1e-4
    after = pair.engine.generate(prompts(10), [0] * 4, Sampling(1, 0.0, 12))
    assert [list(s.tokens) for [s] in before] != [list(s.tokens) for [s] in after]


def test_a_mixture_of_experts_samples_with_the_new_weights_exactly() -> None:
    """In a process of its own: vLLM has groups of ranks for experts only where its first model has some."""
    program = Path(__file__).with_name("expert_weights.py")
    done = subprocess.run(
        [sys.executable, program], cwd=REPOSITORY, env=environment(PYTHONPATH=str(REPOSITORY)),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    differences = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("nats")]
    assert len(differences) == 2 and max(differences) < 1e-4


def test_the_engine_knows_the_version_of_its_weights(pair: Pair) -> None:
    pair.engine.update_weights(pair.change(7))
    assert pair.engine._llm.llm_engine.get_weight_version() == "7"


def test_no_prefix_of_the_old_weights_is_used_again(pair: Pair) -> None:
    block = pair.engine._llm.llm_engine.vllm_config.cache_config.block_size
    long = prompts(block + 60)
    assert block + 60 < CONTEXT - 20
    assert cached_tokens(pair.engine, long[0]) == 0
    in_whole_blocks = (len(long[0]) - 1) // block * block  # the last token is always computed
    assert cached_tokens(pair.engine, long[0]) == in_whole_blocks > 0  # the cache is in use
    pair.engine.generate(long, [0] * 4, Sampling(1, 1.0, 2))
    pair.engine.update_weights(pair.change(11))
    assert pair.largest_difference(long) < 1e-4
    pair.engine.update_weights(pair.change(12))
    assert cached_tokens(pair.engine, long[0]) == 0


def requests() -> list[Request]:
    return [Request(prompt, 2, 1.0, 24, seed=number) for number, prompt in enumerate(prompts(10))]


def test_sampling_that_nothing_interrupts_gives_the_usual_samples(pair: Pair) -> None:
    usual = pair.engine.run(requests())
    watched = pair.engine.run_interruptible(requests(), 5, lambda: None)
    assert [[list(s.tokens) for s in group] for group in watched] == [
        [list(s.tokens) for s in group] for group in usual
    ]
    for one, other in zip(watched, usual, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            assert (mine.finish, mine.versions) == (theirs.finish, None)
            assert list(mine.logprobs) == pytest.approx(list(theirs.logprobs), abs=1e-5)


def test_weights_that_come_while_it_samples_are_those_of_the_tokens_after(pair: Pair) -> None:
    """Every token has its version, and the log-probability that this version's model gives it."""
    old = copy.deepcopy(pair.model)
    weights = pair.change(21)
    mail = iter([None, None, None, None, None, weights])
    before = pair.engine.run_interruptible([], 0, lambda: None)  # nothing asked, nothing done
    answers = pair.engine.run_interruptible(requests(), 20, lambda: next(mail, None))
    versions = [s.versions for group in answers for s in group if s.versions is not None]
    assert before == []
    assert versions and all(set(one) == {20, 21} and list(one) == sorted(one) for one in versions)
    for prompt, samples in zip(prompts(10), answers, strict=True):
        for sample in samples:
            assert len(sample.tokens) == len(sample.logprobs)
            for version, model in ((20, old), (21, pair.model)):
                assert worst_of_version(model, prompt, sample, version, default=20) < 1e-4


def worst_of_version(model: Any, prompt: list[int], sample: Sample, version: int, default: int) -> float:
    """Largest difference between the engine's and the model's log-probabilities of one version's tokens."""
    tokens = torch.tensor([prompt + list(sample.tokens)])
    with torch.no_grad():
        logits = model(tokens).logits[0, len(prompt) - 1 : -1]
    ours = torch.log_softmax(logits, -1).gather(1, tokens[0, len(prompt) :, None])[:, 0]
    of_version = torch.tensor(list(sample.versions or [default] * len(sample.tokens))) == version
    difference = (ours - torch.tensor(list(sample.logprobs))).abs()[of_version]
    return float(difference.max()) if difference.numel() else 0.0


def test_the_update_takes_vllms_protocol(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    assert WeightTransferEngineFactory._registry["object_store"]() is ObjectStoreTransferEngine
    called = []

    def watch(name: str) -> None:
        original = getattr(ObjectStoreTransferEngine, name)

        def method(self: Any, *arguments: Any) -> Any:
            called.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(ObjectStoreTransferEngine, name, method)

    for name in PROTOCOL:
        watch(name)
    pair.engine.update_weights(pair.change(3))
    assert called == list(PROTOCOL)
