"""Every setting of a run, with its unit and its meaning. Marks: [P] published, [C] our choice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from airls_ray.config.base import StrictModel
from airls_ray.config.methods import METHODS
from airls_ray.config.model_sections import (
    LearnerConfig,
    ModelConfig,
    PRMLearnerConfig,
    Probability,
    Resources,
    SFTLearnerConfig,
    VerifierResources,
)
from airls_ray.config.task_sections import (
    ArithmeticTaskConfig,
    CountdownTaskConfig,
    FileTaskConfig,
    TaskConfig,
)

__all__ = [
    "ArithmeticTaskConfig",
    "Config",
    "CountdownTaskConfig",
    "EngineConfig",
    "FileTaskConfig",
    "LearnerConfig",
    "MethodConfig",
    "ModelConfig",
    "PRMConfig",
    "PRMLearnerConfig",
    "RayConfig",
    "ReferenceConfig",
    "Resources",
    "RolloutConfig",
    "SFTConfig",
    "SFTLearnerConfig",
    "SearchConfig",
    "TaskConfig",
    "TrainConfig",
    "VerifierConfig",
    "VerifierResources",
]


class SFTConfig(StrictModel):
    """Warm start of the policy on correct traces, stopped at a target accuracy."""

    iterations: PositiveInt = 2000
    """Most optimiser updates."""
    problems_per_iteration: PositiveInt = 128
    """Problems (one trace each) of one optimiser update, over all ranks."""
    target_accuracy: Probability = 0.45
    """Stop when the sampled accuracy on held-out training problems reaches this; 1 never stops early."""
    evaluate_every: PositiveInt = 20
    """Optimiser updates between two checks of the accuracy."""
    evaluate_problems: PositiveInt = 256
    """Held-out training problems of one check, one sample each."""
    learner: SFTLearnerConfig = SFTLearnerConfig()
    """Optimiser, ranks and sharding of the warm start."""


class EngineConfig(StrictModel):
    """One vLLM engine."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the engine; `auto` takes the model's."""
    tensor_parallel: PositiveInt = 1
    """GPUs of one engine."""
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)] = 0.85
    """Share of a GPU's memory for weights and cache."""
    kv_cache_gib: PositiveFloat = 0.5
    """Cache of an engine on CPU, in GiB."""
    max_sequences: PositiveInt = 256
    """Most sequences that are decoded at once."""
    enforce_eager: bool = True
    """Skip graph capture and compilation of the model (seconds at start against speed later)."""
    prefix_caching: bool = True
    """Share the cache of equal prefixes (the rollouts of a group share their prompt)."""
    weight_transfer: Literal["object_store", "nccl"] = "object_store"
    """How new weights reach the engine: `nccl` needs GPUs on both sides, `object_store` works anywhere."""


class RolloutConfig(StrictModel):
    """Rollout workers and how they sample."""

    min_workers: PositiveInt = 1
    """Workers at the start."""
    max_workers: PositiveInt = 1
    """Most workers."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature; the learner's log-probabilities use the same."""
    max_response_tokens: PositiveInt = 64
    """Longest response, end of sequence included."""
    deadline_seconds: PositiveFloat = 600.0
    """Longest time for one worker's share of an iteration."""
    engine: EngineConfig = EngineConfig()
    """The vLLM engine of each worker."""
    resources: Resources = Resources()
    """Per worker."""


class VerifierConfig(StrictModel):
    """Grading in child processes with hard deadlines."""

    processes: PositiveInt = 1
    """Child processes."""
    deadline_seconds: PositiveFloat = 5.0
    """Longest time for one response; then its process is killed and the outcome is 0."""
    resources: VerifierResources = VerifierResources()
    """Of the actor that owns the child processes."""


class ReferenceConfig(StrictModel):
    """The reference-model server: the policy as it was at the start."""

    tokens_per_microbatch: PositiveInt = 32768
    """Token budget of one forward pass."""
    resources: Resources = Resources()
    """Of the server."""


