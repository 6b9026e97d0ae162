"""Tasks: problems, traces, graders and step truth. Imports nothing heavy (grader processes start fast)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from airls_ray.tasks.base import Grade, Problem, Split, Task

if TYPE_CHECKING:  # grader processes of other tasks do without pydantic
    from airls_ray.config.task_choice import TaskConfig

__all__ = ["Grade", "Problem", "Split", "Task", "make_task"]


def make_task(config: TaskConfig) -> Task:
    """Return the task that `config` describes; files are read when problems are first asked for.

    Raises:
        DoorError: it is one of the user's own, and does not open (docs/doors.md).
    """
    from airls_ray.config.door_section import OpenName

    if isinstance(config, OpenName):
        made: Task = config.open()
    else:
        made = import_module(f"airls_ray.tasks.families.{config.name}").TASK(config)
    return made
