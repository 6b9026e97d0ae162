"""Updates by losses that compare whole solutions: the same whatever the micro-batches and the ranks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from airls_ray.config.schema import LearnerConfig
from airls_ray.config.supervised_section import StepLossConfig, SupervisedPRMConfig
from airls_ray.learning.batches import rank_batches
from airls_ray.learning.engine import TorchEngine
from airls_ray.objectives.step_loss import StepLossInputs
from airls_ray.prm.labelled_sequences import LabelledSequences
from airls_ray.prm.solution_sums import UpdateSolutions
from airls_ray.prm.supervised import measure_labels, update_on_labels
from airls_ray.prm.update_plan import plan_label_updates
from airls_ray.tensors import TokenBatch
from tests.tiny import prm_module
from tests.unit.test_supervised_prm import config, labelled

Gradients = list[torch.Tensor]
LABELS: list[list[float | None]] = [[None, None, float(row % 3 != 0)] for row in range(11)] + [[None] * 3]


class OneOf(TorchEngine):
    """A rank whose first sums over ranks, the solutions', are `truth`; keeps what it said, its gradients."""

    def __init__(self, folder: Path, rank: int, world_size: int, truth: list[dict[str, float]]) -> None:
        module = prm_module(folder, "scalar_head")
        torch.nn.init.ones_(module.model.score.weight)
        super().__init__(module, LearnerConfig(gradient_clip=0.0))
        self.rank, self.world_size, self.truth = rank, world_size, truth
        self.said: list[dict[str, float]] = []
        self.gradients: Gradients = []

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        self.said.append(dict(values))
        return dict(self.truth[len(self.said) - 1]) if len(self.said) <= len(self.truth) else dict(values)

    def step(self) -> float:
        self.gradients = [parameter.grad.clone() for parameter in self._parameters]
        return super().step()


@pytest.mark.parametrize("name", ["implicit_prm_dpo", "implicit_prm_kto", "sprm", "cooper"])
def test_an_update_that_compares_solutions_does_not_depend_on_ranks_or_microbatches(
    folder: Path, name: str
) -> None:
    batch = LabelledSequences.of(labelled(labels=LABELS))

    def updated(engine: OneOf, tokens: int) -> dict[str, float]:
        settings = config(tokens_per_microbatch=tokens)
        loss = StepLossConfig(name=name)
        return update_on_labels(engine, batch, torch.arange(12), settings, pad_id=0, step_loss=loss)

    alone = OneOf(folder, 0, 1, [])
    whole = updated(alone, 100_000)
    ranks = [OneOf(folder, rank, 3, alone.said[:3]) for rank in range(3)]
    losses = [updated(engine, 24)["train_prm/loss"] for engine in ranks]
    assert sum(losses) == pytest.approx(whole["train_prm/loss"], rel=1e-5)
    for row in map(str, range(12)):  # each solution was counted by one rank
        for what in range(3):
            counted = [engine.said[what][row] for engine in ranks]
            assert sum(counted) == pytest.approx(alone.said[what][row], abs=1e-5)
    assert max(float(part.abs().max()) for part in alone.gradients) > 1e-2
    for expected, *parts in zip(alone.gradients, *(engine.gradients for engine in ranks), strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(0), expected, atol=2e-5, rtol=1e-3)


def test_sums_last_steps_and_agreeing_ones_of_every_solution(folder: Path) -> None:
    batch, engine = LabelledSequences.of(labelled(labels=LABELS)), OneOf(folder, 0, 1, [])
    rows, logits = torch.arange(12), torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    logits[3, 1] = 0.0
    parts = rank_batches(engine, batch.sequences, rows, 24, "padded", 0)
    assert len(parts) > 2

    def inputs_of(part: TokenBatch) -> StepLossInputs:
        flat = logits[part.rows].flatten()
        return StepLossInputs.of(
            flat, torch.zeros_like(flat), part.step_rows, torch.zeros_like(part.step_rows)
        )

    made = UpdateSolutions(engine, batch.labels, batch.problems, rows, parts, inputs_of)
    expected = [
        sum(float(x) > 0 if row[-1] == 1.0 else float(x) < 0 for x in values)
        for row, values in zip(LABELS, logits, strict=True)
        if row[-1] is not None
    ]
    found = made.of(parts[0])
    assert found.agreeing.tolist() == expected and len(set(expected)) > 2
    assert found.lasts.tolist() == pytest.approx(logits[:11, 2].double().tolist())
    assert found.sums.tolist() == pytest.approx(logits[:11].double().sum(1).tolist())


def test_a_solution_without_a_label_is_in_no_pair(folder: Path) -> None:
    """The loss by a loop over the pairs of the sums that the ranks share."""
    batch, engine = LabelledSequences.of(labelled(labels=LABELS)), OneOf(folder, 0, 1, [])
    loss = StepLossConfig(name="implicit_prm_dpo")
    found = update_on_labels(engine, batch, torch.arange(12), config(), pad_id=0, step_loss=loss)
    outcomes = [row[-1] for row in LABELS]
    pairs = [
        math.log1p(math.exp(engine.said[0][str(j)] - engine.said[0][str(i)]))
        for i in range(12)
        for j in range(3 * (i // 3), 3 * (i // 3) + 3)
        if outcomes[i] == 1.0 and outcomes[j] == 0.0
    ]
    assert len(pairs) == 7
    assert found["train_prm/loss"] == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)


@pytest.mark.parametrize("name", ["implicit_prm_dpo", "implicit_prm_kto"])
def test_training_on_outcomes_ranks_right_solutions_above_wrong_ones(folder: Path, name: str) -> None:
    """A solution is right where its last token is even, which the head can see."""
    batch, settings = LabelledSequences.of(labelled(8, 4)), config(learning_rate=1e-2)
    labels = labelled(8, 4)
    engine, loss = TorchEngine(prm_module(folder, "scalar_head"), settings.learner), StepLossConfig(name=name)
    before = measure_labels(engine, labels, settings, pad_id=0, step_loss=loss)["prm/loss"]
    for _ in range(30):
        update_on_labels(engine, batch, torch.arange(32), settings, pad_id=0, step_loss=loss)
    assert measure_labels(engine, labels, settings, pad_id=0, step_loss=loss)["prm/loss"] < 0.6 * before


def test_held_out_rows_without_any_label_are_no_loss(folder: Path) -> None:
    table = labelled(labels=[[None] * 3] * 12)
    engine = TorchEngine(prm_module(folder, "scalar_head"), LearnerConfig())
    loss = StepLossConfig(name="implicit_prm_dpo")
    assert measure_labels(engine, table, config(), pad_id=0, step_loss=loss)["prm/loss"] == 0.0


@pytest.mark.parametrize(("name", "whole"), [("implicit_prm_dpo", True), ("implicit_prm", False)])
def test_the_updates_of_a_loss_that_compares_solutions_have_whole_problems(name: str, whole: bool) -> None:
    """Hundreds of problems with eight rollouts, one in five without a label."""
    ids = [f"p{row // 8}" for row in range(4000)]
    rows = torch.tensor([row for row in range(4000) if row % 5])
    section = SupervisedPRMConfig.model_validate({"step_loss": name})
    updates = plan_label_updates(rows, ids, section.step_loss, 128, seed=1)
    assert torch.equal(torch.cat(updates).sort().values, rows)
    problems = [{ids[row] for row in part.tolist()} for part in updates]
    assert (sum(map(len, problems)) == 500) == whole
    assert len(updates) == 25 and max(part.numel() for part in updates) <= 140
