"""Tasks: problems, traces, graders and step truth. Imports nothing heavy (grader processes start fast)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airls_ray.tasks.base import Grade, Problem, Split, Task

if TYPE_CHECKING:  # grader processes of other tasks do without pydantic
    from airls_ray.config.schema import TaskConfig

__all__ = ["Grade", "Problem", "Split", "Task", "make_task"]


def make_task(config: TaskConfig) -> Task:
    """Return the task that `config` describes; files are read when problems are first asked for."""
    if config.name == "arithmetic":
        from airls_ray.tasks.arithmetic import ArithmeticTask

        return ArithmeticTask(config)
    if config.name == "countdown":
        from airls_ray.tasks.countdown import CountdownTask

        return CountdownTask(config)
    if config.name == "code":
        from airls_ray.tasks.code_task import CodeTask

        return CodeTask(config)
    from airls_ray.tasks.file_task import FileTask

    return FileTask(config)
