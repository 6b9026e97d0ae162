"""The PRM update by rePIRL and PRIME on a tiny model, against sums made by hand; the stabilisers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from airls_ray.config.method_doors import ObjectiveConfig
from airls_ray.config.schema import LearnerConfig, PRMConfig
from airls_ray.data.parts import merge_parts
from airls_ray.data.schemas import TOKEN_LOGPROBS, TRACES
from airls_ray.evaluation.selection import trace_log_scores
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.passes import token_logprobs
from airls_ray.prm.batch import PRMBatch, PRMSource, _weights, build_prm_batch, traits_of_learning
from airls_ray.prm.scores import score_steps
from airls_ray.prm.update import update_prm
from tests.tiny import make_policy_folder, make_rollouts, make_traces, policy_module, prm_module

LEARNER = LearnerConfig(learning_rate=1e-2, gradient_clip=0.0, tokens_per_microbatch=40)
WHOLE = LEARNER.model_copy(update={"tokens_per_microbatch": 1000}).model_dump()
"""All in one micro-batch: for tests of where many updates lead to."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("reference"), seed=1)


def settings(**changes: Any) -> PRMConfig:
    fields = {"parameterisation": "scalar_head", "action": "token", "learner": LEARNER.model_dump()}
    return PRMConfig(**{**fields, **changes})


def engine_of(folder: Path, config: PRMConfig) -> TorchEngine:
    module = prm_module(folder, config.parameterisation)
    if config.parameterisation == "scalar_head":
        with torch.no_grad():  # off zero, else all values are equal and the backbone has no gradient
            module.model.score.weight.copy_(torch.linspace(-1, 1, module.model.score.weight.numel()))
    return TorchEngine(module, config.learner)


def logprobs_of(folder: Path, table: pa.Table) -> pa.Table:
    engine = TorchEngine(policy_module(folder), LEARNER)
    return merge_parts([token_logprobs(engine, table, temperature=1.0, tokens_per_microbatch=99, pad_id=0)])


def batch_of(folder: Path, config: PRMConfig, objective: str) -> PRMBatch:
    rollouts, traces = make_rollouts(4, 4), make_traces(4)
    if objective == "prime":
        empty = TOKEN_LOGPROBS.empty_table()
        source = PRMSource(rollouts, TRACES.empty_table(), empty, logprobs_of(folder, rollouts))
    else:
        own = logprobs_of(folder, rollouts)["logprobs"]
        at = rollouts.column_names.index("logprobs")
        sampled = rollouts.set_column(at, rollouts.field(at), own)
        source = PRMSource(sampled, traces, logprobs_of(folder, traces))
    return build_prm_batch([source], config, ObjectiveConfig(name=objective))


def learn(engine: TorchEngine, batch: PRMBatch, config: PRMConfig, updates: int = 1) -> dict[str, float]:
    return update_prm(engine, [batch], config, temperature=1.0, pad_id=0, updates=updates)


def token_values(engine: TorchEngine, table: pa.Table, config: PRMConfig) -> list[list[float]]:
    """The PRM's value of every response token, row by row."""
    per_token = config.model_copy(update={"reward": "f", "reward_unit": "token"})
    part = score_steps(engine, table, None, per_token, temperature=1.0, pad_id=0)
    rewards: list[list[float]] = merge_parts([part])["rewards"].to_pylist()
    return rewards


