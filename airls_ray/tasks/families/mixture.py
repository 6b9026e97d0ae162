"""Several tasks in one run, each with its weight, its grader and its own words around a problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, permutations
from random import Random
from typing import TYPE_CHECKING, Any

from airls_ray.errors import ConfigError
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.tasks.base import PART, Grade, NeedsWarmUp, Problem, Split, Task, WrapsPrompts
from airls_ray.tasks.problem_files import TwoFiles, check_apart
from airls_ray.text.messages import with_system
from airls_ray.text.steps import rule_of

if TYPE_CHECKING:
    from airls_ray.config.task_choice import MixtureTaskConfig

_TEST_SEED = 0


class MixtureTask:
    """See the module's docstring; implements `airls_ray.tasks.base.Task`.

    Training draws the part of each problem by the weights, from a generator that depends on seed and position
    alone. The test set has the parts' test problems in the same manner, until all of them are there. What a
    part puts around a problem is in its prompt already, and its system prompt in its history.
    """

    name = "mixture"

    def __init__(self, config: MixtureTaskConfig) -> None:
        """Make the parts; their files are read when problems are first asked for.

        Raises:
            ConfigError: the parts end their steps in different ways, which one policy cannot learn to.
        """
        self._parts: dict[str, Task] = {one.shown: make_task(one.task) for one in config.parts}
        self._weights = [one.weight for one in config.parts]
        self._size = config.test_problems
        self._apart = False
        rules = {label: (rule_of(task), task.step_delimiter) for label, task in self._parts.items()}
        if len(set(rules.values())) > 1:
            shown = ", ".join(f"{label} by {rule.name} {end!r}" for label, (rule, end) in rules.items())
            raise ConfigError(
                f"task.parts end their steps in different ways ({shown}): give them the same task.steps and "
                "step_delimiter"
            )
        self.step_rule, self.step_delimiter = next(iter(rules.values()))

    def problems(self, split: Split, seed: int, start: int = 0) -> Iterator[Problem]:
        """Yield problems from position `start`: without end (train) or every test problem once, up to the
        size of the set.

        Raises:
            DataError: a part's file cannot be read, or two parts' files share a training and a test problem.
        """
        self._check_apart()
        if split == "train":
            return self._train(seed, start)
        return self._test(seed, start)

    def vocabulary(self) -> list[str] | None:
        """Return the words of all parts, or None where one has none."""
        words = [task.vocabulary() for task in self._parts.values()]
        known = [one for one in words if one is not None]
        if len(known) < len(words):
            return None
        return list(dict.fromkeys(word for one in known for word in one))

    def grade(self, problem: Problem, response: str) -> Grade:
        """Judge by the part that the problem is of."""
        task, own = self._own(problem)
        return task.grade(own, response)

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> list[bool] | None:
        """As the part says."""
        task, own = self._own(problem)
        return task.step_truth(own, steps)

    def warm_up(self) -> None:
        """Import what the parts' graders need."""
        for task in self._parts.values():
            if isinstance(task, NeedsWarmUp):
                task.warm_up()

    def _check_apart(self) -> None:
        """Refuse files of one part with problems that are another one's test."""
        files = {label: task for label, task in self._parts.items() if isinstance(task, TwoFiles)}
        if self._apart:
            return
        for (one, training), (other, tested) in permutations(files.items(), 2):
            names = f"the training problems of {one}", f"the test problems of {other}"
            check_apart(training.splits[0], tested.splits[1], *names)
        self._apart = True

    def _train(self, seed: int, start: int) -> Iterator[Problem]:
        labels, seeds = list(self._parts), {label: derive_seed(seed, "part", label) for label in self._parts}
        drawn = self._choices(seed)
        before = Counter(next(drawn) for _ in range(start))
        streams = {
            label: self._parts[label].problems("train", seeds[label], before[label]) for label in labels
        }
        for label in drawn:
            yield self._of(label, next(streams[label]))

    def _test(self, seed: int, start: int) -> Iterator[Problem]:
        streams = {label: task.problems("test", seed) for label, task in self._parts.items()}
        position = count()
        for label in self._choices(_TEST_SEED):
            if not streams:
                return
            if label not in streams:
                continue
            problem = next(streams[label], None)
            if problem is None:
                del streams[label]
                continue
            now = next(position)
            if now >= self._size:
                return
            if now >= start:
                yield self._of(label, problem)

    def _choices(self, seed: int) -> Iterator[str]:
        rng, labels = Random(derive_seed(seed, "mixture")), list(self._parts)
        while True:
            yield rng.choices(labels, self._weights)[0]

    def _of(self, label: str, problem: Problem) -> Problem:
        """Return a part's problem as one of the mixture."""
        task, prompt = self._parts[label], problem.prompt
        system, user = task.wrap(prompt) if isinstance(task, WrapsPrompts) else ("", prompt)
        details = {**problem.details, PART: {"label": label, "prompt": prompt}}
        return replace(
            problem,
            problem_id=f"{label}/{problem.problem_id}",
            prompt=user,
            details=with_system(details, system),
        )

    def _own(self, problem: Problem) -> tuple[Task, Problem]:
        """Return the part that a problem is of, and the problem as that part gave it."""
        details: dict[str, Any] = dict(problem.details)
        part: Mapping[str, str] = details.pop(PART, {})
        if part.get("label") not in self._parts:
            raise ConfigError(
                f"the problem {problem.prompt[:40]!r} is of no part of this mixture: take the same task.parts"
            )
        return self._parts[part["label"]], replace(problem, prompt=part["prompt"], details=details)


TASK = MixtureTask
