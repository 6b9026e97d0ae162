"""Policy losses of the user's own, and the trial of all that a method names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from airls_ray.config import load_config
from airls_ray.config.named import find_doors
from airls_ray.config.prm_sections import PRMConfig
from airls_ray.config.schema import LearnerConfig, MethodConfig
from airls_ray.data.check_method import own_names
from airls_ray.errors import DoorError
from airls_ray.learning import try_method as trial
from airls_ray.learning.advantages import assign_credit
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.policy import update_policy
from airls_ray.learning.try_method import try_method
from tests.tiny import policy_module
from tests.unit.learning.fakes import TEMPERATURE, on_policy
from tests.unit.test_advantages import grades_of

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = """
import time
import torch

def surrogate(inputs, *, config, normaliser):
    ratio = (inputs.logprobs - inputs.old_logprobs).exp()
    kept = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    gain = torch.minimum(ratio * inputs.advantages, kept * inputs.advantages)
    return -gain.sum() / normaliser.tokens, {"gain": gain.detach().sum()}

def scaled(inputs, config, normaliser, scale): return scale * inputs.logprobs.sum(), {}
def wrong(inputs, config): pass
def strange(inputs, config, normaliser, scale): pass
def mean(inputs, config, normaliser): return inputs.logprobs.mean(), {}
def changing(inputs, config, normaliser):
    return inputs.logprobs.sum(), {} if inputs.logprobs.numel() else {"empty": 1.0}
def of_entropy(inputs, config, normaliser): return inputs.entropy.sum(), {}
def root(inputs, config, normaliser):
    return (inputs.logprobs - inputs.logprobs.detach()).abs().sqrt().sum(), {}
def hangs(inputs, config, normaliser): time.sleep(60)

def random(rewards): return rewards + torch.rand(rewards.shape)
def half(rewards): return rewards[:-1]
def at_import_only(lengths): return lengths > 2
class Free:
    def __init__(self, config): pass
    def loss(self, actions): return actions.log_base.sum() + 0 * actions.f.sum(), {}
class Mean:
    def __init__(self, config): pass
    def loss(self, actions): return actions.f.mean(), {}
