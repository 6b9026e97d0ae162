"""Where the reasoning steps of a text end, by one of several rules (`task.steps`); imports nothing heavy.

A rule works on text. `TextCodec.step_ends` carries its positions over to tokens: a token belongs to the step
in which it begins, so that the steps' tokens joined are always the original tokens.
"""

from __future__ import annotations

import inspect
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate
from operator import index
from typing import Any, Protocol

from airls_ray import doors
from airls_ray.doors import Door, Kind
from airls_ray.errors import DoorError
from airls_ray.own_code import keywords_of, read_rule, shown

WHERE = "task.steps"
_TRIED = ("", "\n", "One.\n\nTwo; three.\n", "Step 1: a = b\nStep 2: c", "x = [1,\n")
"""Texts on which a rule is tried as it is made."""


@dataclass(frozen=True)
class StepRule:
    """A rule, looked up and made; two are equal if they have the same name and options."""

    ends: Callable[[str], Iterable[int]] = field(compare=False, repr=False)
    """From a text to the positions where a step ends and the next begins, rising."""
    stop: str | None = None
    """Text that surely ends a step, whatever follows: a sampler may stop there. None: there is none, and a
    search samples on and cuts."""
    end: str = "\n"
    """Text that ends a step in most responses; empty where what is between two steps begins the second."""
    sure: Callable[[str], bool] | None = field(default=None, compare=False, repr=False)
    """Whether a step is over after a token with that text; None: where `stop` is in it."""
    of_pieces: Callable[[Sequence[str]], Iterable[int]] | None = field(
        default=None, compare=False, repr=False
    )
    """From the texts that tokens add to the ends in tokens, where the rule goes by these; None: by `ends`."""
    name: str = "rule"
    """As the configuration has it."""
    settings: str = ""
    """Its options, as JSON."""
    door: Door | None = field(default=None, compare=False, repr=False)

    @property
    def stops(self) -> bool:
        """Whether there are tokens that surely end a step."""
        return self.stop is not None or self.sure is not None

    def surely_ends(self, piece: str) -> bool:
        """Whether a step is over after a token with the text `piece`, whatever follows."""
        if self.sure is not None:
            return bool(self.sure(piece))
        return self.stop is not None and self.stop in piece

    def positions(self, text: str) -> list[int]:
        """Return what the rule says of a text.

        Raises:
            DoorError: it raises, or its positions are none, fall, or lie outside the text.
        """
        return self._rising(self.ends, text, text)

    def ends_of(self, pieces: Sequence[str]) -> list[int] | None:
        """Return what a rule that goes by tokens says of the texts that they add; None: it does not.

        Raises:
            DoorError: as of `positions`.
        """
        return None if self.of_pieces is None else self._rising(self.of_pieces, pieces, "".join(pieces))

    def _rising(self, asked: Callable[[Any], Iterable[int]], given: Sequence[str], text: str) -> list[int]:
        try:
            found = [index(position) for position in asked(given)]
        except Exception as error:  # whatever a stranger's rule may raise
            said = f"{type(error).__name__}: {error}" if self.door is None else doors.told(error, self.door)
            raise DoorError(f"{WHERE}: {self.name} raises {said} on the text {text[:60]!r}") from error
        last = 0
        for position in found:
            if not last <= position <= len(given):
                raise DoorError(
                    f"{WHERE}: {self.name} gives the position {position} after {last} of {len(given)}, and "
                    f"positions must rise and lie in the text ({text[:60]!r})"
                )
            last = position
        return found


class EndsSteps(Protocol):
    """What a task says of its steps; it may have a `step_rule`, too."""

    @property
    def step_delimiter(self) -> str:
        """For the rule `delimiter`."""
        ...


def cut(text: str, rule: StepRule) -> list[int]:
    """Return the positions in `text` where a step ends and the next begins, rising, without 0 and the end.

    Between two of them there is always something that is not blank: blank text belongs to the step before.

    Raises:
        DoorError: see `StepRule.positions`.
    """
    kept = [0]
    for position in rule.positions(text):
        if text[kept[-1] : position].strip():
            kept.append(position)
        elif len(kept) > 1:
            kept[-1] = position
    while len(kept) > 1 and not text[kept[-1] :].strip():
        kept.pop()
    return kept[1:]


