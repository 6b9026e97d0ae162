"""Tasks: problems, traces, graders and step truth. Imports nothing heavy (grader processes start fast)."""

from __future__ import annotations

from airls_ray.config.schema import ArithmeticTaskConfig, CountdownTaskConfig, TaskConfig
from airls_ray.tasks.base import Grade, Problem, Split, Task

__all__ = ["Grade", "Problem", "Split", "Task", "make_task"]


def make_task(config: TaskConfig) -> Task:
    """Return the task that `config` describes; files are read when problems are first asked for."""
    if isinstance(config, ArithmeticTaskConfig):
        from airls_ray.tasks.arithmetic import ArithmeticTask

        return ArithmeticTask(config)
    if isinstance(config, CountdownTaskConfig):
        from airls_ray.tasks.countdown import CountdownTask

        return CountdownTask(config)
    from airls_ray.tasks.file_task import FileTask

    return FileTask(config)
