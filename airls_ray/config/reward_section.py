"""Settings of a reward beside the outcome."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from airls_ray.config.door_section import DoorConfig


class RewardConfig(DoorConfig):
    """One reward: what gives it (also the URL of a server), and its share in the reward of a rollout."""

    kind: ClassVar[str] = "reward"
    where: ClassVar[str] = "task.reward"
    weight: float = 1.0
    """Its values are multiplied by this before they are summed; below 0 it is a penalty. The outcome's own is
    `method.outcome_weight`."""
    normalise: Literal["none", "group", "batch"] = "none"
    """Before the weight: minus the mean and by the deviation of its values of the same problem, or of all
    rollouts that are graded together."""
    deadline_seconds: PositiveFloat = 5.0
    """Longest time of one call: of one response, or of a batch. Set it where the reward asks a model."""
    processes: PositiveInt | None = None
    """Child processes for it; null: `verifier.processes`."""
