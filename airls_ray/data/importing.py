"""From the rows of any source to problems: by the fields of a format, with every row accounted for."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.config.task_doors import CodeFormatConfig, FormatConfig
from airls_ray.data.field_rows import BadField, Format
from airls_ray.data.format_kind import DataFormat, Reader
from airls_ray.data.own_rows import problem_of_row
from airls_ray.data.rl_rows import known_form
from airls_ray.data.sources import open_source
from airls_ray.doors import builtins, kind_of
from airls_ray.errors import DataError
from airls_ray.tasks.base import Problem

_SHOWN = 3


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
    form: str | DataFormat | None,
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
        form: what reads the rows, or its name; None: `fields`, or our own fields where none is set.
        fields: go before those of the format.
        bad_rows: `skip` leaves out rows that cannot be used and counts them.
        remedy: ends the sentence of an `error`.

    Raises:
        ConfigError: the fields are not usable, or there is no form of that name.
        DataError: the source cannot be read, has no usable row, or (with `error`) has a bad one.
    """
    result = Imported()
    read = _reader(form, fields or FieldsConfig())
    stop = remedy if bad_rows == "error" else None
    by_id: dict[str, int] = {}
    by_prompt: dict[str, int] = {}
    for where, row in open_source(source):
        result.rows += 1
        if isinstance(row, DataError):
            _reject(result, stop, row, "not readable")
            continue
        try:
            problem = read(where, row)
            if problem is None:
                result.other += 1
                continue
            _add(result, by_id, by_prompt, where, problem)
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


def _reader(form: str | DataFormat | None, fields: FieldsConfig) -> Reader:
    if isinstance(form, str):
        form = format_named(form)
    if form is not None:
        return form.reader(fields)
    if fields != FieldsConfig():
        return DataFormat(Format(FieldsConfig(prompt="prompt", answer="answer"))).reader(fields)
    others = {name: _reader(name, fields) for name in ("verl", "trl")}
    return lambda where, row: others.get(known_form(row) or "", problem_of_row)(where, row)


def format_named(name: str) -> DataFormat | None:
    """Return what reads the rows of a form that the user names, also one of programs.

    Raises:
        DoorError: there is none, or it does not open.
    """
    programs = builtins(kind_of("code format"))
    return (CodeFormatConfig(name=name) if name in programs else FormatConfig(name=name)).reads()


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
    """Raise a `BadField` where two rows with one prompt or identifier cannot both be right."""
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
    raise BadField(
        f"{where}: the problem {named!r} is in {first}, too, but the {what}", "contradicts an earlier row"
    )


def _reject(result: Imported, stop: str | None, error: DataError, kind: str) -> None:
    if stop is not None:
        raise DataError(f"{error}{stop}") from error
    result.bad.append(str(error))
    result.kinds[kind] += 1
