"""What a PRM learns by: what an objective gets, what it adds to the frame of `update_prm`, how one is named.

Imports no PyTorch: the driver looks at the kind, and reads what an objective declares from its source
(`airls_ray/prm/objective_traits.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from airls_ray.doors import Kind
from airls_ray.errors import DoorError
from airls_ray.own_code import keywords_of, shown
from airls_ray.prm.objective_traits import DEFAULTS, ObjectiveTraits

if TYPE_CHECKING:
    from torch import Tensor

    from airls_ray.config.prm_sections import PRMConfig

FRAME_SUMS = ("loss", "weight", "output_abs", "drift")
"""Sums that the frame takes itself."""


@dataclass(frozen=True)
class Actions:
    """A micro-batch of B sequences with A actions (steps or tokens)."""

    f: Tensor
    """[A], with gradient."""
    log_base: Tensor
    """[A]: log-probability of the action under the policy, or what else the objective's `base` says."""
    rows: Tensor
    """int64 [A]: sequence of each action within the micro-batch."""
    sequences: Tensor
    """int64 [B]: position of each sequence in the PRM batch."""
    expert_weights: Tensor
    """[A]: weight on the expert side (`sides = "outcome"`: of right rollouts); all weights of both sides sum
    to 1 over the whole update, and each side to 1/2 where the sides are balanced."""
    policy_weights: Tensor
    """[A]: weight on the policy side (of wrong rollouts). An action may stand on both."""


@dataclass(frozen=True)
class RowSums:
    """Of every sequence of the PRM batch [N]; those without weight are 0."""

    phi: Tensor
    log_pi: Tensor
    """Under the policy that sampled the sequence."""
    lengths: Tensor
    policy_weights: Tensor
    problems: Tensor
    """int64: problem of each sequence."""
    rollouts: int
    """Rollouts on the policy side, equal ones counted."""


class PRMObjective(Protocol):
    """What an objective adds to the frame of `update_prm`."""

    def prepare(self, sums: RowSums) -> None:
        """Take what the pass before saw, where `needs_row_sums` asks for it."""
        ...

    def loss(self, actions: Actions) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the micro-batch's share of the loss, and metrics as sums."""
        ...

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """Turn the sums over all ranks into `prm/...`."""
        ...


@dataclass(frozen=True)
class ObjectiveClass:
    """The class that a name leads to, with its options."""

    made: Callable[..., Any]
    options: Mapping[str, Any]

    def make(self, config: PRMConfig, traits: ObjectiveTraits) -> PRMObjective:
        """Return an objective for one update.

        Args:
            config: of the PRM.
            traits: what the source declares, by which the rest of the system was set up.

        Raises:
            DoorError: what it has now is something else.
        """
        made = self.made(config=config, **self.options)
        for one in fields(ObjectiveTraits):
            has, said = getattr(made, one.name, getattr(DEFAULTS, one.name)), getattr(traits, one.name)
            if has != said:
                raise DoorError(
                    f"has {one.name}={has!r} when it is made, and by its source it is {said!r}: set it in "
                    "the body of the class, as a literal"
                )
        if traits.needs_row_sums and not hasattr(made, "prepare"):
            raise DoorError("has needs_row_sums=True, and no method prepare(sums)")
        return made if hasattr(made, "metrics") else _Measured(made)


class _Measured:
    """An objective without metrics: its sums are shown as they are."""

    def __init__(self, objective: Any) -> None:
        self._objective = objective

    def prepare(self, sums: RowSums) -> None:
        self._objective.prepare(sums)

    def loss(self, actions: Actions) -> tuple[Tensor, dict[str, Tensor]]:
        result: tuple[Tensor, dict[str, Tensor]] = self._objective.loss(actions)
        return result

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        return {f"prm/{name}": value for name, value in sums.items() if name not in FRAME_SUMS}


def read_objective(found: Any, options: Mapping[str, Any]) -> ObjectiveClass:
    """Return what a door names as an objective.

    Raises:
        DoorError: it is no class with `loss(actions)` that is made with `config`; the text follows its name.
    """
    if not inspect.isclass(found):
        raise DoorError(f"is {shown(found)}, and it must be a class")
    keywords = keywords_of(found, options)
    named = keywords.named
    if "config" not in named and not keywords.takes_all:
        raise DoorError(f"is made with {', '.join(named) or 'nothing'}, and it must take config")
    needed = [name for name in named if name != "config" and name not in options]
    needed = [name for name in needed if named[name].default is inspect.Parameter.empty]
    if needed:
        raise DoorError(f"is made with {needed[0]!r}, which nobody gives it: give it in options")
    for name in ("loss", "prepare", "metrics"):
        method = getattr(found, name, None)
        if method is None and name == "loss":
            raise DoorError("has no method loss(actions)")
        if method is not None:
            try:
                inspect.signature(method).bind(None, None)
            except TypeError:
                raise DoorError(
                    f"has {name}{inspect.signature(method)}, which is called with one argument"
                ) from None
    return ObjectiveClass(found, options)


PRM_OBJECTIVE = Kind(
    name="prm objective",
    protocol=(
        "a class made with config (the section prm) and options that has loss(actions), which returns the "
        "loss of a micro-batch and a dictionary of sums, and, as it likes, prepare(sums), metrics(sums) and "
        f"attributes ({', '.join(one.name for one in fields(ObjectiveTraits)[:6])})"
    ),
    package="airls_ray.prm.objectives",
    attribute="OBJECTIVE",
    example="airl",
    make=read_objective,
)
"""How a PRM learns (`method.prm_objective`)."""
