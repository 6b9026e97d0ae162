"""What a scorer is asked: new tokens behind a prefix, a score in [0, 1] for each step that ends in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp
from typing import Protocol, runtime_checkable

from airls_ray.evaluation.steps import ScoreKind


@dataclass(frozen=True)
class Continuation:
    """One continuation to score."""

    prefix: tuple[int, ...]
    """Prompt and response so far, at least one token."""
    tokens: tuple[int, ...]
    """What follows, at least one token."""
    step_ends: tuple[int, ...]
    """Exclusive ends in `tokens` of the steps that end in it; the last is `len(tokens)`."""
    log_probs: tuple[float, ...]
    """The policy's log-probability of each step's tokens in `tokens`, in nats (for scores that compare)."""
    open_tokens: int = 0
    """Tokens at the end of `prefix` that belong to the first of these steps."""
    open_log_prob: float = 0.0
    """The policy's log-probability of those, in nats."""
    keep: int = 0
    """How many of `tokens` may be continued later, so that keys and values up to there are worth keeping."""
    problem: int = 0
    """Number of the problem."""
    text: str = ""
    """Text of the problem, for who reads texts; empty: that of the prompt's tokens."""
    prompt_tokens: int = 0
    """How many tokens of `prefix` are the prompt."""
    prefix_ends: tuple[int, ...] = ()
    """Exclusive ends of the whole steps of `prefix`, counted from the end of the prompt."""
    over: bool = False
    """Whether the response is over with `tokens`."""
    closes: bool = False
    """Whether `tokens` are an end of sequence alone, which belongs to the step before."""

    @property
    def step_tokens(self) -> tuple[int, ...]:
        """Tokens of each step that ends in `tokens`, those of the first one in `prefix` included."""
        bounds = (-self.open_tokens, *self.step_ends)
        return tuple(end - start for start, end in pairwise(bounds))


Scores = tuple[list[tuple[float, ...]], list[int]]
"""For each continuation the scores of its steps, and the tokens that were computed for it."""


class StepScorer(Protocol):
    """Whatever scores steps."""

    kind: ScoreKind
    """What its scores are."""

    def score(self, items: Sequence[Continuation]) -> Scores:
        """Score all continuations, as one batch."""
        ...


@runtime_checkable
class ScoresElsewhere(Protocol):
    """A scorer that scores while its caller does something else."""

    def begin(self, items: Sequence[Continuation]) -> Callable[[], Scores]:
        """Begin what `score` does, and return what waits for its answer. One at a time."""
        ...


class LogProbScorer:
    """The control: a step's probability under the policy that sampled it. It costs nothing."""

    kind: ScoreKind = "token_mean"

    def score(self, items: Sequence[Continuation]) -> Scores:
        """See `StepScorer.score`."""
        scores = []
        for item in items:
            logs = list(item.log_probs)
            logs[0] += item.open_log_prob
            scores.append(
                tuple(min(1.0, exp(log / size)) for log, size in zip(logs, item.step_tokens, strict=True))
            )
        return scores, [0] * len(items)
