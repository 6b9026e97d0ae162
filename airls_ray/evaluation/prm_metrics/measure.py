"""All measures of a PRM on labelled steps, as one tree of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airls_ray.data.step_files import CORRECT, StepRow
from airls_ray.evaluation.prm_metrics.best_of_n import AGGREGATES
from airls_ray.evaluation.prm_metrics.biases import (
    drift_slope,
    flawed_but_right,
    length_correlation,
    lowest_at_last,
    partial_rank_correlation,
    step_drift,
)
from airls_ray.evaluation.prm_metrics.calibration import (
    brier_score,
    expected_calibration_error,
    reliability_table,
)
from airls_ray.evaluation.prm_metrics.prmbench import ChangedSolutions, measure_prmbench
from airls_ray.evaluation.prm_metrics.processbench import Traces, measure_first_errors
from airls_ray.evaluation.ranking import auroc, auroc_within
from airls_ray.evaluation.steps import aggregate_steps


@dataclass(frozen=True)
class StepColumns:
    """Scored solutions as arrays; the steps of all of them stand one after the other."""

    scores: NDArray[np.float64]
    """[S], in [0, 1]."""
    labels: NDArray[np.float64]
    """[S], 1 right, 0 wrong, nan unknown."""
    offsets: NDArray[np.int64]
    """[rows + 1]."""
    outcomes: NDArray[np.float64]
    """[rows], nan where unknown."""
    subsets: NDArray[np.str_]
    """[rows]."""
    problems: NDArray[np.int64]
    """[rows], number of the problem."""


def measure_step_rows(
    rows: Sequence[StepRow],
    scores: Sequence[Sequence[float]],
    threshold: float = 0.5,
    seed: int = 0,
    partial: Mapping[int, Sequence[Sequence[float]]] | None = None,
) -> dict[str, Any]:
    """Measure scores on labelled solutions.

    Args:
        rows: the solutions.
        scores: for each of them one score a step, in [0, 1].
        threshold: steps that score below it are called wrong.
        seed: of the bootstraps.
        partial: number of tokens to scores of the steps' beginnings, as `scores`; nan for a step without.

    Returns:
        `rows`, `problems`, `steps`; `first_error` (rows without a classification, where there are any; see
        `measure_first_errors`); `prmbench` (rows with one; see `measure_prmbench`); `labels`, of all rows and
        by subset (see `_label_figures`); `reliability` and `drift` (tables as lists); `drift_slope`,
        `lowest_at_last`, `flawed_but_right` (with outcomes), `length_correlation`, `trace_auroc` and
        `trace_auroc_within` (problems) by aggregation;
        `partial_rank_correlation` by number of tokens, where there are partial scores (see there; groups are
        steps at one place of one problem's solutions).
    """
    columns = make_columns(rows, scores)
    known = ~np.isnan(columns.labels)
    right = columns.labels[known] == 1
    aggregated = {how: aggregate_steps(columns.scores, columns.offsets, how) for how in AGGREGATES}
    graded = ~np.isnan(columns.outcomes)
    summary: dict[str, Any] = {
        "rows": len(rows),
        "problems": len(np.unique(columns.problems)),
        "steps": len(columns.scores),
        **_benchmarks(rows, columns, threshold, seed),
        "labels": {
            "all": _label_figures(columns, np.full(len(rows), True)),
            "subsets": {
                name: _label_figures(columns, columns.subsets == name)
                for name in np.unique(columns.subsets).tolist()
            },
        },
        "reliability": _lists(reliability_table(columns.scores[known], right)),
        "drift": _lists(step_drift(columns.scores, columns.offsets, columns.labels)),
        "drift_slope": drift_slope(columns.scores, columns.offsets, columns.labels),
        "lowest_at_last": lowest_at_last(columns.scores, columns.offsets),
        "length_correlation": {
            how: length_correlation(columns.scores, columns.offsets, how) for how in AGGREGATES
        },
    }
    if graded.any():
        summary["flawed_but_right"] = flawed_but_right(
            columns.scores, columns.offsets, columns.labels, columns.outcomes, threshold
        )
        summary["trace_auroc"] = {
            how: auroc(values[graded], columns.outcomes[graded] > 0.5) for how, values in aggregated.items()
        }
        summary["trace_auroc_within"] = {
            how: auroc_within(values[graded], columns.outcomes[graded] > 0.5, columns.problems[graded])
            for how, values in aggregated.items()
        }
    if partial:
        summary["partial_rank_correlation"] = _partial_figures(columns, partial)
    return summary


def make_columns(rows: Sequence[StepRow], scores: Sequence[Sequence[float]]) -> StepColumns:
    """Return rows and their scores as arrays.

    Raises:
        ValueError: a row has not one score a step.
    """
    for at, (row, values) in enumerate(zip(rows, scores, strict=True)):
        if len(values) != len(row.steps):
            raise ValueError(f"solution {at} has {len(values)} scores for {len(row.steps)} steps")
    _, problems = np.unique(np.array([row.problem_id for row in rows]), return_inverse=True)
    return StepColumns(
        scores=np.array([score for values in scores for score in values], dtype=np.float64),
        labels=np.array([nan if one is None else float(one) for row in rows for one in row.labels]),
        offsets=np.concatenate([[0], np.cumsum([len(row.steps) for row in rows])]).astype(np.int64),
        outcomes=np.array([nan if row.outcome is None else row.outcome for row in rows]),
        subsets=np.array([row.subset for row in rows]),
        problems=np.asarray(problems, dtype=np.int64),
    )


def _benchmarks(rows: Sequence[StepRow], columns: StepColumns, threshold: float, seed: int) -> dict[str, Any]:
    """The two published measures, each on its own kind of rows."""
    found: dict[str, Any] = {}
    classified = np.array([row.classification is not None for row in rows])
    first = np.array([_unknown if row.first_error is None else row.first_error for row in rows])
    located = ~classified & (first != _unknown)
    if located.any():
        mask = np.repeat(located, np.diff(columns.offsets))
        found["first_error"] = measure_first_errors(
            Traces(
                scores=columns.scores[mask],
                offsets=_kept_offsets(columns.offsets, located),
                first_error=first[located],
                subsets=columns.subsets[located],
                problems=columns.problems[located],
            ),
            threshold,
            seed,
        )
    known = np.array([None not in row.labels for row in rows])
    changed = classified & known
    if any(changed[at] and row.classification != CORRECT for at, row in enumerate(rows)):
        found["prmbench"] = measure_prmbench(_changed_solutions(rows, columns, changed), threshold, seed)
    return found


_unknown = -2


def _changed_solutions(
    rows: Sequence[StepRow], columns: StepColumns, kept: NDArray[np.bool_]
) -> ChangedSolutions:
    ours = [row for row, keep in zip(rows, kept, strict=True) if keep]
    originals = {row.pair: at for at, row in enumerate(ours) if row.classification == CORRECT and row.pair}
    mask = np.repeat(kept, np.diff(columns.offsets))
    return ChangedSolutions(
        scores=columns.scores[mask],
        right=columns.labels[mask] == 1,
        offsets=_kept_offsets(columns.offsets, kept),
        classification=[row.classification or "" for row in ours],
        original=np.array([originals.get(row.pair or "", -1) for row in ours]),
        is_original=np.array([row.classification == CORRECT for row in ours]),
        problems=columns.problems[kept],
    )


def _partial_figures(
    columns: StepColumns, partial: Mapping[int, Sequence[Sequence[float]]]
) -> dict[int, dict[str, float]]:
    """Steps at one place of one problem's solutions are what competes in a beam."""
    lengths = np.diff(columns.offsets)
    place = np.arange(len(columns.scores)) - np.repeat(columns.offsets[:-1], lengths)
    groups = np.repeat(columns.problems, lengths) * lengths.max(initial=1) + place
    flat = {tokens: np.array([one for row in rows for one in row]) for tokens, rows in partial.items()}
    return partial_rank_correlation(flat, columns.scores, groups)


def _label_figures(columns: StepColumns, rows: NDArray[np.bool_]) -> dict[str, float]:
    """Of the labelled steps of some rows: `steps`, `right` (share), `auroc`, `auroc_within` problems,
    `brier`, `calibration_error` and the mean score of right and of wrong ones."""
    mask = np.repeat(rows, np.diff(columns.offsets)) & ~np.isnan(columns.labels)
    scores, right = columns.scores[mask], columns.labels[mask] == 1
    return {
        "steps": len(scores),
        "right": float(right.mean()) if len(right) else nan,
        "auroc": auroc(scores, right),
        "auroc_within": auroc_within(
            scores, right, np.repeat(columns.problems, np.diff(columns.offsets))[mask]
        ),
        "brier": brier_score(scores, right),
        "calibration_error": expected_calibration_error(scores, right),
        "mean_score_right": float(scores[right].mean()) if right.any() else nan,
        "mean_score_wrong": float(scores[~right].mean()) if not right.all() else nan,
    }


def _kept_offsets(offsets: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.diff(offsets)[kept])]).astype(np.int64)


def _lists(table: dict[str, NDArray[np.float64]]) -> dict[str, list[float]]:
    return {name: column.tolist() for name, column in table.items()}
