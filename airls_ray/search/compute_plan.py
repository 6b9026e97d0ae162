"""Which search for which problem: the best algorithm and width by difficulty and budget, from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from airls_ray.errors import DataError

Floats = NDArray[np.float64]
Strategy = tuple[str, int]
"""Algorithm and width."""
Difficulty = Literal["score", "success"]
"""`score`: mean score of the responses of Best-of-N, which a search knows by itself; `success`: their mean
outcome, which it does not (the oracle of Snell et al.)."""
_SAMPLES = "best_of_n"


@dataclass(frozen=True)
class Outcomes:
    """What each strategy did on each problem: S strategies, P problems."""

    strategies: tuple[Strategy, ...]
    outcomes: Floats
    """[S, P], in [0, 1]."""
    costs: Floats
    """[S, P], on one axis of the ledger."""
    ease: Floats
    """[P]: how easy each problem is; the higher the easier."""


def read_outcomes(records: Sequence[Mapping[str, Any]], axis: str, difficulty: Difficulty) -> Outcomes:
    """Order the records of a search by strategy and problem; several seeds are averaged.

    Raises:
        DataError: strategies were run on different problems or with different scorers, or none is Best-of-N.
    """
    scorers = sorted({record["scorer"] for record in records})
    if len(scorers) > 1:
        raise DataError(f"the records have several scorers ({', '.join(scorers)}): plan for one at a time")
    cells: dict[Strategy, dict[str, list[Mapping[str, Any]]]] = {}
    for record in records:
        found = cells.setdefault((record["algorithm"], record["budget"]), {})
        found.setdefault(record["problem_id"], []).append(record)
    problems = list(next(iter(cells.values()), {}))
    for (algorithm, width), found in cells.items():
        if set(found) != set(problems):
            raise DataError(f"{algorithm} with N = {width} was run on other problems than the others")
    widths = [width for algorithm, width in cells if algorithm == _SAMPLES]
    if not widths:
        raise DataError(
            "no record is of best_of_n, whose responses say how hard a problem is: search by it, too"
        )
    sampled = cells[_SAMPLES, max(widths)]
    field = {"score": "score", "success": "outcome"}[difficulty]
    return Outcomes(
        tuple(cells),
        _mean_of(cells, problems, "outcome"),
        _mean_of(cells, problems, axis),
        np.array([_mean_of_leaves(sampled[problem], field) for problem in problems]),
    )


def _mean_of(
    cells: Mapping[Strategy, Mapping[str, Sequence[Mapping[str, Any]]]], problems: Sequence[str], field: str
) -> Floats:
    return np.array(
        [[np.mean([one[field] for one in found[p]]) for p in problems] for found in cells.values()],
        dtype=np.float64,
    )


def _mean_of_leaves(records: Sequence[Mapping[str, Any]], field: str) -> float:
    """0, the hardest, where nothing was finished."""
    values = [leaf[field] for record in records for leaf in record["leaves"]]
    return float(np.mean(values)) if values else 0.0


def difficulty_bins(ease: Floats, count: int) -> list[NDArray[np.int64]]:
    """Return the problems of each of `count` quantiles of difficulty, the hardest first; of equal ones the
    earlier is harder. Sizes differ by one at most."""
    return [np.asarray(part) for part in np.array_split(np.argsort(ease, kind="stable"), count)]


def best_strategy(outcomes: Floats, costs: Floats, budget: float) -> int | None:
    """Return the strategy of highest mean outcome among those whose mean cost is within the budget.

    Args:
        outcomes: [S, n].
        costs: [S, n].
        budget: most mean cost of a problem.

    Returns:
        Of equal ones the cheapest, then the first; None where all cost more.
    """
    spent, right = costs.mean(axis=1), outcomes.mean(axis=1)
    within = np.flatnonzero(spent <= budget * (1.0 + 1e-9))
    if not len(within):
        return None
    return int(within[np.lexsort((within, spent[within], -right[within]))[0]])


def two_fold_accuracy(
    found: Outcomes, bins: Sequence[NDArray[np.int64]], budget: float, seed: int = 0
) -> float | None:
    """Return the accuracy of choosing a strategy in each bin on one half and using it on the other.

    Snell et al. 2024 (arXiv 2408.03314, section 3.2): two-fold cross-validation in each bin of difficulty.
    The halves are random; every problem counts once.

    Returns:
        None where a half finds no strategy within the budget.

    Raises:
        DataError: a bin has fewer than two problems.
    """
    rng = np.random.default_rng(seed)
    right = 0.0
    for members in bins:
        if len(members) < 2:
            raise DataError("a bin of difficulty has fewer than two problems: search more, or lower --bins")
        halves = np.array_split(rng.permutation(members), 2)
        for chosen_on, used_on in (halves, halves[::-1]):
            strategy = best_strategy(found.outcomes[:, chosen_on], found.costs[:, chosen_on], budget)
            if strategy is None:
                return None
            right += float(found.outcomes[strategy, used_on].sum())
    return right / found.outcomes.shape[1]


def plan_search(
    found: Outcomes, budgets: Sequence[float] | None, bins: int = 5, seed: int = 0
) -> list[dict[str, Any]]:
    """Return for each budget the strategy of each bin, and what that is worth.

    Args:
        found: of `read_outcomes`.
        budgets: most mean cost of a problem; None: the mean cost of each strategy.
        bins: quantiles of difficulty.
        seed: of the halves.

    Returns:
        Rows of `budget`, `accuracy` (two-fold), `one_for_all` (the same with one bin) and `bins`: the
        hardest first, each with `algorithm`, `width` and `up_to` (ease of its easiest problem; a
        problem up to there belongs to it). Budgets that some bin has no strategy for are left out.
    """
    parts = difficulty_bins(found.ease, bins)
    everything = [np.arange(found.outcomes.shape[1])]
    rows = []
    for budget in sorted(set(found.costs.mean(axis=1).tolist() if budgets is None else budgets)):
        accuracy, alone = (two_fold_accuracy(found, by, budget, seed) for by in (parts, everything))
        chosen = [_choice(found, part, budget) for part in parts]
        if accuracy is not None and all(chosen):
            rows.append({"budget": float(budget), "accuracy": accuracy, "one_for_all": alone, "bins": chosen})
    return rows


def _choice(found: Outcomes, members: NDArray[np.int64], budget: float) -> dict[str, Any] | None:
    """The strategy of a bin as a plan has it; None where all cost more."""
    best = best_strategy(found.outcomes[:, members], found.costs[:, members], budget)
    if best is None:
        return None
    algorithm, width = found.strategies[best]
    return {"algorithm": algorithm, "width": width, "up_to": float(found.ease[members].max())}
