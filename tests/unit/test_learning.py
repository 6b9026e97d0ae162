"""Learning on tables: the same result however rows are cut, sides and weights of the PRM batch, scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from airls_ray.config.schema import LearnerConfig, MethodConfig, PRMConfig
from airls_ray.data.schemas import ROLLOUTS, STEP_SCORES, TOKEN_LOGPROBS
from airls_ray.learning.batches import Sequences, merge_parts, token_logprobs
from airls_ray.learning.engine import TorchEngine, learning_rate
from airls_ray.learning.policy import update_policy
from airls_ray.learning.prm_batch import PRMBatch, PRMSource, build_prm_batch
from airls_ray.learning.prm_scores import score_steps
from airls_ray.learning.prm_update import update_prm
from airls_ray.learning.replay import ReplayBuffer
from airls_ray.models.load import load_policy_module, load_prm_module
from airls_ray.tensors import make_batch, to_packed
from tests.tiny import make_policy_folder, make_rollouts, make_traces

TEMPERATURE = 0.8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("policy"))


class FakeRank(TorchEngine):
    """One of several ranks: keeps its gradients, and sums over ranks from what the others said."""

    def __init__(self, module: Any, config: LearnerConfig, rank: int, world_size: int) -> None:
        super().__init__(module, config)
        self.rank, self.world_size = rank, world_size
        self.gradients: list[torch.Tensor] = []

    def step(self) -> float:
        self.gradients = [parameter.grad.clone() for parameter in self._parameters]
        return super().step()


def learner(**changes: Any) -> LearnerConfig:
    return LearnerConfig(**{"learning_rate": 1e-2, "gradient_clip": 0.0, **changes})


def logprobs_of(folder: Path, table: pa.Table, temperature: float = TEMPERATURE) -> pa.Table:
    engine = TorchEngine(load_policy_module(folder), learner())
    part = token_logprobs(engine, table, temperature=temperature, tokens_per_microbatch=1000, pad_id=0)
    return merge_parts([part])


def on_policy(folder: Path, groups: int = 4, size: int = 4) -> pa.Table:
    """Rollouts whose log-probabilities are the policy's."""
    table = make_rollouts(groups, size)
    place = table.column_names.index("logprobs")
    return table.set_column(place, ROLLOUTS.field("logprobs"), logprobs_of(folder, table)["logprobs"])


def step_values(table: pa.Table, seed: int = 0) -> pa.Array:
    ends = to_packed(table["step_ends"])
    values = torch.randn(ends.values.numel(), generator=torch.Generator().manual_seed(seed))
    return pa.ListArray.from_arrays(pa.array(ends.offsets.int().numpy()), pa.array(values.numpy()))


def run_policy(
    engine: TorchEngine, table: pa.Table, method: MethodConfig, config: LearnerConfig, **options: Any
) -> dict[str, float]:
    return update_policy(
        engine,
        table,
        options.get("advantages", step_values(table)),
        options.get("reference_logprobs"),
        method,
        config,
        temperature=TEMPERATURE,
        max_response_tokens=8,
        pad_id=0,
    )


def weights_of(engine: TorchEngine) -> torch.Tensor:
    return torch.cat([value.flatten().clone() for _, value in engine.named_weights()])


