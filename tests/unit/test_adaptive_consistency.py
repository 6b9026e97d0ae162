"""The stopping rule of adaptive consistency against scipy's distributions, and the search that asks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from scipy import integrate, stats

from actors.search.search import answer_reader
from airls_ray.search.adaptive_consistency import AdaptiveConsistency
from airls_ray.search.decided_vote import chance_of_lead, fewest_votes
from airls_ray.search.driver import SearchDriver, run_searches
from airls_ray.search.live import DriverSettings, SearchProblem
from airls_ray.search.scoring import LogProbScorer
from airls_ray.search.tree import SearchState
from tests.unit.test_search_driver import Words, blank, problems


@pytest.mark.parametrize("counts", [[1], [4], [3, 1], [1, 3], [5, 4, 2], [40, 25, 1, 1], [300, 270]])
def test_two_answers_are_judged_by_a_beta_distribution(counts: list[int]) -> None:
    first, second = [*sorted(counts, reverse=True), 0][:2]
    assert chance_of_lead(counts) == pytest.approx(stats.beta(first + 1, second + 1).sf(0.5), rel=1e-9)


@pytest.mark.parametrize("counts", [[3, 1, 1], [2, 2, 1], [6, 3, 2, 1], [1, 1, 1, 1]])
def test_all_answers_are_judged_by_a_dirichlet_distribution(counts: list[int]) -> None:
    draws = np.random.default_rng(0).dirichlet(np.array(counts) + 1.0, 400_000)
    share = (draws.argmax(axis=1) == 0).mean()
    assert chance_of_lead(counts, "dirichlet") == pytest.approx(share, abs=4e-3)


def test_three_answers_are_the_integral_of_the_paper() -> None:
    """Over p2 and p3, each below p1 = 1 - p2 - p3, of p1^4 p2^2 p3^1."""

    def mass(most: Callable[[float], float]) -> float:
        def density(p3: float, p2: float) -> float:
            return float((1 - p2 - p3) ** 4 * p2**2 * p3)

        return float(integrate.dblquad(density, 0.0, 1.0, 0.0, lambda p2: max(most(p2), 0.0))[0])

    leads = mass(lambda p2: min(1 - 2 * p2, (1 - p2) / 2))
    assert chance_of_lead([2, 4, 1], "dirichlet") == pytest.approx(leads / mass(lambda p2: 1 - p2), rel=1e-6)


@pytest.mark.parametrize("counts", [[7, 2], [3, 3], [1]])
def test_with_at_most_two_answers_the_criteria_are_one(counts: list[int]) -> None:
    assert chance_of_lead(counts, "dirichlet") == chance_of_lead(counts, "beta")


def test_many_votes_do_not_escape_the_quadrature() -> None:
    assert chance_of_lead([4000, 3000, 2000, 1000], "dirichlet") == pytest.approx(1.0, abs=1e-6)
    assert chance_of_lead([2000, 2000, 2000], "dirichlet") == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.75, 0.9, 0.95, 0.96875, 0.99])
def test_the_fewest_votes_are_the_first_that_reach_the_threshold(threshold: float) -> None:
    wanted = next(votes for votes in range(1, 99) if stats.beta(votes + 1, 1).sf(0.5) >= threshold - 1e-12)
    assert fewest_votes(threshold) == wanted


def test_no_votes_lead_to_nothing_and_half_a_vote_is_an_error() -> None:
    assert chance_of_lead([]) == 0.0
    with pytest.raises(ValueError, match="counted from 1"):
        chance_of_lead([3, 0])


def answers_of(state: SearchState) -> list[str | None]:
    return [state.answers[node] for node in state.finished()]


def read(asked: Sequence[SearchProblem], responses: Sequence[Sequence[int]]) -> list[str | None]:
    """The problem decides how many answers there are; some responses have none."""
    kinds = [2, 3, 6, 1][asked[0].number % 4] if asked else 1
    found: list[str | None] = []
    for problem, response in zip(asked, responses, strict=True):
        kinds = [2, 3, 6, 1][problem.number % 4]
        number = sum(response) % (kinds + 1)
        found.append(None if number == kinds and kinds > 1 else str(number % kinds))
    return found


def search(reader: Any = read, **options: Any) -> list[Any]:
    driver = SearchDriver(Words(), LogProbScorer(), blank, DriverSettings(), reader)
    return run_searches(AdaptiveConsistency(**options), problems(8), driver)


@pytest.mark.parametrize("criterion", ["beta", "dirichlet"])
def test_it_stops_where_a_loop_that_asks_after_every_sample_does(
    criterion: Literal["beta", "dirichlet"],
) -> None:
    for found in search(width=40, threshold=0.95, criterion=criterion):
        answers = answers_of(found.state)
        decided = []
        for end in range(1, len(answers) + 1):
            votes = Counter(one for one in answers[:end] if one is not None)
            decided.append(chance_of_lead(list(votes.values()), criterion) >= 0.95)
        assert not any(decided[:-1])
        assert decided[-1] or len(answers) == 40


def test_agreement_takes_four_samples_and_the_width_is_the_most() -> None:
    sizes = [len(found.state.finished()) for found in search(width=12)]
    assert sizes[3] == sizes[7] == 4  # one answer alone: 1 - 2^-5 > 0.95
    assert max(sizes) == 12
    assert [len(found.state.finished()) for found in search(width=3)] == [3] * 8


def test_the_first_round_can_decide_and_the_next_ones_have_a_batch() -> None:
    for found in search(width=40, batch=8):
        sampled = len(found.state.finished())
        assert sampled == min(4 + 8 * (found.state.rounds - 1), 40)


def test_a_threshold_of_0_is_reached_by_the_first_sample() -> None:
    assert {len(one.state.finished()) for one in search(width=9, threshold=0.0)} == {1}


def test_without_any_answer_all_samples_are_made() -> None:
    found = search(lambda asked, responses: [None] * len(responses), width=9)
    assert {len(one.state.finished()) for one in found} == {9}


def test_answers_are_read_once_each_and_saved_with_the_state() -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []

    def counted(asked: Sequence[SearchProblem], responses: Sequence[Sequence[int]]) -> list[str | None]:
        seen.extend((one.number, tuple(response)) for one, response in zip(asked, responses, strict=True))
        return read(asked, responses)

    found = search(counted, width=20)
    assert len(seen) == sum(len(one.state.finished()) for one in found)
    for one in found:
        assert SearchState.from_json(one.state.to_json()).answers == one.state.answers


def test_a_driver_that_reads_nothing_says_so() -> None:
    with pytest.raises(ValueError, match="nothing that reads them"):
        search(None, width=4)


def test_the_command_reads_answers_by_the_verifier_and_not_its_verdicts() -> None:
    asked: list[tuple[Any, ...]] = []

    def call(*arguments: Any) -> pa.Table:
        asked.append(arguments)
        return pa.table({"answer": ["7", None], "outcome": [1.0, 0.0]})

    parts: Any = SimpleNamespace(verifier=SimpleNamespace(call=call), problems="all of them")
    found = answer_reader(parts)(
        [SearchProblem(3, "p3", (1,), 0), SearchProblem(0, "p0", (1,), 0)], [[5], [6]]
    )
    assert found == ["7", None]
    assert asked == [("judge", "all of them", [3, 0], [[5], [6]], [[], []])]


def test_a_chance_that_is_just_the_threshold_decides() -> None:
    """One vote leads with a chance of exactly 1 - 2^-2."""
    sizes = [len(found.state.finished()) for found in search(width=12, threshold=0.75)]
    assert sizes[3] == sizes[7] == 1
