"""What is named of the user's own for learning, tried in a process of its own before a run starts."""

from __future__ import annotations

from collections.abc import Sequence

from airls_ray.config.door_section import DoorConfig
from airls_ray.config.method_section import MethodConfig
from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress
from airls_ray.trial import run_trial

_MODULE = "airls_ray.learning.try_method"


def try_own_code(config: Config, progress: Progress) -> None:
    """Call what the method names (objective, outcomes, credit, filters, loss) on a hand-made batch.

    Nothing is done where it names built-in ones alone, by their fields, and the default loss.

    Raises:
        DoorError: something does not open, raises, hangs, or returns something else than it must; the
            traceback is logged.
        RunError: the process itself failed.
    """
    names = own_names(config.method)
    if not names:
        return
    given = {
        "method": config.method.model_dump(mode="json"),
        "prm": config.prm.model_dump(mode="json"),
        "max_response_tokens": config.rollout.max_response_tokens,
        "reference": config.uses_reference,
        "refill": config.train.refill_rounds > 0,
        "step_rewards": config.has_step_rewards,
    }
    run_trial(_MODULE, given, "method", ", ".join(names), progress)


def try_step_labels(config: Config, progress: Progress, *, rule: bool = True) -> None:
    """Call the loss of labelled steps and, if it is asked for, the label rule on a hand-made batch.

    Nothing is done where they are built-in ones without options.

    Raises:
        DoorError, RunError: as of `try_own_code`.
    """
    section = config.supervised_prm
    names = _own([section.step_loss, *([section.labels] if rule else [])])
    if names:
        sections = {"supervised_prm": section, "prm": config.prm}
        given = {name: one.model_dump(mode="json") for name, one in sections.items()}
        module = "airls_ray.learning.try_step_labels"
        run_trial(module, {**given, "rule": rule}, "supervised_prm", ", ".join(names), progress)


def try_objective(config: Config, progress: Progress) -> None:
    """Call the PRM's objective alone; see `try_own_code`.

    Raises:
        DoorError, RunError: as of `try_own_code`.
    """
    objective = config.method.prm_objective
    alone = MethodConfig(name=config.method.name, prm_objective=objective)
    try_own_code(config.model_copy(update={"method": alone}), progress)


def own_names(method: MethodConfig) -> list[str]:
    """Labels of what is tried: all of the lists, a loss that is not the default, own objective and rule."""
    loss = method.policy_loss
    tried = [loss.shown] if loss.options or loss.name != loss.unopened else []
    objectives = [method.prm_objective] if method.prm_objective.learns else []
    rules = [method.outcomes] if method.outcomes.labels else []
    lists = [*method.step_transforms, *method.outcome_terms, *method.row_filters]
    return [*tried, *_own([*objectives, *rules]), *(one.shown for one in lists)]


def _own(named: Sequence[DoorConfig]) -> list[str]:
    return [one.shown for one in named if one.options or one.door().source != "built-in"]
