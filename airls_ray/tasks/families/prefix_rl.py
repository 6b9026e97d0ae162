"""Problems that begin with a prefix of a right trace, for hard ones (PrefixRL, arXiv 2601.18795).

The policy goes on from the prefix, which is a part of the prompt, so that its tokens are not trained. Another
task gives problems, traces and verdicts, which are on prefix and response together. The paper's numbers were
read in notes on it, not in its own text: prefixes end at a random place between 40 % and 80 % of a trace, and
three prefixed problems come with one that has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, pairwise
from random import Random
from typing import Any

from airls_ray.errors import ConfigError, DoorError
from airls_ray.seeding import derive_seed
from airls_ray.tasks.base import Grade, NeedsWarmUp, Problem, Split, Task, WrapsPrompts
from airls_ray.text.messages import with_system
from airls_ray.text.steps import cut, rule_of

_OWN = "prefix_rl"
"""In a problem's details: its prompt as the task gave it, and the prefix."""


class PrefixRL:
    """Another task's problems, a share of them with a prefix; see the module's docstring.

    A prefix ends where a step does, at the end that is nearest to the place drawn (in characters): that is
    ours, since steps are scored here. A trace of one step gives none. The test set has no prefixes.
    """

    name = "prefix_rl"

    def __init__(
        self,
        task: Mapping[str, Any],
        share: float = 0.75,
        shortest: float = 0.4,
        longest: float = 0.8,
        between: str = "",
    ) -> None:
        """Make the task that gives the problems.

        Args:
            task: its section, such as `{name: arithmetic}`; files are relative to the working directory.
            share: of the training problems that get a prefix, in [0, 1].
            shortest: least share of a trace that a prefix is drawn from, in [0, 1].
            longest: most of it.
            between: text between prompt and prefix, such as a request to go on, for a chat model.

        Raises:
            ConfigError: the section of the task is wrong.
            DoorError: a share is none, or the task names code of the user's own, or rewards.
        """
        for option, value in (("share", share), ("shortest", shortest), ("longest", longest)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
                raise DoorError(f"takes {option} from 0 to 1, not {value!r}")
        if shortest > longest:
            raise DoorError(f"takes shortest up to longest, and {shortest!r} is above {longest!r}")
        self._task = _made(task)
        self._share, self._between = share, between
        self._band = shortest, longest
        self.step_rule, self.step_delimiter = rule_of(self._task), self._task.step_delimiter

    def problems(self, split: Split, seed: int, start: int = 0) -> Iterator[Problem]:
        """Yield problems from position `start`; whether one has a prefix, and which, depends on seed and
        position alone."""
        for position, problem in zip(count(start), self._task.problems(split, seed, start), strict=False):
            rng = Random(derive_seed(seed, "prefix", position))
            prefixed = split == "train" and rng.random() < self._share
            yield self._of(problem, *(self._prefix(problem, rng) if prefixed else ("", problem.traces)))

    def grade(self, problem: Problem, response: str) -> Grade:
        """Judge prefix and response together, as the task does."""
        own, prefix = _given(problem)
        return self._task.grade(own, prefix + response)

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> list[bool] | None:
        """As the task says of these steps behind the prefix."""
        own, prefix = _given(problem)
        before = self._steps(prefix)
        truth = self._task.step_truth(own, [*before, *steps])
        return None if truth is None else truth[len(before) :]

    def vocabulary(self) -> list[str] | None:
        """As of the task."""
        return self._task.vocabulary()

    def warm_up(self) -> None:
        """Import what the task's grader needs."""
        if isinstance(self._task, NeedsWarmUp):
            self._task.warm_up()

    def _prefix(self, problem: Problem, rng: Random) -> tuple[str, tuple[str, ...]]:
        """A beginning of one of the problem's traces, empty where there is none, and the rest of it."""
        if not problem.traces:
            return "", ()
        trace = rng.choice(problem.traces)
        place = rng.uniform(*self._band) * len(trace)
        ends = cut(trace, self.step_rule)
        end = min(ends, key=lambda one: (abs(one - place), one), default=0)
        return (trace[:end], (trace[end:],)) if end else ("", problem.traces)

    def _of(self, problem: Problem, prefix: str, traces: tuple[str, ...]) -> Problem:
        """The problem with the task's words around it, and the prefix behind them."""
        system, user = ("", problem.prompt)
        if isinstance(self._task, WrapsPrompts):
            system, user = self._task.wrap(problem.prompt)
        details = {**problem.details, _OWN: {"prompt": problem.prompt, "prefix": prefix}}
        return replace(
            problem,
            problem_id=f"{problem.problem_id}-prefix-{len(prefix)}" if prefix else problem.problem_id,
            prompt=f"{user}{self._between}{prefix}" if prefix else user,
            traces=traces,
            details=with_system(details, system),
        )

    def _steps(self, text: str) -> list[str]:
        bounds = [0, *cut(text, self.step_rule), len(text)]
        return [text[start:end] for start, end in pairwise(bounds)] if text else []


def _given(problem: Problem) -> tuple[Problem, str]:
    """The problem as the task gave it, and its prefix."""
    details = dict(problem.details)
    own: Mapping[str, str] | None = details.pop(_OWN, None)
    if own is None:
        raise ConfigError(f"the problem {problem.prompt[:40]!r} is none of prefix_rl: it is another task's")
    return replace(problem, prompt=own["prompt"], details=details), own["prefix"]


def _made(section: Mapping[str, Any]) -> Task:
    """The task of a section, which names nothing that is not built-in: only a whole configuration is asked
    whether it may run code of the user's."""
    from airls_ray.config.door_section import open_names
    from airls_ray.config.load import load_task
    from airls_ray.tasks import make_task

    task = load_task(section)
    own = next((one.outside for _, one in open_names(task) if one.outside), None)
    if own is not None:
        raise DoorError(f"takes a task of built-in parts, and {own} is code of your own")
    if task.reward:
        raise DoorError("takes a task without rewards: move them to task.reward")
    return make_task(task)


TASK = PrefixRL
