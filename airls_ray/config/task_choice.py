"""Which task a configuration names: one with a section of its own, one of the user's own, or a mixture."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Discriminator,
    Field,
    JsonValue,
    PositiveFloat,
    PositiveInt,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from airls_ray import doors
from airls_ray.config.base import StrictModel
from airls_ray.config.door_section import OpenName, open_names
from airls_ray.config.reward_section import RewardConfig
from airls_ray.config.task_doors import FormatConfig
from airls_ray.config.task_sections import (
    ArithmeticTaskConfig,
    CodeTaskConfig,
    CountdownTaskConfig,
    FileTaskConfig,
    RewardedTaskConfig,
)


class OwnTaskConfig(OpenName, RewardedTaskConfig):
    """A task of your own, or one without a section of its own (docs/doors.md)."""

    kind: ClassVar[str] = "task"
    where: ClassVar[str] = "task.name"
    name: Annotated[str, Field(min_length=1)]
    """`file.py:NAME`, `package.module:NAME`, or an entry point of the group `airls_ray.task`."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Keywords that the class is made with."""
    test_problems: PositiveInt = 500
    """Size of the test set, or how many of its problems are used at most."""

    @field_validator("name")
    @classmethod
    def _is_there(cls, name: str) -> str:
        if not doors.is_foreign(name):  # a typing mistake is said at once; a file is read when it is needed
            doors.find(doors.kind_of("task"), name, "task.name")
        return name

    def open(self) -> Any:
        """Return the task; runs the user's code.

        Raises:
            DoorError: it does not open.
        """
        return doors.load(self.door(), self.where, {"test_problems": self.test_problems, **self.options})


_NAMES = ("arithmetic", "countdown", "file", "code", "mixture")
PREFIX_RL = "prefix_rl"
"""The task whose option `task` is the section of another one."""
OWN = "file.py:NAME"
"""Stands for every other name."""


def _section_of(data: Any) -> str:
    name = data.get("name") if isinstance(data, dict) else getattr(data, "name", None)
    return str(name) if name in _NAMES else OWN


PartTaskConfig = Annotated[
    Annotated[ArithmeticTaskConfig, Tag("arithmetic")]
    | Annotated[CountdownTaskConfig, Tag("countdown")]
    | Annotated[FileTaskConfig, Tag("file")]
    | Annotated[CodeTaskConfig, Tag("code")]
    | Annotated[OwnTaskConfig, Tag(OWN)],
    Discriminator(_section_of),
]


class MixturePartConfig(StrictModel):
    """One task of a mixture."""

    task: PartTaskConfig
    """Its section."""
    weight: PositiveFloat = 1.0
    """Its share of the training problems, over the sum of all weights."""
    label: str = ""
    """What it is called in metrics and identifiers; empty: its name."""

    @property
    def shown(self) -> str:
        """The label."""
        return self.label or self.task.name.rpartition(":")[2]


class MixtureTaskConfig(RewardedTaskConfig):
    """Several tasks in one run, each with its weight and its own grader."""

    name: Literal["mixture"] = "mixture"
    """Which task: mixture."""
    parts: Annotated[list[MixturePartConfig], Field(min_length=1)]
    """The tasks; rewards are the mixture's, for all of them."""
    test_problems: PositiveInt = 500
    """How many test problems of all parts together are used at most."""

    @field_validator("parts")
    @classmethod
    def _labels_differ(cls, parts: list[MixturePartConfig]) -> list[MixturePartConfig]:  # type: ignore[override]
        labels = [one.shown for one in parts]
        twice = next((one for one in labels if labels.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"two parts would be called {twice}: give one another `label`")
        rewarded = next((one.shown for one in parts if one.task.reward), None)
        if rewarded is not None:
            raise ValueError(
                f"the rewards of {rewarded} must be those of the mixture: move them to task.reward"
            )
        return parts


TaskConfig = Annotated[
    Annotated[ArithmeticTaskConfig, Tag("arithmetic")]
    | Annotated[CountdownTaskConfig, Tag("countdown")]
    | Annotated[FileTaskConfig, Tag("file")]
    | Annotated[CodeTaskConfig, Tag("code")]
    | Annotated[MixtureTaskConfig, Tag("mixture")]
    | Annotated[OwnTaskConfig, Tag(OWN)],
    Discriminator(_section_of),
]


def task_of(section: Any) -> TaskConfig:
    """Return the task of a section.

    Raises:
        ValidationError: it is none; the place of the mistake begins with `task`.
    """
    return _tasks().validate_python({"task": section})["task"]


@cache
def _tasks() -> TypeAdapter[dict[str, TaskConfig]]:
    return TypeAdapter(dict[str, TaskConfig])


def parts_of(task: TaskConfig) -> dict[str, TaskConfig]:
    """Return the tasks of a mixture by their labels; another task is its own only part, of an empty label.

    In the place of `prefix_rl` stands the task whose problems it has.
    """
    if isinstance(task, MixtureTaskConfig):
        return {one.shown: _giving(one.task) for one in task.parts}
    giving = _giving(task)
    return {"": task} if giving is task else parts_of(giving)


def _giving(task: TaskConfig) -> TaskConfig:
    """Return the task that gives a task its problems: itself, unless it is `prefix_rl`."""
    given = task.options.get("task") if isinstance(task, OwnTaskConfig) and task.name == PREFIX_RL else None
    if given is None:
        return task
    try:
        return _giving(task_of(given))
    except ValidationError:  # a sentence, where the task is made
        return task


def runs_programs(task: TaskConfig) -> bool:
    """Whether grading a response may take seconds."""
    return any(isinstance(one, CodeTaskConfig) for one in parts_of(task).values())


def to_graders(task: TaskConfig) -> str:
    """Return a task's section as a line of JSON for other processes, with the user's code that it names."""
    return json.dumps(
        {"section": task.model_dump(mode="json"), "doors": [asdict(one.door()) for one in _own_code(task)]}
    )


def from_parent(text: str) -> TaskConfig:
    """Return the section that `to_graders` wrote."""
    given = json.loads(text)
    task: TaskConfig = TypeAdapter(TaskConfig).validate_python(given["section"])
    for one, door in zip(_own_code(task), given["doors"], strict=True):
        one.remember(doors.Door(**door))
    return task


def _own_code(task: TaskConfig) -> list[OpenName]:
    """Return what graders may open; rewards have processes of their own, and no grader reads a file."""
    found = [one for _, one in open_names(task) if not isinstance(one, RewardConfig | FormatConfig)]
    return [one for one in found if doors.is_foreign(one.name) or isinstance(one, OwnTaskConfig)]
