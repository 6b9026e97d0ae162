"""The file of `airls-ray plan-search`, read to be followed by a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from airls_ray.config.search_section import built_in_searches
from airls_ray.errors import DataError


@dataclass(frozen=True)
class PlannedBin:
    """The search of a bin of difficulty."""

    algorithm: str
    width: int
    up_to: float
    """Mean score of the bin's easiest problem."""


def read_bins(path: Path, width: int, budget: float | None, scorer: str) -> list[PlannedBin]:
    """Return the bins, the hardest first, of the plan's row with the largest budget that is allowed.

    Args:
        path: the file.
        width: most width of every bin's search.
        budget: most mean cost of a problem, on the plan's axis; None: any.
        scorer: who scores this search; a plan of another one has other bins.

    Raises:
        DataError: there is no such file, it is no plan, it is of another scorer or of difficulties that a
            search does not know, it names searches that are not built-in, or no row is allowed.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        difficulty, of = tree["difficulty"], tree.get("scorer", scorer)
        rows = [(float(row["budget"]), [_bin(one) for one in row["bins"]]) for row in tree["budgets"]]
    except FileNotFoundError:
        raise DataError(f"there is no plan {path}: `airls-ray plan-search` writes one") from None
    except (ValueError, TypeError, KeyError, AttributeError, OSError, yaml.YAMLError) as error:
        raise DataError(f"{path} is no plan ({error}): write it by `airls-ray plan-search`") from None
    if difficulty != "score":
        raise DataError(
            f"{path} sorts problems by {difficulty}, which a search does not know: write the plan with "
            "--difficulty score"
        )
    if of != scorer:
        raise DataError(f"{path} is a plan for the scorer {of}, and search.scorer is {scorer}: plan for it")
    allowed = [
        (cost, bins)
        for cost, bins in rows
        if bins
        and all(one.width <= width for one in bins)
        and (budget is None or cost <= budget * (1.0 + 1e-9))
    ]
    if not allowed:
        cheap = "" if budget is None else f" and budget up to {budget:g}"
        raise DataError(
            f"{path} has no row with searches of width up to {width}{cheap}: raise search.budgets"
        )
    found = max(allowed, key=lambda row: row[0])[1]
    _check_names(path, found)
    return found


def _bin(tree: Mapping[str, Any]) -> PlannedBin:
    return PlannedBin(str(tree["algorithm"]), int(tree["width"]), float(tree["up_to"]))


def _check_names(path: Path, bins: list[PlannedBin]) -> None:
    """A plan names no code of a user's, and not the search that follows it."""
    known = set(built_in_searches()) - {"auto"}
    for one in bins:
        if one.algorithm not in known:
            raise DataError(
                f"{path} names the search {one.algorithm!r}, which is none that a plan can lead to: plan "
                f"from records of {', '.join(sorted(known))}"
            )
