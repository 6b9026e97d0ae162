"""A scorer of the user's own: texts go in, and what comes out is checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from airls_ray.config.door_section import ScorerConfig
from airls_ray.doors import Door
from airls_ray.errors import DoorError
from airls_ray.own_code import call_own, shown
from airls_ray.prm.items import StepText
from airls_ray.search.scorer_kind import SCORER, Scorer, TextRule, read_scorer

_TRIED = (
    StepText(
        "What is 12 * 13?", ("12 * 13 = 12 * 10 + 12 * 3.\n\n", "That is 120 + 36.\n\n", "So 156."), True
    ),
    StepText("What is 12 * 13?", ("12 * 13 = 12 * 12.\n\n",), False),
    StepText("Is 7 a prime number?", ("Yes.",), True),
)
"""Solutions, whole and begun, for a trial."""


class OwnScorer:
    """Scores texts by a function; implements `airls_ray.prm.in_search.ScoresTexts`."""

    def __init__(self, door: Door, where: str, scorer: Scorer) -> None:
        """Make it, where it is a class.

        Args:
            door: what it came by, for sentences.
            where: the setting, for sentences.
            scorer: needs `texts` alone.

        Raises:
            DoorError: it cannot be made.
        """
        self._door, self._where = door, where
        assert scorer.make is not None
        try:
            self._text_rule: TextRule = call_own(door, where, scorer.make)
        except DoorError as error:
            raise DoorError(
                str(error) if str(error).startswith(where) else f"{where}: {door.name} {error}"
            ) from error

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        """Return for each item one score in [0, 1] for each of its steps.

        Raises:
            DoorError: the function raised, or returned something else.
        """
        if not self._text_rule.many:
            return [self._checked(self._call(prompt=item.problem, **_of(item)), item) for item in items]
        found = self._call(
            prompts=[item.problem for item in items],
            **{name: [_of(item)[name] for item in items] for name in ("steps", "finished")},
        )
        if not isinstance(found, list | tuple) or len(found) != len(items):
            what = f"{len(found)} lists" if isinstance(found, list | tuple) else shown(found)
            raise DoorError(
                f"{self._where}: {self._door.name} returned {what} for {len(items)} solutions, and it must "
                "return a list of scores for each"
            )
        return [self._checked(one, item) for one, item in zip(found, items, strict=True)]

    def try_out(self) -> None:
        """Score solutions that are made up; a class with `tried()` then says whether that went well.

        Raises:
            DoorError: as of `score`.
        """
        self.score(_TRIED)
        self.score(_TRIED[1:2])
        if hasattr(self._made, "tried"):
            try:
                self._made.tried()
            except DoorError as error:
                raise DoorError(f"{self._where}: {self._door.name} {error}") from None

    def told(self) -> str:
        """Return what the scorer says of its work, where it is a class with `told()`; else an empty text."""
        return str(self._made.told()) if hasattr(self._made, "told") else ""

    @property
    def _made(self) -> Any:
        """The object of a class; None of a function."""
        return getattr(self._text_rule.rule.function, "__self__", None)

    def _call(self, **known: Any) -> Any:
        return _plain(call_own(self._door, self._where, self._text_rule.rule, known))

    def _checked(self, found: Any, item: StepText) -> list[float]:
        return checked(found, item, f"{self._where}: {self._door.name}")


def checked(found: Any, item: StepText, whose: str) -> list[float]:
    """Return the scores of an item's steps that somebody's code gave.

    Args:
        found: what came out.
        item: what it was asked about.
        whose: begins the sentence.

    Raises:
        DoorError: they are not one number from 0 to 1 for each step.
    """
    wanted = f"it must return one number from 0 to 1 for each of the {len(item.steps)} steps"
    found, wrong = _plain(found), ""
    if not isinstance(found, list | tuple):
        wrong = shown(found)
    elif len(found) != len(item.steps):
        wrong = f"{len(found)} scores"
    scores = [] if wrong else [_plain(one) for one in found]
    for at, one in enumerate(scores):
        if not isinstance(one, bool | int | float):
            wrong = f"{shown(one)} for step {at + 1}"
        elif not (math.isfinite(one) and 0 <= one <= 1):
            wrong = f"{float(one)} for step {at + 1}"
        if wrong:
            break
    if wrong:
        raise DoorError(f"{whose} returned {wrong}, and {wanted}")
    return [float(one) for one in scores]


def open_own(named: ScorerConfig) -> OwnScorer:
    """Return the user's scorer of a configuration; runs their code.

    Raises:
        DoorError: it does not open.
    """
    return OwnScorer(named.door(), named.where, named.open())


def scorer_of(function: Callable[..., Any]) -> OwnScorer:
    """Return a function of Python as a scorer.

    Raises:
        DoorError: it takes other keywords.
    """
    name: str = getattr(function, "__name__", type(function).__name__)
    code = getattr(function, "__code__", None)
    door = Door(SCORER.name, name, "module", "" if code is None else code.co_filename)
    try:
        return OwnScorer(door, "prm", read_scorer(function, {}))
    except DoorError as error:
        said = str(error)
        raise DoorError(
            said if said.startswith("prm: ") else f"prm: {name} {said}; {SCORER.remedy}"
        ) from None


def _of(item: StepText) -> dict[str, Any]:
    return {"steps": list(item.steps), "finished": item.finished}


def _plain(value: Any) -> Any:
    """Return arrays, tensors and their scalars as Python's own numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value
