"""A problem out of a row, by the places of its fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.fields import read_field, read_place
from airls_ray.data.messages import content_of, is_messages, read_messages
from airls_ray.data.rows import Row, kind_of
from airls_ray.errors import DataError
from airls_ray.tasks.base import Problem
from airls_ray.tasks.choices import MOST_CHOICES, with_choices


@dataclass(frozen=True)
class Format:
    """A published data set, or the form that a library asks of its data."""

    fields: FieldsConfig
    only: tuple[str, str] | None = None
    """Keeps the rows whose field has that value (the others are counted)."""
    prepare: Callable[[str, Row], Row] | None = None
    """Makes of a row (first argument: where it is) the one that the fields are read from."""
    details: Callable[[Row], dict[str, Any]] | None = None
    """What else of a row stays with the problem."""


class BadField(DataError):
    """A row whose field is missing or wrong; `kind` is what the summary counts."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


def problem_of(where: str, row: Row, fields: FieldsConfig, form: Format | None = None) -> Problem:
    """Return the problem of a row by the places of its fields; `form` says what else of the row it keeps.

    Raises:
        DataError: a field is missing or of another type; the sentence begins with `where`.
    """
    more = {} if form is None or form.details is None else form.details(row)
    if form is not None and form.prepare is not None:
        row = form.prepare(where, row)
    prompt, turns = _prompt(where, row, fields.prompt)
    given = None if fields.problem_id is None else _plain(read_field(row, fields.problem_id))
    options = [] if fields.choices is None else _options(where, row, fields.choices)
    # Many questions of a multiple choice set have one text ("Which of these is right?") and other options.
    identity = content_of(prompt, turns, options) if given is None else given
    details: dict[str, Any] = {
        name: value
        for name, path in (("level", fields.level), ("subject", fields.subject))
        if path is not None and (value := _plain(read_field(row, path))) is not None
    }
    details |= more | turns
    traces = _traces(where, row, fields.traces)
    if fields.choices is not None:
        answer = None if fields.answer is None else read_field(row, fields.answer)
        right = _right_option(where, answer, options)
        return with_choices(Problem(identity, prompt, "", traces, details), options, right)
    return Problem(identity, prompt, _text(where, row, "answer", fields.answer), traces, details)


def _prompt(where: str, row: Row, path: str | None) -> tuple[str, dict[str, Any]]:
    """Return the prompt and what belongs in the details where it is a list of messages."""
    value = None if path is None else read_field(row, path)
    if is_messages(value):
        return read_messages(where, str(path), value)
    return _text(where, row, "prompt", path), {}


def _text(where: str, row: Row, name: str, path: str | None) -> str:
    """Return a required text; a number is written out, `142.0` as `142`."""
    value = None if path is None else read_field(row, path)
    text = value if name == "prompt" and isinstance(value, str) else _plain(value)
    if text is None or not text.strip():
        if value is None:
            known = ", ".join(" ".join(str(key).split())[:40] for key in row) or "none"
            raise BadField(f"{where}: no {name} at {path!r} (the row has: {known})", f"no {name}")
        raise BadField(f"{where}: the {name} at {path!r} must be text, but is {kind_of(value)}", f"no {name}")
    return text


def _plain(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not isfinite(value):  # integers of 309 digits and more are no float
        return None
    return str(int(value)) if value == int(value) else str(value)


def _traces(where: str, row: Row, path: str | None) -> tuple[str, ...]:
    value = None if path is None else read_field(row, path)
    several = value if isinstance(value, list) else [value]
    for one in several:
        if one is not None and not isinstance(one, str):
            raise BadField(
                f"{where}: the traces at {path!r} must be texts, but one is {kind_of(one)}", "traces no text"
            )
    return tuple(dict.fromkeys(one for one in several if one and one.strip()))


def _options(where: str, row: Row, place: str | list[str]) -> list[str]:
    found = read_place(row, place)
    options = [_plain(one) for one in found] if isinstance(found, list) else []
    if not 2 <= len(options) <= MOST_CHOICES or None in options or len(set(options)) < len(options):
        raise BadField(
            f"{where}: the choices at {place!r} must be 2 to {MOST_CHOICES} different texts",
            "choices not usable",
        )
    return [one for one in options if one is not None]


def _right_option(where: str, answer: Any, options: list[str]) -> int:
    """Return the position of the right option, which a text, a letter or an index (from 0) names."""
    text = _plain(answer)
    if text in options and not isinstance(answer, int):
        return options.index(text)
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return answer
    letter = (text or "").strip("().").upper()
    if len(letter) == 1 and 0 <= ord(letter) - ord("A") < len(options):
        return ord(letter) - ord("A")
    raise BadField(f"{where}: the answer {text!r} is none of the {len(options)} choices", "no answer")
