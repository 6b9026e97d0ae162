"""From the rows of any source to problems: by the fields of a format, with every row accounted for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from airls_ray.config.task_sections import FieldsConfig, FormatName
from airls_ray.data.formats import FORMATS, Format, merged_fields, read_field
from airls_ray.data.messages import content_of, is_messages, read_messages
from airls_ray.data.own_rows import problem_of_row
from airls_ray.data.rl_rows import known_form
from airls_ray.data.rows import Row, kind_of
from airls_ray.data.sources import open_source
from airls_ray.errors import DataError
from airls_ray.tasks import code_formats
from airls_ray.tasks.base import Problem
from airls_ray.tasks.choices import with_choices

_SHOWN = 3

Reader = Callable[[str, Row], Problem]
"""Makes a problem of a row (first argument: where it is, for messages); raises DataError for a bad one."""

READERS: dict[str, Reader] = dict(code_formats.READERS)
"""Formats that no mapping of fields describes (problems with programs and tests), by name."""


@dataclass
class Imported:
    """Problems of a source and what became of its rows.

    `rows` = rows of `problems` + `merged` + `other` + bad ones.
    """

    problems: list[Problem] = field(default_factory=list)
    rows: int = 0
    merged: int = 0
    """Rows with the prompt and the answer of an earlier one, to which they gave their traces."""
    again: int = 0
    """Problems that an earlier row has, too, under another identifier; they are kept."""
    twice: list[str] = field(default_factory=list)
    """One sentence for each row of `merged` and `again`."""
    other: int = 0
    """Rows that the format leaves out, such as code in a set of mathematics and code."""
    bad: list[str] = field(default_factory=list)
    """One sentence for each row that could not be used."""
    kinds: Counter[str] = field(default_factory=Counter)
    """The same by what was wrong."""
    places: dict[str, str] = field(default_factory=dict)
    """Where each problem was read first, by its identifier."""

    @property
    def traces(self) -> int:
        """How many traces all problems have together."""
        return sum(len(problem.traces) for problem in self.problems)

    def counts(self) -> dict[str, int]:
        """The figures of the summary, in its order."""
        without = sum(not problem.traces for problem in self.problems)
        figures = {
            "rows": self.rows,
            "problems": len(self.problems),
            "traces": self.traces,
            "problems without a trace": without,
            "rows joined to an earlier one": self.merged,
            "problems that an earlier row has under another identifier": self.again,
            "rows of another kind": self.other,
            "bad rows": len(self.bad),
        }
        return figures | {f"bad rows: {kind}": count for kind, count in sorted(self.kinds.items())}


def import_problems(
    source: Path | str,
    form: FormatName | str | None,
    fields: FieldsConfig | None = None,
    bad_rows: Literal["error", "skip"] = "skip",
    *,
    remedy: str = "; mend it, or leave such rows out with task.bad_rows=skip",
) -> Imported:
    """Read the problems of a file or of a data set of the hub.

    Rows with the same identifier (without one: the same prompt) and answer are one problem with all their
    traces. A row whose prompt or identifier an earlier one has, with another answer, is a bad row: which of
    the two is right cannot be known.

    Args:
        source: see `open_source`.
        form: a published data set, or the name of a reader of `READERS`; None: `fields`, or our own
            fields where none is set.
        fields: go before those of the format.
        bad_rows: `skip` leaves out rows that cannot be used and counts them.
        remedy: ends the sentence of an `error`.

    Raises:
        ConfigError: the fields are not usable.
        DataError: the source cannot be read, has no usable row, or (with `error`) has a bad one.
    """
    result = Imported()
    read, only = _reader(form, fields or FieldsConfig())
    stop = remedy if bad_rows == "error" else None
    by_id: dict[str, int] = {}
    by_prompt: dict[str, int] = {}
    for where, row in open_source(source):
        result.rows += 1
        if isinstance(row, DataError):
            _reject(result, stop, row, "not readable")
            continue
        if only and read_field(row, only[0]) not in (None, only[1]):
            result.other += 1
            continue
        try:
            _add(result, by_id, by_prompt, where, read(where, row))
        except DataError as error:
            _reject(result, stop, error, getattr(error, "kind", "not usable"))
    if not result.problems:
        reason = f"; the first: {result.bad[0]}" if result.bad else ""
        raise DataError(f"{source} has no usable problem among {result.rows} rows{reason}")
    return result


def log_bad_rows(source: Path | str, result: Imported) -> None:
    """Warn of rows that were left out: how many, and the first of them."""
    if result.bad:
        logging.getLogger(__name__).warning(
            "%s: %d of %d rows were left out: %s%s",
            source,
            len(result.bad),
            result.rows,
            "; ".join(result.bad[:_SHOWN]),
            "; ..." if len(result.bad) > _SHOWN else "",
        )


class _BadField(DataError):
    """A row whose field is missing or wrong; `kind` is what the summary counts."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


