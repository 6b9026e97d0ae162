"""How well scores of steps agree with labels, with the truth and with outcomes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airls_ray.evaluation.ranking import auroc, auroc_within
from airls_ray.evaluation.rollouts import list_column, step_sums
from airls_ray.evaluation.steps import Aggregate, aggregate_steps


def measure_step_scores(table: pa.Table, scores: np.ndarray, aggregate: Aggregate) -> dict[str, float]:
    """Return the AUROCs of step scores on labelled rollouts (PRM_LABELS).

    Args:
        table: the rollouts.
        scores: [S], the steps of all rows one after the other.
        aggregate: how a trace is scored by its steps.

    Returns:
        `label_auroc` against labels above 1/2, `step_auroc` against the truth of the steps where it is
        known, `trace_auroc` against outcomes above 1/2; and each `_within` problems, the mean over those
        that have both classes; nan where a class is missing.
    """
    labels, offsets = list_column(table["labels"])
    labelled = ~np.isnan(labels)
    outcomes = table["outcome"].to_numpy()
    graded = ~np.isnan(outcomes)
    traces = aggregate_steps(scores, offsets, aggregate)
    known = np.repeat(table["step_truth"].is_valid().to_numpy(), np.diff(offsets))
    truth = pc.list_flatten(table["step_truth"].combine_chunks()).to_numpy(zero_copy_only=False)
    problems = np.unique(table["problem_id"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    of_steps = np.repeat(problems, np.diff(offsets))
    ranked = {
        "label_auroc": (scores[labelled], labels[labelled] > 0.5, of_steps[labelled]),
        "step_auroc": (scores[known], truth.astype(bool), of_steps[known]),
        "trace_auroc": (traces[graded], outcomes[graded] > 0.5, problems[graded]),
    }
    over_all = {name: auroc(values, right) for name, (values, right, _) in ranked.items()}
    return over_all | {f"{name}_within": auroc_within(*one) for name, one in ranked.items()}


def measure_labels_themselves(table: pa.Table) -> dict[str, float]:
    """AUROC of the labels against the truth of the steps: what a PRM that learns them perfectly reaches.

    Empty where no truth is known; steps without a label are left out.
    """
    known = table.filter(table["step_truth"].is_valid())
    if not known.num_rows:
        return {}
    labels, _ = list_column(known["labels"])
    truth, _ = list_column(known["step_truth"])
    labelled = ~np.isnan(labels)
    return {"step_auroc": auroc(labels[labelled], truth[labelled].astype(bool))}


def measure_log_prob(table: pa.Table) -> dict[str, float]:
    """The same for the log-probability under the policy that sampled, the control; empty where unknown."""
    if table["logprobs"].null_count:
        return {}
    tokens, _ = list_column(table["logprobs"])
    sums, _ = step_sums(table, tokens)
    return measure_step_scores(table, sums, "sum")
