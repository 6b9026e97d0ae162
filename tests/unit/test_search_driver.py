"""The driver on a scripted generator: batches, step boundaries, costs, limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod

import pytest

from airls_ray.search.adaptive_consistency import AdaptiveConsistency
from airls_ray.search.asks import expansions_of, sampled
from airls_ray.search.beam import Beam
from airls_ray.search.best_of_n import BestOfN
from airls_ray.search.driver import SearchDriver, run_searches
from airls_ray.search.early_rejection import EarlyRejection
from airls_ray.search.ledger import Limits
from airls_ray.search.live import Ask, DriverSettings, Search, SearchProblem
from airls_ray.search.scoring import Continuation, LogProbScorer
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, Child, Node, SearchState
from tests.unit.driver_fakes import END, STEP, Sums, Words, blank, problems


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


def test_a_scorer_is_told_the_log_probabilities_of_steps_looked_ahead() -> None:
    scorer = Sums()
    run(Beam(1, 1, lookahead=1), Words(steps=2), scorer=scorer)
    assert scorer.items[0].log_probs == pytest.approx((-0.3, -0.4))  # 3 tokens of -0.1, and 2 of -0.2


def test_every_step_looked_ahead_is_given_its_whole_prefix() -> None:
    plain, ahead = (run(Beam(2, 1, lookahead=steps), Words(steps=2))[0] for steps in (0, 1))
    nodes = ahead.state.nodes
    behind = [
        2 + len(ahead.state.response(at)) for at, node in enumerate(nodes) if at and node.finish == "step"
    ]
    assert ahead.ledger.prefill_tokens == plain.ledger.prefill_tokens + sum(behind)


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


def test_a_response_that_the_depth_cap_ends_is_worth_its_own_steps_alone() -> None:
    [search] = run(Beam(2, 1, lookahead=1), Words(steps=9), max_steps=2)
    state = search.state
    for leaf in state.finished():
        assert state.value(leaf, "prod") == pytest.approx(prod(state.step_scores(leaf)))


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


def test_a_scorer_is_told_the_problem_as_its_author_wrote_it() -> None:
    """Its prompt may have a chat template or a task's words around it."""
    scorer = Sums()
    first, second = (replace(one, text=f"question {one.number}") for one in problems(2))
    run_searches(Beam(4, 2), [first, second], SearchDriver(Words(), scorer, blank, DriverSettings()))
    assert {(item.problem, item.text) for item in scorer.items} == {(0, "question 0"), (1, "question 1")}


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


def test_the_last_step_of_several_is_that_alone() -> None:
    state = SearchState(0)
    child = Child((3, 4, 2, 5, 2), -1.5, (0.5, 0.5), "step", step_ends=(3, 5), step_log_probs=(-1.0, -0.5))
    state.nodes.append(Node.of(ROOT, child))
    assert state.last_step(1) == (2, -0.5)


def test_operations_are_those_of_the_prompt_once_and_of_every_token() -> None:
    """Prompts of two tokens; in later rounds a cache has the prefixes."""
    for searcher in (BestOfN(3), EarlyRejection(4, 2, tokens=1)):
        [search] = run(searcher, Words(steps=2), policy_parameters=10, scorer_parameters=3)
        ledger = search.ledger
        wanted = 2 * 10 * (2 + ledger.policy_tokens) + 2 * 3 * ledger.prm_tokens
        assert ledger.flops == wanted


def test_keys_are_kept_of_all_that_may_go_on() -> None:
    scorer = Sums()
    run(EarlyRejection(4, 2, tokens=1), Words(steps=2), scorer=scorer)
    kept = [item.keep for item in scorer.items]
    assert kept == [0 if item.over else len(item.tokens) for item in scorer.items]
    assert 1 in kept  # beginnings of a token


def test_a_response_that_was_over_before_keeps_a_token_all_the_same() -> None:
    """A stop may be found in what was there already; a continuation without tokens cannot be scored."""
    driver = SearchDriver(Words(), Sums(), blank, DriverSettings())
    search = driver.start(BestOfN(1), problems(1)[0])
    search.end_of = lambda response: 0
    asks = [Ask.of(search, one) for one in search.searcher.ask(search.state)]

    [one] = sampled(asks, Words().expand(expansions_of(asks), [0]), blank)
    [item] = one.items
    assert (len(item.tokens), item.step_ends, item.over) == (1, (1,), True)


def test_behind_the_end_that_a_search_sets_nothing_looked_ahead_is_scored() -> None:
    """Words looks ahead at a 7 and a delimiter; the search ends behind a delimiter and a 7."""
    scorer = Sums()
    driver = SearchDriver(Words(), scorer, blank, DriverSettings())
    search = driver.start(Beam(2, 1, lookahead=1), problems(1)[0])
    search.end_of = lambda response: next(
        (at + 2 for at, pair in enumerate(pairwise(response)) if pair == (STEP, 7)), None
    )
    driver.tick([search])
    assert [item.tokens[-2:] for item in scorer.items] == [(STEP, 7), (STEP, 7)]


def test_a_step_that_is_looked_ahead_is_a_continuation_more() -> None:
    [search] = run(Beam(2, 1, lookahead=1), Words(steps=2))
    nodes = search.state.nodes[1:]
    ahead = sum(len(node.ahead) for node in nodes)
    assert ahead == 2 and search.ledger.generations == len(nodes) + ahead


def test_answers_that_could_not_be_read_are_read_before_the_next_round() -> None:
    """A vote of four equal answers is decided."""
    fails = [RuntimeError("no grader")]

    def read(asked: Sequence[SearchProblem], responses: Sequence[Sequence[int]]) -> list[str | None]:
        if fails:
            raise fails.pop()
        return ["7"] * len(responses)

    driver = SearchDriver(Words(), Sums(), blank, DriverSettings(), read)
    search = driver.start(AdaptiveConsistency(8), problems(1)[0])
    with pytest.raises(RuntimeError, match="no grader"):
        driver.tick([search])
    while not search.done:
        driver.tick([search])
    assert list(search.state.answers) == search.state.finished() == [1, 2, 3, 4]
