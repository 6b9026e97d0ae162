"""Estimated memory of logits, of all tokens or of a chunk, against what a real pass makes."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoModelForCausalLM, Qwen2Config

from airls_ray.config.schema import LearnerConfig
from airls_ray.models.modules import PolicyModule
from airls_ray.planning.memory import (
    LOGITS_ENTROPY,
    LOGITS_ENTROPY_GRADIENT,
    LOGITS_FORWARD,
    LOGITS_TRAIN,
    inference_memory,
    learner_memory,
    logit_memory,
)
from tests.unit.model_shapes import SEVEN_B, SMALL, shape_of


class Peak(TorchDispatchMode):
    """Follows the bytes of all live storages."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.live:
                storage = tensor.untyped_storage()
                self.live[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return result


def peak_of(tokens: int, vocabulary: int, *, gradient: bool, entropy: bool, entropy_gradient: bool) -> int:
    """Bytes at the largest moment of a pass of a bfloat16 policy in chunks of one MiB."""
    config = Qwen2Config(**{**SMALL, "vocab_size": vocabulary, "num_hidden_layers": 1})
    config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16).train()
    module = PolicyModule(model, logit_chunk_mib=1)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    index = torch.arange(tokens)
    inputs = {"input_ids": index[None], "position_ids": index[None], "predict_index": index, "targets": index}
    mask = torch.ones(1, tokens, dtype=torch.long)
    peak = Peak()
    with peak, torch.set_grad_enabled(gradient):
        logprobs, entropies = module(
            **inputs, attention_mask=mask, entropy=entropy, entropy_gradient=entropy_gradient
        )
        if gradient:
            (logprobs.sum() + (entropies.sum() if entropy_gradient else 0)).backward()
    return peak.peak


PASSES = [
    (True, True, True, LOGITS_ENTROPY_GRADIENT),
    (True, True, False, LOGITS_ENTROPY),
    (True, False, False, LOGITS_TRAIN),
    (False, False, False, LOGITS_FORWARD),
]


@pytest.mark.parametrize(("gradient", "entropy", "entropy_gradient", "bytes_per_logit"), PASSES)
def test_the_bytes_per_logit_are_those_of_a_real_pass(gradient, entropy, entropy_gradient, bytes_per_logit):
    tokens, vocab = 64, 4096  # one chunk
    peak = peak_of(tokens, vocab, gradient=gradient, entropy=entropy, entropy_gradient=entropy_gradient)
    # The rest of so small a model is below two bytes a logit.
    assert bytes_per_logit <= peak / tokens / vocab < bytes_per_logit + 2


@pytest.mark.parametrize(("gradient", "entropy", "entropy_gradient", "bytes_per_logit"), PASSES)
def test_a_chunk_and_the_summed_gradient_are_all_that_a_real_pass_makes(
    gradient, entropy, entropy_gradient, bytes_per_logit
):
    tokens, vocab = 512, 4096  # eight chunks
    shape = shape_of(Qwen2Config(**{**SMALL, "vocab_size": vocab}))
    peak = peak_of(tokens, vocab, gradient=gradient, entropy=entropy, entropy_gradient=entropy_gradient)
    expected = logit_memory(shape, tokens, bytes_per_logit, 1, 2 if gradient else 0)
    # The rest of so small a model is below 1,200 bytes a token, and all logits are 32,768 at least.
    assert expected <= peak < expected + 1200 * tokens


def test_a_learner_of_7b_by_hand():
    """152,064 words of 3,584 numbers, in bfloat16, with 16,384 tokens in a micro-batch."""

    def gib(**settings: Any) -> float:
        learner = LearnerConfig(tokens_per_microbatch=16384, **settings)
        memory = learner_memory(
            SEVEN_B, SEVEN_B.parameters, learner, dtype="bfloat16", context_tokens=4096,
            logit_bytes=LOGITS_ENTROPY, on_gpu=True,
        )  # fmt: skip
        return memory.logits / 2**30

    all_logits, summed = 16384 * 152_064 * 16, (4 + 2) * 152_064 * 3584
    assert gib(logit_chunk_mib=0) == pytest.approx(all_logits / 2**30) == pytest.approx(37.1, abs=0.1)
    chunk = 882 * 152_064 * 16  # 882 tokens of 152,064 words are 511.6 MiB in fp32
    assert gib() == pytest.approx((chunk + summed) / 2**30) == pytest.approx(5.0, abs=0.1)
    assert gib(lora={"rank": 8}) == pytest.approx(chunk / 2**30) == pytest.approx(2.0, abs=0.01)
    assert gib(logit_chunk_mib=100_000) == pytest.approx(all_logits / 2**30)  # they are fewer


def test_a_model_that_only_runs_forward_holds_one_chunk_of_logits():
    memory = inference_memory(
        SEVEN_B, SEVEN_B.parameters, dtype="bfloat16", tokens=16384, logit_bytes=LOGITS_FORWARD
    )
    assert memory.logits == 882 * 152_064 * 8
    without = inference_memory(SEVEN_B, SEVEN_B.parameters, dtype="bfloat16", tokens=16384, logit_bytes=0)
    assert without.logits == 0
