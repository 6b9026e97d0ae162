"""Log-probabilities and policy updates."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from airls_ray.config.schema import MethodConfig
from airls_ray.data.parts import merge_parts
from airls_ray.data.schemas import ROLLOUTS, TOKEN_LOGPROBS
from airls_ray.errors import RunError
from airls_ray.learning.advantages import assign_credit
from airls_ray.learning.batches import Sequences
from airls_ray.learning.engine import MOST_SKIPPED, SkippedUpdates, TorchEngine
from airls_ray.learning.passes import token_logprobs
from airls_ray.learning.policy import PolicyUpdate, _shares
from airls_ray.tensors import make_batch, to_packed
from tests.tiny import make_rollouts, policy_module
from tests.unit.learning.fakes import (
    TEMPERATURE,
    FakeRank,
    learner,
    logprobs_of,
    on_policy,
    run_policy,
    step_values,
    weights_of,
    with_stale,
)


# ------------------------------------------------------------------------------------ engine
def test_a_reloaded_engine_continues_as_if_never_stopped(folder: Path, tmp_path: Path) -> None:
    table = on_policy(folder)
    config = learner(lr_warmup_updates=3)
    engine = TorchEngine(policy_module(folder), config)
    run_policy(engine, table, MethodConfig(name="grpo"), config)
    engine.save_state(tmp_path)
    other = TorchEngine(policy_module(folder), config)
    with torch.no_grad():
        for (_, mine), (_, theirs) in zip(other.named_weights(), engine.named_weights(), strict=True):
            mine.copy_(theirs)
    other.load_state(tmp_path)
    for each in (engine, other):
        run_policy(each, table, MethodConfig(name="grpo"), config)
    assert torch.equal(weights_of(engine), weights_of(other))


def test_an_update_without_a_finite_gradient_changes_nothing_and_is_counted(folder: Path) -> None:
    table, method, config = on_policy(folder), MethodConfig(name="grpo"), learner()
    engine = TorchEngine(policy_module(folder), config)
    before = weights_of(engine)
    broken = pa.array([[math.nan] * len(ends) for ends in table["step_ends"].to_pylist()])
    metrics = run_policy(engine, table, method, config, advantages=broken)
    assert (metrics["policy/skipped_updates"], metrics["policy/updates"], engine.updates) == (1.0, 0.0, 0)
    assert torch.equal(weights_of(engine), before)
    other = TorchEngine(policy_module(folder), config)
    for each in (engine, other):
        assert run_policy(each, table, method, config)["policy/skipped_updates"] == 0.0
    assert torch.equal(weights_of(engine), weights_of(other))


def test_a_learner_gives_up_after_several_updates_in_a_row_without_a_finite_gradient() -> None:
    skipped = SkippedUpdates()
    for norm in [math.inf] * (MOST_SKIPPED - 1) + [1.0] + [math.nan] * (MOST_SKIPPED - 1):
        assert skipped.skips(norm) == (not math.isfinite(norm))
    with pytest.raises(RunError, match=f"the gradient of {MOST_SKIPPED} updates in a row was not finite"):
        skipped.skips(math.nan)


# ------------------------------------------------------------------------------ log-probabilities
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_the_parts_of_all_ranks_are_the_whole_in_the_tables_order(folder: Path, layout: Any) -> None:
    table = make_rollouts(3, 3)
    module = policy_module(folder)
    parts = [
        token_logprobs(
            FakeRank(module, learner(), rank, 2),
            table,
            temperature=TEMPERATURE,
            tokens_per_microbatch=20,
            layout=layout,
            pad_id=0,
        )
        for rank in range(2)
    ]
    merged = merge_parts(parts[::-1])
    assert merged.schema.equals(TOKEN_LOGPROBS, check_metadata=True)
    sequences = Sequences.of(table)
    columns = (sequences.prompt, sequences.response, sequences.step_ends)
    for row, values in enumerate(merged["logprobs"].to_pylist()):
        batch = make_batch(*columns, torch.tensor([row]), "padded", 0)
        expected = module(**batch.model_inputs(), temperature=TEMPERATURE)[0]
        assert values == pytest.approx(expected.tolist(), abs=1e-5)


def test_merging_parts_that_lack_a_row_is_an_error(folder: Path) -> None:
    engine = FakeRank(policy_module(folder), learner(), 0, 2)
    part = token_logprobs(engine, make_rollouts(2, 2), temperature=1.0, tokens_per_microbatch=99, pad_id=0)
    with pytest.raises(ValueError, match="exactly once"):
        merge_parts([part])


def test_more_ranks_than_rows_still_run(folder: Path) -> None:
    table = make_rollouts(1, 2)
    module = policy_module(folder)
    ranks = [FakeRank(module, learner(), rank, 3) for rank in range(3)]
    parts = [token_logprobs(e, table, temperature=1.0, tokens_per_microbatch=99, pad_id=0) for e in ranks]
    assert [part.num_rows for part in parts] == [1, 1, 0]
    assert merge_parts(parts).num_rows == 2


# ------------------------------------------------------------------------------------ policy
def test_one_update_is_the_hand_made_policy_gradient_step(folder: Path) -> None:
    table = on_policy(folder)
    config = learner()
    engine = TorchEngine(policy_module(folder), config)
    run_policy(engine, table, MethodConfig(name="grpo"), config)

    module = policy_module(folder)
    optimizer = torch.optim.AdamW(
        [p for _, p in module.hf_parameters()], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0, foreach=False
    )
    advantages = step_values(table).to_pylist()
    terms = []
    for row, step_advantages in zip(table.to_pylist(), advantages, strict=True):
        tokens = torch.tensor([row["prompt"] + row["response"]])
        log_softmax = (module.model(tokens).logits[0] / TEMPERATURE).log_softmax(-1)
        for place, token in enumerate(row["response"]):
            step = sum(place >= end for end in row["step_ends"])
            log_pi = log_softmax[len(row["prompt"]) + place - 1, token]
            terms.append(-step_advantages[step] * log_pi)  # the ratio is 1: its gradient is that of log pi
    torch.stack(terms).mean().backward()
    optimizer.step()
    # AdamW's first step is lr * sign(gradient): gradients of nearly 0 may differ in sign.
    expected = torch.cat([p.detach().flatten() for _, p in module.hf_parameters()])
    assert ((weights_of(engine) - expected).abs() < 1e-4).float().mean() > 0.995


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_rollouts_that_the_sequence_mask_leaves_out_count_in_no_mean(
    folder: Path, aggregation: Any, epochs: int
) -> None:
    """The gradient is that of an update on the others alone (AdamW's first step would hide its size)."""
    table = on_policy(folder)
    stale = [3, 8, 9]
    mixed = with_stale(table, stale)
    rest = pa.array([at for at in range(table.num_rows) if at not in stale])
    config, values = learner(learning_rate=1e-9), step_values(table)
    method = MethodConfig(
        name="grpo", aggregation=aggregation, sequence_mask=1.0, entropy_coefficient=0.1, epochs=epochs
    )
    norms = [
        run_policy(TorchEngine(policy_module(folder), config), rows, method, config, advantages=given)
        for rows, given in ((mixed, values), (mixed.take(rest), values.take(rest)))
    ]
    first, second = (one["policy/gradient_norm"] for one in norms)
    assert first == pytest.approx(second, rel=1e-4)


def test_advantages_are_whitened_over_what_the_sequence_mask_keeps(folder: Path) -> None:
    stale = [0, 5, 6]
    table = with_stale(on_policy(folder), stale)
    outcomes = pa.array([float(at % 3 == 0) for at in range(table.num_rows)], pa.float32())
    table = table.set_column(table.column_names.index("outcome"), ROLLOUTS.field("outcome"), outcomes)
    method = MethodConfig(name="grpo", outcome_advantage="none", whiten=True, sequence_mask=1.0)
    engine = TorchEngine(policy_module(folder), learner())
    update = PolicyUpdate(engine, table, method, learner(), temperature=TEMPERATURE, pad_id=0)
    advantages = assign_credit(
        table, table.select(["outcome"]), None, method, max_response_tokens=8, learns=update.learns
    )

    assert (~update.learns).nonzero().squeeze(1).tolist() == stale
    tokens = [
        values[0]
        for at, (values, response) in enumerate(
            zip(advantages.to_pylist(), table["response"].to_pylist(), strict=True)
        )
        for _ in response
        if at not in stale
    ]
    assert statistics.fmean(tokens) == pytest.approx(0.0, abs=1e-6)
    assert statistics.stdev(tokens) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", "constant"])
@pytest.mark.parametrize("budget", [24, 60])
def test_gradients_do_not_depend_on_ranks_or_microbatches(
    folder: Path, aggregation: Any, budget: int
) -> None:
    table = on_policy(folder)
    method = MethodConfig(name="grpo", aggregation=aggregation, entropy_coefficient=0.1, kl_coefficient=0.1)
    reference = logprobs_of(folder, table, temperature=2.0)

    def gradients(rank: int, ranks: int, tokens: int, layout: str) -> list[torch.Tensor]:
        config = learner(tokens_per_microbatch=tokens, layout=layout)
        engine = FakeRank(policy_module(folder), config, rank, ranks)
        run_policy(engine, table, method, config, reference_logprobs=reference)
        return engine.gradients

    whole = gradients(0, 1, 100_000, "padded")
    shares = [gradients(rank, 3, budget, "packed" if budget == 60 else "padded") for rank in range(3)]
    for parts, expected in zip(zip(*shares, strict=True), whole, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(0), expected, atol=1e-5, rtol=1e-3)


def test_advantages_per_token_and_per_step_are_the_same_update(folder: Path) -> None:
    table = on_policy(folder)
    config = learner()
    per_step = step_values(table)
    per_token = pa.array(
        [
            [values[sum(place >= end for end in ends)] for place in range(ends[-1])]
            for values, ends in zip(per_step.to_pylist(), table["step_ends"].to_pylist(), strict=True)
        ],
        pa.list_(pa.float32()),
    )
    engines = [TorchEngine(policy_module(folder), config) for _ in range(2)]
    for engine, advantages in zip(engines, (per_step, per_token), strict=True):
        run_policy(engine, table, MethodConfig(name="grpo"), config, advantages=advantages)
    assert torch.equal(weights_of(engines[0]), weights_of(engines[1]))


def test_advantages_of_another_length_are_an_error(folder: Path) -> None:
    table = on_policy(folder)
    engine = TorchEngine(policy_module(folder), learner())
    wrong = pa.array([[1.0]] * table.num_rows, pa.list_(pa.float32()))
    with pytest.raises(ValueError, match="one value per step"):
        run_policy(engine, table, MethodConfig(name="grpo"), learner(), advantages=wrong)


def test_the_samplers_error_is_measured_before_the_update(folder: Path) -> None:
    table = on_policy(folder)
    shifted = to_packed(table["logprobs"]).values.clone()
    shifted[0] += 0.5
    offsets = pa.array(to_packed(table["logprobs"]).offsets.int().numpy())
    column = pa.ListArray.from_arrays(offsets, pa.array(shifted.numpy()))
    place = table.column_names.index("logprobs")
    table = table.set_column(place, ROLLOUTS.field("logprobs"), column)
    for method in (MethodConfig(name="grpo"), MethodConfig(name="grpo", updates_per_iteration=2)):
        engine = TorchEngine(policy_module(folder), learner())
        metrics = run_policy(engine, table, method, learner())
        assert metrics["sync/logprob_difference_max"] == pytest.approx(0.5, abs=1e-4)
        assert metrics["sync/logprob_difference_mean"] == pytest.approx(0.5 / shifted.numel(), abs=1e-5)


def test_shares_and_epochs_each_make_an_update(folder: Path) -> None:
    table = on_policy(folder)
    engine = TorchEngine(policy_module(folder), learner())
    method = MethodConfig(name="grpo", updates_per_iteration=2, epochs=3)
    metrics = run_policy(engine, table, method, learner())
    assert metrics["policy/updates"] == engine.updates == 6
    assert metrics["policy/ratio_mean"] != pytest.approx(1.0, abs=1e-6)  # later updates are off-policy


def test_constant_groups_can_be_left_out(folder: Path) -> None:
    table = on_policy(folder, groups=3, size=2)
    place = table.column_names.index("outcome")
    outcomes = pa.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0], pa.float32())
    table = table.set_column(place, ROLLOUTS.field("outcome"), outcomes)
    method = MethodConfig(name="grpo", drop_constant_groups=True)
    metrics = run_policy(TorchEngine(policy_module(folder), learner()), table, method, learner())
    assert metrics["policy/rollouts"] == 2
    for constant in (0.0, 1.0):
        same = table.set_column(place, ROLLOUTS.field("outcome"), pa.array([constant] * 6, pa.float32()))
        engine = TorchEngine(policy_module(folder), learner())
        before = weights_of(engine)
        assert run_policy(engine, same, method, learner())["policy/updates"] == 0
        assert torch.equal(weights_of(engine), before)


