"""On-policy distillation: rewards against plain loops, their optimum, and what a teacher must be."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from actors.learn.groups import ReferencedScorer
from actors.learn.prm_learner import PRMServer
from actors.train.launch_checks import base_policy, with_given_prm
from airls_ray.config import load_config
from airls_ray.config.schema import LearnerConfig, MethodConfig
from airls_ray.data.parts import merge_parts
from airls_ray.errors import ConfigError, ModelError
from airls_ray.learning.advantages import assign_credit
from airls_ray.learning.engine import FrozenEngine, TorchEngine
from airls_ray.learning.passes import token_logprobs
from airls_ray.models.create import create_policy
from airls_ray.models.load import load_policy_module
from airls_ray.objectives.distillation import distillation_rewards
from airls_ray.planning.plan import make_plan
from airls_ray.prm.scores import score_steps
from airls_ray.text.make_tokenizer import train_tokenizer
from tests.tiny import Ids, make_policy_folder, make_rollouts, policy_module
from tests.unit.test_advantages import grades_of

VOCABULARY = 7


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("teacher"), seed=1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("reference"), seed=2)


def logprobs_of(folder: Path, table: pa.Table) -> pa.Table:
    engine = TorchEngine(policy_module(folder), LearnerConfig())
    part = token_logprobs(engine, table, temperature=1.0, tokens_per_microbatch=99, pad_id=0)
    return merge_parts([part])


# ------------------------------------------------------------------------------------ rewards
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.25, 3.0])
def test_rewards_are_those_of_a_plain_loop_over_thousands_of_tokens(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, policy, base = (-4 * torch.rand(6000, generator=generator) for _ in range(3))
    got = distillation_rewards(teacher, policy, base, scale).tolist()
    rows = zip(teacher.tolist(), policy.tolist(), base.tolist(), strict=True)
    wanted = [scale * (t - b) - (p - b) for t, p, b in rows]
    assert got == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.25, 3.0])
def test_the_policy_gradient_is_zero_where_the_policy_is_the_extrapolated_teacher(scale: float) -> None:
    """The optimum of G-OPD is pi* ~ teacher^lambda ref^(1 - lambda); elsewhere the gradient leads to it."""
    generator = torch.Generator().manual_seed(1)
    teacher, base, other = torch.randn(3, VOCABULARY, generator=generator, dtype=torch.float64).log_softmax(1)
    best = (scale * teacher + (1 - scale) * base).log_softmax(0)
    assert _expected_gradient(best, teacher, base, scale).abs().max() < 1e-12
    # Elsewhere it is minus the gradient of KL(pi || pi*), here by finite differences.
    step, wanted = 1e-6, torch.zeros(VOCABULARY, dtype=torch.float64)
    for at in range(VOCABULARY):
        up, down = (other + sign * step * torch.eye(VOCABULARY)[at].double() for sign in (1, -1))
        wanted[at] = -(_kl(up.log_softmax(0), best) - _kl(down.log_softmax(0), best)) / (2 * step)
    torch.testing.assert_close(_expected_gradient(other, teacher, base, scale), wanted, atol=1e-8, rtol=0)


def _expected_gradient(log_policy: Tensor, teacher: Tensor, base: Tensor, scale: float) -> Tensor:
    """Sum over all tokens of pi(y) r(y) d log pi(y) / d logits."""
    rewards = distillation_rewards(teacher, log_policy, base, scale)
    pi = log_policy.exp()
    return pi * rewards - pi * (pi * rewards).sum()


def _kl(one: Tensor, other: Tensor) -> float:
    return float((one.exp() * (one - other)).sum())


@pytest.mark.parametrize("unit", ["token", "step"])
@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_a_teachers_rewards_of_rollouts_are_those_of_three_models(
    folder: Path, teacher: Path, reference: Path, scale: float, unit: str
) -> None:
    config = load_config(None, ["method=exopd", f"prm.distillation_scale={scale}"]).prm
    config = config.model_copy(update={"action": unit, "reward_unit": unit})
    rollouts = make_rollouts(20, 20)  # 2,000 tokens
    policy, phi, ref = (logprobs_of(one, rollouts)["logprobs"] for one in (folder, teacher, reference))
    at = rollouts.column_names.index("logprobs")
    sampled = rollouts.set_column(at, rollouts.field(at), policy)
    base = pa.table({"logprobs": ref}) if scale != 1 else None
    engine = FrozenEngine(load_policy_module(teacher), torch.device("cpu"))
    part = merge_parts([score_steps(engine, sampled, base, config, temperature=1.0, pad_id=0)])
    columns = zip(*(one.to_pylist() for one in (phi, policy, ref)), strict=True)
    for got, ends, row in zip(
        part["rewards"].to_pylist(), rollouts["step_ends"].to_pylist(), columns, strict=True
    ):
        tokens = [scale * (t - b) - (p - b) for t, p, b in zip(*row, strict=True)]
        spans = zip([0, *ends[:-1]], ends, strict=True)
        wanted = tokens if unit == "token" else [sum(tokens[start:end]) for start, end in spans]
        assert got == pytest.approx(wanted, abs=2e-5)


@pytest.mark.parametrize("name", ["opd", "exopd"])
def test_the_rewards_are_the_advantages_whatever_the_outcomes(name: str) -> None:
    rollouts = make_rollouts(30, 8)
    generator = torch.Generator().manual_seed(3)
    lengths = [len(row) for row in rollouts["response"].to_pylist()]
    rewards = [torch.randn(n, generator=generator).tolist() for n in lengths]
    scores = pa.table({"rewards": pa.array(rewards, pa.list_(pa.float32()))})
    got = assign_credit(rollouts, grades_of(rollouts), scores, MethodConfig(name=name), max_response_tokens=8)
    for one, other in zip(got.to_pylist(), rewards, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


# ------------------------------------------------------------------------------------- actors
def test_a_plain_model_serves_as_the_teacher_and_stays_out_of_checkpoints(
    folder: Path, teacher: Path, reference: Path, tmp_path: Path
) -> None:
    """No prm.json lies there. The base of another lambda comes from the reference server."""
    config = load_config(None, ["method=exopd", f"prm.path={teacher}"])
    server = PRMServer(with_given_prm(config), str(folder), str(teacher))
    server._codec = SimpleNamespace(pad_id=0)  # type: ignore[assignment]
    server._engine = FrozenEngine(load_policy_module(teacher), torch.device("cpu"))
    rollouts = make_rollouts(2, 2)  # sampled at -1 nat a token
    phi, ref = (logprobs_of(one, rollouts) for one in (teacher, reference))
    base = ref.add_column(0, "row", pa.array(range(rollouts.num_rows), pa.int64()))
    got = server.score([rollouts], [base])
    rows = zip(got["row"].to_pylist(), got["rewards"].to_pylist(), strict=True)
    for row, rewards in rows:
        pairs = zip(phi["logprobs"][row].as_py(), ref["logprobs"][row].as_py(), strict=True)
        assert rewards == pytest.approx([1.25 * (t - b) - (-1 - b) for t, b in pairs], abs=1e-4)
    server.save(str(tmp_path / "prm"), str(tmp_path / "state"))
    assert not (tmp_path / "prm").exists()


class Rank:
    """An actor handle whose call gives back its arguments."""

    def __init__(self) -> None:
        self.score = SimpleNamespace(remote=lambda *arguments: arguments)


def test_the_teacher_gets_the_references_log_probs_once(monkeypatch: Any) -> None:
    """Those of the iteration where they are known; in an evaluation it asks for them."""
    monkeypatch.setattr("actors.learn.groups.cluster.fetch_together", lambda *_: None)
    asked: list[Any] = []

    def log_probs(rollouts: Any) -> list[str]:
        asked.append(rollouts)
        return ["asked"]

    server: Any = SimpleNamespace(log_probs=log_probs)
    scorer = ReferencedScorer([Rank()], server, 1.0)
    assert scorer.score(["rollouts"], ["known"], ["now"]) == [(["rollouts"], ["known"], ["now"])]
    assert asked == []
    assert scorer.score(["rollouts"]) == [(["rollouts"], ["asked"], ())]
    assert asked == [["rollouts"]]


# ----------------------------------------------------------------------------- configuration
@pytest.mark.parametrize(
    ("overrides", "reads"),
    [(["method=opd"], False), (["method=exopd"], True), (["method=opd", "prm.distillation_scale=0.5"], True)],
)
def test_only_another_lambda_than_one_starts_the_reference_server(overrides: list[str], reads: bool) -> None:
    config = load_config(None, overrides)
    assert config.uses_reference == reads
    assert config.uses_prm and not config.prm_learns
    names = {one.name for one in make_plan(config).demands}
    assert ("reference server" in names) == reads and "PRM" in names


@pytest.mark.parametrize("overrides", [["train.max_staleness=1", "method.importance_cap=2"], []])
def test_old_rollouts_are_compared_with_the_policy_as_it_is_now(overrides: list[str]) -> None:
    assert load_config(None, ["method=opd", *overrides]).recomputes_log_probs == bool(overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["method=airl_s", "prm.reward=distillation"],
            "only method.prm_objective=frozen has, and it is airl",
        ),
        (["method=opd", "prm.parameterisation=scalar_head"], "reward=distillation is of a language model"),
        (["method=opd", "prm.distillation_scale=0"], "prm.distillation_scale"),
    ],
)
def test_settings_that_no_teacher_can_have_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, overrides)


def test_a_run_without_its_teacher_says_so() -> None:
    config = load_config(None, ["method=opd"])
    with pytest.raises(ConfigError, match=r"opd learns from a teacher, but prm\.path is not set"):
        with_given_prm(config)
    assert "method opd needs a teacher: set prm.path" in " | ".join(make_plan(config).warnings)


def test_a_plain_model_is_still_no_prm(folder: Path) -> None:
    with pytest.raises(ModelError, match="is no PRM of this project"):
        with_given_prm(load_config(None, ["method=orm", f"prm.path={folder}"]))


# ------------------------------------------------------------------------- what a teacher must be
def text_model(folder: Path, tokens: int = 258, vocabulary: int | None = None, **changes: Any) -> Path:
    """A model that reads any text; its vocabulary may be larger than that of the tokenizer."""
    train_tokenizer(["so it is, and so it was"] * 9, tokens, folder)
    sizes = load_config(
        None, ["model.hidden_size=32", "model.layers=2", "model.heads=1", "model.intermediate_size=48"]
    ).model
    create_policy(sizes, Ids(1, 0, vocabulary or tokens), folder, seed=0)
    if changes:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def start(policy: Path, teacher: Path) -> str:
    return base_policy(load_config(None, ["method=opd", f"model.path={policy}", f"prm.path={teacher}"]))


def test_a_teacher_of_another_size_and_a_padded_vocabulary_is_taken(tmp_path: Path) -> None:
    policy = text_model(tmp_path / "policy")
    assert start(policy, text_model(tmp_path / "teacher", vocabulary=320)) == str(policy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": 262}, "the teacher .* has another tokenizer than the policy"),
        ({"vocabulary": 256}, "a vocabulary of 256 tokens, and the policy .* may say 258"),
        ({"architectures": ["Qwen3ForTokenClassification"]}, "it must be a causal language model"),
        ({"max_position_embeddings": 8}, "takes 8 tokens .* but model.context_tokens is"),
    ],
)
def test_a_teacher_that_cannot_judge_what_the_policy_says_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    teacher = text_model(tmp_path / "teacher", **changes)
    with pytest.raises(ModelError, match=words):
        start(text_model(tmp_path / "policy"), teacher)


def test_a_teacher_of_the_policys_own_vocabulary_is_taken(tmp_path: Path) -> None:
    policy = text_model(tmp_path / "policy")
    assert start(policy, text_model(tmp_path / "teacher")) == str(policy)
