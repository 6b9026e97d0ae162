"""Settings of what is named in a configuration (docs/doors.md)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, JsonValue, model_validator

from airls_ray.config.base import StrictModel


class DoorConfig(StrictModel):
    """A name and options."""

    name: Annotated[str, Field(min_length=1)]
    """A built-in one (`airls-ray list`), `file.py:NAME`, `package.module:NAME`, or an entry point of the
    group `airls_ray.KIND`."""
    label: str = ""
    """What it is called in metrics and sentences; empty: the end of its name."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Further keywords for the function, or those of a class."""

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


def one_alone(given: Any) -> Any:
    """Return a list, also of a name or a section that is given alone."""
    return [given] if isinstance(given, str | dict) else given
