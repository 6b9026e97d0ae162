"""Settings of what is named in a configuration (docs/doors.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    PositiveInt,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from airls_ray import doors
from airls_ray.config.base import StrictModel

if TYPE_CHECKING:
    from airls_ray.search.scorer_kind import Needs

_LOCAL = ("file:///", "sqlite:///")
"""How addresses of files begin, such as that of MLflow's store."""
Place = tuple[str, ...]
"""Keys that lead to a name: `("task", "reward", "0")`."""


class OpenName(StrictModel):
    """A section whose name may lead to the user's own code.

    What it leads to is looked up once, where the user's files are, and then stays with the section: a pickle
    of it takes the text of a file along, to machines that lack the file.
    """

    kind: ClassVar[str]
    """Of `airls_ray.doors.KINDS`."""
    where: ClassVar[str]
    """The setting, for sentences."""
    words: ClassVar[tuple[str, ...]] = ()
    """Names that stand for nothing of the kind."""
    unopened: ClassVar[str] = ""
    """What stands in the place of the user's own name for who opens none; empty: the name itself, which in a
    list is left out."""
    name: str
    options: dict[str, JsonValue]
    _door: doors.Door | None = PrivateAttr(default=None)
    _closed: bool = PrivateAttr(default=False)

    @property
    def outside(self) -> str | None:
        """What leads elsewhere than to what is installed for this system: the name, or an address among the
        options (of a critic, a reward, a tracker), which is sent problems, responses or keys; or None."""
        return self.name if doors.is_foreign(self.name) else next(_addresses(self.options), None)

    def door(self) -> doors.Door:
        """Return what the name leads to, as it was when that was last looked up.

        Raises:
            ConfigError: it is somebody else's (`closed`).
            DoorError: it leads nowhere.
        """
        if self._closed:
            doors.refuse_foreign([self.outside or self.name], f"{self.where} of this run folder")
        return self._door or self.find()

    def find(self) -> doors.Door:
        """Look up what the name leads to now; nothing of it is run.

        Raises:
            DoorError: it leads nowhere.
        """
        self._door = doors.find(doors.kind_of(self.kind), self.name, self.where)
        return self._door

    def open(self) -> Any:
        """Return what the kind makes of the name and the options; runs the user's code.

        Raises:
            DoorError: it does not open.
        """
        return doors.load(self.door(), self.where, self.options)

    def remember(self, door: doors.Door) -> None:
        """Take over what another process has found."""
        self._door = door

    def closed(self) -> Self:
        """Return the section for who opens no such names: what it leads to is refused where it is used."""
        copy = self.model_copy()
        copy._closed = True
        return copy

    def __eq__(self, other: object) -> bool:
        """Whether the settings are the same, whatever was looked up already."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    def __getstate__(self) -> dict[Any, Any]:
        """Look up what the name leads to before it goes to another process."""
        if self.name not in self.words and not self._closed:
            self.door()
        return super().__getstate__()


class DoorConfig(OpenName):
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


class KnownDoorConfig(DoorConfig):
    """A typing mistake in a plain name is said at once; a file is read when it is needed."""

    @field_validator("name")
    @classmethod
    def _is_there(cls, name: str) -> str:
        if not doors.is_foreign(name) and name not in cls.words:
            doors.find(doors.kind_of(cls.kind), name, cls.where)
        return name


class NameOrSection(KnownDoorConfig):
    """Written as its name alone where there is nothing else, so that a setting reads as it did before it had
    options."""

    @model_serializer(mode="wrap")
    def _name_or_section(self, whole: SerializerFunctionWrapHandler) -> Any:
        return whole(self) if self.label or self.options else self.name


class ProblemSamplerConfig(KnownDoorConfig):
    """What chooses the training problems."""

    kind: ClassVar[str] = "problem sampler"
    where: ClassVar[str] = "train.problem_sampler"
    unopened: ClassVar[str] = "in_order"
    window: PositiveInt | None = None
    """Different problems of the stream of which those of an iteration are chosen; null: as many as the
    sampler says (`candidates_per_problem`, 8 where it says nothing) for each of
    `train.problems_per_iteration`."""


class ScorerConfig(KnownDoorConfig):
    """What scores the steps of a search."""

    kind: ClassVar[str] = "scorer"
    where: ClassVar[str] = "search.scorer"
    unopened: ClassVar[str] = "prm"

    @property
    def needs(self) -> Needs:
        """What scores are made of; runs none of the user's code, which is given texts.

        Raises:
            DoorError: the name leads nowhere.
        """
        if self.door().source != "built-in":
            return "texts"
        found: Needs = self.open().needs
        return found


class ConsensusConfig(ScorerConfig):
    """The judge whose first wrong step must be that of the labels."""

    where: ClassVar[str] = "supervised_prm.consensus"
    unopened: ClassVar[str] = ""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """A step that scores below it is wrong to the judge."""


class TrackerConfig(DoorConfig):
    """A tracker."""

    kind: ClassVar[str] = "tracker"
    where: ClassVar[str] = "train.trackers"


def _addresses(options: JsonValue) -> Iterator[str]:
    """Yield every address below `options` that leads away from this machine."""
    if isinstance(options, str) and "://" in options and not options.startswith(_LOCAL):
        yield options
    elif isinstance(options, list | dict):
        for one in options.values() if isinstance(options, dict) else options:
            yield from _addresses(one)


def one_alone(given: Any) -> Any:
    """Return a list, also of a name or a section that is given alone."""
    return [given] if isinstance(given, str | dict) else given


def open_names(section: BaseModel, above: Place = ()) -> Iterator[tuple[Place, OpenName]]:
    """Yield every section below `section`, or itself, whose name may lead to the user's own code."""
    if isinstance(section, OpenName) and section.name not in section.words:
        yield above, section
    for field in type(section).model_fields:
        value = getattr(section, field)
        for number, one in enumerate(value if isinstance(value, list | tuple) else [value]):
            place = (*above, field, str(number)) if isinstance(value, list | tuple) else (*above, field)
            if isinstance(one, BaseModel):
                yield from open_names(one, place)