def piece_ends(pieces: Sequence[str], rule: StepRule) -> list[int]:
    """Return the exclusive ends of steps in tokens, of the texts that these add; the last step may be open.

    The text is cut, and a token that begins before a cut belongs to the step before it, unless the rule goes
    by tokens (`of_pieces`).

    Raises:
        DoorError: see `StepRule.positions`.
    """
    found = rule.ends_of(pieces)
    if found is not None:
        return found
    begins = [0, *accumulate(map(len, pieces))]  # in the text, of each token
    text = "".join(pieces)
    ends = [0]
    for position in cut(text, rule):
        end = bisect_left(begins, position, hi=len(pieces))
        # A token may reach over a whole step: what is left of that one may be blank.
        if text[begins[ends[-1]] : begins[end]].strip():
            ends.append(end)
        elif len(ends) > 1:
            ends[-1] = end
    if len(ends) > 1 and not text[begins[ends[-1]] :].strip():
        ends[-1] = len(pieces)
    return ends[1:]


def rule_of(task: EndsSteps) -> StepRule:
    """Return the rule of a task: its `step_rule`, a rule or the name of one, else its `step_delimiter`.

    Raises:
        DoorError: it names none.
    """
    given = getattr(task, "step_rule", "delimiter")
    return given if isinstance(given, StepRule) else named_rule(given, task.step_delimiter)


@lru_cache(maxsize=64)
def named_rule(name: str, delimiter: str = "\n\n") -> StepRule:
    """Return a rule by its name alone; `delimiter` is for those that ask for it.

    Raises:
        DoorError: there is none of that name, or it does not open.
    """
    door = doors.find(STEP_RULE, name, WHERE)
    return open_rule(door, {}, delimiter)


def open_rule(door: Door, options: Mapping[str, Any], delimiter: str) -> StepRule:
    """Return the rule that a door leads to, made with `options`, and with `delimiter` if it takes it.

    Raises:
        DoorError: it does not open.
    """
    made: StepRule = doors.load(door, WHERE, {"delimiter": delimiter, **options})
    settings = json.dumps([delimiter, options], sort_keys=True)
    return replace(made, name=door.name, settings=settings, door=door)


def read_step_rule(found: Any, options: Mapping[str, Any]) -> StepRule:
    """Return what a door names as a rule, tried on some texts.

    `delimiter` is taken out of the options unless it is asked for.

    Raises:
        DoorError: it is neither a function of `text` nor a class with `ends(text)`, or does not what it says.
    """
    named = keywords_of(found, {}).named
    given = {name: value for name, value in options.items() if name != "delimiter" or name in named}
    if inspect.isclass(found):
        keywords_of(found, given)
        made = found(**given)
        ends = getattr(made, "ends", None)
        if not callable(ends):
            raise DoorError("has no method ends(text)")
    else:
        rule = read_rule(found, given, ("text",))
        made, ends = found, lambda text: rule({"text": text})
    stop, end = getattr(made, "stop", None), getattr(made, "end", None)
    for name, value in (("stop", stop), ("end", end)):
        if value is not None and (not isinstance(value, str) or (name == "stop" and not value)):
            raise DoorError(f"has {name}={shown(value)}, and it must be a text, which for stop is not empty")
    sure = getattr(made, "surely_ends", None)
    if sure is not None and not callable(sure):
        raise DoorError(f"has surely_ends={shown(sure)}, and it must be a method of the text of a token")
    of_pieces = getattr(made, "piece_ends", None)
    made_rule = StepRule(ends, stop, (stop or "\n") if end is None else end, sure, of_pieces)
    _try(made_rule)
    return made_rule


def _try(rule: StepRule) -> None:
    """Call a rule on some texts, and look whether it cuts behind what it says to end a step surely."""
    try:
        for text in _TRIED:
            rule.positions(text)
            rule.surely_ends(text)
        said = "\u2460" if rule.stop is None else f"\u2460{rule.stop}"  # characters that no rule looks for
        found = cut(f"{said}\u2461", rule)
    except DoorError as error:
        raise DoorError(str(error).removeprefix(f"{WHERE}: {rule.name} ")) from error
    if rule.stop is not None and len(said) not in found:
        raise DoorError(
            f"says by stop={rule.stop!r} that this text ends a step, but does not cut behind it in "
            f"{said + chr(0x2461)!r}"
        )


STEP_RULE = Kind(
    name="step rule",
    protocol=(
        "a function of text that returns the positions where a step ends and the next begins, rising, or a "
        "class with ends(text); as it likes with `stop` (text that surely ends a step, where a sampler may "
        "stop), `end` (text that ends most steps) and surely_ends(piece)"
    ),
    package="airls_ray.text.step_rules",
    attribute="Rule",
    example="lines",
    make=read_step_rule,
)
"""What ends a reasoning step (`task.steps`)."""
