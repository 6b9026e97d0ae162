"""The metric by which checkpoints are kept and a run is ended: is there one of that name?"""

from __future__ import annotations

import difflib
from math import lcm
from typing import TYPE_CHECKING

from airls_ray.config.task_choice import parts_of
from airls_ray.config.task_sections import CodeTaskConfig, FileTaskConfig
from airls_ray.errors import ConfigError

if TYPE_CHECKING:
    from airls_ray.config.schema import Config

EVALUATION = "evaluation/"
"""Beginning of every metric of the evaluation during training."""

GROUPS = frozenset(
    {
        "evaluation", "grade", "groups", "learners", "outcome", "policy", "policy_log_prob", "pool", "prm",
        "reward", "rollout", "staleness", "storage", "stream", "sync", "time", "tokens_per_second",
        "trackers",
    }
)  # fmt: skip
"""What stands before the first slash of the metrics of metrics.jsonl."""

_KNOW_NO_STEPS = (FileTaskConfig, CodeTaskConfig)
"""Sections of tasks that never know the truth of a step; one of the user's own may."""


def evaluation_names(config: Config) -> list[str]:
    """Return the names of the metrics that an evaluation of this run can have, most used first."""
    scorers = ["prm", "policy_log_prob"] if config.uses_prm else ["policy_log_prob"]
    ways = ["best_of_n", "weighted"] if config.uses_prm else []
    names = ["accuracy", *(["greedy"] if config.train.evaluation.greedy else [])]
    names += [f"search/{way}" for way in (*ways, "majority", "policy_log_prob", "oracle")]
    knows = any(not isinstance(part, _KNOW_NO_STEPS) for part in parts_of(config.task).values())
    figures = ["trace_auroc", "trace_auroc_within"]
    figures += ["step_auroc", "step_auroc_within", "first_error_f1"] if knows else []
    names += [f"{scorer}/{figure}" for scorer in scorers for figure in figures]
    if config.uses_prm:
        names += [
            f"prm/{figure}" for figure in ("length_correlation", "reward_mean", "score_mean", "score_spread")
        ]
    return [EVALUATION + name for name in names]


def check_best_metric(config: Config) -> None:
    """Refuse a `train.best_metric` that no iteration can have, where something depends on it.

    Names of the evaluation are known beforehand, as are the groups of all others; whether a metric is in its
    group is seen at the first iteration that learns (`RunFolder.log_metrics`).

    Raises:
        ConfigError: there is no such metric.
    """
    train = config.train
    if not (train.keep_best or train.patience):
        return
    name, known = train.best_metric, evaluation_names(config)
    if name in known and train.evaluate_every == 0:
        raise ConfigError(
            f"train.best_metric is {name!r}, which only an evaluation during training measures, and "
            "train.evaluate_every is 0: set that to a number of iterations, or name another metric"
        )
    if name.partition("/")[0] not in GROUPS or (name.startswith(EVALUATION) and name not in known):
        near = difflib.get_close_matches(name, [*known, "outcome/mean"], n=3, cutoff=0.4) or known
        raise ConfigError(
            f"train.best_metric is {name!r}, which is no metric of this run: set it to one that is, such as "
            f"{', '.join(near[:5])}"
        )


def best_metric_warning(config: Config) -> str | None:
    """Return what is to be said where evaluations and checkpoints hardly ever fall on one iteration."""
    train = config.train
    if not (train.keep_best and train.best_metric.startswith(EVALUATION)):
        return None
    both = lcm(train.evaluate_every, train.checkpoint_every)
    if both <= config.iterations:
        return None
    return (
        f"no checkpoint but the last has {train.best_metric}, so that none can be the best before it: make "
        f"train.checkpoint_every ({train.checkpoint_every}) and train.evaluate_every "
        f"({train.evaluate_every}) multiples of each other"
    )
