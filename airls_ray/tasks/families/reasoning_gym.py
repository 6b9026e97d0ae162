"""Data sets of the public package reasoning-gym (pip install reasoning-gym), with step truth for some.

A problem is drawn by its index, and its grader draws it again, so that no solution lies in the problem. The
verdict is the package's own score. Where solutions are moves that can be replayed, or the package records the
states in between, a response is a chain of steps (`airls_ray/tasks/gym/`), and the truth of each is known.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from random import Random
from typing import Any, Literal

from airls_ray.errors import ConfigError, DoorError
from airls_ray.tasks.answers import without_thoughts
from airls_ray.tasks.base import Problem
from airls_ray.tasks.gym.chains import Chain, chain_of
from airls_ray.tasks.gym.compact import COMPACT, Compact

_INDICES = 2**31
_PROBE = 12345
_RAISED = (ArithmeticError, AttributeError, LookupError, RecursionError, SyntaxError, TypeError, ValueError)
_KEPT = 2048
"""Entries that a grader keeps: drawing one may cost a search for its solution."""


class ReasoningGym:
    """A data set of reasoning-gym; see the module's docstring."""

    def __init__(
        self,
        dataset: str,
        outcome: Literal["right", "score"] = "right",
        *,
        compact: bool = False,
        **settings: Any,
    ) -> None:
        """Open the data set.

        Args:
            dataset: its name in the package, such as `jugs`.
            outcome: `right`: 1 for the full score, else 0; `score`: the package's score, with its parts of a
                point for form.
            compact: questions and solutions in a few tokens, for a model made from nothing
                (`airls_ray/tasks/gym/compact.py`; jugs, quantum_lock and word_ladder have such a form).
            settings: of the data set (`difficulty`, `min_numbers`, ...); None: as the package has it.

        Raises:
            DoorError: the package is missing, or has no such data set, setting or compact form.
        """
        self._outcome = outcome
        self._gym = _package()
        self.name = dataset
        known = list(importlib.import_module("reasoning_gym.factory").DATASETS)
        if dataset not in known:
            from airls_ray.doors import nearest

            raise DoorError(f"has no data set {dataset!r}{nearest(dataset, known)}")
        chosen = {name: value for name, value in settings.items() if value is not None}
        self._make = partial(self._gym.create_dataset, dataset, size=1, **chosen)
        try:
            self._data = self._make(seed=_PROBE)
            fresh = self._data[0]
            self._data = self._make(seed=_PROBE + 1)
        except (TypeError, ValueError, AssertionError) as error:
            raise DoorError(f"cannot make the data set {dataset}: {error}") from None
        self._data.seed = _PROBE
        self._reseeds = self._data[0]["question"] == fresh["question"]
        self._compact = _compact_form(dataset) if compact else None
        self._chain: Chain = self._compact or chain_of(dataset)
        self.step_delimiter = self._chain.delimiter
        self.entry = lru_cache(maxsize=_KEPT)(self._entry)

    def problem(self, rng: Random) -> dict[str, Any]:
        """Draw a problem: the package's question, the form of a chain, and a solution as its trace."""
        index = rng.randrange(_INDICES)
        while not self._chain.solvable(entry := self.entry(index)):
            index = rng.randrange(_INDICES)
        answer = entry["answer"]
        trace = None if answer is None else self._chain.trace(entry)
        prompt = self._question(entry)
        return {
            "prompt": f"{prompt}\n{self._chain.request}" if self._chain.request else prompt,
            "answer": str(answer) if answer is not None else "(judged by its score)",
            "traces": [trace] if trace else [],
            "index": index,
        }

    def grade(self, problem: Problem, response: str) -> tuple[float, str | None]:
        """Score the answer of a response by the package; the answer is its text."""
        answer = self._chain.answer(without_thoughts(response))
        if answer is None:
            return 0.0, None
        entry = self._of(problem)
        try:
            score = float(self._data.score_answer(answer, entry))
        except _RAISED:  # some scorers raise on what is no answer to them
            score = 0.0
        return (score if self._outcome == "score" else float(score >= 1.0)), answer.strip()

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> list[bool] | None:
        """Whether each step is allowed and the full score can still be reached; None: nothing is known."""
        return self._chain.truth(self._of(problem), steps)

    def vocabulary(self) -> list[str] | None:
        """Return all tokens of the compact form; the model's own tokenizer is used else."""
        return None if self._compact is None else list(self._compact.tokens)

    def warm_up(self) -> None:
        """Draw an entry, so that the first response does not pay for it."""
        self.entry(0)

    def _of(self, problem: Problem) -> Mapping[str, Any]:
        index = problem.details.get("index")
        if not isinstance(index, int):
            raise ConfigError(
                f"the problem {problem.prompt[:40]!r} has no index of {self.name}: it is another task's"
            )
        entry = self.entry(index)
        if not problem.prompt.startswith(self._question(entry)):
            raise ConfigError(
                f"problem {index} of {self.name} is another one here than where it was drawn "
                f"({problem.prompt[:40]!r}): take the same settings and version of reasoning-gym, and "
                "PYTHONHASHSEED=0 for every process where a data set draws from sets (isomorphic_strings, "
                "polynomial_multiplication, ransom_note)"
            )
        return entry

    def _question(self, entry: Mapping[str, Any]) -> str:
        text: str = entry["question"].strip()
        return text if self._compact is None else self._compact.prompt(entry)

    def _entry(self, index: int) -> Mapping[str, Any]:
        """The first entry of the data set whose seed is `index`: most give it without being made anew."""
        if self._reseeds:
            self._data.seed = index
        return self._chain.settled((self._data if self._reseeds else self._make(seed=index))[0])


def _compact_form(dataset: str) -> Compact:
    if dataset not in COMPACT:
        raise DoorError(f"has no compact form of {dataset}: there is one of {', '.join(COMPACT)}")
    return COMPACT[dataset]


def _package() -> Any:
    try:
        return importlib.import_module("reasoning_gym")
    except ModuleNotFoundError:
        raise DoorError("needs the package reasoning_gym: pip install reasoning-gym") from None


TASK = ReasoningGym
