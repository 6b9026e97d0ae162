"""The driver on a scripted generator: batches, step boundaries, costs, limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from airls_ray.data.schemas import CONTINUATIONS
from airls_ray.evaluation.steps import ScoreKind
from airls_ray.search.beam import Beam
from airls_ray.search.best_of_n import BestOfN
from airls_ray.search.driver import SearchDriver, run_searches
from airls_ray.search.early_rejection import EarlyRejection
from airls_ray.search.ledger import Limits
from airls_ray.search.live import DriverSettings, Search, SearchProblem
from airls_ray.search.scoring import Continuation, LogProbScorer, Scores
from airls_ray.search.searcher import Searcher

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


def run(
    searcher: Searcher,
    generator: Words,
    count: int = 1,
    scorer: Sums | LogProbScorer | None = None,
    **settings: object,
) -> list[Search]:
    options = DriverSettings(**settings)  # type: ignore[arg-type]
    driver = SearchDriver(generator, scorer or Sums(), blank, options)
    return run_searches(searcher, problems(count), driver)


def test_one_call_of_the_generator_a_tick_for_all_problems() -> None:
    generator = Words(steps=3)
    run(Beam(4, 2), generator, count=5)
    assert generator.calls[0] == 5
    assert len(generator.calls) == 3


def test_searches_do_not_depend_on_the_problems_beside_them() -> None:
    together = run(Beam(4, 2), Words(), count=4)
    driver = SearchDriver(Words(), Sums(), blank, DriverSettings())
    alone = run_searches(Beam(4, 2), problems(4)[2:3], driver)
    assert together[2].state == alone[0].state


def test_policy_tokens_are_those_sampled() -> None:
    [search] = run(BestOfN(5), Words(steps=2))
    assert search.ledger.policy_tokens == sum(len(node.tokens) for node in search.state.nodes)
    assert search.ledger.generations == 5


def test_lookahead_is_paid_for_and_thrown_away() -> None:
    [search] = run(Beam(2, 1, lookahead=1), Words(steps=2))
    kept = sum(len(node.tokens) for node in search.state.nodes)
    steps = sum(node.finish == "step" for node in search.state.nodes[1:])
    assert search.ledger.policy_tokens == kept + 2 * steps
    assert all(node.tokens[-2:] != (7, STEP) for node in search.state.nodes[1:] if node.finish == "stop")


def test_steps_looked_ahead_count_in_the_value_of_their_node_alone() -> None:
    [search] = run(Beam(2, 1, lookahead=1), Words(steps=2))
    own, ahead = sum(search.state.nodes[1].tokens) / 100, (7 + STEP) / 100
    assert search.state.nodes[1].scores == (own,)
    assert search.state.value(1, "prod") == pytest.approx(own * ahead)
    child = next(search.state.children(1))
    assert search.state.step_scores(child)[0] == own


def test_scores_of_a_path_are_those_of_the_whole_response() -> None:
    for generator in (Words(steps=3), Words(steps=3, end_alone=True)):
        [search] = run(Beam(4, 2), generator)
        for leaf in search.state.finished():
            response = tuple(search.state.response(leaf))
            ends = tuple(search.state.step_ends(leaf))
            whole = Continuation((9, 3), response, ends, (0.0,) * len(ends))
            assert search.state.step_scores(leaf) == pytest.approx(Sums.one(whole))


def test_an_end_of_sequence_alone_belongs_to_the_step_before() -> None:
    [search] = run(Beam(2, 1), Words(steps=2, end_alone=True))
    [leaf, *_] = search.state.finished()
    assert search.state.nodes[leaf].tokens == (END,)
    assert search.state.step_ends(leaf) == [3, 7]
    assert search.state.depth(leaf) == 2


def test_a_cut_step_is_scored_as_a_whole_when_it_is_finished() -> None:
    scorer = Sums()
    [search] = run(EarlyRejection(4, 2, tokens=1), Words(steps=2), scorer=scorer)
    finished = [item for item in scorer.items if item.open_tokens]
    assert finished
    assert all(item.open_tokens == 1 for item in finished)
    for leaf in search.state.finished():
        response, ends = search.state.response(leaf), search.state.step_ends(leaf)
        assert ends == [3, 6]
        assert search.state.step_scores(leaf) == pytest.approx(
            [sum(response[:3]) / 100, sum(response[3:]) / 100]
        )


def test_log_prob_scores_multiply_to_the_probability_of_the_response() -> None:
    for searcher in (Beam(4, 2), EarlyRejection(4, 2, tokens=1), BestOfN(3)):
        [search] = run(searcher, Words(steps=3, end_alone=True), scorer=LogProbScorer())
        for leaf in search.state.finished():
            assert search.state.log_score(leaf, "prod") == pytest.approx(search.state.log_prob(leaf))


def test_the_depth_cap_ends_a_response() -> None:
    [search] = run(Beam(2, 1), Words(steps=9), max_steps=2)
    assert {search.state.nodes[leaf].finish for leaf in search.state.finished()} == {"length"}
    assert {search.state.depth(leaf) for leaf in search.state.finished()} == {2}


def test_a_limit_ends_the_search_after_the_round_that_reaches_it() -> None:
    [search] = run(Beam(4, 2), Words(steps=5), limits=Limits(generations=6))
    assert search.stopped_by == "generations"
    assert search.ledger.generations == 8
    assert search.state.rounds == 2


def test_unique_tokens_count_shared_beginnings_once() -> None:
    [search] = run(BestOfN(6), Words(steps=2))
    responses = {tuple(search.state.response(leaf)) for leaf in search.state.finished()}
    prefixes = {response[:end] for response in responses for end in range(1, len(response) + 1)}
    assert search.ledger.kv_tokens == len(prefixes) + 2


def test_searches_by_different_algorithms_share_a_tick() -> None:
    generator = Words(steps=2)
    driver = SearchDriver(generator, Sums(), blank, DriverSettings())
    first, second = problems(2)
    live = [driver.start(Beam(4, 2), first), driver.start(BestOfN(3), second)]
    assert driver.tick(live) == [live[1]]
    assert generator.calls == [2]


def test_a_search_that_joins_later_is_the_same() -> None:
    driver = SearchDriver(Words(), Sums(), blank, DriverSettings())
    first, second = (driver.start(Beam(4, 2), problem) for problem in problems(2))
    driver.tick([first])
    while not (first.done and second.done):
        driver.tick([search for search in (first, second) if not search.done])
    assert [first.state, second.state] == [one.state for one in run(Beam(4, 2), Words(), count=2)]


@pytest.mark.parametrize("searcher", [Beam(4, 2), EarlyRejection(4, 2, tokens=1), BestOfN(3)])
def test_a_scorer_is_told_where_all_steps_end(searcher: Searcher) -> None:
    scorer = Sums()
    run(searcher, Words(steps=3, end_alone=True), scorer=scorer)
    for item in scorer.items:
        before = len(item.prefix) - item.prompt_tokens
        response = [*item.prefix[item.prompt_tokens :], *item.tokens]
        ends = [*item.prefix_ends, *(before + end for end in item.step_ends)]
        delimiters = [at + 1 for at, token in enumerate(response) if token == STEP]
        assert ends[:-1] == delimiters[: len(ends) - 1]
        assert ends[-1] == len(response)
