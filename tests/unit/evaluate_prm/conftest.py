"""The command without pictures, and with any scorer: fixtures."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from airls_ray.evaluation.prm_metrics import report


@pytest.fixture
def drawn() -> None:
    """The picture is drawn: a second of matplotlib."""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not, unless a test asks for `drawn`."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(report, "draw_step_scores", lambda path, *_: path.touch())


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[tuple[Any, ...]]]:
    """Return a function that makes a scorer the one of every folder, and the calls that ask for it."""

    def put(scorer: Any) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def load_step_scorer(*arguments: Any, **options: Any) -> Any:
            calls.append((*arguments, options))
            return scorer

        module = types.ModuleType("airls_ray.prm.load")
        vars(module)["load_step_scorer"] = load_step_scorer
        monkeypatch.setitem(sys.modules, "airls_ray.prm.load", module)
        monkeypatch.setattr("airls_ray.prm.forms.check_prm", lambda *_: None)
        return calls

    return put
