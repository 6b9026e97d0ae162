"""Losses of the user's own, checked where they come out: what is wrong is one sentence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from airls_ray.doors import Door
from airls_ray.errors import DoorError
from airls_ray.own_code import call_own, shown

Sums = dict[str, Tensor]


class CheckedLoss:
    """A loss that checks what comes out, unless it is a built-in one."""

    def __init__(
        self, door: Door, where: str, function: Callable[..., Any], reserved: Collection[str] = ()
    ) -> None:
        """`door` is that of `function`, `where` its setting; no sum may have a `reserved` name."""
        self._door, self._where, self._function, self._reserved = door, where, function, reserved
        self._names: set[str] | None = None

    @property
    def built_in(self) -> bool:
        """Whether it is a loss of this project."""
        return self._door.source == "built-in"

    def __call__(self, *arguments: Any) -> tuple[Tensor, Sums]:
        """Return the loss, a scalar with gradient, and sums, detached.

        Raises:
            DoorError: the loss raised, or returned something else; with what came out.
        """
        if self.built_in:
            known: tuple[Tensor, Sums] = self._function(*arguments)
            return known
        result = call_own(self._door, self._where, self._function, *arguments)
        if not isinstance(result, tuple) or len(result) != 2:
            raise self._wrong(f"returned {_told(result)}, and it must return (loss, sums)")
        loss, sums = result
        if not isinstance(loss, Tensor) or loss.dim() or not loss.is_floating_point():
            raise self._wrong(f"returned {_told(loss)} as loss, and it must be a tensor of one number")
        if not bool(loss.detach().isfinite()):
            raise self._wrong(f"returned {loss.item()} as loss, and it must be finite")
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise self._wrong(
                "returned a loss without gradient: make it of the values that it gets, not of detached ones"
            )
        if not isinstance(sums, Mapping) or not all(isinstance(name, str) for name in sums):
            raise self._wrong(f"returned {shown(sums)} as sums, and it must be a dictionary with names")
        if taken := sorted(set(sums) & set(self._reserved)):
            raise self._wrong(
                f"returned a sum {taken[0]!r}, which has another meaning here: call it otherwise"
            )
        if self._names is not None and self._names != set(sums):  # ranks add them up by their order
            before, now = (", ".join(sorted(names)) or "none" for names in (self._names, sums))
            raise self._wrong(f"returned the sums {before} and then {now}, and they must always be the same")
        self._names = set(sums)
        return loss, {name: self._number(value, name) for name, value in sums.items()}

    def _number(self, value: Any, name: str) -> Tensor:
        if isinstance(value, bool | int | float):
            value = torch.tensor(float(value))
        if not isinstance(value, Tensor) or value.dim():
            raise self._wrong(f"returned {_told(value)} as the sum {name!r}, and it must be one number")
        if not bool(value.detach().double().isfinite()):
            raise self._wrong(f"returned {value.item()} as the sum {name!r}, and it must be finite")
        return value.detach()

    def _wrong(self, what: str) -> DoorError:
        return DoorError(f"{self._where}: {self._door.name} {what}")


def _told(value: Any) -> str:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else shown(value)