class PRMConfig(StrictModel):
    """The discriminator that is also the process reward model (AIRL-S, arXiv 2508.14313)."""

    path: str | None = None
    """PRM folder to start from; null starts from the policy's weights [P]."""
    parameterisation: Literal["log_prob", "scalar_head"] = "log_prob"
    """[C] `scalar_head`: f_t of a token-classification head. `log_prob`: f_t = log phi(C_t) of a
    causal language model, which is 0 in the logit at the start and has f = log pi_expert as optimum."""
    action: Literal["step", "token"] = "step"
    """[C] What the discriminator judges."""
    log_prob: Literal["auto", "mean", "sum"] = "auto"
    """[C] How token log-probabilities reduce to a step's l_t (and, for `log_prob`, to f_t). `auto`:
    sum for `log_prob`, mean for `scalar_head`, where a sum saturates the logit."""
    reward: Literal["log_odds", "f"] = "log_odds"
    """[C] `log_odds`: r = f - l (Fu et al. 2018). `f` leaves the entropy to the policy loss."""
    negatives: Literal["all", "failed"] = "all"
    """[C] Rollouts of the policy side: all of them, or only the failed ones."""
    correct_rollouts: Literal["policy", "reference", "both"] = "policy"
    """[C] Side of the correct rollouts (`reference` and `both` add them to the traces)."""
    pair_by_problem: bool = True
    """[C] Weigh the reference steps so that each problem counts as much on both sides; otherwise the
    PRM learns which problems are hard."""
    shaping: bool = False
    """[P, Fu et al. 2018] Add h(next) - h(now) to f; scalar head only."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """[C] Targets become 1 - s and s."""
    logit_clip: NonNegativeFloat = 0.0
    """[C] Discriminator logits are clamped to +- this in the loss; 0 turns it off."""
    accuracy_ceiling: Probability = 1.0
    """[C] Skip an update when both class accuracies were above this."""
    warmup_iterations: NonNegativeInt = 20
    """Iterations in which only the PRM learns: with an untrained PRM the log-odds reward pays for
    unlikely steps and destroys the policy (docs/methods.md)."""
    updates_per_iteration: PositiveInt = 2
    """[C] Passes over the PRM batch of an iteration, an optimiser update each."""
    warmup_updates_per_iteration: PositiveInt = 2
    """[C] The same during the warm-up."""
    replay_iterations: NonNegativeInt = 0
    """[C] Iterations of rollouts kept in the replay buffer; 0 turns it off."""
    replay_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """[C] Share of old rollouts in a PRM batch; their log-probabilities are recomputed under the
    current policy."""
    search_score: Literal["auto", "sigmoid_f", "exp_f", "ratio", "product"] = "auto"
    """[C] Score of a step in search. `auto`: sigmoid(f) for a scalar head, exp(f) = phi(C_t) for
    `log_prob`. `ratio`: sigmoid(f - l). `product`: PRM and policy as a product of experts, sigmoid(f + l)
    for a scalar head and exp((f + l) / 2) for `log_prob`; it needs the sampler's log-probabilities."""
    search_aggregate: Literal["last", "min", "prod", "mean"] = "prod"
    """[C] How step scores become the score of a trace."""
    learner: PRMLearnerConfig = PRMLearnerConfig()
    """Optimiser, ranks and sharding."""

    @model_validator(mode="after")
    def _fits(self) -> PRMConfig:
        if self.shaping and self.parameterisation != "scalar_head":
            raise ValueError("shaping needs parameterisation=scalar_head, but it is log_prob")
        if self.search_score == "exp_f" and self.parameterisation != "log_prob":
            raise ValueError("search_score=exp_f needs parameterisation=log_prob; use sigmoid_f")
        if self.search_score == "sigmoid_f" and self.parameterisation != "scalar_head":
            raise ValueError("search_score=sigmoid_f needs parameterisation=scalar_head; use exp_f or ratio")
        return self


