"""What `train --dry-run` prints: the plan of a run as tables, and what is wrong with it in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airls_ray.console.formatting import Cell

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.planning import Plan


def show_plan(config: Config, gpus_per_node: int, gpu_memory_gib: float) -> None:
    """Print what a run by `config` needs.

    Args:
        config: of the run.
        gpus_per_node: GPUs of every node.
        gpu_memory_gib: memory of one GPU.

    Raises:
        ModelError: a local model folder is broken.
    """
    from airls_ray.console.choose import make_progress
    from airls_ray.planning import make_plan

    plan = make_plan(config, gpus_per_node=gpus_per_node, gpu_memory_gib=gpu_memory_gib)
    progress = make_progress()
    title = f"{config.name}: {config.method.name} on {config.task.name}"
    progress.table(title, list(plan.sizes.items()), ("size", "value"))
    _show_actors(plan, progress)
    _show_nodes(plan, progress)
    _show_memory(plan, progress)
    for warning in plan.warnings:
        print(f"Warning: {warning}.")
    if not plan.warnings:
        print("Nothing is missing by this plan.")


def _show_actors(plan: Plan, progress: Progress) -> None:
    custom = sorted({name for demand in plan.demands for name in demand.custom})
    rows: list[list[Cell]] = [
        [one.name, one.count, one.cpus, one.gpus, *(one.custom.get(name, 0) for name in custom)]
        for one in plan.demands
    ]
    totals: list[Cell] = [sum(float(row[1] or 0) * float(row[i] or 0) for row in rows) for i in range(2, 4)]
    more: list[Cell] = [sum(one.count * one.custom.get(name, 0) for one in plan.demands) for name in custom]
    rows.append(["in all", sum(one.count for one in plan.demands), *totals, *more])
    progress.table("Actors, and what each asks of Ray", rows, ("actor", "number", "CPUs", "GPUs", *custom))


def _show_nodes(plan: Plan, progress: Progress) -> None:
    rows: list[list[Cell]] = []
    for number, node in enumerate(plan.placement.nodes, 1):
        actors = ", ".join(f"{count} x {name}" for name, count in node.actors.items())
        used = sum(1 for gpu in node.gpus if gpu)
        name = f"node {number}" + (f" ({', '.join(sorted(node.custom))})" if node.custom else "")
        rows.append([name, actors or "nothing", node.cpus, f"{used} of {len(node.gpus)}"])
    progress.table("A placement that works", rows, ("node", "actors", "CPUs", "GPUs used"))


def _show_memory(plan: Plan, progress: Progress) -> None:
    if plan.unknown is not None:
        print(f"No memory estimate where it is missing: {plan.unknown}.\n")
    if plan.memory:
        rows: list[list[Cell]] = [
            [
                name, _gib(one.weights), _gib(one.gradients), _gib(one.optimizer), _gib(one.activations),
                _gib(one.logits), _gib(one.buffers), _gib(max(one.update, one.gathered)), _gib(one.total),
            ]
            for name, one in plan.memory.items()
        ]  # fmt: skip
        columns = ("of one", "weights", "gradients", "optimiser", "activations*", "logits*", "buffers*",
                   "step or sync", "peak*")  # fmt: skip
        gpu = f", a GPU has {plan.gpu_memory / 2**30:g}" if _has_gpus(plan) else ""
        progress.table(f"Memory in GiB (* estimates{gpu})", rows, columns)
        for name, one in plan.memory.items():
            if one.host:
                print(f"A rank of the {name} also keeps {_gib(one.host):.1f} GiB in its node's memory.\n")
    if plan.engine is not None:
        engine = plan.engine
        cells: list[list[Cell]] = [
            [
                "rollout worker", _gib(engine.weights), _gib(engine.workspace), _gib(engine.cache),
                engine.sequences, _gib(engine.total),
            ]
        ]  # fmt: skip
        names = ("of one", "weights", "workspace*", "cache*", "full sequences*", "all*")
        where = "on each of its GPUs" if _has_gpus(plan) else "main memory"
        progress.table(f"Memory of an engine in GiB ({where})", cells, names)


def _has_gpus(plan: Plan) -> bool:
    return any(demand.gpus for demand in plan.demands)


def _gib(size: int) -> float:
    return size / 2**30
