"""The user's own functions: what they take by name, what they raise, and what came out, in words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airls_ray.doors import Door, nearest, told
from airls_ray.errors import DoorError

_SHOWN = 40


@dataclass(frozen=True)
class Keywords:
    """What a function takes by name."""

    named: Mapping[str, inspect.Parameter]
    takes_all: bool
    """Whether it takes any further keyword."""


@dataclass(frozen=True)
class Rule:
    """A function of the names that it takes, and its options."""

    function: Callable[..., Any]
    names: tuple[str, ...]
    options: Mapping[str, Any]
    needed: tuple[str, ...] = ()
    """Those of `names` without which it cannot be called."""

    def __call__(self, known: Mapping[str, Any]) -> Any:
        """Call it with what it takes of `known`."""
        given = {name: known[name] for name in self.names if name in known}
        return self.function(**given, **self.options)


def read_rule(function: Any, options: Mapping[str, Any], known: Sequence[str]) -> Rule:
    """Return a function with those of the `known` names that it takes.

    Raises:
        DoorError: it is no function, or takes something else; the text follows its name.
    """
    if inspect.isclass(function):
        raise DoorError("is a class, and it must be a function")
    keywords = keywords_of(function, options)
    require_known(keywords, known, options)
    taken = known if keywords.takes_all else [name for name in known if name in keywords.named]
    names = tuple(name for name in taken if name not in options)
    named, empty = keywords.named, inspect.Parameter.empty
    needed = tuple(name for name in names if name in named and named[name].default is empty)
    return Rule(function, names, options, needed)


def keywords_of(function: Any, options: Mapping[str, Any]) -> Keywords:
    """Return what `function` takes by name.

    Raises:
        DoorError: it cannot be called with keywords, or takes not all of `options`.
    """
    if not callable(function):
        raise DoorError(f"is {shown(function)}, which cannot be called")
    try:
        given = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise DoorError("has no signature that can be read") from None
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = {name: one for name, one in given.items() if one.kind not in variable}
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in given.values())
    if any(one.kind is inspect.Parameter.POSITIONAL_ONLY for one in named.values()):
        raise DoorError("takes arguments without names, and it is called with keywords")
    lost = [name for name in options if name not in named and not takes_all]
    if lost:
        raise DoorError(f"takes no option {lost[0]!r}{nearest(lost[0], named)}")
    return Keywords(named, takes_all)


def require_known(keywords: Keywords, known: Sequence[str], options: Mapping[str, Any]) -> None:
    """Check that a function needs nothing but what it gets, and takes some of it.

    Raises:
        DoorError: it needs something else, or takes none of `known`.
    """
    named = keywords.named
    strange = [name for name in named if name not in known and name not in options]
    needed = [name for name in strange if named[name].default is inspect.Parameter.empty]
    if needed:
        raise DoorError(f"takes {needed[0]!r}, which nobody gives it{nearest(needed[0], known)}")
    if not keywords.takes_all and not set(known) & set(named):
        raise DoorError(f"takes none of {', '.join(known)}")


def call_own(door: Door, where: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what a door has opened.

    Args:
        door: of the function, for sentences.
        where: the setting, for sentences.
        function: what is called.
        arguments: its arguments.

    Raises:
        DoorError: it raised.
    """
    try:
        return function(*arguments)
    except DoorError:
        raise
    except Exception as error:  # whatever the user's code may raise
        raise DoorError(f"{where}: {door.name} raises {told(error, door)}") from error


def shown(value: Any) -> str:
    """Return what came out of a function, in a few words."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the text {value[:_SHOWN]!r}"
    return f"{' '.join(repr(value).split())[:_SHOWN]} ({type(value).__name__})"
