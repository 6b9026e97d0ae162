"""How well a scorer ranks: step and trace AUROC against the truth, accuracy when it picks among N.

Every figure stands beside its control, the policy's own log-probability (docs/methods.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from airls_ray.config.schema import Config, PRMConfig
from airls_ray.evaluation.first_error import cross_fitted_f1
from airls_ray.evaluation.ranking import auroc, auroc_within, correlation
from airls_ray.evaluation.rollouts import list_column, step_sums, step_tokens
from airls_ray.evaluation.steps import (
    aggregate_log_scores,
    aggregate_steps,
    log_scores,
    relative_weights,
    score_sizes,
)
from airls_ray.evaluation.voting import best_of_n_curve
from airls_ray.runs.best_metric import EVALUATION
from airls_ray.seeding import derive_seed


@dataclass(frozen=True)
class SearchResult:
    """Accuracy for every way of choosing and every N, with what it was computed from."""

    curves: dict[str, dict[int, float]]
    problems: int
    samples: int
    intervals: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)


def measure_scorers(
    rollouts: pa.Table, grades: pa.Table, scores: pa.Table | None, config: PRMConfig
) -> dict[str, float]:
    """Return AUROCs of the PRM (where there is one) and of the policy's log-probability."""
    tokens, _ = list_column(rollouts["logprobs"])
    groups = rollouts["group"].to_numpy()
    control_steps, offsets = step_sums(rollouts, tokens)
    metrics = _aurocs(
        "policy_log_prob",
        control_steps,
        offsets,
        np.add.reduceat(control_steps, offsets[:-1]),
        grades,
        groups,
    )
    if scores is None:
        return metrics
    step_scores, offsets = list_column(scores["scores"])
    steps = step_log_scores(rollouts, scores, config)
    traces = aggregate_log_scores(steps, offsets, config.search_aggregate, step_tokens(rollouts))
    metrics |= _aurocs("prm", steps, offsets, traces, grades, groups)
    metrics["prm/length_correlation"] = correlation(np.exp(traces), np.diff(offsets))
    rewards, _ = list_column(scores["rewards"])
    metrics["prm/reward_mean"] = float(rewards.mean())
    metrics["prm/score_mean"] = float(step_scores.mean())
    metrics["prm/score_spread"] = _spread(step_scores, offsets, groups)
    return metrics


def _spread(step_scores: np.ndarray, offsets: np.ndarray, groups: np.ndarray) -> float:
    """Mean over groups of the deviation of their rollouts' scores, each the mean of its steps' logarithms:
    near 0, a search that shares out by scores sees them as equal."""
    traces = np.exp(aggregate_steps(log_scores(step_scores), offsets, "mean"))
    return float(np.mean([traces[groups == group].std() for group in np.unique(groups)]))


def step_log_scores(rollouts: pa.Table, scores: pa.Table, config: PRMConfig) -> np.ndarray:
    """Log-scores of all steps [S], as the control's log-probabilities are: of densities the whole step's."""
    values, _ = list_column(scores["scores"])
    return log_scores(values, score_sizes(config.score_kind, step_tokens(rollouts)))


def measure_first_errors(
    rollouts: pa.Table, grades: pa.Table, scores: pa.Table | None, config: PRMConfig
) -> dict[str, float]:
    """F1 of finding the first wrong step, of the PRM and of the policy's log-probability.

    Empty where the task does not know the truth of every step.
    """
    if grades["step_truth"].null_count:
        return {}
    truth, _ = list_column(grades["step_truth"])
    groups = rollouts["group"].to_numpy()
    tokens, _ = list_column(rollouts["logprobs"])
    control, offsets = step_sums(rollouts, tokens)
    steps = {"policy_log_prob": control}
    if scores is not None:
        steps["prm"] = step_log_scores(rollouts, scores, config)
    return {
        f"{name}/first_error_f1": cross_fitted_f1(values, offsets, truth.astype(bool), groups)
        for name, values in steps.items()
    }


