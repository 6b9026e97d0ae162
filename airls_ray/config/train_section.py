"""Settings of the loop (`train`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from airls_ray.config.base import StrictModel
from airls_ray.config.door_section import ProblemSamplerConfig, TrackerConfig, one_alone
from airls_ray.config.evaluation_section import EvaluationConfig


class TrainConfig(StrictModel):
    """The loop."""

    iterations: NonNegativeInt = 60
    """Iterations with a policy update; PRM warm-up iterations come before them. 0: the PRM alone learns."""
    problems_per_iteration: PositiveInt = 32
    """Fresh problems of one iteration."""
    rollouts_per_problem: Annotated[int, Field(ge=2)] = 8
    """Group size G."""
    problem_sampler: ProblemSamplerConfig = ProblemSamplerConfig(name="in_order")
    """Which problems of the stream come next: `in_order`, `prioritised`, `learnability`, `pairs`, or your own
    (docs/doors.md)."""
    refill_rounds: NonNegativeInt = 0
    """[DAPO] Most times in an iteration that other problems are sampled in the place of groups that row
    filters leave out, as many as are missing; 0: never. What is missing then is missing, as it is with 0."""
    max_staleness: NonNegativeInt = 0
    """Policy updates by which rollouts may be older than the policy that learns from them: above 0 the loop
    is asynchronous, and the workers sample the iterations to come while the learners train. 0: one after the
    other."""
    checkpoint_every: PositiveInt = 20
    """Iterations between checkpoints; the last iteration always makes one."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints kept."""
    keep_best: NonNegativeInt = 0
    """Checkpoints kept besides, by `best_metric` (`checkpoints/best` names the best one)."""
    best_metric: str = "outcome/mean"
    """Metric of metrics.jsonl that is largest at the best checkpoint, of the checkpoint's own iteration; one
    of the evaluation, such as evaluation/accuracy, where an iteration without it is never the best."""
    evaluate_every: NonNegativeInt = 0
    """Iterations between two evaluations of policy and PRM on held-out problems; the last iteration always
    makes one, those of the PRM's warm-up none (unless the PRM alone learns). 0: none."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Those problems, and how they are sampled."""
    patience: NonNegativeInt = 0
    """Evaluations in a row without a new best `best_metric` after which the run ends; 0: it never ends early.
    """
    storage: str | None = None
    """URL below which the run folder is copied after every checkpoint, and from which `--resume` fetches it
    where it is missing or older: s3://bucket/path, gs://..., file:///mnt/x, what pyarrow or fsspec knows."""
    storage_deadline_seconds: PositiveFloat = 600.0
    """Longest time for the copy of one file, and longest wait for the last copies at the end of the run."""
    rollouts_every: PositiveInt = 10
    """Iterations between two saved Parquet files of rollouts (the first and last always)."""
    sync_check: bool = True
    """End the run when sampler and trainer disagree after a sync (not in the asynchronous loop, whose
    rollouts are older; the difference is always logged as sync/logprob_difference_max)."""
    sync_tolerance: PositiveFloat | None = None
    """Largest mean difference of log-probabilities that the check accepts, in nats; null: 1e-4 in fp32, 0.05
    where learner or engine compute in bfloat16. The mean, since a single very unlikely token may differ by as
    much from rounding; old weights and other formulas differ by far more."""
    deadline_seconds: PositiveFloat = 900.0
    """Longest time for one learner call or collective."""
    trackers: Annotated[list[TrackerConfig], BeforeValidator(one_alone)] = Field(default_factory=list)
    """Programs that are told metrics, summary and report, beside metrics.jsonl and TensorBoard: `wandb`,
    `mlflow`, or your own (docs/doors.md)."""
    grace_seconds: PositiveFloat = 60.0
    """How long a run that is asked to stop (Ctrl-C, SIGTERM) may go on, to end its iteration and save it."""

    @model_validator(mode="after")
    def _window_is_wide_enough(self) -> TrainConfig:
        window = self.problem_sampler.window
        if window is not None and window < self.problems_per_iteration:
            raise ValueError(
                f"train.problem_sampler.window must be at least problems_per_iteration "
                f"({self.problems_per_iteration}), but is {window}"
            )
        return self
