"""PRMBench (Song et al. 2025, arXiv 2501.03124): is each step of a changed solution judged right?

Definitions after the paper and its code (ssmisya/PRMBench, `prmtest_classified` and the scripts of its
tables): "positive" is a right step. Two things differ, both at the edge: a step is called right where it
scores at least (there: above) the threshold, and an F1 without any hit is 0 (there: -1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from airls_ray.evaluation.prm_metrics.intervals import Counts, bootstrap, group_sums, ratio

WEIGHTS = (0.5, 0.5)
"""Of negative and positive F1 in the PRM-Score."""

DIMENSIONS = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
"""The benchmark's three dimensions and their kinds of error, spelt as in its files."""


@dataclass(frozen=True)
class ChangedSolutions:
    """Scored solutions, changed ones and the originals that they were made from."""

    scores: NDArray[np.float64]
    """[S], steps of all solutions one after the other."""
    right: NDArray[np.bool_]
    """[S], whether each step is right."""
    offsets: NDArray[np.int64]
    """[rows + 1]."""
    classification: Sequence[str]
    """[rows], kind of error."""
    original: NDArray[np.int64]
    """[rows], row of the original that a solution was made from; -1: it is not there."""
    is_original: NDArray[np.bool_]
    """[rows], whether a solution is an original itself (its kind and `original` do not count)."""
    problems: NDArray[np.int64]
    """[rows], number of the problem: solutions of the same problem are drawn together."""


def measure_prmbench(
    data: ChangedSolutions, threshold: float = 0.5, seed: int = 0, draws: int = 2000
) -> dict[str, Any]:
    """Return the figures of the benchmark.

    Of all steps of changed solutions together (`overall`) and of each kind of error (`kinds`): `f1` (of right
    steps), `negative_f1` (of wrong ones), `prm_score` (their weighted sum; `f1` alone where no step is wrong,
    as for `multi_solutions`), `low` and `high` (95 % over problems), `accuracy` of all, of right and of
    wrong steps, `first_error_accuracy` (the first wrong step is called wrong) and `similarity`: 1 less the
    mean difference between the share of steps called right in a changed solution and in its original, near 1
    for a PRM that does not notice the change. `dimensions`: mean `prm_score` of their kinds.
    `original_accuracy`: share of the originals' steps called right.
    """
    called = data.scores >= threshold
    counts = step_counts(called, data.right, data.offsets)
    shares = ratio(counts[:, 0] + counts[:, 1], counts.sum(axis=1))
    first = _first_error_called(called, data.right, data.offsets)
    away = np.where(data.original >= 0, np.abs(shares - shares[data.original]), nan)
    changed = ~data.is_original

    def figures(mask: NDArray[np.bool_]) -> dict[str, Any]:
        sums = group_sums(counts[mask], data.problems[mask])
        low, high = bootstrap(sums, prm_score, seed, draws)
        total = sums.sum(axis=0)
        true_right, false_right, true_wrong, false_wrong = total.tolist()
        return {
            "rows": int(mask.sum()),
            "steps": int(total.sum()),
            "prm_score": float(prm_score(total)),
            "low": low,
            "high": high,
            "f1": float(positive_f1(total)),
            "negative_f1": float(negative_f1(total)),
            "accuracy": float(ratio(total[0] + total[2], total.sum())),
            "accuracy_right": float(ratio(true_right, true_right + false_wrong)),
            "accuracy_wrong": float(ratio(true_wrong, true_wrong + false_right)),
            "first_error_accuracy": _known_mean(first[mask]),
            "similarity": 1.0 - _known_mean(away[mask]),
        }

    names = np.array(data.classification)
    kinds = {name: figures(changed & (names == name)) for name in dict.fromkeys(names[changed].tolist())}
    originals = counts[data.is_original].sum(axis=0)
    return {
        "threshold": threshold,
        "overall": figures(changed),
        "kinds": kinds,
        "dimensions": {
            dimension: float(np.mean([kinds[name]["prm_score"] for name in members if name in kinds]))
            for dimension, members in DIMENSIONS.items()
            if any(name in kinds for name in members)
        },
        "original_accuracy": float(ratio(originals[0], originals.sum())),
    }


def step_counts(
    called_right: NDArray[np.bool_], right: NDArray[np.bool_], offsets: NDArray[np.int64]
) -> Counts:
    """Count the steps of each solution by truth and call.

    Args:
        called_right: [S].
        right: [S].
        offsets: [rows + 1].

    Returns:
        float64 [rows, 4]: true positives, false positives, true negatives, false negatives.
    """
    cases = (called_right & right, called_right & ~right, ~called_right & ~right, ~called_right & right)
    before = np.concatenate([np.zeros((1, 4)), np.cumsum(np.stack(cases, axis=1), axis=0, dtype=np.float64)])
    return np.asarray(np.diff(before[offsets], axis=0))


def positive_f1(counts: Counts) -> NDArray[np.float64]:
    """F1 [...] of right steps from counts [..., 4]; nan where none is right."""
    return _f1(counts[..., 0], counts[..., 1], counts[..., 3])


def negative_f1(counts: Counts) -> NDArray[np.float64]:
    """F1 [...] of wrong steps from counts [..., 4]; nan where none is wrong."""
    return _f1(counts[..., 2], counts[..., 3], counts[..., 1])


def prm_score(counts: Counts) -> NDArray[np.float64]:
    """Weighted sum of both F1 [...] from counts [..., 4]; the positive one alone where no step is wrong."""
    weighted = WEIGHTS[0] * negative_f1(counts) + WEIGHTS[1] * positive_f1(counts)
    return np.where(counts[..., 1] + counts[..., 2] == 0, positive_f1(counts), weighted)


def _f1(hits: Counts, false: Counts, missed: Counts) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall; `false` are called so wrongly, `missed` are not."""
    there = hits + missed > 0
    return np.where(there, ratio(2 * hits, 2 * hits + false + missed), nan)


def _first_error_called(
    called_right: NDArray[np.bool_], right: NDArray[np.bool_], offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Whether the first wrong step of each solution is called wrong: float64 [rows], nan without one."""
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    wrong = np.flatnonzero(~right)
    which, at = np.unique(rows[wrong], return_index=True)
    found = np.full(len(offsets) - 1, nan)
    found[which] = ~called_right[wrong[at]]
    return found


def _known_mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else nan
