"""Where published data sets keep prompt, answer and solution, and how a field is read out of a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airls_ray.config.task_sections import FieldsConfig, FormatName
from airls_ray.data.prm800k import right_solution
from airls_ray.data.rl_rows import trl_details, trl_row, verl_details
from airls_ray.data.rows import Row
from airls_ray.errors import ConfigError
from airls_ray.tasks.answers import after_hash, last_boxed

_CALL = re.compile(r"(?P<extractor>[a-z_0-9]+)\((?P<path>.+)\)")
_CALCULATOR = re.compile(r"<<[^<>]*>>")


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


FORMATS: dict[FormatName, Format] = {
    "gsm8k": Format(FieldsConfig(prompt="question", answer="after_hash(answer)", traces="answer")),
    "math": Format(
        FieldsConfig(
            prompt="problem",
            answer="boxed(solution)",
            traces="solution",
            level="level",
            subject="type",
        )
    ),
    "math500": Format(
        FieldsConfig(
            prompt="problem",
            answer="answer",
            traces="solution",
            problem_id="unique_id",
            level="level",
            subject="subject",
        )
    ),
    "aime": Format(
        FieldsConfig(
            prompt="problem|Problem|question|Question",
            answer="answer|Answer",
            traces="solution|Solution",
            problem_id="id|ID|problem_id",
        )
    ),
    "amc": Format(
        FieldsConfig(prompt="problem|question", answer="answer", traces="solution", problem_id="id")
    ),
    "olympiad": Format(
        FieldsConfig(
            prompt="question|problem",
            answer="joined(final_answer)|answer",
            traces="solution",
            problem_id="id",
            level="difficulty",
            subject="subfield|subject",
        )
    ),
    "minerva": Format(
        FieldsConfig(
            prompt="problem|question",
            answer="answer|boxed(solution)",
            traces="solution",
            problem_id="idx",
            subject="type",
        )
    ),
    "gpqa": Format(
        FieldsConfig(
            prompt="Question",
            answer="Correct Answer",
            traces="Explanation",
            problem_id="Record ID",
            subject="High-level domain",
            choices=["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"],
        )
    ),
    "mmlu": Format(
        FieldsConfig(
            prompt="question", answer="answer", subject="subject|category", choices="choices|options"
        )
    ),
    "prm800k": Format(
        FieldsConfig(
            prompt="question.problem",
            answer="question.ground_truth_answer",
            traces="rated_right(label)|question.ground_truth_solution",
        )
    ),
    "eurus2_rl": Format(
        FieldsConfig(
            prompt="last_user(prompt)",
            answer="reward_model.ground_truth",
            subject="ability",
        ),
        only=("ability", "math"),
        details=verl_details,
    ),
    "verl": Format(
        FieldsConfig(prompt="prompt", answer="only(reward_model.ground_truth)", subject="ability"),
        details=verl_details,
    ),
    "trl": Format(
        FieldsConfig(
            prompt="prompt",
            answer="only(answer)|only(ground_truth)|boxed(solution)|after_hash(solution)|solution"
            "|boxed(completion)|after_hash(completion)",
            traces="worked(solution)|completion",
        ),
        prepare=trl_row,
        details=trl_details,
    ),
}


def _boxed(value: Any) -> Any:
    return last_boxed(value) if isinstance(value, str) else None


def _after_hash(value: Any) -> Any:
    return after_hash(value) if isinstance(value, str) else None


def _last_user(value: Any) -> Any:
    """The content of the last message of the user in a list of messages."""
    messages = value if isinstance(value, list) else []
    texts = [one.get("content") for one in messages if isinstance(one, Mapping) and one.get("role") == "user"]
    return texts[-1] if texts else None


def _joined(value: Any) -> Any:
    """The only element of a list, or all with commas between (a set of answers)."""
    return ", ".join(map(str, value)) or None if isinstance(value, list) else value


def _only(value: Any) -> Any:
    """The only element of a list; anything else as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _worked(value: Any) -> Any:
    """A solution that says more than its answer: it has a box or a `####`."""
    return value if _boxed(value) is not None or _after_hash(value) is not None else None


def _no_calculator(value: Any) -> Any:
    """A GSM8K solution without its `<<48/2=24>>`."""
    return _CALCULATOR.sub("", value) if isinstance(value, str) else value


EXTRACTORS: dict[str, Callable[[Any], Any]] = {
    "after_hash": _after_hash,
    "boxed": _boxed,
    "last_user": _last_user,
    "joined": _joined,
    "only": _only,
    "worked": _worked,
    "no_calculator": _no_calculator,
    "rated_right": right_solution,
}
"""From the value of a field to what is wanted of it; None: it is not there."""


def merged_fields(name: FormatName | None, fields: FieldsConfig) -> FieldsConfig:
    """Return the fields of a format with those that `fields` sets in their place.

    Raises:
        ConfigError: prompt or answer have no place then, or an extractor is unknown.
    """
    base = FORMATS[name].fields if name else FieldsConfig(prompt="prompt", answer="answer")
    given = {key: value for key, value in fields.model_dump().items() if value is not None}
    merged = base.model_copy(update=given)
    for key, value in merged.model_dump().items():
        for path in value if isinstance(value, list) else [value] if value else []:
            _check_path(key, path)
    return merged


def read_field(row: Row, path: str) -> Any:
    """Return the value at the first alternative of `path` that is there and not null, else None.

    A part may be a field with a dot in its name, a field of an object, or a position in a list.
    """
    for option in path.split("|"):
        call = _CALL.fullmatch(option)
        value = _follow(row, call["path"] if call else option)
        if value is not None and call:
            value = _extract(call["extractor"], value)
        if value is not None:
            return value
    return None


def _extract(name: str, value: Any) -> Any:
    try:
        return EXTRACTORS[name](value)
    except (AttributeError, IndexError, KeyError, TypeError):  # the value has another shape: not there
        return None


def _follow(value: Any, path: str) -> Any:
    if isinstance(value, Mapping) and path in value:
        return value[path]
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _check_path(field: str, path: str) -> None:
    for option in path.split("|"):
        call = _CALL.fullmatch(option)
        if call and call["extractor"] not in EXTRACTORS:
            raise ConfigError(
                f"task.fields.{field} asks for an unknown extractor {call['extractor']!r}; there are "
                f"{', '.join(EXTRACTORS)}"
            )
