"""A language model's loss beside a scalar head's (GRM): against plain loops and transformers' own passes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from airls_ray.config.schema import LearnerConfig, PRMConfig
from airls_ray.errors import ConfigError, ModelError
from airls_ray.learning.engine import TorchEngine
from airls_ray.models.load import load_prm_module, save_hf
from airls_ray.objectives.text_loss import BETA, check_text_loss, text_loss
from airls_ray.prm.labelled_sequences import LabelledSequences
from airls_ray.prm.supervised import update_on_labels
from tests.tiny import make_policy_folder
from tests.unit.test_supervised_prm import FakeRank, config, labelled

HEAD = PRMConfig(parameterisation="scalar_head")


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("policy"), tie=request.param)


def module_of(folder: Path) -> Any:
    module = load_prm_module(folder, "scalar_head", text_head=True)
    torch.nn.init.normal_(module.model.score.weight, generator=torch.Generator().manual_seed(0))
    return module


def gradients(folder: Path, batch: LabelledSequences, weight: float, tokens: int, ranks: int = 1) -> Any:
    """Mean over the ranks, in the order of the parameters."""
    found = []
    for rank in range(ranks):
        engine = FakeRank(module_of(folder), LearnerConfig(gradient_clip=0.0), rank, ranks)
        settings = config(tokens_per_microbatch=tokens)
        update_on_labels(engine, batch, torch.arange(12), settings, pad_id=0, text_weight=weight)
        found.append(engine.gradients)
    return [torch.stack(parts).mean(0) for parts in zip(*found, strict=True)]


def test_the_loss_is_that_of_a_loop_over_solutions_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 40, (3000,), generator=generator).sort().values * 3
    logprobs = -2 * torch.rand(3000, generator=generator, dtype=torch.float64)
    expected = 0.0
    for row in set(rows.tolist()):
        total = float(logprobs[rows == row].sum())
        expected += float(torch.log1p(torch.exp(torch.tensor(-BETA * total, dtype=torch.float64))))
    assert float(text_loss(logprobs, rows, 50)) == pytest.approx(expected / 50, rel=1e-12)


def test_no_right_solution_is_no_loss_and_has_a_gradient_all_the_same() -> None:
    logprobs = torch.zeros(0, requires_grad=True)
    loss = text_loss(logprobs, torch.zeros(0, dtype=torch.int64), 0)
    loss.backward()
    assert loss.item() == 0.0


def test_the_update_is_that_of_a_language_model_with_a_head(folder: Path) -> None:
    """The backbone's gradient of both losses, from transformers' own causal language model."""
    table, weight = labelled(), 0.3
    batch = LabelledSequences.of(table)
    assert 0 < int(batch.right.sum()) < 12
    module = module_of(folder)
    score = module.model.score.weight.detach().clone()
    names = [name for name, _ in module.trainable_parameters()]
    ours = dict(zip(names, gradients(folder, batch, weight, 10_000), strict=True))

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    step_losses, texts = [], []
    for row, right in zip(table.to_pylist(), batch.right.tolist(), strict=True):
        ids = torch.tensor([row["prompt"] + row["response"]])
        start = len(row["prompt"])
        output = model(ids, output_hidden_states=True)
        values = output.hidden_states[-1][0] @ score[0]
        for end, label in zip(row["step_ends"], row["labels"], strict=True):
            target = torch.tensor(label)
            step_losses.append(
                torch.nn.functional.binary_cross_entropy_with_logits(values[start + end - 1], target)
            )
        if right:
            logprobs = output.logits[0, start - 1 : -1].log_softmax(-1)
            texts.append(logprobs.gather(1, ids[0, start:, None]).sum())
    text = -torch.nn.functional.logsigmoid(BETA * torch.stack(texts)).mean()
    ((1 - weight) * torch.stack(step_losses).mean() + weight * text).backward()
    theirs = {name: parameter.grad for name, parameter in model.named_parameters()}
    tied = model.config.tie_word_embeddings
    for name in set(theirs) - {"lm_head.weight"}:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-6, rtol=1e-3)
    assert ("lm_head.weight" in theirs) is not tied  # another output layer stays as it was


def test_the_update_does_not_depend_on_ranks_or_microbatches(folder: Path) -> None:
    batch = LabelledSequences.of(labelled())
    whole = gradients(folder, batch, 0.5, 100_000)
    shares = gradients(folder, batch, 0.5, 24, ranks=3)
    assert max(float(part.abs().max()) for part in whole) > 1e-3
    for part, expected in zip(shares, whole, strict=True):
        torch.testing.assert_close(part, expected, atol=1e-6, rtol=1e-4)


def test_right_is_the_outcome_and_without_one_the_labels() -> None:
    table = labelled(1, 3, labels=[[1.0, 1.0, 0.0], [0.0, 0.9, 1.0], [1.0, None, 0.6]])
    at = table.schema.get_field_index("outcome")
    given = table.set_column(at, table.schema.field(at), pa.array([1.0, None, None], pa.float32()))
    assert LabelledSequences.of(given).right.tolist() == [True, False, True]


def test_what_is_saved_is_the_token_classifier_alone(folder: Path, tmp_path: Path) -> None:
    module = module_of(folder)
    engine = TorchEngine(module, LearnerConfig())
    save_hf(module, dict(engine.named_weights()), folder, tmp_path)
    again = load_prm_module(tmp_path, "scalar_head")
    assert set(dict(again.hf_parameters())) == set(dict(module.hf_parameters()))
    assert not any("text_head" in name or "lm_head" in name for name in dict(again.hf_parameters()))


def test_a_folder_without_an_output_layer_is_refused(tmp_path: Path) -> None:
    policy = make_policy_folder(tmp_path / "policy")
    save_hf(load_prm_module(policy, "scalar_head"), None, policy, tmp_path / "prm")
    with pytest.raises(ModelError, match=r"supervised_prm\.text_loss.*lm_head\.weight"):
        load_prm_module(tmp_path / "prm", "scalar_head", text_head=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parameterisation": "log_prob"}, "needs prm.parameterisation=scalar_head .* log_prob"),
        ({"outcome_head": 1.0}, "needs prm.outcome_head=null .* 1.0"),
        ({"shaping": True}, "needs prm.shaping=false"),
        ({"learner": {"zero_stage": 3}}, "zero_stage below 3"),
    ],
)
def test_a_form_without_a_place_for_it_is_refused(changes: dict[str, Any], said: str) -> None:
    form = PRMConfig.model_validate({"parameterisation": "scalar_head", **changes})
    with pytest.raises(ConfigError, match=said):
        check_text_loss(0.01, form)
    check_text_loss(0.0, form)


def test_an_adversarial_objective_is_refused() -> None:
    with pytest.raises(ConfigError, match="take method=orm"):
        check_text_loss(0.01, HEAD, adversarial=True)


def test_the_text_loss_by_hand_with_the_published_beta() -> None:
    """One solution of 30 nats: -log sigmoid(-0.1 * 30) = log(1 + e^3)."""
    loss = text_loss(torch.full((3,), -10.0), torch.zeros(3, dtype=torch.int64), 1)
    assert float(loss) == pytest.approx(math.log1p(math.exp(3.0)), rel=1e-6)


def test_a_solution_with_a_label_of_one_half_is_not_right_where_no_outcome_is_known() -> None:
    table = labelled()
    for name, values in (
        ("outcome", [None] * table.num_rows),
        (
            "labels",
            [[0.5 if row == 1 else 1.0] * len(one) for row, one in enumerate(table["labels"].to_pylist())],
        ),
    ):
        at = table.column_names.index(name)
        table = table.set_column(at, table.field(at), pa.array(values, table.field(at).type))
    right = LabelledSequences.of(table).right.tolist()
    assert right == [row != 1 for row in range(table.num_rows)]
