"""A PRM from labels: its loss, its update, its held-out figures and its split."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.special import log_expit
from torch.nn.functional import binary_cross_entropy_with_logits

from airls_ray.config.schema import LearnerConfig, PRMConfig
from airls_ray.config.supervised_section import StepLossConfig
from airls_ray.data.schemas import PRM_LABELS
from airls_ray.errors import ConfigError, DataError
from airls_ray.evaluation.labels import measure_labels_themselves, measure_log_prob, measure_step_scores
from airls_ray.learning.engine import TorchEngine
from airls_ray.objectives.step_loss import StepLossInputs, StepNormaliser, known_to, measured_sums
from airls_ray.prm.labelled_sequences import LabelledSequences
from airls_ray.prm.supervised import (
    check_form,
    measure_labels,
    split_by_problem,
    update_on_labels,
)
from airls_ray.prm.update_plan import plan_updates
from tests.tiny import make_rollouts, prm_module

NONE = math.nan


def inputs(logits: list[float], labels: list[float]) -> StepLossInputs:
    """The steps of one solution."""
    place = torch.arange(len(logits))
    return StepLossInputs.of(
        torch.tensor(logits, dtype=torch.float64, requires_grad=True),
        torch.tensor(labels, dtype=torch.float64),
        torch.zeros_like(place),
        place,
    )


def loss_of(given: StepLossInputs, steps: int, name: Any = "cross_entropy", **prm: Any) -> torch.Tensor:
    """A built-in loss, which has no sums of its own."""
    named = StepLossConfig.model_validate(name)
    loss, sums = named.open()(known_to(given, StepNormaliser(steps, 1), PRMConfig(**prm)))
    assert sums == {}
    value: torch.Tensor = loss
    return value


# ---------------------------------------------------------------------------------- objective
def test_the_loss_is_the_cross_entropy_of_float64() -> None:
    logits, labels = [-3.0, 0.5, 40.0, -40.0, 2.0], [0.0, 0.25, 1.0, 1.0, 0.875]
    loss = loss_of(inputs(logits, labels), 5)
    x, y = np.array(logits), np.array(labels)
    assert loss.item() == pytest.approx(
        float(-(y * log_expit(x) + (1 - y) * log_expit(-x)).mean()), rel=1e-12
    )


def test_a_loss_by_hand() -> None:
    """One good step at logit ln 3 (probability 3/4), one half-good step at 0."""
    ours = inputs([math.log(3.0), 0.0], [1.0, 0.5])
    loss, sums = loss_of(ours, 2), measured_sums(ours)
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2.0)) / 2)
    assert {name: float(value) for name, value in sums.items()} == pytest.approx(
        {"weight": 2.0, "correct": 2.0, "label": 1.5, "logit_abs": math.log(3.0)}
    )


def test_the_gradient_is_that_of_torch() -> None:
    ours = inputs([-1.0, 0.3, 2.0], [0.0, 0.6, 1.0])
    loss_of(ours, 3).backward()
    theirs = torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    binary_cross_entropy_with_logits(theirs, ours.labels).backward()
    torch.testing.assert_close(ours.logits.grad, theirs.grad)


def test_a_step_without_a_label_has_neither_loss_nor_gradient() -> None:
    ours = inputs([5.0, 1.0], [NONE, 1.0])
    loss, sums = loss_of(ours, 1), measured_sums(ours)
    loss.backward()
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1.0)))
    assert float(ours.logits.grad[0]) == 0.0
    assert float(sums["weight"]) == 1.0


def test_smoothing_moves_the_targets_towards_a_half() -> None:
    smoothed = loss_of(inputs([1.0, -2.0], [1.0, 0.0]), 2, label_smoothing=0.1)
    plain = loss_of(inputs([1.0, -2.0], [0.9, 0.1]), 2)
    assert smoothed.item() == pytest.approx(plain.item())


def test_a_clipped_logit_has_a_bounded_loss_and_no_gradient() -> None:
    ours = inputs([-9.0, 1.0], [1.0, 1.0])
    loss = loss_of(ours, 1, logit_clip=4.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log1p(math.exp(4.0)) + math.log1p(math.exp(-1.0)))
    assert float(ours.logits.grad[0]) == 0.0 > float(ours.logits.grad[1])


def test_the_squared_error_is_that_of_float64_and_of_labelled_steps_alone() -> None:
    logits, labels = [-3.0, 0.5, 40.0, 9.0], [0.0, 0.25, 1.0, NONE]
    ours = inputs(logits, labels)
    loss = loss_of(ours, 3, "mean_squared_error")
    wanted = [(1 / (1 + math.exp(-x)) - y) ** 2 for x, y in zip(logits[:3], labels[:3], strict=True)]
    assert loss.item() == pytest.approx(sum(wanted) / 3, rel=1e-12)
    loss.backward()
    assert float(ours.logits.grad[3]) == 0.0 != float(ours.logits.grad[1])


# ------------------------------------------------------------------------------------- tables
def labelled(groups: int = 4, size: int = 3, **columns: list[Any]) -> pa.Table:
    """Rollouts of three steps; labels by the token at the end of the step: good where it is even."""
    table = make_rollouts(groups, size, steps=3)
    rows = table.to_pylist()
    values = {name: [row.get(name) for row in rows] for name in PRM_LABELS.names}
    values["labels"] = [
        [float(row["response"][end - 1] % 2 == 0) for end in row["step_ends"]] for row in rows
    ]
    values["outcome"] = [row[-1] for row in values["labels"]]
    values |= columns
    return pa.table({field.name: pa.array(values[field.name], field.type) for field in PRM_LABELS})


def config(**learner: Any) -> PRMConfig:
    return PRMConfig(
        parameterisation="scalar_head", search_aggregate="last", learner={"gradient_clip": 0.0, **learner}
    )


class FakeRank(TorchEngine):
    """One of several ranks: keeps its gradients."""

    def __init__(self, module: Any, learner: LearnerConfig, rank: int, world_size: int) -> None:
        super().__init__(module, learner)
        self.rank, self.world_size = rank, world_size
        self.gradients: list[torch.Tensor] = []

    def step(self) -> float:
        self.gradients = [parameter.grad.clone() for parameter in self._parameters]
        return super().step()


def test_the_update_does_not_depend_on_ranks_or_microbatches(folder: Path) -> None:
    rows = labelled().to_pylist()
    labels: list[list[float | None]] = [row["labels"] for row in rows]
    for number, values in enumerate(labels):
        values[number % 3] = None  # as many labelled steps in no two micro-batches
        if number % 4 == 0:
            values[:2] = [None, None]
    batch = LabelledSequences.of(labelled(labels=labels))

    def gradients(rank: int, ranks: int, tokens: int) -> list[torch.Tensor]:
        module = prm_module(folder, "scalar_head")
        torch.nn.init.ones_(module.model.score.weight)  # a head of zeros gives the backbone no gradient
        engine = FakeRank(module, LearnerConfig(gradient_clip=0.0), rank, ranks)
        update_on_labels(engine, batch, torch.arange(12), config(tokens_per_microbatch=tokens), pad_id=0)
        return engine.gradients

    whole = gradients(0, 1, 100_000)
    shares = [gradients(rank, 3, 24) for rank in range(3)]
    assert max(float(part.abs().max()) for part in whole) > 1e-3
    for parts, expected in zip(zip(*shares, strict=True), whole, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(0), expected, atol=1e-6, rtol=1e-4)


def test_the_loss_is_read_at_the_last_token_of_each_step(folder: Path) -> None:
    table = labelled(2, 2)
    module = prm_module(folder, "scalar_head")
    torch.nn.init.normal_(module.model.score.weight, generator=torch.Generator().manual_seed(0))
    losses = []
    for row in table.to_pylist():
        logits = module.model(torch.tensor([row["prompt"] + row["response"]])).logits[0, :, 0].detach()
        for end, label in zip(row["step_ends"], row["labels"], strict=True):
            logit = logits[len(row["prompt"]) + end - 1]
            losses.append(float(binary_cross_entropy_with_logits(logit, torch.tensor(label))))
    engine = TorchEngine(module, LearnerConfig())
    metrics = update_on_labels(engine, LabelledSequences.of(table), torch.arange(4), config(), pad_id=0)
    assert metrics["train_prm/loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_a_prm_learns_its_labels_by_heart_and_the_figures_say_so(folder: Path) -> None:
    table = labelled()
    settings = config(learning_rate=3e-3)
    engine = TorchEngine(prm_module(folder, "scalar_head"), settings.learner)
    before = measure_labels(engine, table, settings, pad_id=0)
    assert before["prm/loss"] == pytest.approx(math.log(2.0))  # a new head says 1/2 to all
    assert before["prm/label_auroc"] == 0.5
    batch = LabelledSequences.of(table)
    for _ in range(40):
        update_on_labels(engine, batch, torch.arange(12), settings, pad_id=0)
    after = measure_labels(engine, table, settings, pad_id=0)
    assert after["prm/loss"] < 0.1
    assert after["prm/label_auroc"] == after["prm/trace_auroc"] == after["prm/accuracy"] == 1.0
    assert math.isnan(after["prm/step_auroc"])  # no truth is known


LANGUAGE = PRMConfig(parameterisation="log_prob", search_score="ratio")


def test_a_language_models_logit_is_what_it_gives_a_step_over_the_policy(folder: Path) -> None:
    table = labelled(2, 2)
    logprobs = pa.array([[-0.1 * (place + 1) for place in range(len(row))] for row in table["response"]])
    table = table.set_column(
        table.column_names.index("logprobs"), "logprobs", logprobs.cast(pa.list_(pa.float32()))
    )
    module, losses = prm_module(folder, "log_prob"), []
    for row in table.to_pylist():
        tokens = torch.tensor([row["prompt"] + row["response"]])
        log_probs = (module.model(tokens).logits[0].detach().double() / 0.7).log_softmax(-1)
        starts = [0, *row["step_ends"][:-1]]
        for start, end, label in zip(starts, row["step_ends"], row["labels"], strict=True):
            places = range(start, end)
            before = len(row["prompt"]) - 1
            phi = sum(float(log_probs[before + at, row["response"][at]]) for at in places)
            logit = torch.tensor(phi - sum(row["logprobs"][at] for at in places))
            losses.append(float(binary_cross_entropy_with_logits(logit, torch.tensor(label).double())))
    engine = TorchEngine(module, LearnerConfig())
    batch, rows = LabelledSequences.of(table), torch.arange(4)
    metrics = update_on_labels(engine, batch, rows, LANGUAGE, pad_id=0, temperature=0.7)
    assert metrics["train_prm/loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_a_language_model_needs_the_log_probabilities_of_the_policy(folder: Path) -> None:
    assert LabelledSequences.of(labelled(logprobs=[None] * 12)).logprobs is None
    with pytest.raises(ConfigError, match="no log-probabilities of the policy"):
        check_form(LANGUAGE, logprobs=False)
    check_form(LANGUAGE)


def test_a_sharded_measurement_is_the_measurement_of_one_rank(folder: Path) -> None:
    table = labelled()
    module = prm_module(folder, "scalar_head")
    torch.nn.init.normal_(module.model.score.weight, generator=torch.Generator().manual_seed(0))

    class Half(FakeRank):
        """Rank `rank` of two: what the other rank would add comes from `others`, call by call."""

        def __init__(self, rank: int, others: list[dict[str, float]] | None) -> None:
            super().__init__(module, LearnerConfig(), rank, 2)
            self.said: list[dict[str, float]] = []
            self.others = others

        def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
            self.said.append(dict(values))
            if self.others is None:
                return dict(values)
            other = self.others[len(self.said) - 1]
            return {name: value + other[name] for name, value in values.items()}

    first = Half(0, None)
    measure_labels(first, table, config(), pad_id=0)
    both = measure_labels(Half(1, first.said), table, config(), pad_id=0)
    alone = measure_labels(TorchEngine(module, LearnerConfig()), table, config(), pad_id=0)
    assert both == pytest.approx(alone, rel=1e-5, nan_ok=True)


# ------------------------------------------------------------------------------------ figures
def table_for_figures() -> pa.Table:
    """Two rollouts of two steps; the truth of the second is unknown."""
    values: dict[str, Any] = {
        "problem_id": ["a", "b"],
        "prompt": [[3], [3]],
        "response": [[4, 5, 6], [4, 7]],
        "step_ends": [[1, 3], [1, 2]],
        "labels": [[0.75, None], [0.25, 0.0]],
        "outcome": [1.0, 0.0],
        "logprobs": [[-1.0, -0.5, -0.5], [-2.0, -4.0]],
        "step_truth": [[False, True], None],
    }
    return pa.table({f.name: pa.array(values.get(f.name, [None, None]), f.type) for f in PRM_LABELS})


def test_every_figure_is_against_its_own_truth() -> None:
    scores = np.array([0.6, 0.9, 0.7, 0.8])
    measured = measure_step_scores(table_for_figures(), scores, "prod")
    assert measured == pytest.approx(
        {
            "label_auroc": 0.0,  # 0.6 below 0.7 and 0.8
            "step_auroc": 1.0,  # 0.9 above 0.6
            "trace_auroc": 0.0,  # 0.54 below 0.56, though the last step is above
            "label_auroc_within": math.nan,
            "step_auroc_within": 1.0,
            "trace_auroc_within": math.nan,
        },
        nan_ok=True,
    )


def test_traces_within_a_problem_are_ranked_apart_from_those_of_others() -> None:
    table = pa.concat_tables([table_for_figures(), table_for_figures()])
    outcomes = pa.array([1.0, 0.0, 0.0, 0.0], pa.float32())  # a, b, a, b
    table = table.set_column(table.column_names.index("outcome"), "outcome", outcomes)
    measured = measure_step_scores(table, np.array([0.6, 0.9, 0.7, 0.8, 0.5, 0.9, 0.9, 0.9]), "prod")
    assert measured["trace_auroc_within"] == 1.0  # of problem a, 0.54 above 0.45; b has no right one
    assert measured["trace_auroc"] == pytest.approx(1 / 3)  # 0.54 below 0.56 and 0.81


def test_the_control_is_the_log_probability_of_steps_and_traces() -> None:
    measured = measure_log_prob(table_for_figures())
    assert measured["label_auroc"] == 1.0  # -1 above -2 and -4
    assert measured["step_auroc"] == 0.5  # -1 and -1
    assert measured["trace_auroc"] == 1.0  # -2 above -6


def test_labels_themselves_are_measured_where_the_truth_is_known() -> None:
    table = table_for_figures()
    assert math.isnan(measure_labels_themselves(table)["step_auroc"])  # one labelled step alone
    place = table.column_names.index("labels")
    labels = pa.array([[0.75, 0.25], [0.25, 0.0]], pa.list_(pa.float32()))
    full = table.set_column(place, PRM_LABELS.field("labels"), labels)
    assert measure_labels_themselves(full) == {"step_auroc": 0.0}  # the right step has the lower label
    assert measure_labels_themselves(full.slice(1)) == {}


def test_without_log_probabilities_there_is_no_control() -> None:
    table = table_for_figures()
    place = table.column_names.index("logprobs")
    logprobs = pa.array([[-1.0, -0.5, -0.5], None], pa.list_(pa.float32()))
    assert measure_log_prob(table.set_column(place, PRM_LABELS.field("logprobs"), logprobs)) == {}


# -------------------------------------------------------------------------------------- split
def test_no_problem_is_on_both_sides_and_none_is_lost() -> None:
    table = labelled(10, 3)
    learn, held_out = (set(part["problem_id"].to_pylist()) for part in split_by_problem(table, 0.3, 1))
    assert len(held_out) == 3
    assert not learn & held_out
    assert len(learn | held_out) == 10


def test_the_split_does_not_depend_on_the_order_of_rows() -> None:
    table = labelled(10, 3)
    turned = table.take(list(range(29, -1, -1)))
    held_out = [set(split_by_problem(each, 0.3, 1)[1]["problem_id"].to_pylist()) for each in (table, turned)]
    assert held_out[0] == held_out[1]


def test_nothing_is_held_out_if_so_asked() -> None:
    assert split_by_problem(labelled(), 0.0, 1)[1].num_rows == 0


def test_a_single_problem_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match=r"have 1 problems.*set it to 0"):
        split_by_problem(labelled(1), 0.1, 1)


def test_an_epoch_is_every_labelled_row_once() -> None:
    labels: list[list[float | None]] = [[1.0, None, None]] * 11 + [[None, None, None]]
    rows = LabelledSequences.of(labelled(labels=labels)).rows_with_labels
    updates = plan_updates(rows, 4, seed=3)
    assert sorted(torch.cat(updates).tolist()) == list(range(11))
    assert [part.numel() for part in updates] == [4, 4, 3]
    assert torch.cat(updates).tolist() != torch.cat(plan_updates(rows, 4, seed=4)).tolist()


@pytest.mark.parametrize(
    ("field", "value"), [("search_score", "exp_f"), ("action", "token"), ("shaping", True)]
)
def test_a_form_that_labels_cannot_teach_is_refused(field: str, value: Any) -> None:
    form = {"parameterisation": "log_prob" if field == "search_score" else "scalar_head", field: value}
    with pytest.raises(ConfigError, match=f"needs prm.{field}="):
        check_form(PRMConfig(**form))


def test_a_label_of_one_half_is_that_of_a_wrong_step() -> None:
    """0.9 of a right step is above 0.05 and 0.1 of two that are not."""
    table = pa.table({
        "labels": pa.array([[1.0, 0.5, 0.0]], pa.list_(pa.float32())),
        "outcome": pa.array([1.0], pa.float32()),
        "step_truth": pa.array([None], pa.list_(pa.bool_())),
        "problem_id": ["p"],
    })  # fmt: skip
    found = measure_step_scores(table, np.array([0.9, 0.05, 0.1]), "last")
    assert (found["label_auroc"], found["label_auroc_within"]) == (1.0, 1.0)


@pytest.mark.parametrize("option", [{"logit_clip": 1e-3}, {"label_smoothing": 0.3}])
def test_the_held_out_loss_is_of_logits_and_labels_as_they_are(
    folder: Path, option: dict[str, float]
) -> None:
    module = prm_module(folder, "scalar_head")
    with torch.no_grad():
        module.model.score.weight.copy_(torch.linspace(-1, 1, module.model.score.weight.numel()))
    plain = config()
    losses = [
        measure_labels(TorchEngine(module, LearnerConfig()), labelled(), one, pad_id=0)["prm/loss"]
        for one in (plain, plain.model_copy(update=option))
    ]
    assert losses[0] == losses[1] != pytest.approx(math.log(2.0), abs=1e-3)
