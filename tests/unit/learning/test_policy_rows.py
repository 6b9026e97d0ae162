"""What the policy update computes once, or not at all, changes nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch

from airls_ray.config.schema import LearnerConfig, MethodConfig
from airls_ray.learning.batches import Sequences
from airls_ray.learning.rollout_batches import rollout_batches
from airls_ray.learning.zero_advantages import zero_advantage_is_zero_gradient
from airls_ray.objectives.own_loss import CheckedLoss
from airls_ray.tensors import to_packed
from airls_ray.tensors.equal_rows import first_equal_rows
from tests.tiny import policy_module
from tests.unit.learning.fakes import TEMPERATURE, FakeRank, learner, on_policy, run_policy, step_values

SILENT = (0, 1, 2, 3, 9)
"""A whole group, and a rollout of another."""


class Watched(FakeRank):
    """Keeps how many sequences were passed with a gradient and without."""

    def __init__(self, folder: Path, config: LearnerConfig) -> None:
        super().__init__(policy_module(folder), config, 0, 1)
        self.passed = {True: 0, False: 0}

    def forward(self, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
        self.passed[torch.is_grad_enabled()] += inputs["input_ids"].shape[0]
        return super().forward(inputs, **options)


def with_duplicates(folder: Path) -> pa.Table:
    """Groups of four, of which two rollouts of the second and all of the third are the same response."""
    table = on_policy(folder)
    return pa.concat_tables([table.slice(0, 4), table.take([4, 5, 5, 6]), table.take([8, 8, 8, 8])])


def silenced(table: pa.Table, rows: tuple[int, ...] = SILENT) -> pa.Array:
    """Values of steps, 0 in `rows`."""
    lists = step_values(table).to_pylist()
    return pa.array([[0.0] * len(one) if at in rows else one for at, one in enumerate(lists)])


def gradient_by_hand(folder: Path, table: pa.Table, advantages: pa.Array) -> torch.Tensor:
    """Of -mean(A log pi) over all response tokens, one rollout after the other, without any batch."""
    module = policy_module(folder)
    terms = []
    for row, values in zip(table.to_pylist(), advantages.to_pylist(), strict=True):
        tokens = torch.tensor([row["prompt"] + row["response"]])
        log_softmax = (module.model(tokens).logits[0] / TEMPERATURE).log_softmax(-1)
        for place, token in enumerate(row["response"]):
            step = sum(place >= end for end in row["step_ends"])
            terms.append(-values[step] * log_softmax[len(row["prompt"]) + place - 1, token])
    torch.stack(terms).mean().backward()
    return torch.cat([parameter.grad.flatten() for _, parameter in module.hf_parameters()])


def run(
    folder: Path, table: pa.Table, advantages: pa.Array, **method: Any
) -> tuple[Watched, dict[str, float]]:
    config = learner(learning_rate=1e-9, layout="padded")
    engine = Watched(folder, config)
    metrics = run_policy(engine, table, MethodConfig(name="grpo", **method), config, advantages=advantages)
    return engine, metrics


@pytest.mark.parametrize("rows", [(), SILENT, tuple(range(12))])
def test_the_gradient_is_that_of_every_rollout_by_itself(folder: Path, rows: tuple[int, ...]) -> None:
    table = with_duplicates(folder)
    advantages = silenced(table, rows)
    engine, _ = run(folder, table, advantages)
    given = torch.cat([gradient.flatten() for gradient in engine.gradients])
    assert torch.allclose(given, gradient_by_hand(folder, table, advantages), atol=1e-6)


def test_equal_rollouts_are_one_sequence_to_the_model(folder: Path) -> None:
    engine, metrics = run(folder, with_duplicates(folder), silenced(with_duplicates(folder), ()))
    assert engine.passed == {True: 8, False: 0}  # 4 + 3 + 1 distinct ones
    assert metrics["policy/sequences"] == 8


def test_rollouts_without_advantages_have_no_backward_pass(folder: Path) -> None:
    engine, _ = run(folder, on_policy(folder), silenced(on_policy(folder)))
    assert engine.passed == {True: 11, False: 5}


def test_the_metrics_are_those_of_all_rollouts(folder: Path) -> None:
    table = with_duplicates(folder)
    module = policy_module(folder)
    entropies = []
    for row in table.to_pylist():
        tokens = torch.tensor([row["prompt"] + row["response"]])
        log_softmax = (module.model(tokens).logits[0] / TEMPERATURE).log_softmax(-1)
        predicting = log_softmax[len(row["prompt"]) - 1 : -1]
        entropies.append(-(predicting.exp() * predicting).sum(-1))
    for epochs in (1, 2):
        _, metrics = run(folder, table, silenced(table), epochs=epochs)
        assert metrics["policy/entropy"] == pytest.approx(torch.cat(entropies).mean().item(), abs=1e-5)
        assert metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["policy/tokens"] == sum(len(row) for row in table["response"].to_pylist())
        assert metrics["sync/logprob_difference_max"] == pytest.approx(0.0, abs=1e-5)


def test_a_kl_coefficient_pulls_at_rollouts_without_advantages(folder: Path) -> None:
    table = on_policy(folder)
    reference = pa.table({"logprobs": table["logprobs"]})
    config = learner(learning_rate=1e-9, layout="padded")
    engine = Watched(folder, config)
    method = MethodConfig(name="grpo", kl_coefficient=0.1)
    run_policy(engine, table, method, config, advantages=silenced(table), reference_logprobs=reference)
    assert engine.passed == {True: 16, False: 0}


@pytest.mark.parametrize(("updates", "epochs", "looked_at"), [(1, 1, 0), (1, 3, 0), (2, 1, 8), (4, 2, 12)])
def test_old_log_probabilities_of_the_first_share_are_those_of_its_own_pass(
    folder: Path, updates: int, epochs: int, looked_at: int
) -> None:
    table = on_policy(folder)
    engine, _ = run(folder, table, step_values(table), updates_per_iteration=updates, epochs=epochs)
    assert engine.passed == {True: 16 * epochs, False: looked_at}


def test_a_share_without_any_advantage_is_still_an_update(folder: Path) -> None:
    """Momentum moves the weights, and the learning rate's schedule counts it."""
    table = on_policy(folder)
    _, metrics = run(folder, table, silenced(table, (0, 1, 2, 3)), updates_per_iteration=4)
    assert metrics["policy/updates"] == 4


