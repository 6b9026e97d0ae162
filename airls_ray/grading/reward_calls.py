"""How a reward is called: its own keywords, those of TRL and verl, and what it may return.

Everything here runs in a reward's child process (reward_worker.py).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from airls_ray.doors import Kind
from airls_ray.errors import DoorError
from airls_ray.own_code import keywords_of, require_known, shown
from airls_ray.text.messages import GIVEN, HISTORY, conversation, given_turns

Style = Literal["one", "batch", "trl", "verl"]
Value = float | list[float] | None
"""A number, one number a step, or (in TRL's form) nothing for this response."""

_ONE = ("prompt", "response", "answer", "steps", "correct", "row")
_BATCH = ("prompts", "responses", "answers", "steps", "correct", "rows")
_LARGEST = 3.4028234663852886e38
"""A reward is kept with 32 bits, which hold no larger number."""
_VERL = ("data_source", "solution_str", "ground_truth", "extra_info")
TRL_COLUMNS = "trl_columns"
"""Field of a problem's details: the columns of a data set of TRL, by name."""
_KEPT = (HISTORY, GIVEN, TRL_COLUMNS)
"""Fields of the details that are no columns."""


class WrongValue(Exception):
    """What a reward returned is no reward; the text follows its name."""


@dataclass(frozen=True)
class Row:
    """What a reward may see of one response."""

    prompt: str
    response: str
    answer: str
    steps: Sequence[str] = ()
    correct: float = 0.0
    """The outcome: 0 to 1."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The problem's other fields."""


@dataclass(frozen=True)
class Reward:
    """A function that gives rewards, and how it wants to be called."""

    function: Callable[..., Any]
    style: Style
    parameters: tuple[str, ...]
    """Names that it takes."""
    takes_all: bool
    """Whether it takes any further keyword."""
    options: Mapping[str, Any]

    @property
    def batch(self) -> bool:
        """Whether a call is for many responses."""
        return self.style in ("batch", "trl")

    @property
    def is_async(self) -> bool:
        """Whether a call gives something to wait for."""
        call = getattr(self.function, "__call__", None)  # noqa: B004
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(call)

    def call(self, rows: Sequence[Row]) -> Any:
        """Call it on `rows` (one, unless it is for a batch) and return what it returns, unread."""
        return self.function(**self._keywords(rows), **self.options)

    def read(self, rows: Sequence[Row], returned: Any) -> list[Value | WrongValue]:
        """Return the value of each row, or what is wrong with it.

        Raises:
            WrongValue: it returned another number of values than there are rows.
        """
        if not self.batch:
            return [_value(returned, len(rows[0].steps), self.style)]
        values = _plain(returned)
        if not isinstance(values, list | tuple):
            raise WrongValue(f"returned {shown(values)} for {len(rows)} responses, and it must be a list")
        if len(values) != len(rows):
            raise WrongValue(f"returned {len(values)} values for {len(rows)} responses")
        return [_value(one, len(row.steps), self.style) for one, row in zip(values, rows, strict=True)]

    def _keywords(self, rows: Sequence[Row]) -> dict[str, Any]:
        known = _known(self.style, rows)
        if self.style == "trl":
            known = _with_columns(known, rows)
        if self.takes_all:
            return {name: value for name, value in known.items() if name not in self.options}
        return {name: known[name] for name in self.parameters if name in known and name not in self.options}


def read_reward(function: Any, options: Mapping[str, Any]) -> Reward:
    """Return how `function` wants to be called; a class is made first, with the options.

    Raises:
        DoorError: its signature is none of the known ones; the text follows its name.
    """
    if inspect.isclass(function):
        function, options = function(**options), {}
    keywords = keywords_of(function, options)
    named = keywords.named
    style = _style(named)
    if style is None:
        raise DoorError(f"takes both one response and a batch ({', '.join(named)})")
    known = {"one": _ONE, "batch": _BATCH, "verl": _VERL}.get(style)
    if known is not None:
        require_known(keywords, known, options)
    return Reward(function, style, tuple(named), keywords.takes_all, options)


def _style(named: Mapping[str, Any]) -> Style | None:
    if "solution_str" in named or {"ground_truth", "data_source"} <= set(named):
        return "verl"
    if "completions" in named:
        return "trl"
    many = {"prompts", "responses", "answers", "rows"} & set(named)
    one = {"prompt", "response", "answer", "row"} & set(named)
    if many and one:
        return None
    return "batch" if many else "one"


def _known(style: Style, rows: Sequence[Row]) -> dict[str, Any]:
    """What is given by name in a style."""
    if style == "one":
        (row,) = rows
        return {name: getattr(row, name) for name in _ONE}
    if style == "verl":
        (row,) = rows
        source, truth = row.row.get("data_source", ""), row.row.get("ground_truth", row.answer)
        info = row.row.get("extra_info")
        extra = dict(info if isinstance(info, Mapping) else row.row)
        return dict(zip(_VERL, (source, row.response, truth, extra), strict=True))
    lists = {many: [getattr(row, one) for row in rows] for one, many in zip(_ONE, _BATCH, strict=True)}
    if style == "trl":
        return {
            "prompts": [_turns(row) for row in rows],
            "completions": [_said(row) for row in rows],
            "answer": lists["answers"],
            "steps": lists["steps"],
            "correct": lists["correct"],
        }
    return lists


def _with_columns(known: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Add what the rows have beside prompt and response, as TRL gives it: columns of a data set of TRL as
    they are there, and of other problems the fields of the details."""
    given: list[dict[str, Any]] = []
    for at, row in enumerate(rows):
        fields = {name: one for name, one in row.row.items() if name not in _KEPT}
        ours = {name: values[at] for name, values in known.items()}
        theirs = dict(row.row.get(TRL_COLUMNS) or {})
        asked = {name: ours[name] for name in ("prompts", "completions")}
        given.append({**fields, **ours, **theirs, **asked})
    names = dict.fromkeys([*known, *(name for one in given for name in one)])
    return {name: [one.get(name) for one in given] for name in names}


def _turns(row: Row) -> Any:
    """The prompt as TRL gives it: messages where the data had messages."""
    turns = given_turns(row.row)
    return row.prompt if turns is None else conversation("", row.prompt, turns)


def _said(row: Row) -> Any:
    said = [{"role": "assistant", "content": row.response}]
    return row.response if given_turns(row.row) is None else said


def _value(returned: Any, steps: int, style: Style) -> Value | WrongValue:
    value = _plain(returned)
    if style == "verl" and isinstance(value, Mapping):
        value = _plain(value.get("score"))
    if value is None and style == "trl":  # "not for this response"
        return None
    if isinstance(value, list | tuple):
        if len(value) != steps:
            return WrongValue(f"returned {len(value)} values for a response of {steps} steps")
        numbers = [_number(_plain(one)) for one in value]
        wrong = next((one for one in numbers if isinstance(one, WrongValue)), None)
        return wrong if wrong is not None else [one for one in numbers if isinstance(one, float)]
    return _number(value)


def _number(value: Any) -> float | WrongValue:
    if not isinstance(value, bool | int | float):
        return WrongValue(f"returned {shown(value)}, and a reward is a number")
    if isinstance(value, float) and not math.isfinite(value):
        return WrongValue(f"returned {value}, and a reward is finite")
    if abs(value) > _LARGEST:
        return WrongValue(f"returned {shown(value)}, and a reward is at most {_LARGEST:.2g}")
    return float(value)


def _plain(value: Any) -> Any:
    """Return arrays, tensors and their scalars as Python's own numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


REWARD = Kind(
    name="reward",
    protocol=(
        "a function of keywords among prompt, response, answer, steps, correct, row (or lists of them: "
        "prompts, responses, answers, steps, correct, rows) that returns a number, or one number a step, for "
        "each response"
    ),
    package="airls_ray.rewards",
    attribute="score",
    example="length",
    make=read_reward,
    takes_urls=True,
)
"""Rewards beside the outcome (`task.reward`)."""
