"""What a method names: the PRM's objective, what is done to rewards, which rows teach, the policy's loss."""

from __future__ import annotations

from typing import ClassVar

from airls_ray import doors
from airls_ray.config.door_section import KnownDoorConfig, NameOrSection
from airls_ray.config.prm_sections import PRMConfig
from airls_ray.errors import DoorError
from airls_ray.prm.objective_traits import ObjectiveTraits, traits_of


class ObjectiveConfig(NameOrSection):
    """How a PRM learns."""

    kind: ClassVar[str] = "prm objective"
    where: ClassVar[str] = "method.prm_objective"
    words: ClassVar[tuple[str, ...]] = ("none", "frozen")
    unopened: ClassVar[str] = "frozen"

    @property
    def learns(self) -> bool:
        """Whether there is a PRM that learns."""
        return self.name not in self.words

    def traits(self) -> ObjectiveTraits | None:
        """Return what the objective declares, read from its source; None where nothing learns.

        Raises:
            DoorError: the name leads nowhere, or what it declares cannot be.
        """
        if not self.learns:
            return None
        try:
            return traits_of(self.door())
        except DoorError as error:
            if str(error).startswith(self.where):
                raise
            raise DoorError(f"{self.where}: {self.name} {error}; {doors.kind_of(self.kind).remedy}") from None

    @property
    def against_reference(self) -> bool:
        """Whether the PRM's values are compared with the reference model; its rewards are ratios to it."""
        traits = self.traits()
        return traits is not None and traits.base == "reference"

    @property
    def needs_traces(self) -> bool:
        """Whether the PRM learns from traces."""
        traits = self.traits()
        return traits is not None and traits.needs_traces


def check_objective(objective: ObjectiveConfig, prm: PRMConfig) -> None:
    """Check that a PRM has what its objective declares to need.

    Raises:
        ValueError: it has not.
    """
    try:
        traits = objective.traits()
    except DoorError:  # its file may be gone where nothing learns any more; before a run it is looked for
        return
    if traits is not None and traits.needs_log_prob_form and prm.parameterisation != "log_prob":
        raise ValueError(
            f"method.prm_objective={objective.name} needs prm.parameterisation=log_prob (its rewards are "
            "log-ratios), but it is scalar_head"
        )
    if prm.outcome_head is not None and objective.learns:
        raise ValueError(
            f"prm.outcome_head is learned from labels (train-prm), and method.prm_objective={objective.name} "
            "has none: leave it out, or set method.prm_objective=frozen"
        )
    if prm.is_teacher and objective.name != "frozen":
        raise ValueError(
            "prm.reward=distillation is of a teacher that does not learn, which only "
            f"method.prm_objective=frozen has, and it is {objective.name}; set prm.reward=log_odds"
        )
    if prm.search_score == "reference_ratio" and not objective.against_reference:
        raise ValueError(
            "prm.search_score=reference_ratio needs the reference model, which only a method.prm_objective "
            f"against it (prime) starts, and it is {objective.name}; set it to exp_f"
        )


class TransformConfig(KnownDoorConfig):
    """A credit transform."""

    kind: ClassVar[str] = "credit transform"
    where: ClassVar[str] = "method.step_transforms"


class TermConfig(KnownDoorConfig):
    """An outcome term, and its share."""

    kind: ClassVar[str] = "outcome term"
    where: ClassVar[str] = "method.outcome_terms"
    weight: float = 1.0
    """Its values are multiplied by this; below 0 it is a penalty."""


class FilterConfig(KnownDoorConfig):
    """A row filter, and whom it concerns."""

    kind: ClassVar[str] = "row filter"
    where: ClassVar[str] = "method.row_filters"
    prm: bool = False
    """Whether the PRM learns from these rollouts alone, too (in its warm-up also); else only the policy."""


class OutcomeRuleConfig(NameOrSection):
    """What gives the outcomes that are learned from."""

    kind: ClassVar[str] = "outcome rule"
    where: ClassVar[str] = "method.outcomes"
    words: ClassVar[tuple[str, ...]] = ("graded",)
    unopened: ClassVar[str] = "graded"

    @property
    def labels(self) -> bool:
        """Whether a rule gives them, and not the grader."""
        return self.name not in self.words


class PolicyLossConfig(NameOrSection):
    """The policy's loss."""

    kind: ClassVar[str] = "policy loss"
    where: ClassVar[str] = "method.policy_loss"
    unopened: ClassVar[str] = "clipped"
