"""PRM batches, discriminator updates and step scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from airls_ray.config.schema import PRMConfig
from airls_ray.data.parts import merge_parts
from airls_ray.data.schemas import ROLLOUTS, STEP_SCORES, TOKEN_LOGPROBS
from airls_ray.learning.engine import TorchEngine
from airls_ray.prm.batch import PRMBatch, PRMSource, build_prm_batch
from airls_ray.prm.scores import score_steps
from airls_ray.prm.update import update_prm
from tests.tiny import make_rollouts, make_traces, policy_module, prm_module
from tests.unit.learning.fakes import TEMPERATURE, FakeRank, learner, logprobs_of, on_policy, weights_of


# --------------------------------------------------------------------------------- PRM batch
def source(groups: int = 4, size: int = 4, *, seed: int = 0) -> PRMSource:
    traces = make_traces(groups, seed=seed + 100)
    flat = pa.table({"logprobs": pa.array([[-0.5] * len(r) for r in traces["response"].to_pylist()])})
    return PRMSource(make_rollouts(groups, size, seed=seed), traces, flat.cast(TOKEN_LOGPROBS))


@pytest.mark.parametrize(
    ("negatives", "correct", "policy_rows", "expert_rows"),
    [
        ("all", "policy", 16, 4),
        ("all", "reference", 8, 12),
        ("all", "both", 16, 12),
        ("failed", "policy", 8, 4),
        ("failed", "reference", 8, 12),
        ("failed", "both", 8, 12),
    ],
)
def test_rollouts_go_to_the_sides_that_the_settings_say(
    negatives: Any, correct: Any, policy_rows: int, expert_rows: int
) -> None:
    batch = build_prm_batch([source()], PRMConfig(negatives=negatives, correct_rollouts=correct))
    assert int((~batch.is_expert).sum()) == policy_rows
    assert int(batch.is_expert.sum()) == expert_rows


def class_sums(batch: PRMBatch) -> Iterator[float]:
    owner = torch.repeat_interleave(torch.arange(batch.weights.rows), batch.weights.lengths)
    for expert in (False, True):
        yield float(batch.weights.values[batch.is_expert[owner] == expert].sum())


@pytest.mark.parametrize("action", ["step", "token"])
@pytest.mark.parametrize("paired", [True, False])
def test_each_class_weighs_one_half(action: Any, paired: bool) -> None:
    batch = build_prm_batch([source()], PRMConfig(action=action, pair_by_problem=paired))
    assert list(class_sums(batch)) == pytest.approx([0.5, 0.5])


def test_a_problem_counts_as_much_on_both_sides_across_replayed_iterations() -> None:
    batch = build_prm_batch([source(), source(2, seed=7)], PRMConfig())
    owner = torch.repeat_interleave(torch.arange(batch.weights.rows), batch.weights.lengths)
    for problem in batch.problem.unique():
        mine = batch.problem[owner] == problem
        expert = batch.is_expert[owner]
        sums = [float(batch.weights.values[mine & (expert == side)].sum()) for side in (False, True)]
        assert sums[0] == pytest.approx(sums[1])
    assert batch.problem.unique().numel() == 4  # the replayed problems are two of the four


def test_a_problem_without_a_trace_needs_no_computation() -> None:
    whole = source()
    lacking = PRMSource(whole.rollouts, whole.traces.slice(1), whole.trace_logprobs.slice(1))
    batch = build_prm_batch([lacking], PRMConfig())
    assert batch.rows.numel() == 12 + 3
    assert list(class_sums(batch)) == pytest.approx([0.5, 0.5])


def test_recomputed_logprobs_replace_the_rollouts_own() -> None:
    fresh = source()
    lengths = [len(row) for row in fresh.rollouts["response"].to_pylist()]
    new = pa.table({"logprobs": pa.array([[-3.0] * n for n in lengths], pa.list_(pa.float32()))})
    batch = build_prm_batch([PRMSource(fresh.rollouts, fresh.traces, fresh.trace_logprobs, new)], PRMConfig())
    rows = (~batch.is_expert).nonzero().squeeze(1)
    assert set(batch.logprobs.take(rows).values.tolist()) == {-3.0}


def test_ungraded_rollouts_are_an_error() -> None:
    fresh = source()
    place = fresh.rollouts.column_names.index("outcome")
    empty = pa.nulls(fresh.rollouts.num_rows, pa.float32())
    rollouts = fresh.rollouts.set_column(place, ROLLOUTS.field("outcome"), empty)
    with pytest.raises(ValueError, match="grade them"):
        build_prm_batch([PRMSource(rollouts, fresh.traces, fresh.trace_logprobs)], PRMConfig())


# ------------------------------------------------------------------------------ discriminator
def real_batch(folder: Path, config: PRMConfig) -> PRMBatch:
    traces = make_traces(4)
    return build_prm_batch([PRMSource(on_policy(folder), traces, logprobs_of(folder, traces))], config)


def prm_config(parameterisation: Any, **changes: Any) -> PRMConfig:
    return PRMConfig(parameterisation=parameterisation, learner=learner().model_dump(), **changes)


def prm_engine(folder: Path, config: PRMConfig) -> TorchEngine:
    module = prm_module(folder, config.parameterisation, shaping=config.shaping)
    return TorchEngine(module, config.learner)


@pytest.mark.parametrize("action", ["step", "token"])
def test_a_log_prob_prm_starts_at_logit_zero(folder: Path, action: Any) -> None:
    config = prm_config("log_prob", action=action)
    metrics = update_prm(
        prm_engine(folder, config), [real_batch(folder, config)], config, temperature=TEMPERATURE, pad_id=0
    )
    assert metrics["prm/logit_abs_mean"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["prm/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert metrics["prm/entropy"] == pytest.approx(math.log(2), abs=1e-5)


def test_a_scalar_head_starts_at_minus_the_mean_log_prob(folder: Path) -> None:
    config = prm_config("scalar_head")
    batch = real_batch(folder, config)
    metrics = update_prm(prm_engine(folder, config), [batch], config, temperature=TEMPERATURE, pad_id=0)
    loss = 0.0
    for row in range(batch.is_expert.numel()):
        chosen = torch.tensor([row])
        log_pi = batch.logprobs.take(chosen).values
        start = 0
        ends = batch.sequences.step_ends.take(chosen).values.tolist()
        for weight, end in zip(batch.weights.take(chosen).values.tolist(), ends, strict=True):
            logit = -float(log_pi[start:end].mean())
            loss += weight * math.log1p(math.exp(-logit if batch.is_expert[row] else logit))
            start = end
    assert metrics["prm/loss"] == pytest.approx(loss, abs=1e-5)
    assert metrics["prm/expert_accuracy"] == 1.0
    assert metrics["prm/policy_accuracy"] == 0.0


@pytest.mark.parametrize("parameterisation", ["log_prob", "scalar_head"])
@pytest.mark.parametrize("action", ["step", "token"])
def test_updates_lower_the_loss(folder: Path, parameterisation: Any, action: Any) -> None:
    config = prm_config(parameterisation, action=action)
    batch = real_batch(folder, config)
    engine = prm_engine(folder, config)
    losses = [
        update_prm(engine, [batch], config, temperature=TEMPERATURE, pad_id=0, updates=4)["prm/loss"]
        for _ in range(3)
    ]
    assert losses[2] < losses[1] < losses[0]
    assert engine.updates == 12


@pytest.mark.parametrize("parameterisation", ["log_prob", "scalar_head"])
@pytest.mark.parametrize("shaping", [False, True])
def test_prm_gradients_do_not_depend_on_ranks(folder: Path, parameterisation: Any, shaping: bool) -> None:
    if shaping and parameterisation == "log_prob":
        pytest.skip("shaping needs the scalar head")
    cut = learner(tokens_per_microbatch=30).model_dump()
    config = PRMConfig(parameterisation=parameterisation, shaping=shaping, learner=cut)
    batch = real_batch(folder, config)

    def gradients(rank: int, ranks: int) -> list[torch.Tensor]:
        module = prm_module(folder, config.parameterisation, shaping=shaping)
        if parameterisation == "scalar_head":
            with torch.no_grad():  # off zero, else the backbone has no gradient
                module.model.score.weight.fill_(0.1)
        engine = FakeRank(module, config.learner, rank, ranks)
        update_prm(engine, [batch], config, temperature=TEMPERATURE, pad_id=0)
        return engine.gradients

    whole = gradients(0, 1)
    for parts, expected in zip(zip(gradients(0, 2), gradients(1, 2), strict=True), whole, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(0), expected, atol=1e-5, rtol=1e-3)


def test_an_update_is_skipped_above_the_accuracy_ceiling(folder: Path) -> None:
    open_config = prm_config("log_prob")
    engine = prm_engine(folder, open_config)
    batch = real_batch(folder, open_config)
    update_prm(engine, [batch], open_config, temperature=TEMPERATURE, pad_id=0, updates=12)
    metrics = update_prm(engine, [batch], open_config, temperature=TEMPERATURE, pad_id=0)
    lowest = min(metrics["prm/expert_accuracy"], metrics["prm/policy_accuracy"])
    assert lowest > 0.6
    before = weights_of(engine)
    ceiling = prm_config("log_prob", accuracy_ceiling=0.6)
    metrics = update_prm(engine, [batch], ceiling, temperature=TEMPERATURE, pad_id=0, updates=2)
    assert (metrics["prm/skipped"], metrics["prm/updates"]) == (1.0, 0.0)
    assert torch.equal(weights_of(engine), before)
    below = prm_config("log_prob", accuracy_ceiling=0.9999)
    metrics = update_prm(prm_engine(folder, below), [batch], below, temperature=TEMPERATURE, pad_id=0)
    assert metrics["prm/skipped"] == 0.0


def test_no_problem_with_both_classes_skips_the_update(folder: Path) -> None:
    config = prm_config("log_prob")
    traces = make_traces(4).slice(0, 0)
    batch = build_prm_batch([PRMSource(on_policy(folder), traces, logprobs_of(folder, traces))], config)
    engine = prm_engine(folder, config)
    metrics = update_prm(engine, [batch], config, temperature=TEMPERATURE, pad_id=0)
    assert metrics["prm/skipped"] == 1.0
    assert engine.updates == 0


# ------------------------------------------------------------------------------------ scores
def naive_scores(folder: Path, table: pa.Table, parameterisation: str, how: str) -> tuple[Any, Any]:
    """(f, l) of every step, row by row."""
    module = prm_module(folder, parameterisation)
    if parameterisation == "scalar_head":
        with torch.no_grad():
            module.model.score.weight.fill_(0.1)
    policy = policy_module(folder)
    fs, ls = [], []
    for row in table.to_pylist():
        tokens = torch.tensor([row["prompt"] + row["response"]])
        start = len(row["prompt"])
        log_softmax = (policy.model(tokens).logits[0] / TEMPERATURE).log_softmax(-1)
        log_pi = log_softmax[start - 1 : -1].gather(1, tokens[0, start:, None])[:, 0]
        cuts = [0, *row["step_ends"]]
        spans = [log_pi[a:b] for a, b in itertools.pairwise(cuts)]
        ls.append([float(s.mean() if how == "mean" else s.sum()) for s in spans])
        if parameterisation == "log_prob":
            fs.append(ls[-1])  # the PRM is the policy itself
        else:
            f = module.model.score(module.model.base_model(input_ids=tokens).last_hidden_state[0])[start:, 0]
            fs.append([float(f[end - 1]) for end in row["step_ends"]])
    return fs, ls


@pytest.mark.parametrize(
    ("parameterisation", "how", "reward", "search"),
    [
        ("scalar_head", "auto", "log_odds", "auto"),
        ("scalar_head", "sum", "f", "ratio"),
        ("log_prob", "auto", "log_odds", "auto"),
        ("log_prob", "mean", "f", "ratio"),
    ],
)
def test_scores_equal_the_naive_ones(
    folder: Path, parameterisation: Any, how: Any, reward: Any, search: Any
) -> None:
    table = on_policy(folder)
    config = prm_config(parameterisation, log_prob=how, reward=reward, search_score=search)
    module = prm_module(folder, parameterisation)
    if parameterisation == "scalar_head":
        with torch.no_grad():
            module.model.score.weight.fill_(0.1)
    parts = [
        score_steps(
            FakeRank(module, config.learner, rank, 2), table, None, config, temperature=TEMPERATURE, pad_id=0
        )
        for rank in range(2)
    ]
    merged = merge_parts(parts)
    assert merged.schema.equals(STEP_SCORES, check_metadata=True)
    auto = "sum" if parameterisation == "log_prob" else "mean"
    fs, ls = naive_scores(folder, table, parameterisation, auto if how == "auto" else how)
    for row, (f, log_pi) in enumerate(zip(fs, ls, strict=True)):
        rewards, values, scores = (merged[name][row].as_py() for name in ("rewards", "values", "scores"))
        assert values == pytest.approx(f, abs=1e-4)
        odds = [a - b for a, b in zip(f, log_pi, strict=True)]
        assert rewards == pytest.approx(odds if reward == "log_odds" else f, abs=1e-4)
        read = odds if search == "ratio" else f
        if (parameterisation, search) == ("log_prob", "auto"):  # the mean over the step's tokens
            sizes = [b - a for a, b in itertools.pairwise([0, *table["step_ends"][row].as_py()])]
            read = [x / size for x, size in zip(f, sizes, strict=True)]
        expected = [
            math.exp(x) if parameterisation == "log_prob" and search == "auto" else 1 / (1 + math.exp(-x))
            for x in read
        ]
        assert scores == pytest.approx(expected, abs=1e-4)
