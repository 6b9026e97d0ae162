"""Settings of the PRM: its form, its objective's fields, the stabilisers that all objectives share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from airls_ray.config.base import StrictModel
from airls_ray.config.model_sections import PRMLearnerConfig, Probability


class RepirlConfig(StrictModel):
    """The importance-weighted objective of rePIRL (arXiv 2602.07832)."""

    weight: Literal["mean", "sum", "none"] = "mean"
    """[C] Log-weight of a failed rollout: the mean or the sum [P] over its tokens of phi - log pi. With the
    sum all weight falls on one rollout when responses are long. `none`: all weigh the same."""
    weight_temperature: PositiveFloat = 1.0
    """[C] Divides the log-weights: above 1 the weights are more even."""
    max_weight: NonNegativeFloat = 0.0
    """[C] Largest weight as a multiple of the mean weight; 0 turns the cap off."""
    weight_scope: Literal["problem", "batch"] = "problem"
    """[C] Weights are normalised over the failed rollouts of a problem, since policy and partition function
    are conditional on it, or over those of all problems together (the paper's sum names no problem)."""


class PrimeConfig(StrictModel):
    """The implicit PRM of PRIME (arXiv 2502.01456)."""

    beta: PositiveFloat = 0.05
    """[P] r_t = beta (log phi - log pi_ref), and the outcome's logit is the sum over the tokens."""


class PRMConfig(StrictModel):
    """The process reward model: a discriminator that learns, or one that is given."""

    path: str | None = None
    """PRM folder to start from; null starts from the policy's weights [P]. `method.prm_objective=frozen`
    needs it, and reads the PRM's form from it (of a teacher, `reward=distillation`, it is a plain model)."""
    parameterisation: Literal["log_prob", "scalar_head"] = "log_prob"
    """[C] `scalar_head`: f_t of a token-classification head. `log_prob`: f_t = log phi(C_t) of a
    causal language model, which is 0 in the logit at the start and has f = log pi_expert as optimum."""
    head: Literal["linear", "policy"] = "linear"
    """Of a scalar head. `linear`: one layer, whose backbone learns, too. `policy` (SPRM of MetaStone-S1,
    arXiv 2507.01951): two layers on the second last hidden state of the frozen policy, which alone learn, by
    `train-prm`; the PRM's folder holds the head and names the policy."""
    discriminator: Literal["airl", "gail"] = "airl"
    """[C] The logit of the discriminator: f - l [P], or f alone as in GAIL (Ho and Ermon 2016, arXiv
    1606.03476), for a scalar head."""
    action: Literal["step", "token"] = "step"
    """[C] What the objective judges (rePIRL and PRIME: tokens)."""
    log_prob: Literal["auto", "mean", "sum"] = "auto"
    """[C] How token log-probabilities reduce to a step's l_t (and, for `log_prob`, to f_t). `auto`:
    sum for `log_prob`, mean for `scalar_head`, where a sum saturates the logit."""
    reward: Literal["log_odds", "f", "probability", "signed_probability", "distillation"] = "log_odds"
    """[C] `log_odds`: r = f - l (Fu et al. 2018), for PRIME beta (log phi - log pi_ref). `f` leaves the
    entropy to the policy loss. `probability`: sigmoid(f), or phi(C_t) for `log_prob`; for supervised PRMs.
    `signed_probability` [PURE]: p(right) - p(wrong) = 2 p - 1, in [-1, 1]; a mistake must be below 0 for
    `method.step_transform=min_form` to find it. `distillation`: the PRM of `prm.path` is a plain language
    model, the teacher of the policy (`distillation_scale`)."""
    distillation_scale: PositiveFloat = 1.0
    """lambda [G-OPD, arXiv 2602.12125] of `reward=distillation`: r = lambda (log teacher - log pi_ref) -
    (log pi - log pi_ref). 1: log teacher - log pi; another value starts the reference server."""
    reward_unit: Literal["step", "token"] = "step"
    """[C] Whether credit assignment sees a reward per step or per token; `token` needs action=token."""
    negatives: Literal["all", "failed"] = "all"
    """[C] Rollouts of the policy side: all of them, or only the failed ones."""
    correct_rollouts: Literal["policy", "reference", "both"] = "policy"
    """[C] Side of the correct rollouts (`reference` and `both` add them to the traces)."""
    pair_by_problem: bool = True
    """[C] Weigh the reference side so that each problem counts as much on both sides; otherwise the
    PRM learns which problems are hard."""
    outcome_head: PositiveFloat | None = None
    """beta [BiRM, arXiv 2503.04618: 1]: a scalar head has a second output, how the solution ends, and scores
    (outcome + beta process) / (1 + beta). For `train-prm`, and a frozen PRM; null: one output."""
    shaping: bool = False
    """[P, Fu et al. 2018] Add h(next) - h(now) to f; scalar head only."""
    repirl: RepirlConfig = RepirlConfig()
    """Fields of `method.prm_objective=repirl`."""
    prime: PrimeConfig = PrimeConfig()
    """Fields of `method.prm_objective=prime`."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """[C] Targets become 1 - s and s (objectives with a cross-entropy)."""
    logit_clip: NonNegativeFloat = 0.0
    """[C] Logits are clamped to +- this in a cross-entropy; 0 turns it off."""
    accuracy_ceiling: Probability = 1.0
    """[C] Skip the updates of an iteration when both class accuracies were above this before them."""
    output_l2: NonNegativeFloat = 0.0
    """[C] Weight of the mean square of the outputs: of f for a scalar head, of log phi - log pi for
    `log_prob`; keeps the scale of a reward that nothing else bounds."""
    drift_penalty: NonNegativeFloat = 0.0
    """[C] Trust region: weight of the mean square of the outputs' change since the start of the
    iteration; works from its second update on."""
    warmup_iterations: NonNegativeInt = 20
    """Iterations in which only the PRM learns: with an untrained PRM the log-odds reward pays for
    unlikely steps and destroys the policy (docs/methods.md)."""
    updates_per_iteration: PositiveInt = 2
    """[C] Optimiser updates of an iteration, each on its whole PRM batch or on the next of its `shares`."""
    shares: PositiveInt = 1
    """[C] Parts of whole problems into which an iteration's PRM batch is cut. Four updates are four passes
    over the batch with 1, and one pass with 4. Never more than the updates, in the warm-up neither."""
    warmup_updates_per_iteration: PositiveInt = 2
    """[C] The same during the warm-up."""
    replay_iterations: NonNegativeInt = 0
    """[C] Iterations of rollouts kept in the replay buffer; 0 turns it off."""
    replay_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """[C] Share of old rollouts in a PRM batch; their log-probabilities are recomputed under the
    current policy."""
    score_by: Literal["updated", "previous"] = "updated"
    """[C] Whether rollouts get their rewards from the PRM that has learned from them (rePIRL [P]), or from
    what it was before (PRIME's program)."""
    search_score: Literal["auto", "sigmoid_f", "exp_f", "ratio", "product", "reference_ratio"] = "auto"
    """[C] Score of a step in search. `auto`: sigmoid(f) for a scalar head, exp(f) = phi(C_t) for
    `log_prob`. `ratio`: sigmoid(f - l). `product`: PRM and policy as a product of experts, sigmoid(f + l)
    for a scalar head and exp((f + l) / 2) for `log_prob`; it needs the sampler's log-probabilities.
    `reference_ratio` [PRIME]: sigmoid(beta (log phi - log pi_ref)), summed over the step; it needs the
    reference model. Responses are compared by the logarithms of whole scores; what is shown and shared out by
    is, of `exp_f` and the `product` of densities, the mean over the tokens, which does not fall with
    length."""
    search_aggregate: Literal["last", "min", "prod", "mean", "geometric_mean", "odds", "mean_odds"] = "prod"
    """[C] How step scores become the score of a trace. `odds`: the sigmoid of the sum of their log-odds, each
    within +-36. `mean_odds`: of their mean over the tokens, which for steps that score the mean of f is the
    rbar of rePIRL [P]."""
    learner: PRMLearnerConfig = PRMLearnerConfig()
    """Optimiser, ranks and sharding."""

    @property
    def step_reduction(self) -> Literal["mean", "sum"]:
        """How token values become a step's: `auto` is the sum for `log_prob`, the mean for `scalar_head`."""
        if self.log_prob != "auto":
            return self.log_prob
        return "sum" if self.parameterisation == "log_prob" else "mean"

    @property
    def head_outputs(self) -> int:
        """Outputs of a scalar head."""
        return 2 if self.shaping or self.outcome_head is not None else 1

    @property
    def is_teacher(self) -> bool:
        """Whether it is a plain language model that the policy is distilled from."""
        return self.reward == "distillation"

    @property
    def reads_reference(self) -> bool:
        """Whether the rewards of a given PRM are made of the reference model's log-probabilities, too."""
        return self.is_teacher and self.distillation_scale != 1.0

    @property
    def score_kind(self) -> Literal["probability", "token_mean", "step_mean"]:
        """What its search scores are (`airls_ray.evaluation.steps.ScoreKind`)."""
        density = self.search_score in ("auto", "exp_f", "product") and self.parameterisation == "log_prob"
        if not density:
            return "probability"
        return "token_mean" if self.step_reduction == "sum" else "step_mean"

    @model_validator(mode="after")
    def _fits(self) -> PRMConfig:
        if self.reward == "distillation" and self.parameterisation != "log_prob":
            raise ValueError("reward=distillation is of a language model: set parameterisation=log_prob")
        if self.outcome_head is not None and (self.parameterisation != "scalar_head" or self.shaping):
            raise ValueError(
                "outcome_head is a second output of a scalar head: set parameterisation=scalar_head and "
                "shaping=false"
            )
        if self.shaping and self.parameterisation != "scalar_head":
            raise ValueError("shaping needs parameterisation=scalar_head, but it is log_prob")
        second = self.shaping or self.outcome_head is not None
        if self.head == "policy" and (self.parameterisation != "scalar_head" or second):
            raise ValueError(
                "head=policy needs parameterisation=scalar_head, shaping=false and no outcome_head; set these"
            )
        if self.head == "policy" and self.learner.lora.rank:
            raise ValueError(
                "head=policy learns on a frozen policy, without adapters: set learner.lora.rank=0"
            )
        if self.discriminator == "gail" and self.parameterisation != "scalar_head":
            raise ValueError(
                "discriminator=gail needs parameterisation=scalar_head: the logit would be log phi, below 0"
            )
        if self.discriminator == "gail" and self.reward == "log_odds":
            raise ValueError("discriminator=gail has the logit f, without the policy; set reward=f")
        if self.search_score == "exp_f" and self.parameterisation != "log_prob":
            raise ValueError("search_score=exp_f needs parameterisation=log_prob; use sigmoid_f")
        if self.search_score == "sigmoid_f" and self.parameterisation != "scalar_head":
            raise ValueError("search_score=sigmoid_f needs parameterisation=scalar_head; use exp_f or ratio")
        if self.search_score == "reference_ratio" and self.parameterisation != "log_prob":
            raise ValueError("search_score=reference_ratio needs parameterisation=log_prob; use sigmoid_f")
        if self.search_aggregate in ("odds", "mean_odds") and self.score_kind != "probability":
            raise ValueError(
                f"search_aggregate={self.search_aggregate} is of probabilities, and the search score is a "
                "density of language; use prod"
            )
        if self.reward_unit == "token" and self.action != "token":
            raise ValueError("reward_unit=token needs action=token, but it is step")
        return self