def test_a_filter_of_the_policy_sees_the_step_rewards(folder: Path) -> None:
    """PROF keeps two of four rollouts: the update is that of a table of these two."""
    table = on_policy(folder, 1, 4)
    place = table.column_names.index("outcome")
    table = table.set_column(place, ROLLOUTS.field("outcome"), pa.array([1.0, 0.0, 1.0, 0.0], pa.float32()))
    rewards = pa.array([[0.1, 0.1], [0.9, 0.9], [0.8, 0.8], [0.2, 0.2]], pa.list_(pa.float32()))
    method = MethodConfig(name="grpo", prm_objective="frozen", row_filters="prof")
    values = step_values(table)
    engine, alone = (TorchEngine(policy_module(folder), learner()) for _ in range(2))
    run_policy(engine, table, method, learner(), advantages=values, scores=pa.table({"rewards": rewards}))
    two = pa.array([2, 3])
    run_policy(alone, table.take(two), MethodConfig(name="grpo"), learner(), advantages=values.take(two))
    torch.testing.assert_close(weights_of(engine), weights_of(alone))


def test_the_importance_weight_compares_trainer_and_sampler(folder: Path) -> None:
    table = make_rollouts(2, 2)  # the sampler claims -1 for every token
    trainer = to_packed(logprobs_of(folder, table)["logprobs"]).values
    method = MethodConfig(name="grpo", importance_cap=2.0)
    metrics = run_policy(TorchEngine(policy_module(folder), learner()), table, method, learner())
    expected = (trainer + 1.0).exp().clamp(max=2.0).mean()
    assert metrics["policy/importance_weight"] == pytest.approx(float(expected), abs=1e-5)
    assert metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-6)


def test_the_samplers_largest_error_may_lie_in_any_share(folder: Path) -> None:
    """The error is at the last token, which is compared before the first share is."""
    table = on_policy(folder)
    packed = to_packed(table["logprobs"])
    shifted = packed.values.clone()
    shifted[-1] += 0.5
    column = pa.ListArray.from_arrays(pa.array(packed.offsets.int().numpy()), pa.array(shifted.numpy()))
    place = table.column_names.index("logprobs")
    table = table.set_column(place, ROLLOUTS.field("logprobs"), column)
    method = MethodConfig(name="grpo", updates_per_iteration=2)
    metrics = run_policy(TorchEngine(policy_module(folder), learner()), table, method, learner())
    assert metrics["sync/logprob_difference_max"] == pytest.approx(0.5, abs=1e-4)


def test_shares_are_of_consecutive_groups() -> None:
    """Five groups of two in two updates: the first three, then the others."""
    shares = _shares(make_rollouts(5, 2), torch.arange(10), 2)
    assert [share.tolist() for share in shares] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
