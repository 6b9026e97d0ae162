"""Scores of steps for `evaluate-prm`, checked, and those of responses without content."""

from __future__ import annotations

from collections.abc import Sequence

from airls_ray.console.progress import Progress
from airls_ray.data.step_files import StepRow
from airls_ray.errors import ModelError
from airls_ray.evaluation.prm_metrics.probes import PROBES
from airls_ray.prm.items import StepScorer, StepText


def score_items(items: Sequence[StepText], scorer: StepScorer, name: str) -> list[list[float]]:
    """Score items, and check what came out.

    Args:
        items: what is scored.
        scorer: the PRM.
        name: of the PRM, for sentences.

    Raises:
        ModelError: there is not one score in [0, 1] for each step.
        DataError: an item does not fit the model.
    """
    scores = []
    for item, values in zip(items, scorer.score(items), strict=True):
        if len(values) != len(item.steps) or not all(0 <= value <= 1 for value in values):
            raise ModelError(
                f"{name} must give one score in [0, 1] for each of the {len(item.steps)} steps of "
                f"{item.where}, but gives {[round(value, 4) for value in values][:8]}"
            )
        scores.append([float(value) for value in values])
    return scores


def score_probes(
    rows: Sequence[StepRow], scorer: StepScorer, problems: int, name: str, progress: Progress
) -> dict[str, list[float]]:
    """Score responses without content to the first `problems` different problems.

    Returns:
        By response the score of its only step, problem by problem; empty for 0 problems.

    Raises:
        ModelError: as `score_items`.
    """
    asked = list(dict.fromkeys(row.problem for row in rows))[:problems]
    found: dict[str, list[float]] = {}
    if not asked:
        return found
    with progress.track("score probes", len(PROBES)) as bar:
        for probe in PROBES:
            items = [StepText(problem, (probe,), where=f"the probe {probe!r}") for problem in asked]
            found[probe] = [values[-1] for values in score_items(items, scorer, name)]
            bar.advance(1)
    return found
