"""Step losses of the user's own, beside the built-in ones, and their trial."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.config.schema import Config
from airls_ray.config.supervised_section import StepLossConfig
from airls_ray.errors import DoorError
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.try_step_labels import try_step_loss
from airls_ray.objectives.step_loss import StepLossInputs, StepNormaliser, known_to
from airls_ray.objectives.step_loss_kind import takes_solutions
from airls_ray.prm.labelled_sequences import LabelledSequences
from airls_ray.prm.supervised import measure_labels, update_on_labels
from airls_ray.prm.training import LabelTraining, run_epochs
from tests.tiny import prm_module
from tests.unit.test_supervised_prm import config as prm_config
from tests.unit.test_supervised_prm import labelled

OWN = """
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

def anew(logits, labels, weights, normaliser):
    losses = binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (weights * losses).sum() / normaliser.steps, {"last": weights.sum() * 0.5}
def pqm(logits, labels, weights, step_rows, positions, normaliser, zeta=4.0):
    q, total = logits.double(), logits.double().sum() * 0.0
    for row in step_rows.unique():
        mine = (step_rows == row) & (weights > 0)
        good, bad = mine & (labels > 0.5), mine & (labels <= 0.5)
        floor = (q[bad] + zeta).exp().sum()
        for at in good.nonzero()[:, 0]:
            upto = good & (positions <= positions[at])
            total = total - (q[at] - (q[upto].exp().sum() + floor).log()) / good.sum()
    return total / normaliser.rollouts, {}
def seen(logits, weights, positions, normaliser):
    counts = {"steps": weights.sum() / normaliser.steps, "rollouts": weights.sum() / normaliser.rollouts}
    return logits.sum() / normaliser.steps, {"place": (weights * positions).sum(), **counts}
def mean(logits, labels, weights, normaliser):
    return ((logits.sigmoid() - labels) ** 2 * weights).mean(), {}
def mean_or_none(logits, labels, weights):
    return (weights * softplus(logits)).sum() / max(weights.sum(), 1.0), {}
def of_labels(logits, labels): return (logits.detach() * labels).sum(), {}
def wrong_leaf(logits, labels): return logits.sum() * 0.0, {}
def by_step(logits, labels): return logits, {}
def bare(logits): return logits.sum()
def no_number(logits, normaliser): return logits.log().sum() / normaliser.steps, {}
def reserved(logits, normaliser): return logits.sum() / normaliser.steps, {"accuracy": 1.0}
def odd(logits, label): return logits.sum(), {}
def of_all(logits, normaliser, **rest): return logits.sum() / normaliser.steps, {"given": float(len(rest))}
"""


LABELS = ((1.0, 1.0, 0.0, 1.0, 0.0), (1.0, math.nan, 1.0), (0.0, 0.0))
LOGITS = ((0.3, -0.5, 1.0, 0.2, -2.0), (0.7, 5.0, -0.1), (0.4, -0.4))


def steps_of(rows: slice) -> StepLossInputs:
    labels, logits = LABELS[rows], LOGITS[rows]
    return StepLossInputs.of(
        torch.tensor([x for row in logits for x in row], dtype=torch.float64, requires_grad=True),
        torch.tensor([y for row in labels for y in row], dtype=torch.float64),
        torch.tensor([row for row, values in enumerate(labels) for _ in values]),
        torch.tensor([at for values in labels for at in range(len(values))]),
    )


def loss_by(named: StepLossConfig, given: StepLossInputs) -> float:
    loss, _ = named.open()(known_to(given, StepNormaliser(9, 3), PRMConfig()))
    return float(loss.detach())


def test_a_ranking_loss_compares_the_steps_of_each_solution(own: Path) -> None:
    """PQM's (arXiv 2410.11287), by numpy over whole solutions; of micro-batches the shares add up."""
    zeta, total = 2.0, 0.0
    for labels, logits in zip(LABELS, LOGITS, strict=True):
        bad = sum(math.exp(q + zeta) for q, y in zip(logits, labels, strict=True) if y == 0.0)
        good = [q for q, y in zip(logits, labels, strict=True) if y == 1.0]
        above = np.cumsum(np.exp(good)) + bad
        total += float(-np.mean(np.log(np.exp(good) / above))) if good else 0.0
    named = StepLossConfig(name=f"{own}:pqm", options={"zeta": zeta})
    assert loss_by(named, steps_of(slice(None))) == pytest.approx(total / 3, rel=1e-12)
    parts = [loss_by(named, steps_of(rows)) for rows in (slice(0, 1), slice(1, 3), slice(3, 3))]
    assert sum(parts) == pytest.approx(total / 3, rel=1e-12)
    try_step_loss(named, PRMConfig())