# ---------------------------------------------------------------------------------------- GAIL
def test_the_logit_of_gail_is_f_alone(folder: Path) -> None:
    config = settings(discriminator="gail", reward="f", negatives="failed", pair_by_problem=False)
    engine = engine_of(folder, config)
    rollouts, traces = make_rollouts(4, 4), make_traces(4)
    scored = traces.append_column("logprobs", logprobs_of(folder, traces)["logprobs"])
    failed = torch.tensor(rollouts["outcome"].to_pylist()) <= 0.5
    rows = token_values(engine, rollouts, config)
    expert = torch.tensor([f for row in token_values(engine, scored, config) for f in row]).double()
    policy = torch.tensor([f for row, wrong in zip(rows, failed, strict=True) if wrong for f in row]).double()
    by_hand = 0.5 * (-expert.sigmoid().log().mean() - (1 - policy.sigmoid()).log().mean())
    metrics = learn(engine, batch_of(folder, config, "airl"), config)
    assert metrics["prm/loss"] == pytest.approx(float(by_hand), abs=1e-5)


# -------------------------------------------------------------------------------------- rePIRL
REPIRL = {"negatives": "failed", "correct_rollouts": "reference"}


def test_every_sequence_of_a_side_weighs_the_same(folder: Path) -> None:
    batch = batch_of(folder, settings(**REPIRL, pair_by_problem=False), "repirl")
    owner = torch.repeat_interleave(torch.arange(batch.weights.rows), batch.weights.lengths)
    by_row = torch.zeros(batch.weights.rows).index_add(0, owner, batch.weights.values)
    for side in (batch.is_expert, ~batch.is_expert):
        wanted = torch.full((int(side.sum()),), 0.5 / int(side.sum()))
        torch.testing.assert_close(by_row[side], wanted)


@pytest.mark.parametrize("scope", ["problem", "batch"])
@pytest.mark.parametrize("how", ["mean", "sum", "none"])
def test_the_loss_is_the_papers_formula(folder: Path, how: Any, scope: str) -> None:
    config = settings(**REPIRL, pair_by_problem=False, repirl={"weight": how, "weight_scope": scope})
    engine = engine_of(folder, config)
    rollouts, traces = make_rollouts(4, 4), make_traces(4)
    right = torch.tensor(rollouts["outcome"].to_pylist()) > 0.5
    phi = [torch.tensor(row).double() for row in token_values(engine, rollouts, config)]
    log_pi = [torch.tensor(row).double() for row in logprobs_of(folder, rollouts)["logprobs"].to_pylist()]
    # The traces have no column `logprobs`, which scoring reads: any will do.
    scored = traces.append_column("logprobs", logprobs_of(folder, traces)["logprobs"])
    experts = [torch.tensor(row).double().mean() for row in token_values(engine, scored, config)]
    experts += [row.mean() for row, is_right in zip(phi, right, strict=True) if is_right]
    problems = rollouts["problem_id"].to_pylist() if scope == "problem" else ["all"] * 16
    policy = size = 0.0
    for problem in sorted(set(problems)):
        failed = [
            (p, q)
            for p, q, is_right, of in zip(phi, log_pi, right, problems, strict=True)
            if not is_right and of == problem
        ]
        logs = {
            "mean": [float((p - q).mean()) for p, q in failed],
            "sum": [float((p - q).sum()) for p, q in failed],
            "none": [0.0] * len(failed),
        }[how]
        weights = [math.exp(x - max(logs)) for x in logs]
        mean = sum(w * float(p.mean()) for w, (p, _) in zip(weights, failed, strict=True)) / sum(weights)
        policy += mean * len(failed) / int((~right).sum())
        size += sum(weights) ** 2 / sum(w * w for w in weights)
    metrics = learn(engine, batch_of(folder, config, "repirl"), config)
    assert metrics["prm/loss"] == pytest.approx(policy - float(torch.stack(experts).mean()), abs=1e-5)
    assert metrics["prm/effective_sample_size"] == pytest.approx(size, rel=1e-5)
    assert metrics["prm/failed_rollouts"] == int((~right).sum())


