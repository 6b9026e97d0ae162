"""What a program may use, and which protections must be in force before it runs at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Protection = Literal["network", "files", "processes"]


@dataclass(frozen=True)
class Limits:
    """Of one run of a program, its child processes included where the name says so."""

    wall_seconds: float = 10.0
    """Of the whole run."""
    cpu_seconds: int = 10
    """Of one process, in whole seconds (the kernel counts no finer)."""
    memory_mib: int = 512
    """Address space of one process."""
    processes: int = 16
    """Processes and threads at the same time, together."""
    file_mib: int = 16
    """Largest file; with a mount namespace also all files of the work folder together."""
    open_files: int = 64
    """Open files of one process."""
    output_kib: int = 1024
    """Bytes of output, and of one returned value, that are read before the program is killed."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as they travel to the process that applies them."""
        return asdict(self)


@dataclass(frozen=True)
class InForce:
    """What this machine gives, by its means; None: nothing protects here."""

    network: str | None
    files: str | None
    processes: str | None
    notes: tuple[str, ...] = ()
    """Why something is missing, in words."""

    def missing(self, required: Sequence[Protection]) -> list[Protection]:
        """Return those of `required` that are not in force."""
        return [name for name in required if getattr(self, name) is None]

    def __str__(self) -> str:
        """One line for a log."""
        parts = [f"{name}: {getattr(self, name) or 'NONE'}" for name in ("network", "files", "processes")]
        return "; ".join([*parts, *self.notes])
