"""Settings of a reward beside the outcome."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt, model_validator

from airls_ray.config.base import StrictModel


class RewardConfig(StrictModel):
    """One reward: what gives it, and its share in the reward of a rollout."""

    name: Annotated[str, Field(min_length=1)]
    """A built-in one (`airls-ray list reward`), `file.py:NAME`, `package.module:NAME`, an entry point of the
    group `airls_ray.reward`, or the URL of a server."""
    weight: float = 1.0
    """Its values are multiplied by this before they are summed; below 0 it is a penalty. The outcome's own is
    `method.outcome_weight`."""
    label: str = ""
    """What it is called in metrics (`reward/LABEL`); empty: the end of its name."""
    normalise: Literal["none", "group", "batch"] = "none"
    """Before the weight: minus the mean and by the deviation of its values of the same problem, or of all
    rollouts that are graded together."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Further keywords for the function, or those of a class."""
    deadline_seconds: PositiveFloat = 5.0
    """Longest time of one call: of one response, or of a batch. Set it where the reward asks a model."""
    processes: PositiveInt | None = None
    """Child processes for it; null: `verifier.processes`."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @property
    def shown(self) -> str:
        """The label in metrics and sentences."""
        if self.label:
            return self.label
        if "://" in self.name:
            return self.name.rstrip("/").rpartition("/")[2]
        return self.name.rpartition(":")[2]
