"""Every setting of a run, with its unit and its meaning. Marks: [P] published, [C] our choice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    NonNegativeInt,
    field_validator,
    model_validator,
)

from airls_ray.config.base import StrictModel
from airls_ray.config.evaluation_section import EvaluationConfig
from airls_ray.config.method_doors import check_objective
from airls_ray.config.method_section import MethodConfig
from airls_ray.config.methods import fill_sections
from airls_ray.config.model_sections import (
    LearnerConfig,
    LoraConfig,
    ModelConfig,
    PRMLearnerConfig,
    Resources,
    SFTLearnerConfig,
    VerifierResources,
)
from airls_ray.config.part_sections import RayConfig, ReferenceConfig, SFTConfig, VerifierConfig
from airls_ray.config.prm_sections import PrimeConfig, PRMConfig, RepirlConfig
from airls_ray.config.rollout_section import EngineConfig, FailureConfig, RolloutConfig
from airls_ray.config.search_section import SearchConfig
from airls_ray.config.self_train_section import SelfTrainConfig
from airls_ray.config.serve_section import ServeConfig
from airls_ray.config.supervised_section import SupervisedPRMConfig
from airls_ray.config.task_choice import OwnTaskConfig, TaskConfig, parts_of
from airls_ray.config.task_sections import (
    ArithmeticTaskConfig,
    CodeTaskConfig,
    CountdownTaskConfig,
    FileTaskConfig,
)
from airls_ray.config.train_section import TrainConfig

__all__ = [
    "ArithmeticTaskConfig",
    "CodeTaskConfig",
    "Config",
    "CountdownTaskConfig",
    "EngineConfig",
    "EvaluationConfig",
    "FailureConfig",
    "FileTaskConfig",
    "LearnerConfig",
    "LoraConfig",
    "MethodConfig",
    "ModelConfig",
    "PRMConfig",
    "PRMLearnerConfig",
    "PrimeConfig",
    "RayConfig",
    "ReferenceConfig",
    "RepirlConfig",
    "Resources",
    "RolloutConfig",
    "SFTConfig",
    "SFTLearnerConfig",
    "SearchConfig",
    "ServeConfig",
    "SupervisedPRMConfig",
    "TaskConfig",
    "TrainConfig",
    "VerifierConfig",
    "VerifierResources",
]


class Config(StrictModel):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "run"
    """Name of the run folder."""
    seed: NonNegativeInt = 0
    """The one seed; every component derives its own from it."""
    output: Path = Path("runs")
    """Folder that holds the run folders."""
    task: TaskConfig = ArithmeticTaskConfig()
    """Problems, traces and graders."""
    model: ModelConfig = ModelConfig()
    """The policy."""
    sft: SFTConfig = SFTConfig()
    """Warm start."""
    rollout: RolloutConfig = RolloutConfig()
    """Rollout workers."""
    policy: LearnerConfig = LearnerConfig()
    """The policy learner."""
    prm: PRMConfig = PRMConfig()
    """The PRM and its learner."""
    supervised_prm: SupervisedPRMConfig = SupervisedPRMConfig()
    """A PRM from labels (`airls-ray train-prm`)."""
    reference: ReferenceConfig = ReferenceConfig()
    """The reference server."""
    verifier: VerifierConfig = VerifierConfig()
    """The verifier pool."""
    method: MethodConfig = MethodConfig()
    """The method."""
    train: TrainConfig = TrainConfig()
    """The loop."""
    search: SearchConfig = SearchConfig()
    """Search at test time."""
    self_train: SelfTrainConfig = SelfTrainConfig()
    """Rounds of search and learning (`airls-ray self-train`)."""
    serve: ServeConfig = ServeConfig()
    """The endpoint (`airls-ray serve`)."""
    failures: FailureConfig = FailureConfig()
    """What a failure costs."""
    ray: RayConfig = RayConfig()
    """The cluster."""

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, data: Any) -> Any:
        return fill_sections(data) if isinstance(data, dict) else data

    @field_validator("task", mode="before")
    @classmethod
    def _task_name(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"name": data}
        return {"name": "arithmetic", **data} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.rollout.max_response_tokens >= self.model.context_tokens:
            raise ValueError(
                "rollout.max_response_tokens must be below model.context_tokens "
                f"({self.model.context_tokens}), but is {self.rollout.max_response_tokens}"
            )
        learners = (self.policy, self.prm.learner, self.sft.learner)
        if self.model.attention.startswith(("flash", "flex")) and not any(
            one.resources.gpus for one in learners
        ):
            raise ValueError(
                f"model.attention={self.model.attention} needs a GPU, and no learner asks for one: set "
                "policy.resources.gpus=1, or model.attention=auto"
            )
        if self.rollout.engine.lora == "adapter" and not self.policy.lora.rank:
            raise ValueError(
                "rollout.engine.lora=adapter needs a policy that learns by LoRA: set policy.lora.rank above 0"
            )
        method = self.method
        if method.step_weight > 0 and not self.has_step_rewards and not method.step_transforms:
            raise ValueError(
                "method.step_weight above 0 needs a PRM, but prm_objective is none, or a reward per step "
                "(task.reward)"
            )
        weights = (method.outcome_weight, method.step_weight, method.trajectory_weight)
        if not any(weights) and not self.task.reward and not method.outcome_terms:
            raise ValueError(
                "method.outcome_weight, step_weight and trajectory_weight are all 0, and there is no "
                "task.reward and no term in method.outcome_terms, so no reward is left; set one"
            )
        summed = [one.name for one in self.task.reward if one.normalise != "group"]
        if method.separate_rewards and summed:
            raise ValueError(
                "method.separate_rewards compares each reward within its group by itself, but the reward "
                f"{summed[0]} of task.reward does not: set normalise: group for it"
            )
        if self.rollout.max_workers < self.rollout.min_workers:
            raise ValueError(
                f"rollout.max_workers must be at least rollout.min_workers ({self.rollout.min_workers}), "
                f"but is {self.rollout.max_workers}"
            )
        if self.train.problems_per_iteration % self.method.updates_per_iteration:
            raise ValueError(
                "train.problems_per_iteration must be a multiple of method.updates_per_iteration "
                f"({self.method.updates_per_iteration}), but is {self.train.problems_per_iteration}"
            )
        if method.outcome_advantage == "pass_at_k" and method.pass_at_k >= self.train.rollouts_per_problem:
            raise ValueError(
                "method.pass_at_k must be below train.rollouts_per_problem "
                f"({self.train.rollouts_per_problem}), but is {method.pass_at_k}: all rollouts of a problem "
                "are one set then, and none adds anything to it"
            )
        check_objective(self.method.prm_objective, self.prm)
        if self.train.max_staleness > 0 and self.method.importance_cap == 0:
            raise ValueError(
                f"train.max_staleness={self.train.max_staleness} trains on rollouts of older policies, which "
                "needs importance weights: set method.importance_cap (2 is usual)"
            )
        if self.train.max_staleness > 0 and self.rollout.engine.weight_transfer == "nccl":
            raise ValueError(
                "rollout.engine.weight_transfer=nccl reaches all workers at once, for which the asynchronous "
                "loop does not wait: set it to object_store, or train.max_staleness to 0"
            )
        if self.train.refill_rounds and not self.method.filters:
            raise ValueError(
                "train.refill_rounds is for groups that row filters leave out, and there is none: set "
                "method.drop_constant_groups=true (DAPO), method.accuracy_band or method.row_filters"
            )
        if self.train.refill_rounds and self.train.max_staleness > 0:
            raise ValueError(
                "train.refill_rounds draws problems when an iteration is graded, which the asynchronous loop "
                "has drawn for later ones by then: set train.max_staleness to 0"
            )
        if self.rollout.interruptible and self.train.max_staleness == 0:
            raise ValueError(
                "rollout.interruptible is for the asynchronous loop, where weights come in the middle of "
                "sampling: set train.max_staleness above 0, or leave it out"
            )
        if self.train.patience and not self.train.evaluate_every:
            raise ValueError(
                f"train.patience={self.train.patience} counts evaluations, and train.evaluate_every is 0, so "
                "that there are none: set it to a number of iterations"
            )
        if self.train.patience and not self.train.best_metric.startswith("evaluation/"):
            raise ValueError(
                f"train.patience={self.train.patience} ends the run by train.best_metric, which is "
                f"{self.train.best_metric}: set it to a metric of the evaluation, such as evaluation/accuracy"
            )
        if self.iterations == 0:
            raise ValueError(
                "train.iterations is 0 and no PRM learns before them; raise it or prm.warmup_iterations"
            )
        for where, one in zip(("policy", "prm.learner", "sft.learner"), learners, strict=True):
            one.check_muon(where, self.model.dtype)
        detours = isinstance(self.task, CountdownTaskConfig | OwnTaskConfig)
        if self.sft.detour_share > 0 and not detours:  # before any process starts
            raise ValueError(
                f"sft.detour_share is {self.sft.detour_share:g}, but the task {self.task.name} cannot make "
                "detours (countdown can); set it to 0"
            )
        programs = [one for one in parts_of(self.task).values() if isinstance(one, CodeTaskConfig)]
        longest = max((one.sandbox.wall_seconds for one in programs), default=0.0)
        if programs and self.verifier.deadline_seconds < longest + 5:
            raise ValueError(
                f"verifier.deadline_seconds is {self.verifier.deadline_seconds:g}, but a program may take "
                f"task.sandbox.wall_seconds ({longest:g}): make it 5 more"
            )
        return self

    @property
    def uses_prm(self) -> bool:
        """Whether a PRM scores the rollouts."""
        return self.method.prm_objective.name != "none"

    @property
    def has_step_rewards(self) -> bool:
        """Whether a PRM or a reward of the configuration may give steps rewards."""
        return self.uses_prm or bool(self.task.reward)

    @property
    def grades_more(self) -> bool:
        """Whether the grades that are learned from have columns of the configuration's own."""
        return bool(self.task.reward) or self.method.outcomes.labels

    @property
    def prm_learns(self) -> bool:
        """Whether that PRM learns in the loop."""
        return self.method.prm_objective.learns

    @property
    def rough_log_probs(self) -> bool:
        """Whether sampler and learner may differ beyond the rounding of fp32."""
        return "bfloat16" in (self.model.dtype, self.rollout.engine.dtype)

    @property
    def recomputes_log_probs(self) -> bool:
        """Whether rollouts get the learner's own log-probabilities before the PRM compares with them.

        The sampler's will not do where an older policy sampled them, or where bfloat16 makes them differ from
        those of the traces in a way that tells the classes apart.
        """
        traits, prm = self.method.prm_objective.traits(), self.prm
        by_ratio = prm.reward == "log_odds" and not self.method.prm_objective.against_reference
        by_reward = by_ratio or prm.is_teacher
        by_score = prm.search_score in ("ratio", "product")
        by_loss = traits is not None and traits.base == "policy"
        reads = by_loss or (self.uses_prm and (by_reward or by_score))
        return reads and (self.train.max_staleness > 0 or self.rough_log_probs)

    @property
    def sync_tolerance(self) -> float:
        """Largest mean difference of sampler and learner, in nats, by the data types of both."""
        if self.train.sync_tolerance is not None:
            return self.train.sync_tolerance
        return 0.05 if self.rough_log_probs else 1e-4

    @property
    def warmup_iterations(self) -> int:
        """Iterations in which only the PRM learns."""
        return self.prm.warmup_iterations if self.prm_learns else 0

    @property
    def iterations(self) -> int:
        """Iterations of the loop, PRM warm-up included."""
        return self.warmup_iterations + self.train.iterations

    def evaluates_after(self, iteration: int) -> bool:
        """Whether an evaluation follows this iteration (counted from 1, PRM warm-up included)."""
        every, learns = self.train.evaluate_every, iteration > self.warmup_iterations
        if not every or not (learns or self.train.iterations == 0):
            return False
        return iteration % every == 0 or iteration == self.iterations

    @property
    def uses_reference(self) -> bool:
        """Whether something reads reference log-probabilities."""
        by_prm = self.uses_prm and self.prm.reads_reference
        return by_prm or self.method.kl_coefficient > 0 or self.method.prm_objective.against_reference

    def derived(self) -> dict[str, int | float]:
        """Sizes that follow from the settings, printed at start."""
        rollouts = self.train.problems_per_iteration * self.train.rollouts_per_problem
        return {
            "rollouts per iteration": rollouts,
            "rollouts per policy update": rollouts // self.method.updates_per_iteration,
            "most response tokens per iteration": rollouts * self.rollout.max_response_tokens,
            "PRM warm-up iterations": self.warmup_iterations,
            "iterations in all": self.iterations,
            "rollouts in all": rollouts * self.iterations,
        }
