"""A scorer of the user's own, tried on made-up solutions before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from airls_ray.config.door_section import ScorerConfig
from airls_ray.console.progress import Progress
from airls_ray.search.own_scorer import open_own
from airls_ray.trial import main_of, run_trial


def try_scorer(named: ScorerConfig, progress: Progress) -> None:
    """Let it score in a process of its own, which takes with it what it loads; built-in ones are not tried.

    Raises:
        DoorError: it does not open, raises, hangs, or does not return a score for each step.
        RunError: the process itself failed.
    """
    if named.needs == "texts":
        run_trial(
            "airls_ray.search.try_scorer", named.model_dump(mode="json"), named.where, named.shown, progress
        )


def _try(given: Mapping[str, Any]) -> None:
    open_own(ScorerConfig.model_validate(given)).try_out()


if __name__ == "__main__":
    sys.exit(main_of(_try))