@pytest.mark.parametrize(("objective", "used"), [("repirl", -1.0), ("airl", -9.0)])
def test_old_rollouts_are_weighed_by_the_policy_that_sampled_them(
    folder: Path, objective: str, used: float
) -> None:
    """rePIRL divides by the sampler's probabilities, AIRL's logit compares with the current policy's."""
    rollouts, traces = make_rollouts(2, 2), make_traces(2)
    now = pa.table({"logprobs": [[-9.0] * len(row) for row in rollouts["response"].to_pylist()]})
    source = PRMSource(rollouts, traces, logprobs_of(folder, traces), now.cast(TOKEN_LOGPROBS))
    batch = build_prm_batch([source], settings(negatives="failed"), ObjectiveConfig(name=objective))
    owner = torch.repeat_interleave(torch.arange(batch.logprobs.rows), batch.logprobs.lengths)
    assert set(batch.logprobs.values[~batch.is_expert[owner]].tolist()) == {used}


def test_repirl_raises_the_experts_over_the_failed(folder: Path) -> None:
    # Without importance weights: those move on to the failed rollouts of highest value.
    config = settings(**REPIRL, output_l2=0.01, repirl={"weight": "none"}, learner=WHOLE)
    engine, batch = engine_of(folder, config), batch_of(folder, config, "repirl")
    before = learn(engine, batch, config)
    after = learn(engine, batch, config, updates=6) and learn(engine, batch, config)
    gap = [m["prm/expert_value"] - m["prm/policy_value"] for m in (before, after)]
    assert gap[1] > gap[0] + 0.1


def test_without_failed_rollouts_the_experts_alone_are_raised(folder: Path) -> None:
    config = settings(**REPIRL, pair_by_problem=False)
    rollouts = make_rollouts(4, 4)
    right = rollouts.take(pa.array([i for i, o in enumerate(rollouts["outcome"].to_pylist()) if o > 0.5]))
    traces = make_traces(4)
    source = PRMSource(right, traces, logprobs_of(folder, traces), logprobs_of(folder, right))
    metrics = learn(
        engine_of(folder, config), build_prm_batch([source], config, ObjectiveConfig(name="repirl")), config
    )
    assert metrics["prm/skipped"] == 0.0
    assert metrics["prm/policy_value"] == 0.0
    assert metrics["prm/effective_sample_size"] == 0.0


# --------------------------------------------------------------------------------------- PRIME
PRIME = {"parameterisation": "log_prob"}


