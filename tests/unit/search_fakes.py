"""A small random policy and scorer that answer a search: equal seeds and prefixes give equal children."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

import numpy as np

from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import Child, Expansion, Finish, SearchState
from airls_ray.seeding import derive_seed

END, STEP, FIRST_LETTER = 1, 2, 3
"""Tokens: the end of the response; the delimiter that ends a step; all from here on are letters."""

Score = Callable[[tuple[int, ...]], float]
"""Score of a response up to the end of a step (or up to where it was cut)."""


def random_score(response: Sequence[int]) -> float:
    """Any number in [0, 1) that depends on all tokens."""
    return derive_seed(0, *response) / 2**31


def letters_of(response: Sequence[int]) -> tuple[int, ...]:
    """The response without delimiters and end."""
    return tuple(token for token in response if token >= FIRST_LETTER)


def oracle(*right: Sequence[int]) -> Score:
    """1 for prefixes of hidden letter sequences, 0 for all others."""
    hidden = {tuple(path[:end]) for path in right for end in range(len(path) + 1)}
    return lambda response: float(letters_of(response) in hidden)


@dataclass(frozen=True)
class FakeTree:
    """What `run` takes, as a policy and a scorer."""

    letters: int = 4
    """Different letters; with `step_tokens` 1 also the different steps after a prefix."""
    step_tokens: int = 2
    """Most letters of a step; the length is uniform from 1."""
    max_steps: int = 4
    """A step so deep that does not end its response ends it with finish "length"."""
    end: float = 0.25
    """Probability that a response ends after a step."""
    alone: bool = False
    """The end of sequence comes after the delimiter, as a child of its own, instead of in its place."""
    score: Score = random_score

    def answer(self, state: SearchState, expansion: Expansion) -> list[Child]:
        """All children of an expansion."""
        want, prefix = expansion.want, state.response(expansion.want.node)
        closed = bool(prefix) and state.nodes[want.node].finish == "step"
        greedy = want.temperature == 0.0
        children = []
        for seed in range(expansion.seed, expansion.seed + want.count):
            tokens, finish = self._sample(prefix, [] if greedy else [seed], want.whole)
            if want.max_tokens is not None and len(tokens) > want.max_tokens:
                tokens, finish = tokens[: want.max_tokens], "partial"
            children.append(self._child(prefix, tokens, finish, want.lookahead, closed))
        return children

    def _child(
        self, prefix: list[int], tokens: list[int], finish: Finish, lookahead: int, closed: bool
    ) -> Child:
        ends = _step_ends(tokens)
        scores = [self.score((*prefix, *tokens[:end])) for end in ends]
        ahead: list[float] = []
        reached: Finish = finish
        seen = [*prefix, *tokens]
        while len(ahead) < lookahead and reached == "step":
            more, reached = self._sample(seen, [], whole=False)
            seen += more
            ahead.append(self.score(tuple(seen)))
        each = -log(self.letters)
        return Child(
            tokens=tuple(tokens),
            log_prob=each * len(tokens),
            scores=tuple(scores),
            finish=finish,
            closes=closed and tokens == [END],
            step_ends=tuple(ends),
            step_log_probs=tuple(each * (end - start) for start, end in pairwise([0, *ends])),
            ahead=tuple(ahead),
        )

    def _sample(self, prefix: Sequence[int], seed: list[int], whole: bool) -> tuple[list[int], Finish]:
        """What follows `prefix` up to the end of a step or, if `whole`, of the response."""
        rng = np.random.default_rng([*seed, 0, *prefix])
        tokens: list[int] = []
        while True:
            seen = [*prefix, *tokens]
            depth = seen.count(STEP)
            if tokens and tokens[-1] == STEP and (depth >= self.max_steps or not whole):
                return tokens, "length" if depth >= self.max_steps else "step"
            if self.alone and seen and seen[-1] == STEP and rng.random() < self.end:
                return [*tokens, END], "stop"
            begun = seen[::-1].index(STEP) if depth else len(seen)
            count = int(rng.integers(max(begun, 1), max(self.step_tokens, begun) + 1)) - begun
            tokens += (FIRST_LETTER + rng.integers(self.letters, size=count)).tolist()
            if not self.alone and rng.random() < self.end:
                return [*tokens, END], "stop"
            tokens.append(STEP)


def _step_ends(tokens: Sequence[int]) -> list[int]:
    """Exclusive ends of the steps; an end of sequence alone belongs to the step before."""
    ends = [at + 1 for at, token in enumerate(tokens) if token == STEP]
    if not ends or len(letters_of(tokens[ends[-1] :])):
        return [*ends, len(tokens)]
    return [*ends[:-1], len(tokens)]


def run(
    searcher: Searcher,
    *,
    seed: int = 0,
    letters: int = 4,
    step_tokens: int = 2,
    max_steps: int = 4,
    end: float = 0.25,
    alone: bool = False,
    score: Score = random_score,
    shuffle: int | None = None,
    save: bool = False,
    rounds: int = 1000,
) -> SearchState:
    """Search to the end and return the state.

    Args:
        searcher: the algorithm.
        seed: of the search.
        letters, step_tokens, max_steps, end, alone, score: see `FakeTree`.
        shuffle: seed of the order in which answers are told; they are then told twice, and asked for again
            between them. None: in order, once.
        save: whether the state goes through JSON text after every answer.
        rounds: most rounds; the search is stopped there and does not end by itself.
    """
    tree = FakeTree(letters, step_tokens, max_steps, end, alone, score)
    order = None if shuffle is None else np.random.default_rng(shuffle)
    state = searcher.start(seed)
    while state.rounds < rounds:
        asks = searcher.ask(state)
        if not asks:
            return state
        if order is not None:
            asks = [asks[at] for at in order.permutation(len(asks))]
        for ask in asks:
            answer = tree.answer(state, ask)
            searcher.tell(state, ask.ticket, answer)
            if order is not None and state.pending:
                searcher.tell(state, ask.ticket, answer)
                searcher.ask(state)
            if save:
                state = SearchState.from_json(json.loads(json.dumps(state.to_json())))
    return state
