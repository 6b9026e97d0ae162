"""`doctor`: what is installed, which versions were tested, what is missing, with the remedy."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Check this machine and installation; exit code 1 if something needed is missing."""
    from rich.console import Console
    from rich.table import Table

    from airls_ray.doctor import Status, run_checks

    colours = {Status.OK: "green", Status.WARN: "yellow", Status.MISSING: "red"}
    checks = run_checks()
    table = Table(title="airls-ray doctor")
    for column in ("check", "status", "found", "remedy"):
        table.add_column(column, overflow="fold")
    for check in checks:
        status = f"[{colours[check.status]}]{check.status.value}[/]"
        table.add_row(check.name, status, check.found, check.remedy)
    Console().print(table)
    bad = [check.name for check in checks if check.status is Status.MISSING]
    if bad:
        typer.echo(f"Not ready: {', '.join(bad)}.", err=True)
        raise typer.Exit(1)