def _reader(form: FormatName | str | None, fields: FieldsConfig) -> tuple[Reader, tuple[str, str] | None]:
    if form in READERS:
        return READERS[form], None
    if form is None and fields == FieldsConfig():
        others = {name: _reader(name, fields)[0] for name in ("verl", "trl")}
        return (lambda where, row: others.get(known_form(row) or "", problem_of_row)(where, row)), None
    published = next((one for name, one in FORMATS.items() if name == form), None)
    if form is not None and published is None:
        known = ", ".join([*FORMATS, *READERS])
        raise DataError(f"{form!r} is no known format of data; there are {known}")
    name = next((name for name in FORMATS if name == form), None)
    merged = merged_fields(name, fields)
    only = published.only if published else None
    return (lambda where, row: problem_of(where, row, merged, published)), only


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


def _add(
    result: Imported, by_id: dict[str, int], by_prompt: dict[str, int], where: str, problem: Problem
) -> None:
    """Take a problem into `result`; the dictionaries say where identifiers and prompts stand there."""
    same_id, same_prompt = by_id.get(problem.problem_id), by_prompt.get(problem.asked)
    for at in (same_id, same_prompt):
        if at is not None:
            _refuse_contradiction(result, result.problems[at], where, problem)
    first = same_prompt if same_id is None else same_id
    if first is not None:
        named = " under another identifier" if same_id is None else ""
        earlier = result.places[result.problems[first].problem_id]
        result.twice.append(f"{where}: the problem of {earlier} again{named}")
    if same_id is None:
        by_id[problem.problem_id] = len(result.problems)
        by_prompt.setdefault(problem.asked, len(result.problems))
        result.problems.append(problem)
        result.places[problem.problem_id] = where
        result.again += same_prompt is not None
        return
    before = result.problems[same_id]
    result.problems[same_id] = replace(before, traces=tuple(dict.fromkeys((*before.traces, *problem.traces))))
    result.merged += 1


def _refuse_contradiction(result: Imported, before: Problem, where: str, problem: Problem) -> None:
    """Raise a `_BadField` where two rows with one prompt or identifier cannot both be right."""
    first = result.places[before.problem_id]
    named = problem.prompt.strip()[:60]
    if before.asked != problem.asked:
        named, what = problem.problem_id, "prompts differ"
    elif before.answer.strip() != problem.answer.strip():
        what = f"answers differ ({before.answer.strip()[:40]!r} and {problem.answer.strip()[:40]!r})"
    elif before.details.get("tests") != problem.details.get("tests"):
        what = "tests differ"
    else:
        return
    raise _BadField(
        f"{where}: the problem {named!r} is in {first}, too, but the {what}", "contradicts an earlier row"
    )


def _reject(result: Imported, stop: str | None, error: DataError, kind: str) -> None:
    if stop is not None:
        raise DataError(f"{error}{stop}") from error
    result.bad.append(str(error))
    result.kinds[kind] += 1


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
            raise _BadField(f"{where}: no {name} at {path!r} (the row has: {known})", f"no {name}")
        raise _BadField(
            f"{where}: the {name} at {path!r} must be text, but is {kind_of(value)}", f"no {name}"
        )
    return text


def _plain(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return str(int(value)) if value == int(value) else str(value)


def _traces(where: str, row: Row, path: str | None) -> tuple[str, ...]:
    value = None if path is None else read_field(row, path)
    several = value if isinstance(value, list) else [value]
    for one in several:
        if one is not None and not isinstance(one, str):
            raise _BadField(
                f"{where}: the traces at {path!r} must be texts, but one is {kind_of(one)}", "traces no text"
            )
    return tuple(dict.fromkeys(one for one in several if one and one.strip()))


def _options(where: str, row: Row, place: str | list[str]) -> list[str]:
    found = read_field(row, place) if isinstance(place, str) else [read_field(row, one) for one in place]
    options = [_plain(one) for one in found] if isinstance(found, list) else []
    if len(options) < 2 or None in options or len(set(options)) < len(options):
        raise _BadField(
            f"{where}: the choices at {place!r} must be two or more different texts", "choices not usable"
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
    raise _BadField(f"{where}: the answer {text!r} is none of the {len(options)} choices", "no answer")
