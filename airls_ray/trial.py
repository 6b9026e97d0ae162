"""Trials of the user's code in a process of their own, before anything is spent.

`run_trial` gives a module a line of JSON, and it answers with its exit code: 0, or 2 and one sentence on
standard output (`main_of`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from airls_ray.console.progress import Progress
from airls_ray.errors import DoorError, RunError, UserError

_SECONDS = 300.0
"""Longest time of all trials, the imports of PyTorch and of the user's code included."""


def run_trial(module: str, given: Mapping[str, Any], section: str, names: str, progress: Progress) -> None:
    """Have a module try something.

    Args:
        module: run as `python -m`; its main is `main_of`.
        given: JSON.
        section: of the configuration, for sentences.
        names: what is tried, for sentences.
        progress: shows that it takes time.

    Raises:
        DoorError: something does not open, raises, hangs, or returns something else than it must; the
            traceback is logged.
        RunError: the process itself failed.
    """
    with progress.phase(f"trying {names}"):
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
                f"{section}: {names} did not get through a trial within {_SECONDS:g} s: look for what hangs "
                "at import, or in a call"
            ) from None
    if done.returncode == 0:
        return
    logging.getLogger(__name__).warning("%s", done.stderr)
    if done.returncode == 2 and done.stdout.strip():
        raise DoorError(json.loads(done.stdout.splitlines()[-1]))
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    raise RunError(f"the trial of {names} failed ({last[0][:200]}): look at the log")


def main_of(trial: Callable[[Mapping[str, Any]], None]) -> int:
    """Read the line of JSON, and return the exit code of a trial; what it has to say is printed."""
    given: Mapping[str, Any] = json.loads(sys.stdin.readline())
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints
            trial(given)
    except UserError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        print(json.dumps(str(error)))
        return 2
    return 0
