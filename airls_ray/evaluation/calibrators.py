"""From scores to probabilities of success, learned from problems whose success is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, log1p
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from airls_ray import files
from airls_ray.errors import DataError

FILE = "calibration.json"
"""Beside `prm.json`."""
Floats = NDArray[np.float64]
Method = Literal["isotonic", "quantile"]
_EPSILON = 1e-4
"""Probabilities nearer to 0 or 1 count as this near, as in the authors' program."""


@dataclass(frozen=True)
class Calibrator:
    """A rising function of the score, given by its corners; between them it is straight, outside constant."""

    method: Method
    """`isotonic`: the mean success of problems that score so; `quantile`: a quantile of it."""
    level: float | None
    """Of the quantile, in (0, 1)."""
    pilot: int
    """Responses whose mean score is the score of a problem."""
    scores: tuple[float, ...]
    """Rising, at least one."""
    successes: tuple[float, ...]
    """In [0, 1], not falling."""
    problems: int
    """From how many it was learned."""
    scorer: str = ""
    """Whose scores these are, as `search.scorer` names it; empty: unknown, as in files of before."""

    def __call__(self, score: float) -> float:
        """Return the probability of success, in [0, 1]."""
        return float(np.interp(score, self.scores, self.successes))


def isotonic(scores: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the not falling function nearest to `values` by squared distance, at each different score.

    Args:
        scores: [n], finite, at least one.
        values: [n], in [0, 1].

    Returns:
        The different scores, rising [m], and the function there [m].

    Raises:
        ValueError: an argument is not as above.
    """
    return _fit(scores, values, lambda pool: float(pool.mean()))


def isotonic_quantile(scores: Floats, values: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the not falling function of least pinball loss at `level` in (0, 1); see `isotonic`.

    The loss of quantile regression (arXiv 2506.09338 trains heads of the PRM by it): level * (v - f) where
    the value lies above the function, (1 - level) * (f - v) below. The smallest solution is returned.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level of a quantile lies between 0 and 1, but is {level}")
    return _fit(scores, values, lambda pool: float(np.quantile(pool, level, method="inverted_cdf")))


def _fit(scores: Floats, values: Floats, middle: Callable[[Floats], float]) -> tuple[Floats, Floats]:
    """Pool adjacent violators: neighbours whose middles fall are one pool, with one middle."""
    if not len(scores) or scores.shape != values.shape or not np.isfinite(scores).all():
        raise ValueError("a calibration needs at least one score, finite ones, and a value for each")
    order = np.argsort(scores, kind="stable")
    corners, first = np.unique(scores[order], return_index=True)
    pools: list[tuple[Floats, int, float]] = []
    for values_there in np.split(values[order], first[1:]):
        pool, width, value = values_there, 1, middle(values_there)
        while pools and pools[-1][2] > value:
            before, wide, _ = pools.pop()
            pool, width = np.concatenate([before, pool]), wide + width
            value = middle(pool)
        pools.append((pool, width, value))
    return corners, np.repeat([value for _, _, value in pools], [width for _, width, _ in pools])


def adaptive_budget(success: float, confidence: float) -> int:
    """Return how many samples hold a right one with probability `confidence`, where each is right with
    probability `success`:  N = ceil(ln(1 - C) / ln(1 - p)).

    Instance-adaptive scaling (Park et al. 2025, arXiv 2506.09338; `compute_N_IAS` of the authors' program,
    whose limits of p are taken over).

    Args:
        success: p in [0, 1], moved into [1e-4, 1 - 1e-4].
        confidence: C in [0, 1).
    """
    bounded = min(max(success, _EPSILON), 1.0 - _EPSILON)
    return max(1, ceil(log1p(-confidence) / log1p(-bounded)))


def fit_records(
    records: Sequence[Mapping[str, Any]], method: Method, level: float = 0.1, pilot: int = 4
) -> Calibrator:
    """Learn from records of a search that samples whole responses (SEARCH_RECORDS, such as `best_of_n`).

    A problem's score is the mean score of its first `pilot` responses, its success the mean outcome of all.

    Raises:
        DataError: no problem has `pilot` finished responses.
    """
    kept = [record["leaves"] for record in records if len(record["leaves"]) >= pilot]
    if not kept:
        raise DataError(
            f"no record has {pilot} finished responses: search with best_of_n and a larger --budget, or "
            "lower --pilot"
        )
    scores = np.array([np.mean([leaf["score"] for leaf in leaves[:pilot]]) for leaves in kept])
    successes = np.array([np.mean([leaf["outcome"] for leaf in leaves]) for leaves in kept])
    fitted = isotonic(scores, successes)
    if method == "quantile":
        fitted = isotonic_quantile(scores, successes, level)
    corners, values = (tuple(float(one) for one in column) for column in fitted)
    quantile_of = level if method == "quantile" else None
    scorer = str(records[0].get("scorer") or "")
    return Calibrator(method, quantile_of, pilot, corners, values, len(kept), scorer)


def samples_of(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the records of Best-of-N at its largest width: what other searches finish was chosen by scores.

    Raises:
        DataError: none is of it, or they have several scorers.
    """
    whole = [record for record in records if record["algorithm"] == "best_of_n"]
    if not whole:
        raise DataError("no record is of best_of_n, whose responses nothing has chosen: search by it, too")
    scorers = sorted({str(record.get("scorer")) for record in whole})
    if len(scorers) > 1:
        raise DataError(
            f"the records have several scorers ({', '.join(scorers)}), and a score means something else by "
            "each: calibrate one at a time"
        )
    widest = max(record["budget"] for record in whole)
    return [record for record in whole if record["budget"] == widest]


def write_calibrator(calibrator: Calibrator, path: Path) -> None:
    """Write it as JSON."""
    files.write_text(path, json.dumps(asdict(calibrator), indent=2) + "\n")


def read_calibrator(path: Path) -> Calibrator:
    """Read what `write_calibrator` wrote.

    Raises:
        DataError: there is no such file, or it is none of these.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        calibrator = Calibrator(
            **{**found, "scores": tuple(found["scores"]), "successes": tuple(found["successes"])}
        )
        valid = len(calibrator.scores) == len(calibrator.successes) > 0
    except FileNotFoundError:
        raise DataError(f"there is no calibration {path}: `airls-ray calibrate` writes one") from None
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise DataError(f"{path} is no calibration: {error}; write it by `airls-ray calibrate`") from None
    if not valid:
        raise DataError(f"{path} is no calibration: it has no corners; write it by `airls-ray calibrate`")
    return calibrator
