"""The second output of a scalar head (BiRM): against plain loops, and the token classifier's own pass."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from airls_ray.config import load_config
from airls_ray.config.schema import LearnerConfig, PRMConfig
from airls_ray.errors import ConfigError
from airls_ray.evaluation.labels import measure_step_scores
from airls_ray.learning.engine import TorchEngine
from airls_ray.models.load import load_prm_module, save_hf
from airls_ray.objectives.outcome_head import combined_logit, outcome_head_error
from airls_ray.objectives.step_loss import StepLossInputs
from airls_ray.prm.folder import FILE, read_prm_form, write_prm_form
from airls_ray.prm.labelled_sequences import LabelledSequences
from airls_ray.prm.prefix_scores import PrefixScorer
from airls_ray.prm.supervised import measure_labels, update_on_labels
from airls_ray.search.scoring import Continuation
from tests.unit.test_supervised_prm import NONE, labelled

BETA = 1.5
PRM = {"parameterisation": "scalar_head", "outcome_head": BETA, "search_aggregate": "last"}


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def mixed(process: float, outcome: float) -> float:
    """outcome + beta process of the paper, over 1 + beta."""
    return (sigmoid(outcome) + BETA * sigmoid(process)) / (1.0 + BETA)


def test_the_combined_logit_is_that_of_the_weighted_mean() -> None:
    process, outcome = 3.0 * torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)).double()
    found = combined_logit(process, outcome, BETA).sigmoid().tolist()
    wanted = [mixed(*pair) for pair in zip(process.tolist(), outcome.tolist(), strict=True)]
    assert found == pytest.approx(wanted, abs=1e-5)
    assert bool(
        combined_logit(torch.tensor([90.0, -90.0]), torch.tensor([90.0, -90.0]), BETA).isfinite().all()
    )


def solutions(seed: int) -> tuple[list[list[float]], list[list[float]]]:
    """Outcome logits and labels of 400 solutions of 0 to 7 steps, some without a label."""
    generator = torch.Generator().manual_seed(seed)
    logits, labels = [], []
    for _ in range(400):
        count = int(torch.randint(0, 8, (1,), generator=generator))
        logits.append(torch.randn(count, generator=generator, dtype=torch.float64).tolist())
        drawn = torch.rand(count, generator=generator, dtype=torch.float64)
        hidden = torch.rand(count, generator=generator) < 0.3
        labels.append([NONE if hide else value for value, hide in zip(drawn.tolist(), hidden, strict=True)])
    return logits, labels


def inputs_of(logits: list[list[float]], labels: list[list[float]]) -> StepLossInputs:
    rows = [row for row, one in enumerate(labels) for _ in one]
    outcome = torch.tensor([x for one in logits for x in one], dtype=torch.float64, requires_grad=True)
    flat = torch.tensor([y for one in labels for y in one], dtype=torch.float64)
    place = torch.tensor([at for one in labels for at in range(len(one))])
    return StepLossInputs.of(torch.zeros_like(flat), flat, torch.tensor(rows), place, outcome)


def error_in_a_loop(logits: list[list[float]], labels: list[list[float]]) -> float:
    total = 0.0
    for row, values in zip(logits, labels, strict=True):
        known = [value for value in values if not math.isnan(value)]
        for x, value in zip(row, values, strict=True):
            total += 0.0 if math.isnan(value) else (sigmoid(x) - known[-1]) ** 2
    return total


def test_the_outcome_of_each_solution_is_its_last_label() -> None:
    logits, labels = solutions(0)
    given = inputs_of(logits, labels)
    found = outcome_head_error(given)
    assert found.item() == pytest.approx(error_in_a_loop(logits, labels), rel=1e-10)
    found.backward()
    assert given.outcome_logits is not None and given.outcome_logits.grad is not None
    flat = [(row, at) for row, one in enumerate(logits) for at in range(len(one))]
    for number in range(0, len(flat), 97):
        row, at = flat[number]
        slopes = []
        for step in (1e-6, -1e-6):
            moved = [list(one) for one in logits]
            moved[row][at] += step
            slopes.append(error_in_a_loop(moved, labels))
        slope = (slopes[0] - slopes[1]) / 2e-6
        assert float(given.outcome_logits.grad[number]) == pytest.approx(slope, abs=1e-6)


def test_a_micro_batch_without_steps_has_no_error() -> None:
    assert outcome_head_error(inputs_of([], [])).item() == 0.0


# ------------------------------------------------------------------------------------- a model
def module_of(folder: Path) -> Any:
    module = load_prm_module(folder, "scalar_head", outcome_beta=BETA)
    torch.manual_seed(3)
    torch.nn.init.normal_(module.model.score.weight)
    return module


def outputs_at(module: Any, tokens: list[int], places: list[int]) -> Tensor:
    """Both outputs of the token classifier itself, [places, 2]."""
    with torch.no_grad():
        outputs: Tensor = module.model(input_ids=torch.tensor([tokens])).logits[0].double()
    return outputs[places]


def test_training_adds_the_errors_of_both_outputs(folder: Path) -> None:
    table = labelled()
    module = module_of(folder)
    total, right = 0.0, 0
    for row in table.to_pylist():
        places = [len(row["prompt"]) + end - 1 for end in row["step_ends"]]
        outputs = outputs_at(module, row["prompt"] + row["response"], places).tolist()
        for (process, outcome), label in zip(outputs, row["labels"], strict=True):
            total += (sigmoid(process) - label) ** 2 + (sigmoid(outcome) - row["labels"][-1]) ** 2
            right += (process > 0) == (label > 0.5)
    steps = 3 * table.num_rows
    engine = TorchEngine(module, LearnerConfig(gradient_clip=0.0))
    metrics = update_on_labels(
        engine,
        LabelledSequences.of(table),
        torch.arange(table.num_rows),
        PRMConfig(**PRM, learner={"tokens_per_microbatch": 60}),
        pad_id=0,
        step_loss=load_config(None, ["supervised_prm.step_loss=mean_squared_error"]).supervised_prm.step_loss,
    )
    assert metrics["train_prm/loss"] == pytest.approx(total / steps, rel=1e-5)
    assert metrics["train_prm/accuracy"] == pytest.approx(right / steps)


def test_held_out_figures_are_of_the_combined_score(folder: Path) -> None:
    table, module = labelled(), module_of(folder)
    scores: dict[str, list[float]] = {"both": [], "process": []}
    for row in table.to_pylist():
        places = [len(row["prompt"]) + end - 1 for end in row["step_ends"]]
        for process, outcome in outputs_at(module, row["prompt"] + row["response"], places).tolist():
            scores["both"].append(mixed(process, outcome))
            scores["process"].append(sigmoid(process))
    wanted = {name: measure_step_scores(table, np.array(one), "last") for name, one in scores.items()}
    engine = TorchEngine(module, LearnerConfig())
    found = measure_labels(engine, table, PRMConfig(**PRM), pad_id=0)
    assert found["prm/label_auroc"] == pytest.approx(wanted["both"]["label_auroc"])
    assert wanted["both"]["label_auroc"] != pytest.approx(wanted["process"]["label_auroc"])


def test_both_outputs_learn_what_they_are_taught(folder: Path) -> None:
    table = labelled()
    config = PRMConfig(**PRM, learner={"gradient_clip": 0.0})
    engine = TorchEngine(
        load_prm_module(folder, "scalar_head", outcome_beta=BETA), LearnerConfig(learning_rate=1e-2)
    )
    batch = LabelledSequences.of(table)
    for _ in range(60):
        update_on_labels(engine, batch, torch.arange(table.num_rows), config, pad_id=0)
    found = measure_labels(engine, table, config, pad_id=0)
    assert found["prm/accuracy"] > 0.9
    assert found["prm/outcome_error"] < 0.15 < 0.25


def test_a_search_scores_by_both(folder: Path) -> None:
    prompt, steps = (5, 6, 7), ((2, 3, 4), (8, 9))
    module = module_of(folder)
    outputs = outputs_at(module.eval(), [*prompt, *steps[0], *steps[1]], [5, 7]).tolist()
    one = PrefixScorer(module, PRMConfig(**PRM), temperature=1.0, device=torch.device("cpu"))
    item = Continuation(prompt, (*steps[0], *steps[1]), (3, 5), (-1.0, -1.0))
    assert one.score([item])[0][0] == pytest.approx([mixed(*pair) for pair in outputs], abs=1e-5)


def test_a_folder_says_that_its_head_has_two_outputs(folder: Path, tmp_path: Path) -> None:
    module = module_of(folder)
    save_hf(module, None, folder, tmp_path)
    write_prm_form(PRMConfig(**PRM), tmp_path)
    form = read_prm_form(tmp_path, PRMConfig())
    assert form.outcome_head == BETA
    again = load_prm_module(tmp_path, form.parameterisation, outcome_beta=form.outcome_head)
    hidden = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.values(hidden), module.values(hidden))  # type: ignore[union-attr]


def test_an_older_folder_has_one(tmp_path: Path) -> None:
    write_prm_form(PRMConfig(parameterisation="scalar_head"), tmp_path)
    form = json.loads((tmp_path / FILE).read_text())
    del form["outcome_head"]
    (tmp_path / FILE).write_text(json.dumps(form))
    assert read_prm_form(tmp_path, PRMConfig()).outcome_head is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=grpo"], "second output of a scalar head: set parameterisation=scalar_head"),
        (["method=orm", "prm.shaping=true"], "second output of a scalar head: .* shaping=false"),
        (
            ["method=airl_s", "prm.parameterisation=scalar_head"],
            r"learned from labels \(train-prm\), and method\.prm_objective=airl has none",
        ),
    ],
)
def test_where_there_is_no_outcome_head_is_said_before_a_run(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, ["prm.outcome_head=1.0", *overrides])
