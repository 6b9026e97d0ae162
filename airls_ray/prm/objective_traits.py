"""What a PRM objective declares of itself, read from its source: the driver runs none of it."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Literal, get_args, get_type_hints

from airls_ray import doors
from airls_ray.doors import Door
from airls_ray.errors import DoorError


@dataclass(frozen=True)
class ObjectiveTraits:
    """Attributes of an objective's class, each a literal in its body; what it leaves out is as here."""

    base: Literal["policy", "sampler", "reference"] = "policy"
    """Whose log-probabilities a rollout's `log_base` holds: the policy's as it is now, those of the policy
    that sampled it, or those of the reference model (which starts the reference server)."""
    sides: Literal["reference", "outcome"] = "reference"
    """What is told apart: traces (and correct rollouts, by `prm.correct_rollouts`) from the policy's
    rollouts, each side with a weight of 1/2; or right rollouts from wrong ones, in all with a weight of 1."""
    weighs: Literal["action", "sequence"] = "action"
    """What weighs the same within a side: every action, or every sequence, whose actions share its weight."""
    needs_traces: bool = True
    """Whether traces join the reference side (of `outcome`: the right one)."""
    needs_log_prob_form: bool = False
    """Whether `prm.parameterisation` must be `log_prob`."""
    needs_row_sums: bool = False
    """Whether `prepare` wants sums over whole sequences before each pass, at the cost of one without
    gradients."""
    without_log_probs: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `prm` by which it does without log-probabilities of the policy; empty: it cannot."""
    without_log_probs_note: str = ""
    """What is then said, behind why."""


DEFAULTS = ObjectiveTraits()
_NAMES = tuple(one.name for one in fields(ObjectiveTraits))


@lru_cache(maxsize=64)
def traits_of(door: Door) -> ObjectiveTraits:
    """Return what the objective behind a door declares.

    Raises:
        DoorError: a value is no literal or not one of those that there are; the text follows its name.
    """
    return checked_traits(_class_values(doors.source_text(door), door.attribute.split(".")))


def checked_traits(values: Mapping[str, Any]) -> ObjectiveTraits:
    """Return values of attributes as traits.

    Raises:
        DoorError: one is not among those that there are.
    """
    hints = get_type_hints(ObjectiveTraits)
    for name, value in values.items():
        choices = get_args(hints[name]) if isinstance(getattr(DEFAULTS, name), str) else ()
        if hints[name] is bool and not isinstance(value, bool):
            raise DoorError(f"has {name}={value!r}, and it must be True or False")
        if choices and value not in choices:
            near = doors.nearest(str(value), choices)
            raise DoorError(f"has {name}={value!r}{near}, and there are {', '.join(choices)}")
    return ObjectiveTraits(**values)


def _class_values(source: str, attribute: Sequence[str]) -> dict[str, Any]:
    """The literals that a class of a source sets among the names of the traits, those of its bases in the
    same source included; nothing where there is no such class (the made object is compared later)."""
    try:
        body: list[ast.stmt] = ast.parse(source).body
    except SyntaxError as error:
        raise DoorError(f"cannot be read: {error.msg} (line {error.lineno})") from None
    known = {one.name: one for one in body if isinstance(one, ast.ClassDef)}
    found = _definition(body, attribute[0])
    for name in attribute[1:]:
        found = _definition(found.body, name) if found is not None else None
    return {} if found is None else _values_of(found, known, set())


def _definition(body: Sequence[ast.stmt], name: str) -> ast.ClassDef | None:
    """The class of that name, also behind `NAME = Class`."""
    classes = {one.name: one for one in body if isinstance(one, ast.ClassDef)}
    aliases = {
        target.id: one.value.id
        for one in body
        if isinstance(one, ast.Assign) and isinstance(one.value, ast.Name)
        for target in one.targets
        if isinstance(target, ast.Name)
    }
    return classes.get(aliases.get(name, name))


def _values_of(found: ast.ClassDef, known: Mapping[str, ast.ClassDef], seen: set[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    seen.add(found.name)
    for base in reversed(found.bases):
        if isinstance(base, ast.Name) and base.id in known and base.id not in seen:
            values |= _values_of(known[base.id], known, seen)
    for one in found.body:
        for target, value in _assigned(one):
            if isinstance(target, ast.Name) and target.id in _NAMES:
                try:
                    values[target.id] = ast.literal_eval(value)
                except ValueError:
                    raise DoorError(
                        f"has {target.id}={ast.unparse(value)[:40]}, and it must be a literal: it is read "
                        "without running the file"
                    ) from None
    return values


def _assigned(one: ast.stmt) -> list[tuple[ast.expr, ast.expr]]:
    """Targets and values of `a = 1`, `a: int = 1`, `a = b = 1` and `a, b = 1, 2`."""
    if isinstance(one, ast.AnnAssign):
        return [] if one.value is None else [(one.target, one.value)]
    if not isinstance(one, ast.Assign):
        return []
    found: list[tuple[ast.expr, ast.expr]] = []
    for target in one.targets:
        if isinstance(target, ast.Tuple) and isinstance(one.value, ast.Tuple):
            found += zip(target.elts, one.value.elts, strict=False)
        else:
            found.append((target, one.value))
    return found
