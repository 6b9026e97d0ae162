"""What a check of data found, by how much it matters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from airls_ray.console.formatting import Cell
from airls_ray.console.progress import Progress
from airls_ray.errors import DataError


class Severity(IntEnum):
    """How much a finding matters; the exit code of `airls-ray data check`."""

    NOTE = 0
    """Worth knowing."""
    WARNING = 1
    """Training or its figures are worse for it."""
    ERROR = 2
    """Training would be wrong, or does not start."""


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found, with a sentence for each case."""

    severity: Severity
    what: str
    """The kind, in the plural: `traces that end in another answer`."""
    cases: Sequence[str]


@dataclass
class DataReport:
    """All that was found, and the figures of the problems that were looked at."""

    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, dict[str, Cell]] = field(default_factory=dict)
    """For each set of problems its figures by name."""

    def add(self, severity: Severity, what: str, cases: Iterable[str]) -> None:
        """Add a finding, unless there are no cases."""
        cases = list(cases)
        if cases:
            self.findings.append(Finding(severity, what, cases))

    @property
    def severity(self) -> Severity:
        """The largest of the findings; NOTE where there are none."""
        return max((one.severity for one in self.findings), default=Severity.NOTE)

    def raise_error(self) -> None:
        """Raise the first error, if there is one.

        Raises:
            DataError: how many cases there are, and the first of them.
        """
        error = next((one for one in self.findings if one.severity == Severity.ERROR), None)
        if error is not None:
            raise DataError(
                f"{error.what}: {len(error.cases):,}, the first: {error.cases[0]} (`airls-ray data check "
                "CONFIG` shows all)"
            )

    def say(self, progress: Progress) -> None:
        """Say each finding that is no error in one line."""
        for one in self.findings:
            if one.severity < Severity.ERROR:
                kind = one.severity.name.title()
                progress.say(f"{kind}: {one.what}: {len(one.cases):,}, the first: {one.cases[0]}")

    def show(self, progress: Progress, title: str, most: int) -> Iterable[str]:
        """Print the figures as a table and yield the findings' lines, at most `most` cases of each."""
        names = dict.fromkeys(name for figures in self.figures.values() for name in figures)
        rows = [[name, *(figures.get(name) for figures in self.figures.values())] for name in names]
        if rows:
            progress.table(title, rows, ["", *self.figures])
        for one in sorted(self.findings, key=lambda finding: -finding.severity):
            yield f"{one.severity.name.title()}: {one.what}: {len(one.cases):,}"
            yield from (f"  {case}" for case in one.cases[:most])
            if len(one.cases) > most:
                yield f"  ... and {len(one.cases) - most:,} more (--show)"
