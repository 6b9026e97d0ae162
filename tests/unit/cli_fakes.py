"""Stand-ins for what the command line calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEMO = str(ROOT / "configs" / "demo_arithmetic.yaml")


def raising(error: BaseException) -> Any:
    def call(*_: Any) -> dict[str, Any]:
        raise error

    return call


def wrapped(error: BaseException) -> BaseException:
    """Return an error as Ray gives it: of the same class, the first as `cause`, a traceback as text."""

    class RayTaskError(type(error)):  # type: ignore[misc]
        pass

    outer = RayTaskError("Traceback (most recent call last):\n  ...")
    outer.cause = error
    return outer
