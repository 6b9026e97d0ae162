"""What a task is: problems, how a response is read, and (where it can be known) the truth of a step.

Tasks work on text and know nothing of tokens, torch or Ray, so that a grader's child process starts
in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Protocol, runtime_checkable

from airls_ray.text.messages import asked_of
from airls_ray.text.steps import StepRule

Split = Literal["train", "test"]
PART = "part"
"""In the details of a mixture's problem: the label of the part that it is of, and the prompt as the part gave
it, before the part's words around it."""


@dataclass(frozen=True)
class Problem:
    """A question with a known answer; `details` holds what the task needs to judge a step, and the turns
    before the prompt where there are some (`airls_ray.text.messages`)."""

    problem_id: str
    prompt: str
    answer: str
    traces: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """The prompt, with the turns before it where it has some: what no two problems share."""
        return asked_of(self.prompt, self.details)


@dataclass(frozen=True)
class Grade:
    """Verdict on one response: outcome in [0, 1] and the canonical answer (None: none was given)."""

    outcome: float
    answer: str | None
    reason: str = "graded"
    """Why it is what it is, in a word or two, where the task tells more than `graded`: `wrong_answer`, or
    `unparsable` for a problem whose own answer the grader cannot read."""


class Task(Protocol):
    """A family of problems. All methods are pure: same arguments, same result, in any process."""

    name: str

    def problems(self, split: Split, seed: int, start: int = 0) -> Iterator[Problem]:
        """Yield problems from position `start`: without end (train) or up to the size of the set (test).

        The splits are disjoint, whatever the seeds.
        """
        ...

    def vocabulary(self) -> list[str] | None:
        """Every token of prompts and responses for a tokenizer made from scratch (longest match
        first is not needed: no token is a prefix of text of another class), or None where the
        model's own tokenizer must be used."""
        ...

    @property
    def step_delimiter(self) -> str:
        """Text that ends a reasoning step; it belongs to the step that it ends."""
        ...

    def grade(self, problem: Problem, response: str) -> Grade:
        """Judge a whole response (without the end-of-sequence token)."""
        ...

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> list[bool] | None:
        """Whether each step is right, or None where the task does not know."""
        ...


@runtime_checkable
class MakesDetours(Protocol):
    """A task that can also lead a solution astray by right steps (`sft.detour_share`)."""

    def detour(self, problem: Problem, rng: Random) -> str:
        """Return a response whose steps are right, but which need not reach the answer."""
        ...


@runtime_checkable
class CutsSteps(Protocol):
    """A task whose steps end by a rule of `airls_ray.text.steps` (the others': by their `step_delimiter`)."""

    @property
    def step_rule(self) -> StepRule | str:
        """The rule, or its name (`airls_ray.text.steps.rule_of` reads both)."""
        ...


@runtime_checkable
class WrapsPrompts(Protocol):
    """A task that puts words around a problem before the policy sees it."""

    def wrap(self, prompt: str) -> tuple[str, str]:
        """Return the system prompt (empty: none) and the user's message."""
        ...


@runtime_checkable
class NeedsWarmUp(Protocol):
    """A task whose grader imports or compiles something at its first use."""

    def warm_up(self) -> None:
        """Do that now."""
        ...
