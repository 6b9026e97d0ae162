"""A stand-in for the package reasoning-gym, which the tests do without."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


def stand_in(
    monkeypatch: pytest.MonkeyPatch, create_dataset: Callable[..., Any], names: tuple[str, ...]
) -> None:
    """Let `import reasoning_gym` find a package that has data sets of these names."""
    package, factory = ModuleType("reasoning_gym"), ModuleType("reasoning_gym.factory")
    package.create_dataset = create_dataset  # type: ignore[attr-defined]
    factory.DATASETS = dict.fromkeys(names)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reasoning_gym", package)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)
