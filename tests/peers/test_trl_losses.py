"""Our policy loss against TRL's, which is installed into an environment of its own for this test."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from airls_ray.config.schema import MethodConfig
from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser
from airls_ray.objectives.policy_losses.clipped import loss as policy_loss
from tests.peers.environments import python_with

TRL = "trl==1.16.0"
ROWS, MOST = 4, 7
LENGTHS = (7, 3, 5, 1)
AGGREGATIONS = {"grpo": "sequence_mean", "bnpo": "token_mean", "dapo": "token_mean", "dr_grpo": "constant"}
"""TRL's `loss_type` and what it is here."""
CAP = 1.5


def random_case(loss_type: str, beta: float, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def draw(scale: float, shift: float = 0.0) -> torch.Tensor:
        shape = (ROWS, MOST)
        return shift + scale * torch.randn(shape, dtype=torch.float64, generator=generator)

    mask = (torch.arange(MOST) < torch.tensor(LENGTHS)[:, None]).double()
    logprobs = draw(0.7, -2.0)
    values = {
        "logprobs": logprobs,
        "old": logprobs + draw(0.2),
        "reference": logprobs + draw(0.3),
        "advantages": torch.randn(ROWS, dtype=torch.float64, generator=generator),
        "weights": draw(0.4).exp().clamp(max=CAP),
        "mask": mask,
    }
    settings = {"loss_type": loss_type, "beta": beta, "clip_low": 0.2, "clip_high": 0.28, "max_tokens": 9}
    return {**settings, **{name: value.tolist() for name, value in values.items()}}


def ours(case: dict[str, Any]) -> tuple[float, list[float]]:
    """Loss and gradient of the tokens that are there."""
    mask = torch.tensor(case["mask"]) > 0
    packed = {
        name: torch.tensor(case[name], dtype=torch.float64)[mask]
        for name in ("logprobs", "old", "reference", "weights")
    }
    logprobs = packed["logprobs"].requires_grad_()
    lengths = torch.tensor(LENGTHS)
    advantages = torch.tensor(case["advantages"], dtype=torch.float64).repeat_interleave(lengths)
    inputs = PolicyLossInputs(
        logprobs=logprobs,
        old_logprobs=packed["old"],
        advantages=advantages,
        row_offsets=torch.tensor([0, *lengths.cumsum(0).tolist()]),
        reference_logprobs=packed["reference"],
        sampler_logprobs=packed["old"] - packed["weights"].log(),
    )
    config = MethodConfig(
        name="grpo",
        aggregation=AGGREGATIONS[case["loss_type"]],
        clip_low=case["clip_low"],
        clip_high=case["clip_high"],
        kl_coefficient=case["beta"],
        importance_cap=CAP,
    )
    normaliser = PolicyNormaliser(tokens=sum(LENGTHS), rollouts=ROWS, max_response_tokens=case["max_tokens"])
    loss, _ = policy_loss(inputs, config=config, normaliser=normaliser)
    return loss.item(), torch.autograd.grad(loss, logprobs)[0].tolist()


def test_losses_and_gradients_are_those_of_trl(tmp_path: Path) -> None:
    """Clipped surrogate, truncated importance weights and k3, by every aggregation that both have."""
    cases = [
        random_case(loss_type, beta, seed)
        for seed, (loss_type, beta) in enumerate((name, beta) for name in AGGREGATIONS for beta in (0.0, 0.1))
    ]
    given, found = tmp_path / "cases.json", tmp_path / "results.json"
    given.write_text(json.dumps(cases))
    script = Path(__file__).with_name("trl_losses.py")
    subprocess.run([python_with("trl", TRL), str(script), str(given), str(found)], check=True, timeout=300)
    for case, theirs in zip(cases, json.loads(found.read_text()), strict=True):
        mask = torch.tensor(case["mask"]) > 0
        loss, gradient = ours(case)
        # Our weights of tokens are float32: 1e-7 of terms that nearly cancel.
        assert loss == pytest.approx(theirs["loss"], rel=1e-6, abs=1e-7)
        wanted = torch.tensor(theirs["gradient"], dtype=torch.float64)[mask].tolist()
        assert gradient == pytest.approx(wanted, rel=1e-5, abs=1e-9)
