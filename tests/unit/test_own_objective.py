"""PRM objectives of the user's own: what they declare, how they learn, what is said where they fail."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from airls_ray.config import Config, load_config
from airls_ray.config.load import dump_config, load_run_config, with_absolute_paths
from airls_ray.config.method_doors import ObjectiveConfig
from airls_ray.config.named import find_doors
from airls_ray.errors import ConfigError, DoorError
from airls_ray.learning.engine import TorchEngine
from airls_ray.prm.batch import PRMBatch, PRMSource, build_prm_batch
from airls_ray.prm.objective_traits import ObjectiveTraits
from airls_ray.prm.update import update_prm
from tests.tiny import make_rollouts, make_traces
from tests.unit.test_prm_update import engine_of, learn, logprobs_of, settings

OWN = '''
import torch
from torch.nn.functional import softplus

class Airl:
    """The discriminator of AIRL, written down anew."""
    def __init__(self, config): pass
    def loss(self, actions):
        logits = actions.f - actions.log_base
        loss = actions.expert_weights * softplus(-logits) + actions.policy_weights * softplus(logits)
        return loss.sum(), {"right": (actions.expert_weights * (logits > 0)).sum()}

class Outcome(Airl):
    sides = "outcome"
    needs_traces: bool = False

class Reference(Outcome):
    base = "reference"
    needs_log_prob_form = True

class Sampler(Airl):
    base, weighs = "sampler", "sequence"

class Sums(Airl):
    needs_row_sums = True
    def __init__(self, config, scale=1.0):
        self.scale = scale
        Sums.seen = []
    def prepare(self, sums):
        Sums.seen.append(sums)
    def metrics(self, sums):
        return {"prm/scaled": self.scale * sums["weight"]}

Alias = Outcome
class Outer:
    class Inner(Outcome):
        needs_traces = True

class WrongBase(Airl): base = "refrence"
class WrongBool(Airl): needs_traces = "no"
class NoLiteral(Airl): base = "ref" + "erence"
class Later(Airl):
    def __init__(self, config): self.base = "reference"
class NoConfig:
    def __init__(self, settings): pass
    def loss(self, actions): pass
class NoLoss:
    def __init__(self, config): pass
class TwoArguments(Airl):
    def loss(self, actions, sums): pass
class NoPrepare(Airl): needs_row_sums = True
class Raises(Airl):
    def __init__(self, config): {}["x"]

class Bad(Airl):
    def __init__(self, config, what=""): self.what = what
    def loss(self, actions):
        loss, sums = super().loss(actions)
        return {
            "raises": lambda: {}["x"],
            "alone": lambda: loss,
            "vector": lambda: (actions.f, sums),
            "number": lambda: (1.0, sums),
            "nan": lambda: (loss * torch.nan, sums),
            "detached": lambda: (loss.detach(), sums),
            "list": lambda: (loss, [1]),
            "sum": lambda: (loss, {"right": actions.f}),
            "inf": lambda: (loss, {"right": loss * torch.inf}),
            "taken": lambda: (loss, {"weight": 1.0}),
            "text": lambda: (loss, {"right": "all"}),
        }[self.what]()
class BadMetrics(Airl):
    def metrics(self, sums): return {"prm/x": torch.ones(2)}
def function(actions): pass
'''


def named(own: Path, name: str, **options: Any) -> ObjectiveConfig:
    return ObjectiveConfig(name=f"{own}:{name}", options=options)


def batch_of(folder: Path, objective: ObjectiveConfig, **changes: Any) -> PRMBatch:
    rollouts, traces = make_rollouts(4, 4), make_traces(4)
    source = PRMSource(rollouts, traces, logprobs_of(folder, traces), logprobs_of(folder, rollouts))
    return build_prm_batch([source], settings(action="step", **changes), objective)


def trained(folder: Path, objective: ObjectiveConfig) -> tuple[dict[str, float], list[torch.Tensor]]:
    config = settings(action="step")
    engine: TorchEngine = engine_of(folder, config)
    metrics = learn(engine, batch_of(folder, objective), config, updates=2)
    return metrics, [one.detach().clone() for one in engine.module.parameters()]


# ------------------------------------------------------------------------------------- learning
def test_airl_written_down_anew_learns_what_the_built_in_one_learns(folder: Path, own: Path) -> None:
    built_in, weights = trained(folder, ObjectiveConfig(name="airl"))
    metrics, mine = trained(folder, named(own, "Airl"))
    assert metrics["prm/loss"] == pytest.approx(built_in["prm/loss"], rel=1e-5)
    assert metrics["prm/right"] == pytest.approx(built_in["prm/expert_accuracy"] / 2, abs=1e-6)
    for a, b in zip(weights, mine, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_sums_of_whole_sequences_come_before_each_pass_and_metrics_are_its_own(
    folder: Path, own: Path
) -> None:
    objective = named(own, "Sums", scale=3.0)
    metrics, _ = trained(folder, objective)
    seen = objective.open().made.seen
    assert len(seen) == 2 and seen[0].phi.shape == (20,)
    assert metrics["prm/scaled"] == pytest.approx(3.0, rel=1e-5)
    assert "prm/right" not in metrics


def test_the_classes_are_as_declared(folder: Path, own: Path) -> None:
    """16 rollouts of 2 steps, half of them right; 4 traces."""
    outcome = batch_of(folder, named(own, "Outcome"))
    assert outcome.is_expert.sum() == 8 and outcome.is_expert.numel() == 16
    torch.testing.assert_close(outcome.weights.values, torch.full((32,), 1 / 32))
    whole = batch_of(folder, named(own, "Outer.Inner"))
    assert whole.is_expert.sum() == 8 + 4 and whole.is_expert.numel() == 20
    assert float(whole.weights.values.sum()) == pytest.approx(1.0)
    sampler = batch_of(folder, named(own, "Sampler"), pair_by_problem=False)
    owner = torch.repeat_interleave(torch.arange(20), sampler.weights.lengths)
    by_row = torch.zeros(20).index_add(0, owner, sampler.weights.values)
    torch.testing.assert_close(by_row, torch.where(sampler.is_expert, 0.5 / 4, 0.5 / 16))
    assert sampler.logprobs.values[sampler.logprobs.offsets[0]] == -1.0  # their own, not those given beside
    assert batch_of(folder, named(own, "Airl")).logprobs.values[0] != -1.0


# ------------------------------------------------------------------------------------ declaring
@pytest.mark.parametrize(
    ("name", "traits"),
    [
        ("Airl", ObjectiveTraits()),
        ("Outcome", ObjectiveTraits(sides="outcome", needs_traces=False)),
        ("Alias", ObjectiveTraits(sides="outcome", needs_traces=False)),
        ("Outer.Inner", ObjectiveTraits(sides="outcome")),
        (
            "Reference",
            ObjectiveTraits(base="reference", sides="outcome", needs_traces=False, needs_log_prob_form=True),
        ),
        ("Sampler", ObjectiveTraits(base="sampler", weighs="sequence")),
    ],
)
def test_what_an_objective_declares_is_read_from_its_class(
    own: Path, name: str, traits: ObjectiveTraits
) -> None:
    assert named(own, name).traits() == traits


def test_to_read_it_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("raise SystemExit('it ran')\nclass Mine:\n    base = 'reference'\n")
    traits = ObjectiveConfig(name=f"{path}:Mine").traits()
    assert traits is not None and traits.base == "reference"


def test_words_of_the_configuration_declare_nothing() -> None:
    for name in ("none", "frozen"):
        objective = ObjectiveConfig(name=name)
        assert objective.traits() is None and not objective.learns
        assert pickle.loads(pickle.dumps(objective)) == objective


def config_of(own: Path, name: str, *overrides: str) -> Config:
    return load_config(None, [f"method.prm_objective={own}:{name}", *overrides])


def test_the_configuration_follows_what_is_declared(own: Path) -> None:
    airl, reference = config_of(own, "Airl"), config_of(own, "Reference")
    assert airl.prm_learns and airl.method.prm_objective.needs_traces and not airl.uses_reference
    assert reference.uses_reference and reference.method.prm_objective.against_reference
    assert not reference.method.prm_objective.needs_traces
    rough = ["model.dtype=bfloat16", "prm.reward=f"]
    reads = {
        name: config_of(own, name, *rough).recomputes_log_probs for name in ("Airl", "Sampler", "Reference")
    }
    assert reads == {"Airl": True, "Sampler": False, "Reference": False}
    scored = config_of(own, "Reference", "prm.search_score=reference_ratio", "prm.search_aggregate=odds")
    assert scored.uses_reference
    with pytest.raises(ConfigError, match=r"reference_ratio needs the reference model.*it is .*own\.py:Airl"):
        config_of(own, "Airl", "prm.search_score=reference_ratio", "prm.search_aggregate=odds")
    with pytest.raises(ConfigError, match=r"own\.py:Reference needs prm\.parameterisation=log_prob"):
        config_of(own, "Reference", "prm.parameterisation=scalar_head")


# -------------------------------------------------------------------------------------- failing
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "WrongBase",
            r"has base='refrence' \(did you mean 'reference'\?\), and there are policy, sampler, reference",
        ),
        ("WrongBool", "has needs_traces='no', and it must be True or False"),
        ("NoLiteral", "has base='ref' \\+ 'erence', and it must be a literal"),
        ("Later", "has base='reference' when it is made, and by its source it is 'policy'"),
        ("NoConfig", "is made with settings, and it must take config"),
        ("NoLoss", r"has no method loss\(actions\)"),
        ("TwoArguments", r"has loss\(self, actions, sums\), which is called with one argument"),
        ("NoPrepare", r"has needs_row_sums=True, and no method prepare\(sums\)"),
        ("Raises", r"raises KeyError: 'x' \(own\.py line 53\)"),
        ("function", r"is <function function .*>? \(function\), and it must be a class"),
        ("Nothing", "has no attribute 'Nothing'"),
    ],
)
def test_what_is_no_objective_is_one_sentence(folder: Path, own: Path, name: str, said: str) -> None:
    with pytest.raises(DoorError, match=said) as caught:
        trained(folder, named(own, name))
    assert str(caught.value).startswith("method.prm_objective: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raises", "raises KeyError: 'x'"),
        ("alone", r"returned a tensor of shape \[\], and it must return \(loss, sums\)"),
        ("vector", r"returned a tensor of shape \[\d+\] as loss, and it must be a tensor of one number"),
        ("number", r"returned 1\.0 \(float\) as loss"),
        ("nan", "returned nan as loss, and it must be finite"),
        ("detached", "returned a loss without gradient"),
        ("list", r"returned \[1\] \(list\) as sums, and it must be a dictionary"),
        ("sum", r"returned a tensor of shape \[\d+\] as the sum 'right'"),
        ("inf", "returned inf as the sum 'right', and it must be finite"),
        ("taken", "returned a sum 'weight', which has another meaning here"),
        ("text", "returned the text 'all' as the sum 'right'"),
    ],
)
def test_a_loss_that_fails_is_one_sentence(folder: Path, own: Path, what: str, said: str) -> None:
    with pytest.raises(DoorError, match=rf"method\.prm_objective: .*own\.py:Bad {said}"):
        trained(folder, named(own, "Bad", what=what))


def test_metrics_are_numbers_and_a_ceiling_needs_accuracies(folder: Path, own: Path) -> None:
    with pytest.raises(DoorError, match=r"own\.py:BadMetrics returned .*prm/x.* as metrics"):
        trained(folder, named(own, "BadMetrics"))
    config = settings(action="step", accuracy_ceiling=0.9)
    with pytest.raises(
        DoorError, match=r"accuracy_ceiling reads prm/expert_accuracy, which the metrics of .*:Airl"
    ):
        update_prm(
            engine_of(folder, config),
            [batch_of(folder, named(own, "Airl"))],
            config,
            temperature=1.0,
            pad_id=0,
        )


# ------------------------------------------------------------------------- names in configurations
def test_a_typing_mistake_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(
        ConfigError, match=r"no prm objective 'arl' \(did you mean 'airl'\?\): there are airl, "
    ):
        load_config(None, ["method.prm_objective=arl"])
    with pytest.raises(
        ConfigError, match=r"method\.policy_loss: there is no policy loss 'gpso' \(did you mean 'gspo'"
    ):
        load_config(None, ["method.policy_loss=gpso"])


def run_folder(tmp_path: Path, *overrides: str) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    dump_config(with_absolute_paths(load_config(None, overrides)), made / "config.yaml")
    return made


def test_names_alone_are_written_as_before_and_read_again(tmp_path: Path, own: Path) -> None:
    plain = run_folder(tmp_path, "method=airl_s") / "config.yaml"
    assert "  prm_objective: airl\n" in plain.read_text()
    whole = load_config(
        None,
        [f"method.prm_objective={{name: '{own}:Sums', options: {{scale: 2}}}}", "method.policy_loss=gspo"],
    )
    dump_config(whole, plain)
    assert load_config(plain) == whole


def test_a_run_folder_that_names_an_objective_is_refused_unless_trusted(tmp_path: Path, own: Path) -> None:
    made = run_folder(tmp_path, f"method.prm_objective={own}:Airl", f"method.policy_loss={own}:function")
    with pytest.raises(ConfigError, match=r"names code of its own \(.*own\.py:Airl\).*--trust"):
        load_run_config(made, trust=False)
    assert load_run_config(made, trust=True).method.prm_objective.name == f"{own}:Airl"
    given = load_run_config(made, ["method.prm_objective=airl", "method.policy_loss=clipped"], trust=False)
    assert given.method.prm_objective.name == "airl"


def test_who_opens_none_has_a_prm_that_only_scores(tmp_path: Path, own: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(OWN)
    made = run_folder(
        tmp_path, f"method.prm_objective={mine}:Airl", f"method.policy_loss={mine}:function",
        f"method.step_transforms=[min_form, '{mine}:function']",
    )  # fmt: skip
    mine.unlink()
    method = load_run_config(made).method
    assert (method.prm_objective.name, method.policy_loss.name) == ("frozen", "clipped")
    assert [one.name for one in method.step_transforms] == ["min_form"]


def test_a_run_records_the_users_own_and_what_lists_name(own: Path) -> None:
    plain = load_config(None, ["method=prime"])
    assert find_doors(plain) == []
    config = load_config(
        None,
        [f"method.prm_objective={own}:Airl", "method.outcome_terms=[overlong]", "method.policy_loss=gspo"],
    )
    assert [(one.kind, one.source) for one in find_doors(config)] == [
        ("prm objective", "file"),
        ("outcome term", "built-in"),
    ]
    with pytest.raises(DoorError, match="has base='refrence'"):
        find_doors(config_of(own, "WrongBase"))
    with pytest.raises(DoorError, match="there is no file"):
        find_doors(config_of(own.with_name("gone.py"), "Airl"))


def test_the_text_of_an_objective_travels_with_the_configuration(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    sent = pickle.dumps(config_of(path, "Outcome"))
    path.unlink()
    objective = pickle.loads(sent).method.prm_objective
    assert objective.traits() == ObjectiveTraits(sides="outcome", needs_traces=False)
    assert trained(folder, objective)[0]["prm/loss"] > 0.0


def test_a_batch_without_a_learning_objective_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="frozen has no PRM that learns"):
        build_prm_batch([], settings(), ObjectiveConfig(name="frozen"))
