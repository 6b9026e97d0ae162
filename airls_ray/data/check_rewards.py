"""Rewards tried on a few problems, in a child process of their own, before a run starts."""

from __future__ import annotations

from collections.abc import Sequence

from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress
from airls_ray.data.check_task import sample_responses
from airls_ray.errors import DoorError
from airls_ray.grading.reward_calls import Row
from airls_ray.grading.reward_pool import NamedReward, RewardPool, RewardValue


def try_rewards(config: Config, rewards: Sequence[NamedReward], progress: Progress) -> None:
    """Ask each reward about right, wrong and empty responses to the first training problems.

    Raises:
        DoorError: a reward does not open, or gave no value; the first such response, and what was wrong. The
            traceback is logged.
        ConfigError: steps are to get credit, and nothing gives them any.
    """
    if not rewards:
        return
    rows = sample_rows(config)
    pools = [RewardPool(one, 1) for one in rewards]  # they come up side by side
    per_step = False
    try:
        for pool in pools:
            values = _ask(pool, rows)
            per_step |= any(isinstance(one.value, list) for one in values)
            progress.say(_said(pool.reward.label, values))
    finally:
        for pool in pools:
            pool.close()
    if config.method.step_weight > 0 and not config.uses_prm and not per_step:
        raise DoorError(
            f"method.step_weight is {config.method.step_weight:g}, but no reward of task.reward gives one "
            "number a step, and there is no PRM: set it to 0"
        )


def sample_rows(config: Config) -> list[Row]:
    """Responses that a policy might give to the first training problems: a trace or the answer, a wrong one,
    and an empty one."""
    return [
        Row(problem.prompt, response, problem.answer, steps, correct, problem.details)
        for problem, response, correct, steps in sample_responses(config)
    ]


def _ask(pool: RewardPool, rows: Sequence[Row]) -> list[RewardValue]:
    """Return the values; a reward for one response is asked one by one, so that a hang is found at once."""
    size = len(rows) if pool.takes_batches() else 1
    values: list[RewardValue] = []
    for start in range(0, len(rows), size):
        values += pool.score(rows[start : start + size], list(range(start, min(start + size, len(rows)))))
        failed = next((row for row, one in zip(rows, values, strict=False) if one.failed), None)
        if failed is not None:
            problem = next(one.problem for one in values if one.failed)
            raise DoorError(
                f"task.reward: {pool.reward.config.name} {problem}, on the response "
                f"{failed.response[:40]!r} to {failed.prompt[:40]!r}: a reward must have a value for every "
                "response, right, wrong or empty"
            )
    return values


def _said(label: str, values: Sequence[RewardValue]) -> str:
    numbers = [sum(one.value) if isinstance(one.value, list) else one.value for one in values]
    known = [one for one in numbers if one is not None]
    span = f"{min(known):.3g} to {max(known):.3g}" if known else "nothing"
    return f"Reward {label}: {span} on {len(values)} responses that were tried"
