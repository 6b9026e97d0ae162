"""`scale` and `status`: the commands that speak with a live run, through files in its folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from airls_ray.runs.run_control import Status

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]


def scale(
    run: RunArgument,
    workers: Annotated[int, typer.Argument(min=1, metavar="N", help="Rollout workers.", show_default=False)],
    wait: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait until so many are ready; 0 only asks.")
    ] = 0.0,
) -> None:
    """Set the number of rollout workers of a live run, between its min_workers and max_workers."""
    from airls_ray.errors import RunError
    from airls_ray.runs.run_control import ask_for_workers, wait_for_workers

    ask_for_workers(run, workers)
    typer.echo(f"{workers} rollout workers are asked for in {run}.")
    if wait and not wait_for_workers(run, workers, wait):
        raise RunError(
            f"the run has not come to {workers} rollout workers within {wait:g} s; it goes on trying: "
            f"`airls-ray status {run}` shows how many it has"
        )


def status(
    run: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Show what a live run is doing: phase, iteration, workers, tokens/s, last error."""
    from airls_ray.runs.run_control import read_status

    found = read_status(run)
    if as_json:
        from dataclasses import asdict

        from airls_ray.files import to_json

        typer.echo(to_json({**asdict(found), "alive": not (found.over or found.stale)}, indent=2))
        return
    from airls_ray.console.choose import make_progress

    make_progress().table(f"Run {run}", _rows(found), ("", "at its end" if found.over else "now"))


def _rows(status: Status) -> list[tuple[str, str]]:
    if status.over:
        return _rows_of_the_past(status)
    workers = ", ".join(f"{count} {state}" for state, count in (status.workers or {}).items() if count)
    phase = status.phase + (" (but its driver is gone: --resume goes on)" if status.stale else "")
    rows = [
        ("phase", phase),
        ("iteration", f"{status.iteration} of {status.iterations}"),
        ("rollout workers", workers or "none yet"),
    ]
    if status.outcome is not None:
        rows.append(("mean outcome", f"{status.outcome:.3f}"))
    if status.tokens_per_second is not None:
        rows.append(("tokens/s", f"{status.tokens_per_second:,.0f}"))
    rows.append(("last error", status.last_error or "none"))
    rows.append(("last sign of life", f"{max(0.0, time.time() - status.updated):.0f} s ago"))
    rows.append(("driver", f"process {status.pid} on {status.host}"))
    return rows


def _rows_of_the_past(status: Status) -> list[tuple[str, str]]:
    """A run that has ended has no workers, no speed and no driver."""
    ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.updated))
    rows = [(status.phase, ended), ("iterations done", f"{status.iteration} of {status.iterations}")]
    if status.outcome is not None:
        rows.append(("mean outcome of the last", f"{status.outcome:.3f}"))
    rows.append(("last error", status.last_error or "none"))
    return rows
