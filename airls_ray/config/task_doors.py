"""What a task names: the form of its data, what ends a step, and how an answer is read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from airls_ray.config.door_section import NameOrSection

if TYPE_CHECKING:
    from airls_ray.data.format_kind import DataFormat
    from airls_ray.tasks.grader_kind import Grader
    from airls_ray.text.steps import StepRule


class FormatConfig(NameOrSection):
    """What a row of a file says."""

    kind: ClassVar[str] = "data format"
    where: ClassVar[str] = "task.format"

    def reads(self) -> DataFormat | None:
        """Return what reads rows, None where they have our own fields; runs the user's code.

        Raises:
            DoorError: it does not open.
        """
        return None if self.name in self.words else replace(self.open(), door=self.door())


class CodeFormatConfig(FormatConfig):
    """What a row of a file of programs says; `problems`: it has our own fields."""

    kind: ClassVar[str] = "code format"
    words: ClassVar[tuple[str, ...]] = ("problems",)


class StepRuleConfig(NameOrSection):
    """What ends a step."""

    kind: ClassVar[str] = "step rule"
    where: ClassVar[str] = "task.steps"

    def rule(self, delimiter: str) -> StepRule:
        """Return the rule, with `delimiter` if it asks for it; runs the user's code.

        Raises:
            DoorError: it does not open.
        """
        from airls_ray.text.steps import open_rule

        return open_rule(self.door(), self.options, delimiter)


class CodeStepsConfig(StepRuleConfig):
    """What ends a step of a program; `lines`: a line feed, `blocks`: a blank line."""

    words: ClassVar[tuple[str, ...]] = ("lines", "blocks")


class GraderConfig(NameOrSection):
    """How an answer is read and compared."""

    kind: ClassVar[str] = "grader"
    where: ClassVar[str] = "task.grader"

    @property
    def is_foreign(self) -> bool:
        """Whether it is the user's own code, which only grader processes run."""
        return self.door().source != "built-in"

    def grader(self) -> Grader:
        """Return what judges responses; runs the user's code.

        Raises:
            DoorError: it does not open.
        """
        made: Grader = self.open()
        return made