def test_the_cross_entropy_written_down_anew_learns_what_the_built_in_one_learns(
    folder: Path, own: Path
) -> None:
    batch = LabelledSequences.of(labelled(labels=[[1.0, None, 0.25], [0.0, 1.0, None]] * 6))

    def updated(name: str) -> tuple[dict[str, float], list[torch.Tensor]]:
        settings = prm_config(learning_rate=1e-2, tokens_per_microbatch=40)
        engine = TorchEngine(prm_module(folder, "scalar_head"), settings.learner)
        metrics = update_on_labels(
            engine, batch, torch.arange(12), settings, pad_id=0, step_loss=StepLossConfig(name=name)
        )
        return metrics, [one.detach().clone() for one in engine.module.parameters()]

    (built_in, weights), (metrics, mine) = updated("cross_entropy"), updated(f"{own}:anew")
    for a, b in zip(weights, mine, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert metrics.pop("train_prm/last") == 0.5  # a mean over the labelled steps
    assert metrics == pytest.approx(built_in, rel=1e-5)


def test_a_training_on_labels_learns_by_the_loss_that_is_named(folder: Path, own: Path) -> None:
    """Pickled as it goes to a rank, and its file gone: the text of the loss travels along."""
    copy = own.with_name("gone.py")
    copy.write_text(OWN)
    settings = prm_config(learning_rate=3e-3)
    section = {"step_loss": {"name": f"{copy}:pqm", "options": {"zeta": 1.0}}, "epochs": 8}
    sent = pickle.dumps(Config(prm=settings.model_dump(), supervised_prm=section))
    copy.unlink()
    config: Config = pickle.loads(sent)
    engine = TorchEngine(prm_module(folder, "scalar_head"), settings.learner)
    training = LabelTraining(engine, config, labelled(), labelled(), pad_id=0)
    lines = [line for line, _ in run_epochs(training, config.supervised_prm.epochs)]
    assert lines[-1]["prm/loss"] < 0.7 * lines[0]["prm/loss"]
    assert lines[-1]["prm/label_auroc"] > 0.8
    assert lines[1]["train_prm/loss"] > 0.0


def test_a_loss_that_takes_whatever_there_is_costs_no_pass_for_the_solutions(own: Path) -> None:
    named = StepLossConfig(name=f"{own}:of_all")
    assert not takes_solutions(named.open())
    assert takes_solutions(StepLossConfig(name="implicit_prm_dpo").open())
    try_step_loss(named, PRMConfig())


@pytest.mark.parametrize("tokens", [24, 100_000])
def test_a_loss_gets_places_in_solutions_and_counts_of_the_whole_update(
    folder: Path, own: Path, tokens: int
) -> None:
    """16 labels in 8 solutions, in places 0, 2 and 0, 1; sums are shown divided by the labels."""
    settings = prm_config(tokens_per_microbatch=tokens)
    section = {"step_loss": f"{own}:seen"}
    config = Config.model_validate({"prm": settings.model_dump(), "supervised_prm": section})
    table = labelled(labels=[[1.0, None, 0.25], [0.0, 1.0, None], [None, None, None]] * 4)
    engine = TorchEngine(prm_module(folder, "scalar_head"), settings.learner)
    metrics = LabelTraining(engine, config, table, table, pad_id=0).update(torch.arange(12))
    found = [metrics[f"train_prm/{name}"] for name in ("place", "steps", "rollouts")]
    assert found == pytest.approx([0.75, 1 / 16, 1 / 8])


def test_held_out_labels_are_measured_by_the_loss_without_smoothing_or_clip(folder: Path) -> None:
    """A new head says 1/2 to all: the squared error of labels 0 and 1 is 1/4."""
    settings = prm_config()
    engine = TorchEngine(prm_module(folder, "scalar_head"), settings.learner)
    smooth = settings.model_copy(update={"label_smoothing": 0.3, "logit_clip": 0.1})
    squared = StepLossConfig(name="mean_squared_error")
    assert measure_labels(engine, labelled(), smooth, pad_id=0, step_loss=squared)["prm/loss"] == 0.25
    torch.nn.init.constant_(engine.module.model.score.weight, 0.5)
    plain, other = (measure_labels(engine, labelled(), one, pad_id=0) for one in (settings, smooth))
    assert plain == pytest.approx(other, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mean", r"returned [\d.]+ for a micro-batch and [\d.]+ in all for its solutions one by one"),
        ("mean_or_none", r"returned [\d.]+ for a micro-batch and [\d.]+ in all for its solutions one by one"),
        ("of_labels", "returned a loss without gradient"),
        ("wrong_leaf", "returned a loss whose gradient does not reach logits"),
        ("by_step", r"returned a tensor of shape \[13\] as loss, and it must be a tensor of one number"),
        ("bare", "returned a tensor of shape .*, and it must return .loss, sums."),
        ("no_number", "returned nan as loss, and it must be finite"),
        ("reserved", "returned a sum 'accuracy', which has another meaning here"),
        ("odd", r"takes 'label', which nobody gives it \(did you mean 'labels'\?\)"),
        ("nothing", "has no attribute 'nothing'"),
    ],
)
def test_the_trial_of_a_loss_finds_what_is_wrong(own: Path, name: str, said: str) -> None:
    with pytest.raises(DoorError, match=rf"^supervised_prm\.step_loss: .*({said})") as caught:
        try_step_loss(StepLossConfig(name=f"{own}:{name}"), PRMConfig())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cross_entropy", "mean_squared_error"])
def test_the_built_in_losses_pass_the_trial(name: str) -> None:
    try_step_loss(StepLossConfig(name=name), PRMConfig(label_smoothing=0.1, logit_clip=4.0))
