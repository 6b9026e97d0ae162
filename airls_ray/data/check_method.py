"""What is named of the user's own for learning, tried in a process of its own before a run starts."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from airls_ray.config.door_section import DoorConfig
from airls_ray.config.method_section import MethodConfig
from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress
from airls_ray.errors import DoorError, RunError

_MODULE = "airls_ray.learning.try_method"
_SECONDS = 300.0
"""Longest time of all trials, the imports of PyTorch and of the user's code included."""


def try_own_code(config: Config, progress: Progress) -> None:
    """Call what the method names (objective, transforms, terms, filters, loss) on a hand-made batch.

    Nothing is done where it names built-in ones alone, by their fields.

    Raises:
        DoorError: something does not open, raises, hangs, or returns something else than it must; the
            traceback is logged.
        RunError: the process itself failed.
    """
    names = own_names(config.method)
    if not names:
        return
    given = {
        "method": config.method.model_dump(mode="json"),
        "prm": config.prm.model_dump(mode="json"),
        "max_response_tokens": config.rollout.max_response_tokens,
        "reference": config.uses_reference,
    }
    run_trial(_MODULE, given, names, progress)


def try_step_labels(config: Config, progress: Progress, *, rule: bool = True) -> None:
    """Call the loss of labelled steps and, if it is asked for, the label rule on a hand-made batch.

    Nothing is done where they are built-in ones without options.

    Raises:
        DoorError, RunError: as of `try_own_code`.
    """
    section = config.supervised_prm
    names = _own([section.step_loss, *([section.labels] if rule else [])])
    if names:
        given = {"supervised_prm": section.model_dump(mode="json"), "prm": config.prm.model_dump(mode="json")}
        run_trial("airls_ray.learning.try_step_labels", {**given, "rule": rule}, names, progress)


def run_trial(module: str, given: dict[str, Any], names: Sequence[str], progress: Progress) -> None:
    """Run a module that reads `given` as a line of JSON and tries what `names` name.

    Raises:
        DoorError: something does not open, raises, hangs, or returns something else than it must; the
            traceback is logged.
        RunError: the process itself failed.
    """
    with progress.phase(f"trying {', '.join(names)}"):
        try:
            done = subprocess.run(
                [sys.executable, "-m", module],
                input=json.dumps(given) + "\n",
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DoorError(
                f"{', '.join(names)} did not get through a trial within {_SECONDS:g} s: look for what hangs "
                "at import, or in a call"
            ) from None
    if done.returncode == 0:
        return
    logging.getLogger(__name__).warning("%s", done.stderr)
    if done.returncode == 2 and done.stdout.strip():
        raise DoorError(json.loads(done.stdout.splitlines()[-1]))
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    raise RunError(f"the trial of {', '.join(names)} failed ({last[0][:200]}): look at the log")


def try_objective(config: Config, progress: Progress) -> None:
    """Call the PRM's objective alone; see `try_own_code`.

    Raises:
        DoorError, RunError: as of `try_own_code`.
    """
    objective = config.method.prm_objective
    alone = MethodConfig(name=config.method.name, prm_objective=objective)
    try_own_code(config.model_copy(update={"method": alone}), progress)


def own_names(method: MethodConfig) -> list[str]:
    """Labels of what is tried: all of the lists, and an objective or a loss that is not as it is built in."""
    single = [method.policy_loss, *([method.prm_objective] if method.prm_objective.learns else [])]
    lists = [*method.step_transforms, *method.outcome_terms, *method.row_filters]
    return [*_own(single), *(one.shown for one in lists)]


def _own(named: Sequence[DoorConfig]) -> list[str]:
    return [one.shown for one in named if one.options or one.door().source != "built-in"]
