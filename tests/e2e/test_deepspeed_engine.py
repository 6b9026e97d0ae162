"""DeepSpeed learns exactly as plain PyTorch does, at every ZeRO stage and number of ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.learn.deepspeed_engine import deepspeed_settings, free_port
from airls_ray.learning.batches import Sequences
from airls_ray.learning.engine import TorchEngine
from airls_ray.models.load import load_policy_module
from airls_ray.tensors import plan_microbatches
from tests.e2e.deepspeed_rank import Weights, learner, load, record_gradients, train, train_prm, weights_of
from tests.tiny import make_policy_folder, make_rollouts

ONE_RANK = ["policy:0", "policy:1", "policy:2", "policy:3", "prm:0", "prm:3", "bf16:0", "bf16:2", "bf16:3"]
ONE_RANK += ["lora:0", "offload:2", "chunks:3", "muon:0"]
MANY = ["bf16_many:0", "bf16_many:2", "bf16_many:3"]
ONE_RANK += MANY
SKIPS = ["skips:0", "skips:2", "skips:3"]
ONE_RANK += SKIPS
TWO_RANKS = ["policy:0", "policy:1", "policy:2", "policy:3", "prm:2", "prm:3"]
TWO_RANKS += ["lone:0", "lone:1", "lone:2", "lone:3", "offload:2", "offload:3"]
TWO_RANKS += ["chunks:0", "chunks:2", "chunks:3"]
TWO_RANKS += ["lora:0", "lora:2", "lora:3", "lora_prm:2", "lora_prm:3", "muon:0"]
TWO_RANKS += ["bf16_muon:1"]
TWO_RANKS += SKIPS
WITH_STATE = ("policy", "lora:", "offload", "muon", "bf16_muon")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("policy"))


def run_ranks(model: Path, out: Path, ranks: int, cases: list[str]) -> list[dict[str, Any]]:
    port = free_port()
    # DeepSpeed compiles Muon's kernels, which would take the most of the time and changes no number.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    common = [sys.executable, "-W", "ignore", "-m", "tests.e2e.deepspeed_rank"]
    common += ["--model", str(model), "--out", str(out)]
    processes = [
        subprocess.Popen(
            [*common, "--rank", str(rank), "--ranks", str(ranks), "--port", str(port), *cases],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        outputs = [process.communicate(timeout=480)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)[-4000:]
    return [torch.load(out / f"result_{rank}.pt", weights_only=True) for rank in range(ranks)]


@pytest.fixture(scope="module")
def one_rank(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(model, tmp_path_factory.mktemp("one"), 1, ONE_RANK)


@pytest.fixture(scope="module")
def two_ranks(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(model, tmp_path_factory.mktemp("two"), 2, TWO_RANKS)


@pytest.fixture(scope="module")
def plain(model: Path) -> dict[str, tuple[list[dict[str, float]], Weights, Weights]]:
    expected = {}
    for kind in ("policy", "lone", "lora"):
        engine = TorchEngine(load(model, kind), learner())
        gradients = record_gradients(engine, lambda parameter: parameter.grad)
        expected[kind] = (train(engine, learner(), kind=kind), weights_of(engine), gradients)
    muon = TorchEngine(load(model, "muon"), learner(kind="muon"))
    muon.optimizers[0] = ExactMuon(muon.optimizers[0].param_groups[0]["params"])
    gradients = record_gradients(muon, lambda parameter: parameter.grad)
    expected["muon"] = (train(muon, muon.config, kind="muon"), weights_of(muon), gradients)
    for kind in ("prm", "lora_prm"):
        engine = TorchEngine(load(model, kind), learner())
        expected[kind] = (train_prm(engine, learner(), model), weights_of(engine), {})
    return {**expected, **dict.fromkeys(("offload", "chunks", "skips"), expected["policy"])}


class ExactMuon(torch.optim.Optimizer):
    """Muon by singular values in float64: Newton-Schulz's five polynomials change nothing else.

    Of the paper (arXiv 2502.16982, eq. 1 to 4): momentum 0.95 with Nesterov's step, weight decay by the
    learning rate, and an update whose root mean square is AdamW's.
    """

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.0})
        self.momentum = {one: torch.zeros_like(one, dtype=torch.float64) for one in parameters}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for one in group["params"]:
                momentum = self.momentum[one].mul_(0.95).add_(0.05 * one.grad.double())
                u, s, v = torch.linalg.svd(0.05 * one.grad.double() + 0.95 * momentum, full_matrices=False)
                s = s / s.norm()
                for _ in range(5):
                    s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
                update = 0.2 * max(one.shape) ** 0.5 * (u * s) @ v
                one.copy_(one.double() * (1 - 0.1 * group["lr"]) - group["lr"] * update)


def assert_same(result: dict[str, Any], expected: tuple[list[dict[str, float]], Weights, Weights]) -> None:
    metrics, weights, gradients = expected
    assert result.get("gradients", {}).keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(result["gradients"][name], gradient, atol=1e-6, rtol=1e-4)
    assert len(result["metrics"]) == len(metrics)
    for mine, theirs in zip(result["metrics"], metrics, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    assert result["weights"].keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(result["weights"][name], weight, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", [case for case in ONE_RANK if not case.startswith("bf16")])
def test_one_rank_learns_as_plain_pytorch_does(one_rank: Any, plain: Any, case: str) -> None:
    assert_same(one_rank[0][case], plain[case.split(":")[0]])


@pytest.mark.parametrize("case", [case for case in TWO_RANKS if not case.startswith("bf16")])
@pytest.mark.parametrize("rank", [0, 1])
def test_two_ranks_learn_as_one_does(two_ranks: Any, plain: Any, case: str, rank: int) -> None:
    assert_same(two_ranks[rank][case], plain[case.split(":")[0]])


def test_the_test_moves_the_weights(model: Path, plain: Any) -> None:
    start = weights_of(TorchEngine(load_policy_module(model), learner()))
    assert max(float((plain["policy"][1][name] - start[name]).abs().max()) for name in start) > 1e-3


@pytest.mark.parametrize("case", [case for case in ONE_RANK if case.startswith(WITH_STATE)])
def test_a_resumed_rank_continues_as_if_never_stopped(one_rank: Any, case: str) -> None:
    for name, weight in one_rank[0][case]["continued"].items():
        assert torch.equal(one_rank[0][case]["resumed"][name], weight)


@pytest.mark.parametrize("case", [case for case in TWO_RANKS if case.startswith(WITH_STATE)])
def test_two_resumed_ranks_continue_as_if_never_stopped(two_ranks: Any, case: str) -> None:
    for result in two_ranks:
        for name, weight in result[case]["continued"].items():
            assert torch.equal(result[case]["resumed"][name], weight)


@pytest.mark.parametrize("case", SKIPS)
def test_an_update_without_a_finite_gradient_is_skipped_by_all_ranks(
    one_rank: Any, two_ranks: Any, case: str
) -> None:
    """That it changed nothing the cases above show: what follows is as if it had never been."""
    assert [result[case]["skipped"] for result in (*one_rank, *two_ranks)] == [1.0, 1.0, 1.0]


def test_two_ranks_compute_every_row_once(two_ranks: Any) -> None:
    rows = [result["policy:3"]["rows"] for result in two_ranks]
    assert sorted(rows[0] + rows[1]) == list(range(9))
    assert rows[0]
    assert rows[1]


def test_a_rank_without_any_row_takes_part(two_ranks: Any) -> None:
    assert [result["lone:3"]["rows"] for result in two_ranks] == [[0], []]


def test_ranks_with_different_numbers_of_microbatches_are_among_the_cases() -> None:
    lengths = Sequences.of(make_rollouts(3, 3)).lengths
    plan = plan_microbatches(lengths, 2, learner().tokens_per_microbatch, "padded")
    assert sorted(sum(part.numel() > 0 for part in share) for share in plan) == [1, 2]


def test_gradients_are_compared_before_they_are_clipped(plain: Any) -> None:
    for kind in ("policy", "lone", "lora"):
        norm = torch.cat([one.flatten() for one in plain[kind][2].values()]).norm()
        assert norm > learner().gradient_clip


@pytest.mark.parametrize("case", [case for case in ONE_RANK if case.startswith("bf16:")])
def test_bfloat16_follows_fp32_closely(one_rank: Any, plain: Any, case: str) -> None:
    result = one_rank[0][case]
    for name, weight in plain["policy"][1].items():
        assert result["weights"][name].dtype == torch.bfloat16
        torch.testing.assert_close(result["weights"][name].float(), weight, atol=2e-2, rtol=0)


@pytest.mark.parametrize("case", MANY)
def test_bfloat16_gradients_of_many_micro_batches_are_summed_in_fp32(
    one_rank: Any, model: Path, case: str
) -> None:
    """Against plain PyTorch: one gradient for each micro-batch, added up outside in fp32."""
    engine = TorchEngine(load(model, "bf16_many"), learner(kind="bf16_many"))
    parameters = dict(engine.module.trainable_parameters())
    sums = {name: torch.zeros_like(one, dtype=torch.float32) for name, one in parameters.items()}
    micro_batches = 0

    def backward(loss: torch.Tensor, *, last: bool) -> None:
        nonlocal micro_batches
        micro_batches += 1
        for name, gradient in zip(sums, torch.autograd.grad(loss, list(parameters.values())), strict=True):
            sums[name] += gradient.float()

    engine.backward = backward  # type: ignore[method-assign]
    engine.step = lambda: 0.0  # type: ignore[method-assign]
    train(engine, learner(kind="bf16_many"), updates=1, kind="bf16_many")
    assert micro_batches > 80
    found = one_rank[0][case]["gradients"]
    error = sum(float((found[name].float() - one).square().sum()) for name, one in sums.items()) ** 0.5
    # At stage 1 (which 0 becomes) what is read here was rounded once; sums in bfloat16 are 1 % off.
    assert error < 3e-3 * sum(float(one.square().sum()) for one in sums.values()) ** 0.5


def test_bfloat16_at_stage_0_keeps_fp32_masters() -> None:
    assert deepspeed_settings(learner(0), 1, bfloat16=True)["zero_optimization"]["stage"] == 1
    assert deepspeed_settings(learner(0), 1, bfloat16=False)["zero_optimization"]["stage"] == 0
