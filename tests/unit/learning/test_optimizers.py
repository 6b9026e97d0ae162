"""The learning rate over the updates. Muon: which weights it takes, how far it moves them, what it needs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from airls_ray.config import load_config
from airls_ray.config.schema import LearnerConfig
from airls_ray.errors import ConfigError
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.optimizers import layer_matrices, learning_rate, make_optimizers, muon_groups
from airls_ray.planning.memory import learner_memory
from airls_ray.planning.shapes import parse_shape
from tests.tiny import make_policy_folder, policy_module, prm_module

MUON = LearnerConfig(optimizer="muon", learning_rate=1e-2, weight_decay=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("policy"))


def test_the_learning_rate_rises_linearly_and_stays() -> None:
    config = LearnerConfig(learning_rate=1.0, lr_warmup_updates=4)
    assert [learning_rate(config, update) for update in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_learning_rate_falls_to_a_tenth_and_stays() -> None:
    config = LearnerConfig(learning_rate=1.0, lr_decay_updates=10)
    rates = [learning_rate(config, update) for update in (0, 5, 10, 30)]
    assert rates == pytest.approx([1.0, 0.55, 0.1, 0.1])


def test_decay_and_warm_up_multiply() -> None:
    config = LearnerConfig(learning_rate=2.0, lr_warmup_updates=4, lr_decay_updates=10)
    assert learning_rate(config, 1) == pytest.approx(2.0 * 0.5 * 0.91)


def test_the_matrices_are_the_linear_layers_inside_the_layers(folder: Path) -> None:
    named = list(policy_module(folder).trainable_parameters())
    matrices, others = layer_matrices(named)
    taken = {name for name, one in named if any(one is matrix for matrix in matrices)}
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert taken == {name for name, _ in named if name.split(".")[-2] in kinds}
    assert len(matrices) == 2 * len(kinds)
    assert len(matrices) + len(others) == len(named)


def test_a_scalar_head_is_no_matrix_of_a_layer(folder: Path) -> None:
    matrices, others = layer_matrices(prm_module(folder, "scalar_head").trainable_parameters())
    assert len(matrices) == 14
    assert any(one.ndim == 2 and one.shape[0] == 1 for one in others)


def test_a_head_of_two_layers_is_no_matrix_of_a_layer() -> None:
    named = [(name, torch.nn.Parameter(torch.zeros(4, 4))) for name in ("score.0.weight", "model.layers.0.w")]
    matrices, others = layer_matrices(named)
    assert [matrices, others] == [[named[1][1]], [named[0][1]]]


def test_the_layers_may_have_another_name() -> None:
    sizes = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 20, "n_positions": 8}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=1))
    matrices, others = layer_matrices(model.named_parameters())
    assert len(matrices) == 2 * 4  # two of attention, two behind it
    assert [one.shape[0] for one in others if one.ndim == 2] == [20, 8]  # embeddings of words and places


def test_muon_without_a_matrix_is_refused() -> None:
    named = [("score.0.weight", torch.nn.Parameter(torch.zeros(4, 4)))]
    for make in (make_optimizers, muon_groups):
        with pytest.raises(ConfigError, match=r"optimizer=muon is for the matrices .*: set optimizer=adamw"):
            make(named, MUON)


@pytest.mark.parametrize(("rows", "columns"), [(64, 256), (256, 64), (128, 128)])
def test_an_update_has_the_size_of_adamws(rows: int, columns: int) -> None:
    """0.2 times the learning rate, as root mean square; Newton-Schulz comes within a fifth of orthogonal."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(rows, columns))
    norm = torch.nn.Parameter(torch.ones(columns))
    named = [("model.layers.0.mlp.weight", weight), ("model.norm.weight", norm)]
    muon = make_optimizers(named, MUON)[0]
    weight.grad = torch.randn(rows, columns)
    muon.step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2 * 1e-2, rel=0.2)


@pytest.mark.parametrize(("rows", "columns"), [(64, 256), (256, 64), (128, 128)])
def test_deepspeeds_groups_ask_for_the_step_of_the_paper(rows: int, columns: int) -> None:
    """Its own rule is p (1 - lr decay) - lr sqrt(max(1, rows / columns)) orthogonal."""
    weight = torch.nn.Parameter(torch.ones(rows, columns))
    group = muon_groups([("model.layers.0.mlp.weight", weight)], MUON)[0]
    orthogonal = np.linalg.qr(np.random.default_rng(0).normal(size=(max(rows, columns),) * 2))[0]
    orthogonal = orthogonal[:rows, :columns]
    made = 1 - group["lr"] * group["weight_decay"] - group["lr"] * max(1, rows / columns) ** 0.5 * orthogonal
    step = 1e-2 * 0.2 * max(rows, columns) ** 0.5 * orthogonal
    np.testing.assert_allclose(made, 1 - 1e-2 * 0.1 - step, rtol=1e-12)


def test_each_shape_has_one_group_and_adamw_has_the_rest(folder: Path) -> None:
    named = list(policy_module(folder).trainable_parameters())
    *muon, adamw = muon_groups(named, MUON)
    assert sorted(tuple(group["params"][0].shape) for group in muon) == [
        (32, 48),
        (32, 64),
        (48, 32),
        (64, 32),
    ]
    assert all(len({one.shape for one in group["params"]}) == 1 for group in muon)
    assert sum(len(group["params"]) for group in (*muon, adamw)) == len(named)


def test_the_plan_counts_the_moments_that_pytorch_keeps(folder: Path) -> None:
    engine = TorchEngine(policy_module(folder), MUON)
    for _, parameter in engine.module.trainable_parameters():
        parameter.grad = torch.ones_like(parameter)
    engine.step()
    states = [state for one in engine.optimizers for state in one.state.values()]
    kept = sum(4 * value.numel() for state in states for value in state.values() if value.ndim)
    shape = parse_shape(json.loads((folder / "config.json").read_text()), "here")
    planned = learner_memory(
        shape, shape.parameters, MUON, dtype="float32", context_tokens=64, logit_bytes=16, on_gpu=False
    )
    assert planned.optimizer == kept


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["policy.lora.rank=4"], "policy.optimizer=muon is for whole matrices, but lora.rank is 4"),
        (["policy.zero_stage=2"], "policy.optimizer=muon needs zero_stage 0, or 1 with model.dtype=bfloat16"),
        (["policy.zero_stage=1"], "but zero_stage is 1 and model.dtype float32"),
        (["policy.zero_stage=2", "model.dtype=bfloat16"], "but zero_stage is 2 and model.dtype bfloat16"),
    ],
)
def test_what_muon_does_not_go_with_is_said_at_once(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(None, ["policy.optimizer=muon", *settings])


@pytest.mark.parametrize("section", ["policy", "prm.learner", "sft.learner"])
def test_every_learner_may_take_muon_in_bfloat16_at_stage_one(section: str) -> None:
    load_config(None, [f"{section}.optimizer=muon", f"{section}.zero_stage=1", "model.dtype=bfloat16"])
