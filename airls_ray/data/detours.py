"""Traces that leave the solution: what a policy learns steps from that do not lead to the answer."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pyarrow as pa

from airls_ray.data.problems import problems_to_table, table_to_problems
from airls_ray.errors import ConfigError
from airls_ray.seeding import derive_seed
from airls_ray.tasks.base import MakesDetours, Task


def with_detours(problems: pa.Table, task: Task, share: float, seed: int) -> pa.Table:
    """Return `problems` (schema PROBLEMS) with a detour as the only trace of a random share of them.

    Which problems, and how they go astray, depends on `seed` and the problem alone.

    Raises:
        ConfigError: the task cannot make detours.
    """
    if share == 0.0:
        return problems
    if not isinstance(task, MakesDetours):
        raise ConfigError(
            f"sft.detour_share is {share:g}, but the task {task.name} cannot make detours (countdown can); "
            "set it to 0"
        )
    rows = []
    for problem in table_to_problems(problems):
        rng = Random(derive_seed(seed, "detour", problem.problem_id))
        if problem.traces and rng.random() < share:
            problem = replace(problem, traces=(task.detour(problem, rng),))
        rows.append(problem)
    return problems_to_table(rows)