def _aurocs(
    name: str,
    steps: np.ndarray,
    offsets: np.ndarray,
    traces: np.ndarray,
    grades: pa.Table,
    groups: np.ndarray,
) -> dict[str, float]:
    """Of traces against outcomes, and of the steps whose truth is known (a mixture may know some); over all,
    and within groups."""
    right = grades["outcome"].to_numpy() > 0.5
    metrics = {
        f"{name}/trace_auroc": auroc(traces, right),
        f"{name}/trace_auroc_within": auroc_within(traces, right, groups),
    }
    known = grades["step_truth"].is_valid().to_numpy()
    if known.any():
        truth, _ = list_column(grades.filter(known)["step_truth"])
        of_steps = np.repeat(groups, np.diff(offsets))
        on, right = np.repeat(known, np.diff(offsets)), truth.astype(bool)
        metrics[f"{name}/step_auroc"] = auroc(steps[on], right)
        metrics[f"{name}/step_auroc_within"] = auroc_within(steps[on], right, of_steps[on])
    return metrics


def measure_evaluation(
    rollouts: pa.Table, grades: pa.Table, scores: pa.Table | None, config: Config
) -> dict[str, float]:
    """Return the figures of an evaluation during training (`runs.best_metric.evaluation_names`).

    `accuracy` is the mean outcome. `search/WAY` chooses among all samples of a problem (of `search_curves`
    the last point): `oracle` is pass@N. AUROCs and first-error F1 are called as those of the iteration.
    """
    curves = search_curves(rollouts, grades, scores, config, all_alone=True).curves
    found = {
        "accuracy": float(grades["outcome"].to_numpy().mean()),
        **{f"search/{way}": max(curve.items())[1] for way, curve in curves.items() if way != "mean"},
        **measure_scorers(rollouts, grades, scores, config.prm),
        **measure_first_errors(rollouts, grades, scores, config.prm),
    }
    return {f"{EVALUATION}{name}": value for name, value in found.items()}


def search_curves(
    rollouts: pa.Table,
    grades: pa.Table,
    scores: pa.Table | None,
    config: Config,
    *,
    all_alone: bool = False,
) -> SearchResult:
    """Accuracy of every way of choosing among N of the samples that each problem has.

    `all_alone`: of all of them only, not also of 1, 2, 4 and so on.

    Raises:
        ValueError: the problems have different numbers of samples.
    """
    groups = rollouts["group"].to_numpy()
    order = np.argsort(groups, kind="stable")
    _, counts = np.unique(groups, return_counts=True)
    if len(set(counts.tolist())) != 1:
        raise ValueError(
            f"every problem needs the same number of samples, but there are {sorted(set(counts))}"
        )
    shape = (len(counts), int(counts[0]))
    tokens, _ = list_column(rollouts["logprobs"])
    steps, offsets = step_sums(rollouts, tokens)
    log_prob = np.add.reduceat(steps, offsets[:-1])[order].reshape(shape)
    correct = (grades["outcome"].to_numpy() > 0.5)[order].reshape(shape)
    flat = [grades["answer"][int(i)].as_py() for i in order]
    answers = [flat[row * shape[1] : (row + 1) * shape[1]] for row in range(shape[0])]
    prm = None
    if scores is not None:
        values, how = step_log_scores(rollouts, scores, config.prm), config.prm.search_aggregate
        prm = aggregate_log_scores(values, offsets, how, step_tokens(rollouts))[order].reshape(shape)
    powers = [2**k for k in range(shape[1].bit_length()) if 2**k <= shape[1]]
    sizes = [shape[1]] if all_alone else powers
    curves = best_of_n_curve(
        scores=prm,
        weights=None if prm is None else relative_weights(prm),
        log_probs=log_prob,
        correct=correct,
        answers=answers,
        sizes=sizes,
        seed=derive_seed(config.seed, "search"),
    )
    return SearchResult(curves=curves, problems=shape[0], samples=shape[1])
