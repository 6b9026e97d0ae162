"""What scores the steps of a search, as users name it (docs/doors.md): what it takes and what it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airls_ray.doors import Kind
from airls_ray.errors import DoorError
from airls_ray.own_code import Rule, keywords_of, read_rule

Needs = Literal["texts", "prm", "log_probs", "truth"]
"""What scores are made of. `texts`: problem and steps, read by a function. `prm`: a PRM's folder.
`log_probs`: the policy's, which a search knows. `truth`: the task's verdicts, which the verifier gives."""

ONE = ("prompt", "steps", "finished")
"""What a function for one solution may take: a text, a list of texts, and whether the last step ends it."""
MANY = ("prompts", "steps", "finished")
"""The same for many: lists of these."""


@dataclass(frozen=True)
class TextRule:
    """A function that scores steps."""

    rule: Rule
    many: bool
    """Whether a call is for many solutions."""


@dataclass(frozen=True)
class Scorer:
    """What a name leads to."""

    needs: Needs
    make: Callable[[], TextRule] | None = None
    """Of `texts`: gives the function, made anew of a class."""


def read_scorer(found: Any, options: Mapping[str, Any]) -> Scorer:
    """Return what a door names as a scorer; a class is not made yet, since it may load a model.

    Raises:
        DoorError: it is neither a function nor a class of the known form; the text follows its name.
    """
    if isinstance(found, Scorer):
        if options:
            raise DoorError(f"takes no option {next(iter(options))!r}")
        return found
    if not inspect.isclass(found):
        rule = _text_rule(found, options)
        return Scorer("texts", lambda: rule)
    named = keywords_of(found, options).named
    needed = [
        name for name, one in named.items() if name not in options and one.default is inspect.Parameter.empty
    ]
    if needed:
        raise DoorError(f"is made with {needed[0]!r}, which nobody gives it: give it in options")
    if not hasattr(found, "score") and "__call__" not in vars(found):
        raise DoorError("is a class without score(prompt, steps)")

    def make() -> TextRule:
        made = found(**options)
        return _text_rule(getattr(made, "score", made), {})

    return Scorer("texts", make)


def _text_rule(function: Any, options: Mapping[str, Any]) -> TextRule:
    many = "prompts" in keywords_of(function, options).named
    return TextRule(read_rule(function, options, MANY if many else ONE), many)


SCORER = Kind(
    name="scorer",
    protocol=(
        "a function of keywords among prompt, steps, finished (a text, a list of texts, whether the last one "
        "ends the response) that returns one score in [0, 1] for each step, or of prompts, steps, finished "
        "(lists of these) that returns a list of such lists, or a class with such a method score"
    ),
    package="airls_ray.search.scorers",
    attribute="SCORER",
    example="examples/own_search.py",
    make=read_scorer,
)
"""Who scores steps (`search.scorer`)."""
