"""A PRM from stored rollouts on a tiny model: what it learns by, from which rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn.functional import softplus
from transformers import AutoModelForCausalLM

from airls_ray.config.method_doors import ObjectiveConfig
from airls_ray.config.schema import Config
from airls_ray.config.supervised_section import LabelRuleConfig
from airls_ray.data.rollout_files import StoredRollouts
from airls_ray.errors import ConfigError, DataError
from airls_ray.learning.engine import FrozenEngine, TorchEngine
from airls_ray.prm.offline import (
    AdversarialTraining,
    problems_to_learn,
    split_stored,
    updates_of_an_epoch,
)
from airls_ray.prm.offline_method import choose_method, fill_logprobs, logprobs_under
from airls_ray.prm.update_plan import plan_problem_updates
from tests.tiny import policy_module
from tests.unit.offline_fakes import engine_of, settings, stored, table_of, values_at


# --------------------------------------------------------------------------------------- method
def test_with_log_probabilities_the_method_stays_as_it_is() -> None:
    config = settings()
    method = choose_method(config, stored(logprobs=True))
    assert (method.name, method.prm, method.notes) == ("airl", config.prm, ())
    assert method.needs_trace_logprobs


def test_without_them_the_logit_of_airl_is_f() -> None:
    method = choose_method(settings(), stored())
    assert (method.prm.discriminator, method.prm.reward) == ("gail", "f")
    assert not method.needs_trace_logprobs
    assert "16 of 16 rollouts have no log-probabilities" in method.notes[0]


def test_one_row_without_them_is_enough() -> None:
    mixed = stored(logprobs=True)
    rollouts = pa.concat_tables([mixed.rollouts.slice(1), stored().rollouts.slice(0, 1)])
    method = choose_method(settings(), StoredRollouts(rollouts, mixed.traces))
    assert method.prm.discriminator == "gail"
    assert "1 of 16" in method.notes[0]


def test_without_them_all_failed_rollouts_of_repirl_weigh_the_same() -> None:
    method = choose_method(settings("repirl"), stored())
    assert (method.name, method.prm.repirl.weight) == ("repirl", "none")
    assert "exp(phi) / pi" in method.notes[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parameterisation": "log_prob"}, "prm.parameterisation=log_prob.*set it to scalar_head"),
        ({"search_score": "ratio"}, "prm.search_score=ratio needs.*set it to sigmoid_f"),
    ],
)
def test_what_needs_log_probabilities_is_refused_without_them(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"16 of 16 rollouts have no log-probabilities, .*{said}"):
        choose_method(settings(**changes), stored())


@pytest.mark.parametrize(
    ("settings_of", "said"),
    [
        ('{"no_such": 1}', "prm.no_such"),
        ('{"no_such": {"a": 1}}', "prm.no_such"),
        ('{"warmup_iterations": -1}', "prm.warmup_iterations"),
    ],
)
def test_settings_of_an_own_objective_that_cannot_be_are_a_sentence(
    tmp_path: Path, settings_of: str, said: str
) -> None:
    (tmp_path / "own.py").write_text(f"class Own:\n    without_log_probs = {settings_of}\n")
    own = ObjectiveConfig(name=f"{tmp_path}/own.py:Own", options={})
    config = settings()
    config = config.model_copy(update={"method": config.method.model_copy(update={"prm_objective": own})})
    with pytest.raises(ConfigError, match=f"{said}.*correct without_log_probs in its class"):
        choose_method(config, stored())


@pytest.mark.parametrize("method", ["grpo", "prime"])
def test_a_method_that_stored_rollouts_cannot_teach_is_refused(method: str) -> None:
    form = {"parameterisation": "log_prob", "search_score": "exp_f"}
    with pytest.raises(ConfigError, match=f"cannot learn by method={method}: take airl_s or repirl"):
        choose_method(settings(method, **form), stored(logprobs=True))


def test_a_preset_of_a_given_prm_learns_from_outcomes_alone() -> None:
    config = settings("orm")
    assert choose_method(config, stored(traces=False)).name == "outcome"
    section = config.supervised_prm.model_copy(update={"labels": LabelRuleConfig(name="math_shepherd_soft")})
    with pytest.raises(
        ConfigError, match=r"no completions of their steps: set supervised_prm.labels=outcome"
    ):
        choose_method(config.model_copy(update={"supervised_prm": section}), stored())


def test_without_traces_correct_rollouts_must_stand_for_them() -> None:
    with pytest.raises(ConfigError, match=r"there is no trace: give --traces, or set prm.correct_rollouts"):
        choose_method(settings(), stored(traces=False))
    assert choose_method(settings(correct_rollouts="reference"), stored(traces=False)).name == "airl"


# ----------------------------------------------------------------------------------- mini-batches
def test_an_update_has_whole_problems_and_an_epoch_every_row_once() -> None:
    ids = [f"p{row % 7}" for row in range(40)]
    learn = [f"p{number}" for number in range(6)]
    updates = plan_problem_updates(ids, learn, 12, seed=3)
    rows = torch.cat(updates).tolist()
    assert sorted(rows) == [row for row in range(40) if ids[row] != "p6"]
    problems = [{ids[row] for row in part.tolist()} for part in updates]
    assert [len(part) for part in problems] == [2, 2, 2]  # 34 rows, 12 wanted
    assert sum(map(len, problems)) == len(set().union(*problems))
    assert rows != torch.cat(plan_problem_updates(ids, learn, 12, seed=4)).tolist()


def test_with_pairing_a_problem_of_one_class_is_not_learned() -> None:
    both = stored(3, 2)
    alone = StoredRollouts(both.rollouts, both.traces.slice(0, 2))
    paired, unpaired = settings(), settings(pair_by_problem=False)
    assert problems_to_learn(*tables(alone), choose_method(paired, alone)) == ["p0", "p1"]
    assert problems_to_learn(*tables(alone), choose_method(unpaired, alone)) == ["p0", "p1", "p2"]


def tables(data: StoredRollouts) -> tuple[pa.Table, pa.Table]:
    return data.rollouts, data.traces


def test_data_without_a_problem_of_both_classes_are_refused() -> None:
    data = stored(3, 2)
    failed = data.rollouts.filter(pa.array([o < 0.5 for o in data.rollouts["outcome"].to_pylist()]))
    config = settings(correct_rollouts="reference", negatives="failed")
    nothing = StoredRollouts(failed, data.traces.slice(0, 0))
    with pytest.raises(DataError, match="no problem outside the held-out ones has both"):
        updates_of_an_epoch(config, choose_method(config, nothing), nothing)


def test_no_trace_of_a_held_out_problem_is_learned_from() -> None:
    learn, held_out = split_stored(stored(8, 2), 0.25, seed=5)
    ours = set(held_out["problem_id"].to_pylist())
    assert len(ours) == 2
    assert not ours & set(learn.traces["problem_id"].to_pylist())
    assert not ours & set(learn.rollouts["problem_id"].to_pylist())
    assert (learn.traces.num_rows, learn.rollouts.num_rows) == (6, 12)


# --------------------------------------------------------------------------------------- updates
def adversarial(
    folder: Path, config: Config, data: StoredRollouts
) -> tuple[AdversarialTraining, TorchEngine]:
    method = choose_method(config, data)
    config = config.model_copy(update={"prm": method.prm})
    engine = engine_of(folder, config)
    return AdversarialTraining(engine, config, method, data, pad_id=0), engine


def test_the_loss_of_airl_without_log_probabilities_is_the_cross_entropy_of_f(folder: Path) -> None:
    data = stored()
    config = settings(pair_by_problem=False)
    training, engine = adversarial(folder, config, data)
    expert, policy = (
        torch.tensor([f for row in values_at(engine, table, "steps") for f in row])
        for table in (data.traces, data.rollouts)
    )
    by_hand = 0.5 * float(softplus(-expert).mean()) + 0.5 * float(softplus(policy).mean())
    assert training.update(torch.arange(16))["train_prm/loss"] == pytest.approx(by_hand, abs=1e-5)


def test_with_log_probabilities_they_are_taken_from_f(folder: Path) -> None:
    """Every token has -1, so the mean over a step is -1."""
    ones = table_of(4, 1, seed=100, logprobs=True, traces=True)
    data = StoredRollouts(stored(logprobs=True).rollouts, ones)
    training, engine = adversarial(folder, settings(pair_by_problem=False), data)
    expert, policy = (
        torch.tensor([f + 1.0 for row in values_at(engine, table, "steps") for f in row])
        for table in (data.traces, data.rollouts)
    )
    by_hand = 0.5 * float(softplus(-expert).mean()) + 0.5 * float(softplus(policy).mean())
    assert training.update(torch.arange(16))["train_prm/loss"] == pytest.approx(by_hand, abs=1e-5)


def test_the_loss_of_repirl_without_log_probabilities_is_a_difference_of_means(folder: Path) -> None:
    data = stored()
    training, engine = adversarial(folder, settings("repirl", output_l2=0.0, pair_by_problem=False), data)
    right = [outcome > 0.5 for outcome in data.rollouts["outcome"].to_pylist()]
    means = [float(np.mean(row)) for row in values_at(engine, data.rollouts, "tokens")]
    experts = [float(np.mean(row)) for row in values_at(engine, data.traces, "tokens")]
    experts += [mean for mean, is_right in zip(means, right, strict=True) if is_right]
    failed = [mean for mean, is_right in zip(means, right, strict=True) if not is_right]
    metrics = training.update(torch.arange(16))
    assert metrics["train_prm/loss"] == pytest.approx(np.mean(failed) - np.mean(experts), abs=1e-5)


def test_an_update_sees_the_traces_of_its_own_problems_alone(folder: Path) -> None:
    data = stored()
    training, _ = adversarial(folder, settings(), data)
    some, all_of_them = training.update(torch.arange(8)), training.update(torch.arange(16))
    assert some["train_prm/sequences"] == 8 + 2
    assert all_of_them["train_prm/sequences"] == 16 + 4


def test_log_probabilities_of_traces_are_those_of_the_policy(folder: Path) -> None:
    traces = stored().traces
    config = settings()
    got = logprobs_under(FrozenEngine(policy_module(folder)), traces, config, pad_id=0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for row in got.to_pylist():
        logits = model(torch.tensor([row["prompt"] + row["response"]])).logits[0].log_softmax(-1).detach()
        at = range(len(row["prompt"]) - 1, len(row["prompt"]) + len(row["response"]) - 1)
        wanted = [float(logits[place, token]) for place, token in zip(at, row["response"], strict=True)]
        assert row["logprobs"] == pytest.approx(wanted, abs=1e-5)


def test_a_prm_that_is_the_policy_starts_at_a_logit_of_zero(folder: Path) -> None:
    policy = FrozenEngine(policy_module(folder))
    config = settings(parameterisation="log_prob")
    under = [logprobs_under(policy, table, config, pad_id=0) for table in tables(stored())]
    training, _ = adversarial(folder, config, StoredRollouts(*under))
    metrics = training.update(torch.arange(16))
    assert metrics["train_prm/loss"] == pytest.approx(math.log(2.0), abs=1e-5)
    assert metrics["train_prm/logit_abs_mean"] == pytest.approx(0.0, abs=1e-5)


def test_a_table_with_all_log_probabilities_keeps_them() -> None:
    table = stored(logprobs=True).rollouts
    assert fill_logprobs(table) is table
    assert {value for row in fill_logprobs(stored().rollouts)["logprobs"].to_pylist() for value in row} == {
        0.0
    }


def test_there_are_no_more_updates_than_problems() -> None:
    """Eight rollouts of two problems, two an update: no problem is cut, and no update is empty."""
    plan = plan_problem_updates(["a"] * 4 + ["b"] * 4, ["a", "b"], 2, 0)
    assert sorted(part.tolist() for part in plan) == [[0, 1, 2, 3], [4, 5, 6, 7]]
