"""How the rows of a data set become problems: what a format is, and what may be named in `task.format`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.field_rows import BadField, Format, problem_of
from airls_ray.data.fields import given_fields, read_field, read_place
from airls_ray.data.own_rows import details_of
from airls_ray.data.rows import Row
from airls_ray.doors import Door, Kind, told
from airls_ray.errors import DataError, DoorError
from airls_ray.own_code import Rule, read_rule, shown
from airls_ray.tasks.base import Problem
from airls_ray.tasks.code_formats import ANSWER
from airls_ray.text.characters import half_character

Reader = Callable[[str, Row], Problem | None]
"""Makes a problem of a row (first argument: where it is, for messages), or None of one that the format leaves
out; raises DataError for a bad one."""

OF_ROWS = ("row", "where")
"""What a function may take: the row, and where it is (`a.jsonl, row 3`)."""
_OURS = FieldsConfig(prompt="prompt", answer="answer", traces="traces|trace", problem_id="problem_id")
_NAMES = ("trace", "details", *FieldsConfig.model_fields)


@dataclass(frozen=True)
class DataFormat:
    """What reads the rows of a data set: the places of its fields, or a function."""

    found: Format | Rule
    answer: str | None = None
    """That of every problem of which the function gives none: of programs, whose tests judge."""
    door: Door | None = None
    """What the function is named by, for sentences."""

    def reader(self, given: FieldsConfig) -> Reader:
        """Return what reads a row; the places that `given` sets go before those of the format.

        Raises:
            ConfigError: an extractor is unknown.
        """
        places = given_fields(given)
        if isinstance(self.found, Format):
            form = self.found
            return partial(_by_places, form, form.fields.model_copy(update=places))
        return partial(self._by_function, self.found, places)

    def _by_function(
        self, function: Rule, places: Mapping[str, str | list[str]], where: str, row: Row
    ) -> Problem | None:
        taken = {name: value for name, place in places.items() if (value := read_place(row, place))}
        returned = self._call(function, where, row)
        if returned is None or (isinstance(returned, Problem) and not taken):
            return returned
        if isinstance(returned, Problem):
            returned = {one.name: getattr(returned, one.name) for one in fields(returned)}
        if not isinstance(returned, Mapping):
            raise BadField(
                f"{where}: {self._name} returned {shown(returned)}, and it must be a mapping with prompt and "
                "answer, or None",
                "the format gives no mapping",
            )
        return _problem(where, {**returned, **taken}, self.answer)

    def _call(self, function: Rule, where: str, row: Row) -> Any:
        try:
            return function({"row": dict(row), "where": where})
        except DataError:  # a sentence about the row
            raise
        except Exception as error:  # whatever the user's code may raise
            said = type(error).__name__ if self.door is None else told(error, self.door)
            raise BadField(f"{where}: {self._name} raises {said}", "the format raises") from error

    @property
    def _name(self) -> str:
        return "the format" if self.door is None else self.door.name


def _by_places(form: Format, places: FieldsConfig, where: str, row: Row) -> Problem | None:
    if form.only is not None and read_field(row, form.only[0]) not in (None, form.only[1]):
        return None
    return problem_of(where, row, places, form)


def _problem(where: str, given: Mapping[str, Any], answer: str | None) -> Problem:
    """Return the problem of what a function gave: further keys join the details."""
    row = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    half = half_character(row)
    if half is not None:
        raise BadField(f"{where}: a text of the format has {half}, which is no character", "no character")
    if answer is not None:
        row.setdefault("answer", answer)
    more = details_of(where, row)
    more |= details_of(where, {"details": {key: one for key, one in row.items() if key not in _NAMES}})
    names = {name: name for name in ("level", "subject", "choices") if row.get(name) is not None}
    problem = problem_of(where, row, _OURS.model_copy(update=names))
    return replace(problem, details={**more, **problem.details})


def read_format(found: Any, options: Mapping[str, Any], answer: str | None = None) -> DataFormat:
    """Return what a door names as a format.

    Raises:
        DoorError: it is neither a `Format` nor a function of `row`; the text follows its name.
    """
    if not isinstance(found, Format):
        return DataFormat(read_rule(found, options, OF_ROWS), answer)
    if options:
        raise DoorError(f"takes no option {next(iter(options))!r}: set task.fields")
    return DataFormat(found)


_PROTOCOL = (
    "a function of row (an object of the file) and, as it likes, where, that returns a mapping with {}"
)

DATA_FORMAT = Kind(
    name="data format",
    protocol=_PROTOCOL.format("prompt, answer and, as it likes, traces, problem_id, choices and details")
    + ", or None to leave the row out; or a Format, which says where the fields are",
    package="airls_ray.data.formats",
    attribute="FORMAT",
    example="gsm8k",
    make=read_format,
)
"""Data sets of questions and answers (`task.format` of the task `file`)."""

CODE_FORMAT = Kind(
    name="code format",
    protocol=_PROTOCOL.format("prompt and details, which hold the tests (docs/code_grader.md)")
    + ", and, as it likes, traces and problem_id, or None to leave the row out",
    package="airls_ray.data.code_formats",
    attribute="read",
    example="leetcode",
    make=partial(read_format, answer=ANSWER),
)
"""Data sets of programs with tests (`task.format` of the task `code`)."""