class MethodConfig(StrictModel):
    """Which rewards become which advantage and which loss; the name fills what is not set."""

    name: Literal["airl_s", "grpo", "dr_grpo", "rloo"] = "airl_s"
    """Preset (airls_ray/config/methods.py)."""
    prm_objective: Literal["none", "airl"] = "none"
    """How the PRM learns; `none`: no PRM, outcomes alone."""
    outcome_advantage: Literal["grpo", "dr_grpo", "rloo"] = "grpo"
    """Baseline and scale of the outcome's advantage."""
    step_weight: Probability = 0.0
    """[C] lambda: A = (1 - lambda) A_outcome + lambda A_step."""
    step_return: Literal["to_go", "immediate"] = "to_go"
    """[C] Advantage of a step: its standardised reward and those after it, or its own alone."""
    return_per_step: bool = True
    """[C] Divide the reward-to-go by the number of steps summed, so that length cannot pay."""
    clip_low: PositiveFloat = 0.2
    """PPO clip below 1."""
    clip_high: PositiveFloat = 0.2
    """PPO clip above 1."""
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    """How token losses are averaged; `constant` divides by rollouts times max_response_tokens."""
    kl_coefficient: NonNegativeFloat = 0.0
    """Weight of the k3 estimate of KL to the reference model; above 0 starts a reference server."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus."""
    updates_per_iteration: PositiveInt = 1
    """Optimiser updates of the policy per iteration, each on its share of the groups."""
    epochs: PositiveInt = 1
    """Passes over the rollouts of an iteration."""
    importance_cap: NonNegativeFloat = 0.0
    """Truncation of the weights that correct for the sampler's log-probabilities; 0 turns it off."""
    drop_constant_groups: bool = False
    """Leave out groups whose rollouts all have the same outcome (they have no outcome advantage)."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"name": data}
        if isinstance(data, dict):
            name = data.get("name", "airl_s")
            return {**METHODS.get(name if isinstance(name, str) else "", {}), **data}
        return data

    @model_validator(mode="after")
    def _fits(self) -> MethodConfig:
        if self.step_weight > 0 and self.prm_objective == "none":
            raise ValueError("step_weight above 0 needs a PRM, but prm_objective is none")
        return self


class TrainConfig(StrictModel):
    """The loop."""

    iterations: PositiveInt = 60
    """Iterations with a policy update; PRM warm-up iterations come before them."""
    problems_per_iteration: PositiveInt = 32
    """Fresh problems of one iteration."""
    rollouts_per_problem: Annotated[int, Field(ge=2)] = 8
    """Group size G."""
    checkpoint_every: PositiveInt = 20
    """Iterations between checkpoints; the last iteration always makes one."""
    keep_checkpoints: PositiveInt = 2
    """Checkpoints kept."""
    rollouts_every: PositiveInt = 10
    """Iterations between two saved Parquet files of rollouts (the first and last always)."""
    sync_check: bool = True
    """End the run when sampler and trainer disagree after a sync (fp32 only; the difference is always
    logged as sync/logprob_difference_max)."""
    sync_tolerance: PositiveFloat = 1e-4
    """Largest mean difference of log-probabilities that the check accepts, in nats (fp32). The mean, since
    a single very unlikely token may differ by as much from rounding; old weights differ by far more."""
    deadline_seconds: PositiveFloat = 900.0
    """Longest time for one learner call or collective."""


class SearchConfig(StrictModel):
    """Test samples before and after training: accuracies, Best-of-N and votes come from the same ones."""

    problems: PositiveInt = 200
    """Test problems."""
    samples: Literal[1, 2, 4, 8, 16, 32, 64] = 16
    """Largest N; every power of two below it is reported from the same samples."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature of the candidates."""
    problems_per_call: PositiveInt = 50
    """Problems sampled between two steps of the progress bar."""


class RayConfig(StrictModel):
    """Where the cluster is."""

    address: str | None = None
    """Ray address; null starts a cluster on this machine (or joins the job's own)."""
    object_store_gib: PositiveFloat = 1.0
    """Object store of a cluster that this command starts, in GiB."""
    dashboard: bool = False
    """Start the dashboard (on loopback) with a cluster that this command starts."""
    worker_logs: bool = False
    """Repeat the actors' own output here (it is in Ray's log folder anyway)."""
    start_deadline_seconds: PositiveFloat = 300.0
    """Longest time for the actors to come up."""
    resources_deadline_seconds: PositiveFloat = 30.0
    """Longest wait for resources that exist but are taken (autoscaling clusters: raise it)."""


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
    reference: ReferenceConfig = ReferenceConfig()
    """The reference server."""
    verifier: VerifierConfig = VerifierConfig()
    """The verifier pool."""
    method: MethodConfig = MethodConfig()
    """The method."""
    train: TrainConfig = TrainConfig()
    """The loop."""
    search: SearchConfig = SearchConfig()
    """Search after training."""
    ray: RayConfig = RayConfig()
    """The cluster."""

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
        if self.task.name == "file" and self.model.path is None:
            raise ValueError("task.name=file needs a trained model: set model.path to its folder or hub name")
        return self

    @property
    def uses_prm(self) -> bool:
        """Whether a PRM learns."""
        return self.method.prm_objective != "none"

    @property
    def warmup_iterations(self) -> int:
        """Iterations in which only the PRM learns."""
        return self.prm.warmup_iterations if self.uses_prm else 0

    @property
    def iterations(self) -> int:
        """Iterations of the loop, PRM warm-up included."""
        return self.warmup_iterations + self.train.iterations

    @property
    def uses_reference(self) -> bool:
        """Whether something reads reference log-probabilities."""
        return self.method.kl_coefficient > 0

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
