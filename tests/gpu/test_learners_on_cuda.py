"""The learners' steps on a GPU give what they give on the CPU. Left out where there is no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from airls_ray.config.method_doors import ObjectiveConfig
from airls_ray.config.schema import LearnerConfig, MethodConfig, PRMConfig
from airls_ray.data.parts import merge_parts
from airls_ray.learning.engine import FrozenEngine, TorchEngine, own_device
from airls_ray.learning.passes import token_logprobs
from airls_ray.learning.policy import update_policy
from airls_ray.models.attention import Kernel, set_attention
from airls_ray.models.load import load_policy_module, load_prm_module
from airls_ray.prm.batch import PRMSource, build_prm_batch
from airls_ray.prm.update import update_prm
from airls_ray.tensors import to_packed
from tests.tiny import make_policy_folder, make_rollouts, make_traces
from tests.unit.test_attention import logprobs_and_gradients, row_lengths

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LEARNER = LearnerConfig(learning_rate=1e-3, tokens_per_microbatch=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("policy"))


def logprobs(folder: Path, device: str, layout: Any, table: pa.Table) -> torch.Tensor:
    engine = FrozenEngine(load_policy_module(folder), torch.device(device))
    part = token_logprobs(engine, table, temperature=1.0, tokens_per_microbatch=60, pad_id=0, layout=layout)
    return to_packed(merge_parts([part])["logprobs"]).values


def weights(engine: TorchEngine) -> torch.Tensor:
    return torch.cat([value.flatten().float().cpu() for _, value in engine.named_weights()])


def test_a_process_with_a_gpu_uses_it() -> None:
    assert own_device().type == "cuda"


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_both_layouts_give_the_cpus_log_probabilities(folder: Path, layout: Any) -> None:
    table = make_rollouts(4, 4)
    torch.testing.assert_close(
        logprobs(folder, "cuda", layout, table),
        logprobs(folder, "cpu", "padded", table),
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.parametrize("kernel", ["sdpa", "flex_attention"])
def test_packed_rows_have_the_cpus_log_probabilities_and_gradients(folder: Path, kernel: Kernel) -> None:
    lengths = row_lengths(rows=44, longest=60)
    every = torch.arange(len(lengths))
    module = load_policy_module(folder)
    alone = logprobs_and_gradients(module, lengths, list(every.split(1)), "padded")
    set_attention(module.to("cuda").model, kernel)
    together = logprobs_and_gradients(module, lengths, [every], "packed")
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, atol=1e-3, rtol=1e-3)


def test_a_policy_update_moves_the_weights_as_on_the_cpu(folder: Path) -> None:
    table = make_rollouts(4, 4)
    pairs = zip(table["outcome"].to_pylist(), table["step_ends"].to_pylist(), strict=True)
    advantages = pa.array([[o - 0.5] * len(ends) for o, ends in pairs], pa.list_(pa.float32()))
    results = []
    for device in ("cpu", "cuda"):
        engine = TorchEngine(load_policy_module(folder).to(device), LEARNER)
        method = MethodConfig(name="grpo")
        update_policy(
            engine, table, advantages, None, method, LEARNER,
            temperature=1.0, max_response_tokens=8, pad_id=0,
        )  # fmt: skip
        results.append(weights(engine))
    torch.testing.assert_close(results[1], results[0], atol=5e-4, rtol=0)


@pytest.mark.parametrize("objective", ["airl", "repirl"])
def test_a_prm_update_has_the_cpus_loss(folder: Path, objective: Any) -> None:
    traces, rollouts = make_traces(4), make_rollouts(4, 4)
    config = PRMConfig(parameterisation="log_prob", action="token", learner=LEARNER.model_dump())
    policy = FrozenEngine(load_policy_module(folder))
    part = token_logprobs(policy, traces, temperature=1.0, tokens_per_microbatch=60, pad_id=0)
    batch = build_prm_batch(
        [PRMSource(rollouts, traces, merge_parts([part]))], config, ObjectiveConfig(name=objective)
    )
    losses = []
    for device in ("cpu", "cuda"):
        engine = TorchEngine(load_prm_module(folder, "log_prob").to(device), LEARNER)
        losses.append(update_prm(engine, [batch], config, temperature=1.0, pad_id=0)["prm/loss"])
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