def test_an_implicit_prm_starts_at_probability_one_half(folder: Path) -> None:
    config = settings(**PRIME)
    metrics = learn(engine_of(folder, config), batch_of(folder, config, "prime"), config)
    assert metrics["prm/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert metrics["prm/logit_abs_mean"] == pytest.approx(0.0, abs=1e-5)


def test_the_prime_loss_is_the_cross_entropy_of_whole_responses(folder: Path, reference: Path) -> None:
    config = settings(**PRIME, prime={"beta": 0.3})
    rollouts = make_rollouts(4, 4)
    ours, theirs = (
        [sum(row) for row in logprobs_of(one, rollouts)["logprobs"].to_pylist()]
        for one in (folder, reference)
    )
    outcomes = rollouts["outcome"].to_pylist()
    loss = 0.0
    for phi, ref, outcome in zip(ours, theirs, outcomes, strict=True):
        logit = 0.3 * (phi - ref)
        loss += math.log1p(math.exp(-logit if outcome > 0.5 else logit)) / len(outcomes)
    metrics = learn(engine_of(folder, config), batch_of(reference, config, "prime"), config)
    assert metrics["prm/loss"] == pytest.approx(loss, abs=1e-5)


def test_primes_rewards_are_beta_times_the_log_ratio_of_each_token(folder: Path, reference: Path) -> None:
    config = settings(**PRIME, reward_unit="token")
    rollouts = make_rollouts(2, 2)
    base = logprobs_of(reference, rollouts)
    part = score_steps(
        engine_of(folder, config), rollouts, base, config, temperature=1.0, pad_id=0, log_odds_scale=0.05
    )
    got = merge_parts([part])["rewards"].to_pylist()
    pairs = zip(
        logprobs_of(folder, rollouts)["logprobs"].to_pylist(), base["logprobs"].to_pylist(), strict=True
    )
    wanted = [[0.05 * (a - b) for a, b in zip(x, y, strict=True)] for x, y in pairs]
    for one, other in zip(got, wanted, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


# --------------------------------------------------------------------------------- stabilisers
def test_primes_score_is_the_probability_of_the_outcome(folder: Path, reference: Path) -> None:
    """Steps by sigmoid of beta times their log-ratio; the response by that of the sum over its tokens."""
    prime = settings(**PRIME, search_score="reference_ratio", search_aggregate="odds", prime={"beta": 2.0})
    rollouts = make_rollouts(2, 2)
    base = logprobs_of(reference, rollouts)
    part = score_steps(engine_of(folder, prime), rollouts, base, prime, temperature=1.0, pad_id=0)
    own = logprobs_of(folder, rollouts)
    traces = trace_log_scores(
        rollouts, np.concatenate(part["scores"].to_pylist()), prime.search_aggregate, prime.score_kind
    )
    for row, log_score in zip(part["row"].to_pylist(), traces, strict=True):
        pairs = zip(own["logprobs"][row].as_py(), base["logprobs"][row].as_py(), strict=True)
        total = 2.0 * sum(a - b for a, b in pairs)
        assert math.exp(log_score) == pytest.approx(1 / (1 + math.exp(-total)), abs=1e-4)


def test_repirls_trace_score_is_by_the_mean_over_tokens(folder: Path) -> None:
    """Best-of-N by rbar: steps of different lengths must not weigh alike."""
    config = settings(**REPIRL, search_aggregate="mean_odds")
    engine, rollouts = engine_of(folder, config), make_rollouts(3, 3, steps=2)
    rbar = [sum(row) / len(row) for row in token_values(engine, rollouts, config)]
    part = merge_parts([score_steps(engine, rollouts, None, config, temperature=1.0, pad_id=0)])
    traces = trace_log_scores(
        rollouts, np.concatenate(part["scores"].to_pylist()), config.search_aggregate, config.score_kind
    )
    assert np.exp(traces) == pytest.approx([1 / (1 + math.exp(-value)) for value in rbar], abs=1e-5)


def test_the_output_penalty_shrinks_the_outputs(folder: Path) -> None:
    outputs = []
    for weight in (0.0, 10.0):
        config = settings(**REPIRL, output_l2=weight, learner=WHOLE)
        engine, batch = engine_of(folder, config), batch_of(folder, config, "repirl")
        learn(engine, batch, config, updates=6)
        outputs.append(learn(engine, batch, config)["prm/output_abs_mean"])
    assert outputs[1] < 0.5 * outputs[0]


def test_the_output_penalty_is_part_of_the_loss(folder: Path) -> None:
    plain, penalised = settings(**REPIRL), settings(**REPIRL, output_l2=2.0)
    batch = batch_of(folder, plain, "repirl")
    difference = (
        learn(engine_of(folder, penalised), batch, penalised)["prm/loss"]
        - learn(engine_of(folder, plain), batch, plain)["prm/loss"]
    )
    owner = torch.repeat_interleave(torch.arange(batch.weights.rows), batch.weights.lengths)
    engine = engine_of(folder, plain)
    squares = 0.0
    for name, table in (("rollouts", make_rollouts(4, 4)), ("traces", make_traces(4))):
        scored = (
            table
            if name == "rollouts"
            else table.append_column("logprobs", logprobs_of(folder, table)["logprobs"])
        )
        for row, values in zip(scored.to_pylist(), token_values(engine, scored, plain), strict=True):
            index = next(
                i
                for i in range(batch.weights.rows)
                if batch.sequences.response.take(torch.tensor([i])).values.tolist() == row["response"]
                and batch.sequences.prompt.take(torch.tensor([i])).values.tolist() == row["prompt"]
            )
            weights = batch.weights.values[owner == index].tolist()
            squares += sum(w * v * v for w, v in zip(weights, values, strict=True))
    assert difference == pytest.approx(2.0 * squares, rel=1e-4)


@pytest.mark.parametrize("objective", ["airl", "repirl", "prime"])
def test_the_trust_region_holds_the_outputs_near_where_they_were(folder: Path, objective: str) -> None:
    drift = []
    for weight in (1e-9, 100.0):
        config = settings(parameterisation="log_prob", drift_penalty=weight, learner=WHOLE)
        metrics = learn(engine_of(folder, config), batch_of(folder, config, objective), config, updates=5)
        drift.append(metrics["prm/output_drift"])
    assert drift[1] < 0.5 * drift[0]


def test_the_first_update_of_an_iteration_does_not_feel_the_trust_region(folder: Path) -> None:
    weights = []
    for weight in (0.0, 100.0):
        config = settings(drift_penalty=weight)
        engine = engine_of(folder, config)
        learn(engine, batch_of(folder, config, "airl"), config)
        weights.append(torch.cat([value.flatten().clone() for _, value in engine.named_weights()]))
    torch.testing.assert_close(weights[0], weights[1])


def test_a_ceiling_skips_every_objective(folder: Path) -> None:
    for objective in ("airl", "repirl", "prime"):
        config = settings(parameterisation="log_prob", learner=WHOLE)
        engine, batch = engine_of(folder, config), batch_of(folder, config, objective)  # type: ignore[arg-type]
        metrics = learn(engine, batch, config, updates=6) and learn(engine, batch, config)
        lowest = min(metrics["prm/expert_accuracy"], metrics["prm/policy_accuracy"])
        assert lowest > 0.5, objective
        ceiling = settings(parameterisation="log_prob", accuracy_ceiling=0.5, learner=WHOLE)
        assert learn(engine, batch, ceiling)["prm/skipped"] == 1.0, objective


def test_a_rollout_without_actions_takes_no_weight_from_the_others() -> None:
    lengths, none = torch.tensor([2, 0, 1]), torch.zeros(3, dtype=torch.int64)
    traits = traits_of_learning(ObjectiveConfig(name="prime"))
    weights = _weights(none, torch.tensor([True, False, False]), lengths, PRMConfig(), traits)
    assert weights.tolist() == [0.25, 0.25, 0.5]


def test_outcomes_that_come_beside_the_rollouts_sort_them() -> None:
    """All right by the column beside them, whatever the rollouts' own says."""
    rollouts, empty = make_rollouts(2, 2), TOKEN_LOGPROBS.empty_table()
    given = pa.chunked_array([pa.array([1.0] * 4, pa.float32())])
    source = PRMSource(rollouts, TRACES.empty_table(), empty, rollouts.select(["logprobs"]), given)
    batch = build_prm_batch([source], settings(parameterisation="log_prob"), ObjectiveConfig(name="prime"))
    assert batch.is_expert.tolist() == [True] * 4
    assert rollouts["outcome"].to_pylist() != [1.0] * 4


def test_a_ceiling_skips_only_where_both_accuracies_are_above_it(folder: Path) -> None:
    """At the ceiling itself, and with one of the classes above it, the PRM learns."""
    config = settings(discriminator="gail", reward="f", learner=WHOLE)
    batch = batch_of(folder, config, "airl")
    first = learn(engine_of(folder, config), batch, config)
    low, high = sorted((first["prm/expert_accuracy"], first["prm/policy_accuracy"]))
    assert low < high
    for ceiling, skipped in ((low, 0.0), ((low + high) / 2, 0.0), (low - 1e-3, 1.0)):
        changed = config.model_copy(update={"accuracy_ceiling": ceiling})
        assert learn(engine_of(folder, changed), batch, changed)["prm/skipped"] == skipped
