"""What `methods.py` compares: settings of each method and ablation, as overrides of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import common

PUZZLES = ("jugs", "quantum_lock", "word_ladder")
"""Of reasoning-gym (pip install reasoning-gym), in few tokens: many ways are right."""
CONFIGS = {
    "arithmetic": common.ROOT / "configs" / "demo_arithmetic.yaml",
    "countdown": common.ROOT / "configs" / "countdown3.yaml",
    **{name: common.ROOT / "configs" / f"{name}.yaml" for name in PUZZLES},
}
PRM_CONFIGS = {
    "arithmetic": common.ROOT / "configs" / "arithmetic_train_prm.yaml",
    "countdown": common.ROOT / "configs" / "countdown3.yaml",
    **{name: CONFIGS[name] for name in PUZZLES},
}
"""Where the settings of the Math-Shepherd PRM are."""
SMALL_PRM = ("model.hidden_size=64", "model.layers=3", "model.heads=2", "model.intermediate_size=192")
"""Shape of the smaller PRM: about a sixth of the policy's parameters."""


@dataclass(frozen=True)
class Variant:
    """One column of the comparison."""

    name: str
    label: str
    overrides: tuple[str, ...] = ()
    of: str | None = None
    """For an ablation: the variant whose settings these overrides come on top of."""
    needs_prm: bool = False
    """Whether it trains with the Math-Shepherd PRM."""
    small_prm: bool = False
    """Whether its PRM starts from a smaller policy, warm-started on the same traces."""
    teacher: str | None = None
    """For a distillation: the variant whose trained policy, of the same seed, is its PRM."""
    wrapped_by: str | None = None
    """A task that makes problems of those of another one, its option `task`."""


OUTCOME_ONLY = ("method.updates_per_iteration=1", "method.step_weight=0.0")
"""The better of two settings of `airls_vs_grpo.py`: with the four updates of AIRL-S at its rate of 2e-4,
training on outcomes alone falls, and 1e-4 with four updates is two points worse over three seeds."""

METHODS: tuple[Variant, ...] = (
    Variant("grpo", "GRPO", ("method.name=grpo", *OUTCOME_ONLY)),
    Variant("rloo", "RLOO", ("method.name=rloo", *OUTCOME_ONLY)),
    Variant(
        "prime",
        "PRIME",
        (
            "method.name=prime",
            # The gentlest of the settings that were tried (docs/methods.md): the others lost the policy.
            "method.step_weight=0.5",
            "method.step_return=to_go",
            "method.updates_per_iteration=1",
            "method.accuracy_band=[0.2,0.8]",
            "policy.learning_rate=1.0e-4",
            "prm.action=token",
            "prm.reward_unit=token",
            "prm.warmup_iterations=0",
            "prm.updates_per_iteration=1",
            "prm.log_prob=sum",
            "prm.score_by=previous",
            "prm.search_score=reference_ratio",
            "prm.search_aggregate=odds",
            "method.step_scale=largest_return",
            # Responses of 40 tokens: with the published 0.05 the outcome's logit stays near 0.
            "prm.prime.beta=0.5",
            "prm.learner.learning_rate=5.0e-5",
        ),
    ),
    Variant(
        "pure",
        "PURE, Math-Shepherd PRM",
        (
            "method.name=pure",
            "method.step_weight=0.5",
            "method.step_return=to_go",
            "policy.learning_rate=1.0e-4",
            "prm.parameterisation=scalar_head",
            "prm.reward=signed_probability",
        ),
        needs_prm=True,
    ),
    Variant("airl_s", "AIRL-S"),
    Variant(
        "repirl",
        "rePIRL",
        (
            "method.name=repirl",
            "method.step_weight=0.0",
            "method.trajectory_weight=5.0",
            "policy.learning_rate=1.0e-4",
            "prm.parameterisation=log_prob",
            "prm.action=token",
            "prm.reward=f",
            "prm.output_l2=0.1",
            "prm.search_aggregate=prod",
            "prm.reward_unit=token",
            "prm.negatives=failed",
            "prm.correct_rollouts=reference",
            "prm.log_prob=sum",
        ),
    ),
)

ABLATIONS: tuple[Variant, ...] = (
    Variant(
        "prime_equation_5",
        "PRIME, eq. 5 of the paper alone",
        ("method.step_scale=none", "method.accuracy_band=null", "prm.score_by=updated"),
        "prime",
    ),
    Variant("airl_no_warmup", "AIRL-S without warm-up", ("prm.warmup_iterations=0",), "airl_s"),
    Variant("airl_shares", "AIRL-S, PRM updates on a quarter of the batch each", ("prm.shares=4",), "airl_s"),
    Variant("airl_lambda_0", "AIRL-S, lambda 0", ("method.step_weight=0.0",), "airl_s"),
    Variant("airl_lambda_0.5", "AIRL-S, lambda 0.5", ("method.step_weight=0.5",), "airl_s"),
    Variant("airl_lambda_1", "AIRL-S, lambda 1", ("method.step_weight=1.0",), "airl_s"),
    Variant("airl_token_actions", "AIRL-S, token actions", ("prm.action=token",), "airl_s"),
    Variant("airl_small_prm", "AIRL-S, smaller PRM", (), "airl_s", small_prm=True),
    Variant("airl_reward_f", "AIRL-S, reward f", ("prm.reward=f",), "airl_s"),
    Variant("airl_unpaired", "AIRL-S, classes not paired", ("prm.pair_by_problem=false",), "airl_s"),
    Variant(
        "airl_correct_as_experts",
        "AIRL-S, correct rollouts on the expert side",
        ("prm.negatives=failed", "prm.correct_rollouts=reference"),
        "airl_s",
    ),
    Variant(
        "airl_scalar_head",
        "AIRL-S, scalar head",
        (
            "prm.parameterisation=scalar_head",
            "prm.search_score=product",
            "prm.reward=f",
            "method.step_weight=0.2",
            "policy.learning_rate=1.0e-4",
            "prm.learner.learning_rate=3.0e-4",
        ),
        "airl_s",
    ),
    Variant(
        "repirl_no_correct_rollouts",
        "rePIRL without correct rollouts on the expert side",
        ("prm.correct_rollouts=policy",),
        "repirl",
    ),
    Variant("repirl_unweighted", "rePIRL without importance weights", ("prm.repirl.weight=none",), "repirl"),
    Variant("repirl_sum", "rePIRL, weights as printed (sum)", ("prm.repirl.weight=sum",), "repirl"),
    Variant("repirl_no_warmup", "rePIRL without warm-up", ("prm.warmup_iterations=0",), "repirl"),
    Variant(
        "repirl_scalar_head",
        "rePIRL, scalar head, alpha 0.05 (as published)",
        ("prm.parameterisation=scalar_head", "prm.reward=f", "prm.log_prob=mean",
         "prm.output_l2=0.01", "method.trajectory_weight=0.05"),
        "repirl",
    ),
)  # fmt: skip


def variant(name: str) -> Variant:
    """Return the method or ablation of a name.

    Raises:
        KeyError: there is none.
    """
    return {one.name: one for one in (*METHODS, *ABLATIONS)}[name]


def overrides_of(one: Variant) -> tuple[str, ...]:
    """All overrides of a variant, those of the method that it changes first."""
    return (*overrides_of(variant(one.of)), *one.overrides) if one.of else one.overrides


def config_path(task: str) -> Path:
    """Configuration of a task."""
    return CONFIGS[task]