"""


def method(**fields: Any) -> MethodConfig:
    return MethodConfig.model_validate({"name": "rloo", **fields})


def updated(folder: Path, config: MethodConfig) -> tuple[dict[str, float], list[torch.Tensor]]:
    learner = LearnerConfig(learning_rate=1e-2, gradient_clip=0.0, tokens_per_microbatch=40)
    engine, rollouts = TorchEngine(policy_module(folder), learner), on_policy(folder)
    advantages = assign_credit(rollouts, grades_of(rollouts), None, config, max_response_tokens=8)
    metrics = update_policy(
        engine, rollouts, advantages, None, config, learner,
        temperature=TEMPERATURE, max_response_tokens=8, pad_id=0,
    )  # fmt: skip
    return metrics, [one.detach().clone() for one in engine.module.parameters()]


def test_the_surrogate_written_down_anew_learns_what_the_built_in_one_learns(folder: Path, own: Path) -> None:
    built_in, weights = updated(folder, method(epochs=2, clip_low=0.01, clip_high=0.01))
    metrics, mine = updated(
        folder, method(epochs=2, clip_low=0.01, clip_high=0.01, policy_loss=f"{own}:surrogate")
    )
    for a, b in zip(weights, mine, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert metrics["policy/loss"] == pytest.approx(built_in["policy/loss"], rel=1e-4)
    assert metrics["policy/gain"] == pytest.approx(
        -built_in["policy/loss"], rel=1e-4
    )  # a mean over the tokens
    assert "policy/clip_share" not in metrics and built_in["policy/clip_share"] > 0.0


@pytest.mark.parametrize("name", ["gspo", "cispo"])
def test_other_built_in_losses_learn_and_measure_what_the_first_one_does(folder: Path, name: str) -> None:
    """With one update old and new policy are the same, and so are the gradients."""
    built_in, _ = updated(folder, method())
    metrics, weights = updated(folder, method(policy_loss=name))
    assert metrics.keys() == built_in.keys()
    assert metrics["policy/gradient_norm"] == pytest.approx(built_in["policy/gradient_norm"], rel=1e-4)
    assert not torch.equal(weights[0], policy_module(folder).model.get_input_embeddings().weight)


def tried(own: Path, prm: dict[str, Any] | None = None, **fields: Any) -> None:
    config = method(**fields)
    try_method(config, PRMConfig.model_validate(prm or {}), 16, reference=False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"policy_loss": ":wrong"}, "wrong takes inputs, config, and it must take inputs, config, norm"),
        ({"policy_loss": ":strange"}, "strange takes inputs, config, normaliser, scale, and it must take"),
        ({"policy_loss": ":mean"}, "mean returned nan as loss"),
        ({"policy_loss": ":changing"}, "changing returned the sums none and then empty, and"),
        ({"policy_loss": ":of_entropy"}, "of_entropy returned a loss whose gradient does not reach logp"),
        ({"policy_loss": ":root"}, "root returned a loss whose gradient is not finite"),
        ({"policy_loss": ":hangs"}, r"hangs raises TimeoutError: it has not returned within 0\.5 s"),
        ({"step_transforms": ":random"}, "random gives another result for the same values when"),
        ({"step_transforms": ["min_form", ":half"]}, r"half returned a tensor of shape \[8\], .* 9 numbers"),
        ({"row_filters": ":half"}, "half takes 'rewards', which only a PRM gives"),
        ({"step_transforms": ":nothing"}, "has no attribute 'nothing'"),
        ({"prm_objective": ":Free"}, "Free returned a loss whose gradient does not reach f"),
        ({"prm_objective": ":Mean"}, "Mean returned nan as loss"),
    ],
)  # fmt: skip
def test_a_trial_finds_what_is_wrong(
    own: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(trial, "CALL_SECONDS", 0.5 if "hangs" in said else 60.0)
    placed = {
        name: [f"{own}{one}" if one.startswith(":") else one for one in value]
        if isinstance(value, list)
        else f"{own}{value}"
        for name, value in fields.items()
    }
    with pytest.raises(DoorError, match=said) as caught:
        tried(own, **placed)
    assert str(caught.value).startswith(f"method.{next(iter(fields))}: ") and "\n" not in str(caught.value)


def test_a_trial_lets_pass_what_is_right(own: Path) -> None:
    loss = {"name": f"{own}:scaled", "options": {"scale": -2.0}}
    for fields in (
        {"policy_loss": loss},
        {"policy_loss": f"{own}:surrogate"},
        {"row_filters": f"{own}:at_import_only"},
    ):
        tried(own, **fields)
    tried(own, prm_objective="airl", accuracy_band=[0.2, 0.8], overlong_buffer_tokens=4)


@pytest.mark.parametrize("name", ["own_objective", "own_credit"])
def test_the_examples_pass_the_trial_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(EXAMPLES / f"{name}.yaml")
    assert find_doors(config) and own_names(config.method)
    try_method(config.method, config.prm, config.rollout.max_response_tokens, reference=config.uses_reference)


def test_credit_of_the_example_by_hand() -> None:
    config = load_config(EXAMPLES / "own_credit.yaml").method
    transform, term = config.step_transforms[0].open(), config.outcome_terms[0].open()
    rewards = torch.tensor([0.5, -2.0, 3.0, 4.0, 1.0, -1.5, -3.0])
    rows = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    assert transform({"rewards": rewards, "step_rows": rows}).tolist() == [
        0.5,
        -2.0,
        0.0,
        4.0,
        1.0,
        -1.5,
        0.0,
    ]
    known = {
        "outcomes": torch.tensor([1.0, 0.0]),
        "lengths": torch.tensor([10, 10]),
        "max_response_tokens": 40,
    }
    assert term(known).tolist() == [0.75, 0.0]


def test_only_what_is_the_users_or_named_beside_a_field_is_tried(own: Path) -> None:
    assert own_names(method(accuracy_band=[0.2, 0.8], format_penalty=1.0)) == []
    assert own_names(method(policy_loss="gspo")) == ["gspo"]
    named = method(policy_loss=f"{own}:mean", outcome_terms=["overlong"], prm_objective=f"{own}:Mean")
    assert own_names(named) == ["mean", "Mean", "overlong"]