# ------------------------------------------------------------------------------------ engine
def test_the_learning_rate_rises_linearly_and_stays() -> None:
    config = LearnerConfig(learning_rate=1.0, lr_warmup_updates=4)
    assert [learning_rate(config, update) for update in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_reloaded_engine_continues_as_if_never_stopped(folder: Path, tmp_path: Path) -> None:
    table = on_policy(folder)
    config = learner(lr_warmup_updates=3)
    engine = TorchEngine(load_policy_module(folder), config)
    run_policy(engine, table, MethodConfig(name="grpo"), config)
    engine.save_state(tmp_path)
    other = TorchEngine(load_policy_module(folder), config)
    with torch.no_grad():
        for (_, mine), (_, theirs) in zip(other.named_weights(), engine.named_weights(), strict=True):
            mine.copy_(theirs)
    other.load_state(tmp_path)
    for each in (engine, other):
        run_policy(each, table, MethodConfig(name="grpo"), config)
    assert torch.equal(weights_of(engine), weights_of(other))


# ------------------------------------------------------------------------------ log-probabilities
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_the_parts_of_all_ranks_are_the_whole_in_the_tables_order(folder: Path, layout: Any) -> None:
    table = make_rollouts(3, 3)
    module = load_policy_module(folder)
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
    engine = FakeRank(load_policy_module(folder), learner(), 0, 2)
    part = token_logprobs(engine, make_rollouts(2, 2), temperature=1.0, tokens_per_microbatch=99, pad_id=0)
    with pytest.raises(ValueError, match="exactly once"):
        merge_parts([part])


def test_more_ranks_than_rows_still_run(folder: Path) -> None:
    table = make_rollouts(1, 2)
    module = load_policy_module(folder)
    ranks = [FakeRank(module, learner(), rank, 3) for rank in range(3)]
    parts = [token_logprobs(e, table, temperature=1.0, tokens_per_microbatch=99, pad_id=0) for e in ranks]
    assert [part.num_rows for part in parts] == [1, 1, 0]
    assert merge_parts(parts).num_rows == 2


# ------------------------------------------------------------------------------------ policy
def test_one_update_is_the_hand_made_policy_gradient_step(folder: Path) -> None:
    table = on_policy(folder)
    config = learner()
    engine = TorchEngine(load_policy_module(folder), config)
    run_policy(engine, table, MethodConfig(name="grpo"), config)

    module = load_policy_module(folder)
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
@pytest.mark.parametrize("budget", [24, 60])
def test_gradients_do_not_depend_on_ranks_or_microbatches(
    folder: Path, aggregation: Any, budget: int
) -> None:
    table = on_policy(folder)
    method = MethodConfig(name="grpo", aggregation=aggregation, entropy_coefficient=0.1, kl_coefficient=0.1)
    reference = logprobs_of(folder, table, temperature=2.0)

    def gradients(rank: int, ranks: int, tokens: int, layout: str) -> list[torch.Tensor]:
        config = learner(tokens_per_microbatch=tokens, layout=layout)
        engine = FakeRank(load_policy_module(folder), config, rank, ranks)
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
    engines = [TorchEngine(load_policy_module(folder), config) for _ in range(2)]
    for engine, advantages in zip(engines, (per_step, per_token), strict=True):
        run_policy(engine, table, MethodConfig(name="grpo"), config, advantages=advantages)
    assert torch.equal(weights_of(engines[0]), weights_of(engines[1]))


def test_advantages_of_another_length_are_an_error(folder: Path) -> None:
    table = on_policy(folder)
    engine = TorchEngine(load_policy_module(folder), learner())
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
        engine = TorchEngine(load_policy_module(folder), learner())
        metrics = run_policy(engine, table, method, learner())
        assert metrics["sync/logprob_difference_max"] == pytest.approx(0.5, abs=1e-4)
        assert metrics["sync/logprob_difference_mean"] == pytest.approx(0.5 / shifted.numel(), abs=1e-5)


def test_shares_and_epochs_each_make_an_update(folder: Path) -> None:
    table = on_policy(folder)
    engine = TorchEngine(load_policy_module(folder), learner())
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
    metrics = run_policy(TorchEngine(load_policy_module(folder), learner()), table, method, learner())
    assert metrics["policy/rollouts"] == 2
    for constant in (0.0, 1.0):
        same = table.set_column(place, ROLLOUTS.field("outcome"), pa.array([constant] * 6, pa.float32()))
        engine = TorchEngine(load_policy_module(folder), learner())
        before = weights_of(engine)
        assert run_policy(engine, same, method, learner())["policy/updates"] == 0
        assert torch.equal(weights_of(engine), before)


def test_the_importance_weight_compares_trainer_and_sampler(folder: Path) -> None:
    table = make_rollouts(2, 2)  # the sampler claims -1 for every token
    trainer = to_packed(logprobs_of(folder, table)["logprobs"]).values
    method = MethodConfig(name="grpo", importance_cap=2.0)
    metrics = run_policy(TorchEngine(load_policy_module(folder), learner()), table, method, learner())
    expected = (trainer + 1.0).exp().clamp(max=2.0).mean()
    assert metrics["policy/importance_weight"] == pytest.approx(float(expected), abs=1e-5)
    assert metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-6)


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
    module = load_prm_module(folder, config.parameterisation, shaping=config.shaping)
    return TorchEngine(module, config.learner)


