"""Which rewards become which advantage and which loss."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from airls_ray.config.base import StrictModel
from airls_ray.config.door_section import one_alone
from airls_ray.config.method_doors import (
    FilterConfig,
    ObjectiveConfig,
    OutcomeRuleConfig,
    PolicyLossConfig,
    TermConfig,
    TransformConfig,
)
from airls_ray.config.methods import METHODS
from airls_ray.config.model_sections import Probability


class MethodConfig(StrictModel):
    """Which rewards become which advantage and which loss; the name fills what is not set."""

    name: Literal[
        "airl_s",
        "repirl",
        "prime",
        "pure",
        "grpo",
        "dr_grpo",
        "rloo",
        "dapo",
        "orm",
        "math_shepherd",
        "opd",
        "exopd",
    ] = "airl_s"
    """Preset (airls_ray/config/methods.py); it fills fields of `prm`, too."""
    prm_objective: ObjectiveConfig = ObjectiveConfig(name="none")
    """How the PRM learns: `airl`, `repirl`, `prime`, or your own (docs/doors.md); `none`: no PRM, outcomes
    alone; `frozen`: the PRM of `prm.path` only scores."""
    outcomes: OutcomeRuleConfig = OutcomeRuleConfig(name="graded")
    """Outcomes that are learned from: `graded`, the grader's; `vote` or `cross_vote`, without labels, or your
    own (docs/doors.md). Figures are by the grader's in any case."""
    outcome_weight: NonNegativeFloat = 1.0
    """Weight of the verifier's outcome in a rollout's reward; 0 trains on the PRM alone."""
    trajectory_weight: NonNegativeFloat = 0.0
    """alpha [rePIRL]: weight of the PRM's reward of the whole rollout, added to the outcome before its
    advantage."""
    trajectory_reward: Literal["mean", "sum", "min", "last"] = "mean"
    """How the PRM's rewards of a rollout's steps (or tokens) become that one number."""
    format_penalty: NonNegativeFloat = 0.0
    """Taken from the reward of a rollout without an answer of the required form [rePIRL: 1 in training on
    the PRM alone]."""
    overlong_buffer_tokens: NonNegativeInt = 0
    """[DAPO] A response loses up to 1 as it uses up this many tokens before the limit; 0 turns it off."""
    outcome_terms: Annotated[list[TermConfig], BeforeValidator(one_alone)] = Field(default_factory=list)
    """What else is added to the reward of a rollout, after the two above (docs/doors.md)."""
    outcome_advantage: Literal["grpo", "dr_grpo", "rloo", "pass_at_k", "none"] = "grpo"
    """Baseline and scale of a rollout's reward within its group; `pass_at_k`: what it adds to the best of K
    (arXiv 2508.10751), for a policy that is searched with; `none`: the reward as it is, which `whiten`
    compares with the whole batch [REINFORCE++]."""
    pass_at_k: PositiveInt = 4
    """K of `outcome_advantage: pass_at_k`; below `train.rollouts_per_problem`."""
    separate_rewards: bool = False
    """[GDPO] Each reward of a rollout (the outcome, the PRM's, each term) gets its advantage by itself, and
    these are added, each times its weight; else the advantage is of their sum. Rewards of `task.reward` then
    need `normalise: group`."""
    step_weight: Probability = 0.0
    """[C] lambda: A = (1 - lambda) A_outcome + lambda A_step."""
    step_transform: Literal["none", "min_form"] = "none"
    """`min_form` [PURE, arXiv 2504.15275]: rewards weighted by softmax(-r / T), so that their sum is about
    the least of them."""
    step_scale: Literal["none", "largest_return"] = "none"
    """[C] `largest_return` [PRIME's program]: divide the step rewards by the largest absolute reward-to-go of
    the iteration, which brings them to the scale of outcomes."""
    min_form_temperature: PositiveFloat = 0.1
    """[P] T of `min_form`."""
    step_transforms: Annotated[list[TransformConfig], BeforeValidator(one_alone)] = Field(
        default_factory=list
    )
    """What else is done to the step rewards before their baseline, in this order, after `step_scale` and
    `step_transform` (docs/doors.md)."""
    step_baseline: Literal["standardise", "leave_one_out", "none"] = "standardise"
    """[C] `standardise` over all steps of the group; `leave_one_out` [PRIME, PURE]: minus the mean over the
    other rollouts of the group of their mean reward; `none` [G-OPD]: the rewards as they are."""
    step_return: Literal["to_go", "immediate"] = "to_go"
    """[C] Advantage of a step: its reward after the baseline and those after it, or its own alone."""
    return_per_step: bool = True
    """[C] Divide the reward-to-go by the number of steps summed, so that length cannot pay."""
    whiten: bool = False
    """[PRIME] Bring the final advantages of all tokens that learn to mean 0 and deviation 1."""
    policy_loss: PolicyLossConfig = PolicyLossConfig(name="clipped")
    """The surrogate: `clipped` (PPO), `dual_clip`, `gspo`, `cispo`, `prl`, or your own (docs/doors.md)."""
    clip_low: PositiveFloat = 0.2
    """PPO clip below 1."""
    clip_high: PositiveFloat = 0.2
    """PPO clip above 1."""
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    """How token losses are averaged; `constant` divides by rollouts times max_response_tokens."""
    kl_coefficient: NonNegativeFloat = 0.0
    """Weight of the estimate of KL to the reference model; above 0 starts a reference server."""
    kl_estimator: Literal["k3", "k2"] = "k3"
    """[C] `k3` [P, GRPO]: unbiased for KL(policy || reference), but its gradient is that of KL(reference ||
    policy). `k2`, half the square of the log-ratio, is biased, and its gradient is that of KL(policy ||
    reference)."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus."""
    updates_per_iteration: PositiveInt = 1
    """Optimiser updates of the policy per iteration, each on its share of the groups."""
    epochs: PositiveInt = 1
    """Passes over the rollouts of an iteration."""
    importance_cap: NonNegativeFloat = 0.0
    """Truncation of the weights that correct for the sampler's log-probabilities; 0 turns it off. Set it (2
    is usual) where sampler and learner differ: bfloat16 on a GPU, older rollouts."""
    sequence_mask: NonNegativeFloat = 0.0
    """Leave out rollouts whose log-probability per token differs by more than this many nats between the
    sampler and the learner before its update (stale ones); 0 turns it off."""
    drop_constant_groups: bool = False
    """Leave out groups whose rollouts all have the same outcome (they have no outcome advantage)."""
    accuracy_band: tuple[Probability, Probability] | None = None
    """[rePIRL: 0.2 to 0.8] Only groups whose mean outcome lies within, bounds included, train policy and
    PRM (the PRM in its warm-up, too)."""

    row_filters: Annotated[list[FilterConfig], BeforeValidator(one_alone)] = Field(default_factory=list)
    """What else leaves rollouts out; one is learned from if all of these and the two above keep it
    (docs/doors.md)."""

    @property
    def transforms(self) -> list[TransformConfig]:
        """All that is done to the step rewards, in order."""
        own: list[TransformConfig] = []
        if self.step_scale != "none":
            own.append(TransformConfig(name=self.step_scale))
        if self.step_transform != "none":
            options = {"temperature": self.min_form_temperature}
            own.append(TransformConfig(name=self.step_transform, options=options))
        return own + self.step_transforms

    @property
    def terms(self) -> list[TermConfig]:
        """All that is added to the reward of a rollout, in order."""
        own: list[TermConfig] = []
        if self.format_penalty > 0:
            own.append(TermConfig(name="format_penalty", weight=self.format_penalty))
        if self.overlong_buffer_tokens > 0:
            options = {"buffer_tokens": self.overlong_buffer_tokens}
            own.append(TermConfig(name="overlong", options=options))
        return own + self.outcome_terms

    @property
    def filters(self) -> list[FilterConfig]:
        """All that decides which rollouts teach the policy; those with `prm`, the PRM, too."""
        own: list[FilterConfig] = []
        if self.drop_constant_groups:
            own.append(FilterConfig(name="varied_groups"))
        if self.accuracy_band is not None:
            own.append(
                FilterConfig(name="accuracy_band", options={"band": list(self.accuracy_band)}, prm=True)
            )
        return own + self.row_filters

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"name": data}
        if isinstance(data, dict):
            name = data.get("name", "airl_s")
            preset = METHODS.get(name if isinstance(name, str) else "", {})
            return {**preset.get("method", {}), **data}
        return data

    @model_validator(mode="after")
    def _fits(self) -> MethodConfig:
        if self.prm_objective.name == "none" and self.trajectory_weight > 0:
            raise ValueError("trajectory_weight above 0 needs a PRM, but prm_objective is none")
        if self.accuracy_band is not None and self.accuracy_band[0] > self.accuracy_band[1]:
            low, high = self.accuracy_band
            raise ValueError(f"accuracy_band must be [low, high] in this order, but is [{low:g}, {high:g}]")
        return self