@pytest.mark.parametrize("name", ["clipped", "dual_clip", "gspo", "cispo"])
@pytest.mark.parametrize(
    ("change", "zero"),
    [({}, True), ({"kl_coefficient": 0.01}, False), ({"entropy_coefficient": 0.01}, False),
     ({"importance_cap": 2.0}, True), ({"sequence_mask": 1.0}, False)],
)  # fmt: skip
def test_a_loss_without_advantages_has_a_gradient_where_something_else_pulls(
    name: str, change: dict[str, float], zero: bool
) -> None:
    method = MethodConfig(name="grpo", policy_loss=name, **change)
    assert zero_advantage_is_zero_gradient(checked(method), method) is zero


def test_the_process_rewards_of_prl_pull_without_advantages() -> None:
    method = MethodConfig(
        name="grpo", policy_loss={"name": "prl", "options": {"step_tokens": 4}}, kl_coefficient=0.01
    )
    assert not zero_advantage_is_zero_gradient(checked(method), method)


def test_a_loss_of_value_zero_may_still_have_a_gradient() -> None:
    method = MethodConfig(name="grpo")

    def pulls(given: Any, *_: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return (given.logprobs - given.logprobs.detach()).sum(), {}

    assert not zero_advantage_is_zero_gradient(CheckedLoss(method.policy_loss.door(), "", pulls), method)


def checked(method: MethodConfig) -> CheckedLoss:
    named = method.policy_loss
    return CheckedLoss(named.door(), named.where, named.open())


def test_equal_rows_are_those_of_equal_lists() -> None:
    made = torch.Generator().manual_seed(0)
    lists = [
        [
            torch.randint(2, (int(torch.randint(4, (), generator=made)),), generator=made).tolist()
            for _ in range(500)
        ]
        for _ in range(2)
    ]
    columns = [to_packed(pa.array(one, pa.list_(pa.int32()))) for one in lists]
    rows = torch.randperm(500, generator=made)[:300]
    pairs = [(lists[0][row], lists[1][row]) for row in rows.tolist()]
    assert first_equal_rows(columns, rows).tolist() == [int(rows[pairs.index(pair)]) for pair in pairs]
    marks = [row % 3 for row in rows.tolist()]
    marked = list(zip(pairs, marks, strict=True))
    assert first_equal_rows(columns, rows, marks).tolist() == [int(rows[marked.index(one)]) for one in marked]


def test_equal_rollouts_are_as_long_as_their_response_however_long_the_prompts_are() -> None:
    """The longest row, which stands first in a micro-batch, has the shorter response."""
    table = pa.table({
        "prompt": [[5] * 9, [6], [6]],
        "response": [[1], [1, 2, 3], [1, 2, 3]],
        "step_ends": [[1], [3], [3]],
    })  # fmt: skip
    engine: Any = SimpleNamespace(rank=0, world_size=1, device="cpu")
    (batch,) = rollout_batches(engine, Sequences.of(table), torch.arange(3), 100, "padded", 0)
    assert batch.rows.tolist() == [0, 1, 2]
    assert batch.row_offsets.tolist() == [0, 1, 4, 7]
    assert batch.token_index is not None and batch.token_index.tolist() == [0, 1, 2, 3, 1, 2, 3]
