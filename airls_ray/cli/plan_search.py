"""`plan-search`: which search for which problem, from the records of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from airls_ray.cli.common import read_records


def plan_search(
    records: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECORDS...",
            help="records.parquet of `airls-ray search`: several algorithms and budgets, best_of_n too.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help="File to write (YAML).")] = Path("plan.yaml"),
    difficulty: Annotated[
        Literal["score", "success"],
        typer.Option(help="How hard a problem is: by the scores of its samples, or by how many are right."),
    ] = "score",
    axis: Annotated[
        Literal["policy_tokens", "generations", "prm_tokens", "flops", "kv_tokens"],
        typer.Option(help="What a budget counts, in the mean over problems."),
    ] = "policy_tokens",
    budget: Annotated[
        list[float] | None,
        typer.Option(
            help="Budget (may be repeated); by default the cost of each search.", show_default=False
        ),
    ] = None,
    bins: Annotated[int, typer.Option(min=1, help="Quantiles of difficulty.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the halves on which the plan is tried.")] = 0,
) -> None:
    """Find the best search for each quantile of difficulty and each budget (arXiv 2408.03314)."""
    import yaml

    from airls_ray import files
    from airls_ray.console.choose import make_progress
    from airls_ray.errors import DataError
    from airls_ray.search import compute_plan

    rows = read_records(records)
    if not rows:
        raise DataError(f"{records[0]} holds no records of a search")
    found = compute_plan.read_outcomes(rows, axis, difficulty)
    plan = compute_plan.plan_search(found, budget, bins, seed)
    if not plan:
        raise DataError("no search is within any budget in every bin of difficulty: raise --budget")
    tree = {
        "difficulty": difficulty,
        "axis": axis,
        "scorer": rows[0]["scorer"],
        "problems": len(found.ease),
        "budgets": plan,
    }
    files.write_text(output, yaml.safe_dump(tree, sort_keys=False))
    cells = [
        [
            f"{row['budget']:,.0f}",
            f"{row['accuracy']:.3f}",
            f"{row['one_for_all']:.3f}",
            *(f"{one['algorithm']} {one['width']}" for one in row["bins"]),
        ]
        for row in plan
    ]
    names = ["hardest", *map(str, range(2, bins)), "easiest"][:bins]
    columns = [axis.replace("_", " "), "by difficulty", "one for all", *names]
    make_progress().table(f"Best search on {len(found.ease)} problems, tried on halves", cells, columns)
    typer.echo(f"Plan: {output}")
