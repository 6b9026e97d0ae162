"""Train a policy and a process reward model together from correct traces, then search with it.

From Python (docs/python.md): `train`, `search_task`, `one_cluster`, `search_endpoint`, `load_prm`, `grade`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from airls_ray.version import __version__

if TYPE_CHECKING:
    from airls_ray.api import PRM, grade, load_prm, search_endpoint
    from airls_ray.errors import UserError
    from airls_ray.run_api import one_cluster, search_task, train


__all__ = [
    "PRM", "UserError", "__version__", "grade", "load_prm", "one_cluster", "search_endpoint", "search_task",
    "train",
]  # fmt: skip

_HOMES = {
    "UserError": "airls_ray.errors",
    **dict.fromkeys(("PRM", "grade", "load_prm", "search_endpoint"), "airls_ray.api"),
    **dict.fromkeys(("one_cluster", "search_task", "train"), "airls_ray.run_api"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for: `import airls_ray` itself imports nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'airls_ray' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
