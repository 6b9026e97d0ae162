"""A scripted generator and scorer for the search driver: equal seeds and prefixes give equal children."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa

from airls_ray.data.schemas import CONTINUATIONS
from airls_ray.evaluation.steps import ScoreKind
from airls_ray.search.live import SearchProblem
from airls_ray.search.scoring import Continuation, Scores

END, STEP = 1, 2
"""Tokens: the end of the response, and the delimiter that ends a step."""


@dataclass
class Words:
    """Samples letters 3..9 with a delimiter after two of them; ends after `steps` steps."""

    steps: int = 3
    end_alone: bool = False
    """Whether the end of sequence comes after the last delimiter, as a token of its own."""
    calls: list[int] = field(default_factory=list)

    def response(self, prompt: Sequence[int], seed: int, done: Sequence[int]) -> list[int]:
        """What follows `done`, to the end."""
        rng = np.random.default_rng([seed, *prompt, *done])
        tokens = list(done)
        while tokens.count(STEP) < self.steps - (not self.end_alone):
            tokens += [int(rng.integers(3, 10)) for _ in range(2 - len(tokens) % 3)] + [STEP]
        if not self.end_alone:
            tokens += [int(rng.integers(3, 10)) for _ in range(2 - len(tokens) % 3)]
        return [*tokens[len(done) :], END]

    def expand(self, expansions: pa.Table, owners: Sequence[int]) -> pa.Table:
        self.calls.append(expansions.num_rows)
        rows = []
        for number, row in enumerate(expansions.to_pylist()):
            for index in range(row["count"]):
                tokens = self.response(row["prompt"], row["seed"] + index, row["response"])
                finish = "stop"
                if not row["whole"] and STEP in tokens[:-1]:
                    tokens, finish = tokens[: tokens.index(STEP) + 1], "step"
                if row["max_tokens"] is not None and len(tokens) > row["max_tokens"]:
                    tokens, finish = tokens[: row["max_tokens"]], "partial"
                ends = [at + 1 for at, token in enumerate(tokens) if token == STEP]
                if not ends:
                    ends = [len(tokens)]
                elif tokens[ends[-1] :] == [END]:
                    ends[-1] = len(tokens)
                elif ends[-1] < len(tokens):
                    ends.append(len(tokens))
                ahead = [7, STEP] if row["lookahead"] and finish == "step" else []
                rows.append(
                    {
                        "expansion": number,
                        "index": index,
                        "tokens": tokens,
                        "logprobs": [-0.1] * len(tokens),
                        "step_ends": ends,
                        "finish": finish,
                        "ahead": ahead,
                        "ahead_logprobs": [-0.2] * len(ahead),
                        "ahead_ends": [2] if ahead else [],
                        "sampled": len(tokens) + len(ahead),
                    }
                )
        return pa.Table.from_pylist(rows, schema=CONTINUATIONS)


class Sums:
    """Scores a step by its tokens, open ones included; remembers what it was asked."""

    kind: ScoreKind = "probability"

    def __init__(self) -> None:
        self.items: list[Continuation] = []

    def score(self, items: Sequence[Continuation]) -> Scores:
        self.items += items
        return [self.one(item) for item in items], [len(item.tokens) for item in items]

    @staticmethod
    def one(item: Continuation) -> tuple[float, ...]:
        whole = [*item.prefix[len(item.prefix) - item.open_tokens :], *item.tokens]
        starts = [0, *(end + item.open_tokens for end in item.step_ends)]
        return tuple(sum(whole[start:end]) / 100 for start, end in pairwise(starts))


def problems(count: int) -> list[SearchProblem]:
    return [SearchProblem(at, f"p{at}", (9, 3 + at), 100 + at) for at in range(count)]


def blank(tokens: Sequence[int]) -> bool:
    return all(token == END for token in tokens)
