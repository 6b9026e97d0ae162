"""Rewards in child processes: what a configuration names, opened and asked, with a deadline for each call.

Each reward has children of its own, so that one that hangs or dies takes no other reward and no grader down.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from airls_ray.config.reward_section import RewardConfig
from airls_ray.doors import Door
from airls_ray.grading.child_pool import ChildPool, Lost
from airls_ray.grading.reward_calls import Row, Value

LARGEST_BATCH = 64
"""Responses of one call of a reward that takes batches; groups stay whole, so a larger one makes more."""
_CHUNK = 64
_GRACE_SECONDS = 2.0  # for a child to stop a late call itself, so that its traceback shows where it was
_ENDED: dict[Lost, str] = {
    "timeout": "gave no value within {:g} s, and its process had to be ended",
    "crashed": "ended its process",
}


@dataclass(frozen=True)
class NamedReward:
    """A reward of the configuration, and what it stands for."""

    config: RewardConfig
    door: Door

    @property
    def label(self) -> str:
        """What it is called in metrics."""
        return self.config.shown


@dataclass(frozen=True)
class RewardValue:
    """What a reward said of one response; the value is None where it failed, or had nothing to say."""

    value: Value
    failed: bool = False
    problem: str | None = None
    """What was wrong with the call, after the reward's name."""


def find_rewards(rewards: Sequence[RewardConfig]) -> tuple[NamedReward, ...]:
    """Find what the rewards of a configuration name, without running any of it.

    Raises:
        DoorError: one names nothing.
    """
    return tuple(NamedReward(one, one.door()) for one in rewards)


class RewardPool(ChildPool[Sequence[Row], list[RewardValue]]):
    """Child processes that give one reward. Not for use by several threads at once."""

    what = "reward"

    def __init__(self, reward: NamedReward, processes: int) -> None:
        """Start the children without waiting for them: `processes`, unless the reward's settings say else."""
        self.reward = reward
        self._seconds = reward.config.deadline_seconds
        self.traces: list[str] = []
        """Tracebacks of the last call of `score`."""
        setup = {"door": asdict(reward.door), "options": reward.config.options, "where": reward.config.where}
        super().__init__(
            [sys.executable, "-m", "airls_ray.grading.reward_worker", f"--deadline-seconds={self._seconds}"],
            json.dumps(setup),
            reward.config.processes or processes,
            self._seconds + _GRACE_SECONDS,
            largest_chunk=_CHUNK,
        )

    def score(self, rows: Sequence[Row], groups: Sequence[int]) -> list[RewardValue]:
        """Return what the reward says of each row; rows of a group (of one problem) are in one batch.

        Raises:
            DoorError: the reward does not open.
            RunError: a child cannot be started.
        """
        self.traces = []
        batch = self.takes_batches()
        packs = batches(groups) if batch else [[number] for number in range(len(rows))]
        if batch:
            self._largest_chunk = 1
        found: dict[int, RewardValue] = {}
        answers = self.work([[rows[number] for number in pack] for pack in packs])
        for pack, values in zip(packs, answers, strict=True):
            found |= dict(zip(pack, values, strict=True))
        return [found[number] for number in range(len(rows))]

    def takes_batches(self) -> bool:
        """Whether a call is for many responses; waits until a child has opened the reward.

        Raises:
            DoorError: the reward does not open.
            RunError: a child cannot be started.
        """
        return bool(json.loads(self.wait_ready())["batch"])

    def encode(self, item: Sequence[Row]) -> list[list[Any]]:
        """Return the rows of a call as the child reads them."""
        return [
            [row.prompt, row.response, row.answer, list(row.steps), row.correct, dict(row.row)]
            for row in item
        ]

    def decode(self, item: Sequence[Row], line: Any) -> list[RewardValue]:
        """Return the values of a call."""
        values, failed, problem, trace = line
        if trace is not None:
            self.traces.append(trace)
        if problem is not None:
            self.complain(self._sentence(problem), trace)
        return [
            RewardValue(value, wrong, problem if wrong else None)
            for value, wrong in zip(values, failed, strict=True)
        ]

    def lost(self, item: Sequence[Row], why: Lost) -> list[RewardValue]:
        """Return failures: the child is gone."""
        problem = _ENDED[why].format(self._seconds)
        self.complain(self._sentence(problem))
        return [RewardValue(None, True, problem)] * len(item)

    def _sentence(self, problem: str) -> str:
        return f"the reward {self.reward.label} {problem}; such responses have no value of it"


def batches(groups: Sequence[int]) -> list[list[int]]:
    """Row numbers in batches of about `LARGEST_BATCH`, the rows of a group in one."""
    members: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    packs: list[list[int]] = []
    for rows in members.values():
        if packs and len(packs[-1]) + len(rows) <= LARGEST_BATCH:
            packs[-1] += rows
        else:
            packs.append(list(rows))
    return packs