@pytest.mark.parametrize("action", ["step", "token"])
def test_a_log_prob_prm_starts_at_logit_zero(folder: Path, action: Any) -> None:
    config = prm_config("log_prob", action=action)
    metrics = update_prm(
        prm_engine(folder, config), real_batch(folder, config), config, temperature=TEMPERATURE, pad_id=0
    )
    assert metrics["prm/logit_abs_mean"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["prm/loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert metrics["prm/entropy"] == pytest.approx(math.log(2), abs=1e-5)


def test_a_scalar_head_starts_at_minus_the_mean_log_prob(folder: Path) -> None:
    config = prm_config("scalar_head")
    batch = real_batch(folder, config)
    metrics = update_prm(prm_engine(folder, config), batch, config, temperature=TEMPERATURE, pad_id=0)
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
        update_prm(engine, batch, config, temperature=TEMPERATURE, pad_id=0, updates=4)["prm/loss"]
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
        module = load_prm_module(folder, config.parameterisation, shaping=shaping)
        if parameterisation == "scalar_head":
            with torch.no_grad():  # off zero, else the backbone has no gradient
                module.model.score.weight.fill_(0.1)
        engine = FakeRank(module, config.learner, rank, ranks)
        update_prm(engine, batch, config, temperature=TEMPERATURE, pad_id=0)
        return engine.gradients

    whole = gradients(0, 1)
    for parts, expected in zip(zip(gradients(0, 2), gradients(1, 2), strict=True), whole, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(0), expected, atol=1e-5, rtol=1e-3)


def test_an_update_is_skipped_above_the_accuracy_ceiling(folder: Path) -> None:
    open_config = prm_config("log_prob")
    engine = prm_engine(folder, open_config)
    batch = real_batch(folder, open_config)
    for _ in range(40):
        metrics = update_prm(engine, batch, open_config, temperature=TEMPERATURE, pad_id=0)
    lowest = min(metrics["prm/expert_accuracy"], metrics["prm/policy_accuracy"])
    assert lowest > 0.6
    before = weights_of(engine)
    ceiling = prm_config("log_prob", accuracy_ceiling=0.6)
    metrics = update_prm(engine, batch, ceiling, temperature=TEMPERATURE, pad_id=0, updates=2)
    assert (metrics["prm/skipped"], metrics["prm/updates"]) == (1.0, 0.0)
    assert torch.equal(weights_of(engine), before)
    below = prm_config("log_prob", accuracy_ceiling=0.9999)
    metrics = update_prm(prm_engine(folder, below), batch, below, temperature=TEMPERATURE, pad_id=0)
    assert metrics["prm/skipped"] == 0.0


def test_no_problem_with_both_classes_skips_the_update(folder: Path) -> None:
    config = prm_config("log_prob")
    traces = make_traces(4).slice(0, 0)
    batch = build_prm_batch([PRMSource(on_policy(folder), traces, logprobs_of(folder, traces))], config)
    engine = prm_engine(folder, config)
    metrics = update_prm(engine, batch, config, temperature=TEMPERATURE, pad_id=0)
    assert metrics["prm/skipped"] == 1.0
    assert engine.updates == 0


# ------------------------------------------------------------------------------------ scores
def naive_scores(folder: Path, table: pa.Table, parameterisation: str, how: str) -> tuple[Any, Any]:
    """(f, l) of every step, row by row."""
    module = load_prm_module(folder, parameterisation)
    if parameterisation == "scalar_head":
        with torch.no_grad():
            module.model.score.weight.fill_(0.1)
    policy = load_policy_module(folder)
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
    module = load_prm_module(folder, parameterisation)
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
        expected = [
            math.exp(x) if parameterisation == "log_prob" and search == "auto" else 1 / (1 + math.exp(-x))
            for x in read
        ]
        assert scores == pytest.approx(expected, abs=1e-4)


# ------------------------------------------------------------------------------------ replay
def test_the_buffer_keeps_the_last_iterations_only() -> None:
    buffer = ReplayBuffer(2)
    for iteration in range(4):
        buffer.add(iteration, make_rollouts(3, 2, seed=iteration), make_traces(3))
    assert len(buffer) == 2
    sample = buffer.sample(100, 0.5, seed=0)
    assert sample is not None
    kept = pa.concat_tables([make_rollouts(3, 2, seed=2), make_rollouts(3, 2, seed=3)])
    assert sorted(map(str, sample.rollouts["response"].to_pylist())) == sorted(
        map(str, kept["response"].to_pylist())
    )


def test_a_sample_has_whole_groups_in_the_share_that_was_asked_for() -> None:
    buffer = ReplayBuffer(3)
    for iteration in range(3):
        buffer.add(iteration, make_rollouts(5, 2, seed=iteration), make_traces(5))
    sample = buffer.sample(6, 0.4, seed=1)  # 4 old groups beside 6 fresh ones
    assert sample is not None
    assert sample.rollouts.num_rows == 4 * 2
    assert set(sample.rollouts["problem_id"].to_pylist()) == set(sample.traces["problem_id"].to_pylist())
    again, other = buffer.sample(6, 0.4, seed=1), buffer.sample(6, 0.4, seed=2)
    assert sample.rollouts.equals(again.rollouts)
    assert not sample.rollouts.equals(other.rollouts)


def test_nothing_to_replay_is_none() -> None:
    assert ReplayBuffer(2).sample(4, 0.5, seed=0) is None
    buffer = ReplayBuffer(0)
    buffer.add(0, make_rollouts(2, 2), make_traces(2))
    assert buffer.sample(4, 0.5, seed=0) is None


def test_a_saved_buffer_loads_equal(tmp_path: Path) -> None:
    buffer, loaded = ReplayBuffer(2), ReplayBuffer(2)
    for iteration in (8, 9):
        buffer.add(iteration, make_rollouts(3, 2, seed=iteration), make_traces(3))
    buffer.save(tmp_path / "replay")
    loaded.load(tmp_path / "replay")
    mine, theirs = buffer.sample(4, 0.5, seed=3), loaded.sample(4, 0.5, seed=3)
    assert mine.rollouts.schema.equals(theirs.rollouts.schema, check_metadata=True)
    assert mine.rollouts.equals(theirs.rollouts)
    assert mine.traces.equals(theirs.traces)
