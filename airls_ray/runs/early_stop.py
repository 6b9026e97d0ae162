"""When a run ends early: a pure function of its metrics, so that a resume finds what the run had found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airls_ray.config.schema import Config


@dataclass(frozen=True)
class EarlyStop:
    """Why a run ended before its last iteration."""

    iteration: int
    """The last one that was done."""
    metric: str
    best: float
    """Largest value of the metric."""
    best_iteration: int
    """Where it was first reached."""
    evaluations: int
    """Evaluations since then."""

    @property
    def sentence(self) -> str:
        """It in words."""
        return (
            f"Stopped early after iteration {self.iteration}: {self.metric} was best at iteration "
            f"{self.best_iteration} ({self.best:.4g}), and {self.evaluations} evaluations since then "
            "brought no better one"
        )

    def record(self) -> dict[str, Any]:
        """It for the summary."""
        return {**asdict(self), "sentence": self.sentence}


def early_stop(config: Config, lines: Sequence[Mapping[str, Any]]) -> EarlyStop | None:
    """Return why a run with these metrics is to end, or None while it goes on.

    It ends when `train.patience` evaluations in a row have brought no new best (larger) value of
    `train.best_metric`. Lines without the metric, and where it is null, count as no evaluation.

    Args:
        config: of the run.
        lines: of metrics.jsonl, in order; of others than the last only `iteration` and the metric are read.
    """
    metric, patience = config.train.best_metric, config.train.patience
    if not patience or not lines:
        return None
    values = [(line["iteration"], line[metric]) for line in lines if line.get(metric) is not None]
    if not values:
        return None
    best = max(value for _, value in values)
    place = next(at for at, (_, value) in enumerate(values) if value == best)
    since = len(values) - 1 - place
    last = lines[-1]["iteration"]
    if since < patience or last >= config.iterations:
        return None
    return EarlyStop(last, metric, best, values[place][0], since)
