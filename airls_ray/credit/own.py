"""Calls what a method names for rewards and rows, and checks what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from airls_ray.config.method_doors import FilterConfig, TermConfig, TransformConfig
from airls_ray.credit.kinds import OF_PRM
from airls_ray.errors import DoorError
from airls_ray.own_code import call_own, shown

Known = Mapping[str, Any]


def transformed(rewards: Tensor, transforms: Sequence[TransformConfig], known: Known) -> Tensor:
    """Return step rewards [S] after all transforms, one after the other.

    Args:
        rewards: float [S].
        transforms: of the method.
        known: what else `credit.kinds.OF_STEPS` has.

    Raises:
        DoorError: one raised, or did not return a finite number for each step.
    """
    for one in transforms:
        given = {**known, "rewards": rewards}
        rewards = _called(one, given, rewards.numel(), "steps").to(rewards.dtype)
    return rewards


def with_terms(total: Tensor, terms: Sequence[TermConfig], known: Known) -> Tensor:
    """Return rewards of rollouts [N] with all terms added, each times its weight.

    Args:
        total: float [N].
        terms: of the method.
        known: what `credit.kinds.OF_OUTCOMES` has; no step rewards where there is no PRM.

    Raises:
        DoorError: one raised, did not return a finite number for each rollout, or needs step rewards where
            there are none.
    """
    for one, values in zip(terms, term_values(terms, known, total.numel()), strict=True):
        total = total + one.weight * values.to(total.dtype)
    return total


def term_values(terms: Sequence[TermConfig], known: Known, rows: int) -> list[Tensor]:
    """Return what each term says of rollouts, before its weight: float [N] each.

    Args:
        terms: of the method.
        known: as for `with_terms`.
        rows: N.

    Raises:
        DoorError: as for `with_terms`.
    """
    for one in terms:
        _check_needs(one, known)
    return [_called(one, known, rows, "rollouts") for one in terms]


def kept_rows(filters: Sequence[FilterConfig], known: Known, rows: int) -> Tensor:
    """Return which rollouts all filters keep: bool [N].

    Args:
        filters: of the method.
        known: what `credit.kinds.OF_SCORED` has; no step rewards where no PRM has scored the rollouts.
        rows: N.

    Raises:
        DoorError: one raised, did not return true or false for each rollout, or needs step rewards where
            there are none.
    """
    kept = torch.ones(rows, dtype=torch.bool)
    for one in filters:
        _check_needs(one, known)
        kept &= _called(one, known, rows, "rollouts", boolean=True)
    return kept


def _called(
    config: TransformConfig | TermConfig | FilterConfig,
    known: Known,
    size: int,
    of: str,
    *,
    boolean: bool = False,
) -> Tensor:
    """Call a rule; the user's own one gets copies, so that what it changes in place stays with it."""
    door, rule, where = config.door(), config.open(), config.where
    if door.source != "built-in":
        known = {name: one.clone() if isinstance(one, Tensor) else one for name, one in known.items()}
    result = call_own(door, where, rule, known)
    wanted = f"a tensor of {size} {'booleans' if boolean else 'numbers'}, one for each of the {of}"
    if not isinstance(result, Tensor):
        raise DoorError(f"{where}: {config.name} returned {shown(result)}, and it must be {wanted}")
    if tuple(result.shape) != (size,):
        raise DoorError(
            f"{where}: {config.name} returned a tensor of shape {list(result.shape)}, and it must be {wanted}"
        )
    if boolean != (result.dtype == torch.bool) or result.is_complex():
        raise DoorError(
            f"{where}: {config.name} returned a tensor of {result.dtype}, and it must be {wanted}"
        )
    finite = result.isfinite()
    if not bool(finite.all()) and all(_is_finite(one) for one in known.values()):
        index = int((~finite).nonzero()[0, 0])
        raise DoorError(
            f"{where}: {config.name} returned {float(result[index])} for number {index} of the {of}, and it "
            "must be finite"
        )
    return result


def _check_needs(config: TermConfig | FilterConfig, known: Known) -> None:
    missing = [name for name in config.open().needed if name in OF_PRM and name not in known]
    if missing:
        early = isinstance(config, FilterConfig) and config.prm
        remedy = "the PRM learns before it scores: leave out prm: true" if early else "name a PRM"
        raise DoorError(
            f"{config.where}: {config.name} takes {missing[0]!r}, which only a PRM gives "
            f"(method.prm_objective), and there is none here; {remedy}"
        )


def _is_finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or bool(value.isfinite().all())
