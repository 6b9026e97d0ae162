"""What chooses the training problems: what it gets, what it answers, how one is named (docs/doors.md)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from airls_ray.doors import Kind
from airls_ray.errors import DoorError
from airls_ray.own_code import Rule, keywords_of, read_rule, shown

OF_CHOICE = ("candidates", "count", "rng", "iteration")
"""What `choose` may take: a list of Candidate, an int, a `random.Random` of this choice alone, and the number
of the iteration, from 1."""
CANDIDATES_PER_PROBLEM = 8
"""[C] Where a sampler says nothing."""


@dataclass(frozen=True)
class Candidate:
    """A problem that may be taken, and what the run knows of it."""

    problem_id: str
    prompt: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """The problem's other fields."""
    visits: int = 0
    """Iterations in which it was sampled and graded."""
    mean_outcome: float | None = None
    """Mean outcome over these; None: it is new."""
    last_outcome: float | None = None
    """Mean outcome of the last one."""
    last_iteration: int | None = None
    """Number of that iteration, from 1."""


@dataclass(frozen=True)
class Result:
    """What became of a problem in an iteration."""

    problem_id: str
    iteration: int
    """From 1."""
    outcomes: tuple[float, ...]
    """0 to 1, of its rollouts."""


class ProblemSampler:
    """A function or an object of the user's, as the run asks it."""

    def __init__(self, choose: Rule, owner: Any, candidates_per_problem: int) -> None:
        """`owner`: the object, for its memory; of a function it is None."""
        self._choose, self._owner = choose, owner
        self.candidates_per_problem = candidates_per_problem
        """How many candidates it is shown for every problem of an iteration."""
        self.keeps = hasattr(owner, "state")
        """Whether it has a memory of its own."""

    def choose(self, known: Mapping[str, Any]) -> Any:
        """Return what it returns for what `OF_CHOICE` names."""
        return self._choose(known)

    def seen(self, results: Sequence[Result]) -> None:
        """Tell what became of an iteration's problems."""
        if self.keeps:
            self._owner.seen(list(results))

    def state(self) -> Any:
        """Its memory; None: it has none."""
        return self._owner.state() if self.keeps else None

    def restore(self, state: Any) -> None:
        """Take a memory back."""
        if self.keeps:
            self._owner.restore(state)


@dataclass(frozen=True)
class SamplerMaker:
    """What a name leads to; every choice of a run is made by one `ProblemSampler`."""

    make: Callable[[int], ProblemSampler]
    """Makes it with a seed."""
    candidates_per_problem: int


def read_sampler(found: Any, options: Mapping[str, Any]) -> SamplerMaker:
    """Return what a door names as a problem sampler.

    Raises:
        DoorError: it is neither a function nor a class of the known form; the text follows its name.
    """
    each = getattr(found, "candidates_per_problem", CANDIDATES_PER_PROBLEM)
    if not isinstance(each, int) or each < 1:
        raise DoorError(f"has candidates_per_problem={shown(each)}, and it must be a whole number from 1 on")
    if not inspect.isclass(found):
        rule = read_rule(found, options, OF_CHOICE)
        return SamplerMaker(lambda _: ProblemSampler(rule, None, each), each)
    made_with = keywords_of(found, options)
    _require_memory(found)
    unbound = getattr(found, "choose", None)
    if not callable(unbound):
        raise DoorError("is a class without choose(candidates, count)")

    def make(seed: int) -> ProblemSampler:
        takes_seed = "seed" in made_with.named or made_with.takes_all
        owner: Any = found(**{"seed": seed, **options} if takes_seed else options)
        return ProblemSampler(read_rule(owner.choose, {}, OF_CHOICE), owner, each)

    needed = [
        name
        for name, one in made_with.named.items()
        if name != "seed" and name not in options and one.default is inspect.Parameter.empty
    ]
    if needed:
        raise DoorError(f"is made with {needed[0]!r}, which nobody gives it: give it in options")
    return SamplerMaker(make, each)


def _require_memory(found: type) -> None:
    """A memory is told, saved and restored, or there is none: else a resumed run would be another one."""
    there = [name for name in ("seen", "state", "restore") if callable(getattr(found, name, None))]
    lacking = [name for name in ("seen", "state", "restore") if name not in there]
    if there and lacking:
        raise DoorError(
            f"has {there[0]} and no {lacking[0]}, and a memory needs seen(results), state() and "
            "restore(state), so that a resume goes on exactly"
        )
    for name, arguments in (("seen", 1), ("state", 0), ("restore", 1)):
        if name in there:
            try:
                inspect.signature(getattr(found, name)).bind(*[None] * (arguments + 1))
            except TypeError:
                raise DoorError(
                    f"has {name}{inspect.signature(getattr(found, name))}, which is called with {arguments} "
                    "arguments"
                ) from None


def success_rate(candidate: Candidate) -> float:
    """Return the mean outcome over all visits and one more that had half a success: in (0, 1)."""
    return (candidate.visits * (candidate.mean_outcome or 0.0) + 0.5) / (candidate.visits + 1)


def draw(candidates: Sequence[Candidate], weights: Sequence[float], count: int, rng: Random) -> list[int]:
    """Return `count` indices: new candidates in their order, then others by weight without replacement.

    Each draw is in proportion to the weights of those that are left (Efraimidis and Spirakis 2006: the
    largest u ** (1 / weight)).

    Args:
        candidates: what is drawn from, at least `count`.
        weights: above 0, one for each.
        count: how many.
        rng: gives u in [0, 1), one for each candidate that is not new.
    """
    new = [at for at, one in enumerate(candidates) if not one.visits]
    keys = {at: rng.random() ** (1 / weights[at]) for at, one in enumerate(candidates) if one.visits}
    drawn = sorted(keys, key=lambda at: (-keys[at], at))
    return [*new, *drawn][:count]


PROBLEM_SAMPLER = Kind(
    name="problem sampler",
    protocol=(
        f"a function of keywords among {', '.join(OF_CHOICE)} that returns indices of candidates, at most "
        "count, or a class (made with options, and seed if it takes it) with such a method choose and, as it "
        "likes, seen(results), state() and restore(state)"
    ),
    package="airls_ray.problem_samplers",
    attribute="SAMPLER",
    example="prioritised",
    make=read_sampler,
)
"""Which training problems come next (`train.problem_sampler`)."""
