"""ETS: the choice of leaves against all subsets and the published program, clusters by hand, the search."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from airls_ray.search import allocation
from airls_ray.search.allocation import choose_leaves, rebase_counts
from airls_ray.search.ets import ETS, step_clusters
from airls_ray.search.rebase import REBASE
from tests.unit.search_fakes import run

SEEDS = range(8)
COSTS = (0.3, 1.0, 1.7, 4.0)


def random_tree(seed: int, leaves: int, depth: int = 4) -> tuple[list[int], NDArray[np.float64], list[int]]:
    """Parents of a tree whose leaves are all `depth` below the root, worths that sum to 1, clusters."""
    rng = np.random.default_rng(seed)
    sizes = [1, *np.sort(rng.integers(1, leaves, depth - 1)), leaves]
    parents, level = [-1], [0]
    for size in sizes[1:]:
        above = [*level, *rng.choice(level, max(size - len(level), 0))]
        level = list(range(len(parents), len(parents) + len(above)))
        parents += sorted(above)
    counts = rng.multinomial(2 * len(level), rng.dirichlet([0.5] * len(level)))
    return [int(at) for at in parents], counts / counts.sum(), rng.integers(0, 4, len(level)).tolist()


def ancestors(parents: Sequence[int], leaf: int) -> set[int]:
    """All nodes above a leaf."""
    found = set()
    while parents[leaf] >= 0:
        leaf = parents[leaf]
        found.add(leaf)
    return found


def leaves_of(parents: Sequence[int]) -> list[int]:
    return [node for node in range(len(parents)) if node not in parents]


def objective(
    parents: Sequence[int],
    worth: Sequence[float] | NDArray[np.float64],
    cost: float,
    coverage: float,
    clusters: Sequence[int],
    kept: Sequence[bool] | NDArray[np.bool_],
) -> float:
    """What a choice is worth, from its definition."""
    chosen = [(at, leaf) for at, leaf in enumerate(leaves_of(parents)) if kept[at]]
    nodes = {node for _, leaf in chosen for node in {leaf} | ancestors(parents, leaf)}
    covered = {clusters[at] for at, _ in chosen}
    return (
        sum(worth[at] for at, _ in chosen)
        - cost * len(nodes) / len(parents)
        + coverage * len(covered) / len(set(clusters))
    )


def best_subset(
    parents: Sequence[int],
    worth: Sequence[float] | NDArray[np.float64],
    cost: float,
    coverage: float,
    clusters: Sequence[int],
) -> float:
    """The most that any choice of at least one leaf is worth."""
    choices = [kept for kept in product([False, True], repeat=len(worth)) if any(kept)]
    return max(objective(parents, worth, cost, coverage, clusters, kept) for kept in choices)


@pytest.mark.parametrize("cost", COSTS)
def test_no_subset_is_worth_more_than_the_choice(cost: float) -> None:
    for seed in range(40):
        parents, worth, clusters = random_tree(seed, leaves=2 + seed % 7)
        kept = choose_leaves(parents, worth, cost)
        assert kept.any()
        found = objective(parents, worth, cost, 0.0, clusters, kept)
        assert found == pytest.approx(best_subset(parents, worth, cost, 0.0, clusters), abs=1e-12)


@pytest.mark.parametrize("cost", COSTS)
def test_no_subset_is_worth_more_than_the_choice_with_coverage(cost: float) -> None:
    for seed in range(12):
        parents, worth, clusters = random_tree(seed, leaves=3 + seed % 6)
        kept = choose_leaves(parents, worth, cost, 1.4, clusters)
        assert kept.any()
        found = objective(parents, worth, cost, 1.4, clusters, kept)
        assert found == pytest.approx(best_subset(parents, worth, cost, 1.4, clusters), abs=1e-6)


def published_best(
    parents: Sequence[int], worth: NDArray[np.float64], cost: float, coverage: float, clusters: Sequence[int]
) -> float:
    """Value of the integer program as published: all variables binary, each branch tied to each leaf."""
    leaves = leaves_of(parents)
    branches = [node for node in range(len(parents)) if node not in leaves]
    names = sorted(set(clusters))
    size = len(leaves) + len(branches) + len(names)
    value = np.full(size, -cost / len(parents))
    value[: len(leaves)] += worth
    value[size - len(names) :] = coverage / len(names)
    rows = [(np.arange(size) < len(leaves)).astype(np.float64)]
    for place, branch in enumerate(branches, len(leaves)):
        under = [at for at, leaf in enumerate(leaves) if branch in ancestors(parents, leaf)]
        row = np.zeros(size)
        row[under], row[place] = 1.0, -1.0
        rows.append(row)
        for at in under:
            row = np.zeros(size)
            row[place], row[at] = 1.0, -1.0
            rows.append(row)
    for place, name in enumerate(names, len(leaves) + len(branches)):
        row = np.zeros(size)
        row[: len(leaves)] = np.array(clusters) == name
        row[place] = -1.0
        rows.append(row)
    least = [1.0] + [0.0] * (len(rows) - 1)
    found = milp(
        -value,
        integrality=np.ones(size),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(np.array(rows), lb=least),
        options={"mip_rel_gap": 0.0},
    )
    return float(-found.fun)


@pytest.mark.parametrize("coverage", [0.0, 0.5])
def test_the_choice_is_worth_what_the_published_program_finds(coverage: float) -> None:
    for seed in range(8):
        parents, worth, clusters = random_tree(100 + seed, leaves=24, depth=5)
        kept = choose_leaves(parents, worth, 1.0, coverage, clusters)
        found = objective(parents, worth, 1.0, coverage, clusters, kept)
        assert found == pytest.approx(published_best(parents, worth, 1.0, coverage, clusters), abs=1e-6)


TWO_BRANCHES = [-1, 0, 0, 1, 1, 2]
"""The leaves 3 and 4 under one branch, 5 alone under the other."""


@pytest.mark.parametrize(
    ("cost", "kept"),
    [(0.0, [True, True, True]), (1.0, [True, True, True]), (1.5, [False, False, True])],
)
def test_a_branch_goes_when_its_leaves_are_not_worth_it(cost: float, kept: list[bool]) -> None:
    assert choose_leaves(TWO_BRANCHES, np.array([0.3, 0.3, 0.4]), cost).tolist() == kept


def test_coverage_keeps_a_leaf_of_every_cluster() -> None:
    # A node costs 1/4; leaf 4 is not worth it, leaf 3 is only with its cluster: 0.25 - 2/4 + 0.5.
    worth = np.array([0.25, 0.05, 0.7])
    assert choose_leaves(TWO_BRANCHES, worth, 1.5).tolist() == [False, False, True]
    assert choose_leaves(TWO_BRANCHES, worth, 1.5, 1.0, [0, 0, 1]).tolist() == [True, False, True]
    assert choose_leaves(TWO_BRANCHES, worth, 1.5, 1.0, [0, 1, 1]).tolist() == [True, False, True]


def test_coverage_of_one_cluster_changes_nothing() -> None:
    worth = np.array([0.25, 0.05, 0.7])
    assert choose_leaves(TWO_BRANCHES, worth, 1.5, 9.0, [7, 7, 7]).tolist() == [False, False, True]


def test_without_costs_worthless_leaves_stay() -> None:
    assert choose_leaves(TWO_BRANCHES, np.array([0.0, 0.0, 1.0]), 0.0, 1.4, [0, 0, 1]).all()


def test_prohibitive_costs_leave_the_best_leaf() -> None:
    kept = choose_leaves(TWO_BRANCHES, np.array([0.3, 0.4, 0.3]), 100.0)
    assert kept.tolist() == [False, True, False]


def test_leaves_that_are_worth_just_their_price_stay() -> None:
    for last in (0.25, 0.5):
        assert choose_leaves([-1, 0, 0, 0], np.array([0.25, 0.25, last]), 1.0).all()


def test_of_equal_leaves_the_first_stays() -> None:
    assert choose_leaves([-1, 0, 0, 0], np.array([0.2, 0.4, 0.4]), 9.0).tolist() == [False, True, False]


def test_a_program_without_a_result_leaves_the_choice_without_coverage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parents, worth, _ = random_tree(3, leaves=12)
    monkeypatch.setattr(allocation, "milp", lambda *args, **kwargs: SimpleNamespace(x=None))
    kept = choose_leaves(parents, worth, 1.0, 0.4, [0, 1] * 6)
    assert kept.tolist() == choose_leaves(parents, worth, 1.0).tolist()


def test_the_time_limit_reaches_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def remember(*args: object, options: dict[str, float], **kwargs: object) -> SimpleNamespace:
        given.update(options)
        return SimpleNamespace(x=None)

    monkeypatch.setattr(allocation, "milp", remember)
    choose_leaves(TWO_BRANCHES, np.array([0.3, 0.3, 0.4]), 1.0, 1.0, [0, 0, 1], seconds=2.5)
    assert given["time_limit"] == 2.5


@pytest.mark.parametrize(
    ("parents", "worth", "cost", "clusters", "message"),
    [
        ([], [], 1.0, None, "needs a root"),
        ([0, 0], [1.0], 1.0, None, "needs a root"),
        ([-1, 2, 0], [1.0, 0.0], 1.0, None, "node 1 is 2"),
        ([-1, 0, 0], [1.0], 1.0, None, "2 leaves"),
        ([-1, 0, 0], [0.5, 0.5], 1.0, [0], "2 leaves"),
        ([-1, 0, 0], [0.5, -0.5], 1.0, None, "not negative"),
        ([-1, 0, 0], [0.5, 0.5], -1.0, None, "not negative"),
        ([-1, 0, 0], [0.5, np.nan], 1.0, None, "finite"),
    ],
)
def test_a_tree_that_is_none_is_an_error(
    parents: list[int], worth: list[float], cost: float, clusters: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        choose_leaves(parents, np.array(worth), cost, 1.0, clusters)


def grouped(steps: list[list[int]], distance: float) -> list[list[int]]:
    """Members of each cluster."""
    labels = step_clusters(steps, distance).tolist()
    return sorted([at for at, label in enumerate(labels) if label == one] for one in set(labels))


@pytest.mark.parametrize(("distance", "together"), [(0.0, False), (0.57, False), (0.58, True)])
def test_steps_are_apart_what_their_tokens_and_pairs_do_not_share(distance: float, together: bool) -> None:
    # In common: 1, 2 and (1, 2); besides 3, (2, 3) and 4, (2, 4): 4 of 7, that is 0.571.
    assert grouped([[1, 2, 3], [1, 2, 4]], distance) == ([[0, 1]] if together else [[0], [1]])


@pytest.mark.parametrize(
    ("distance", "wanted"),
    [(0.16, [[0], [1], [2]]), (0.17, [[0, 2], [1]]), (0.59, [[0, 2], [1]]), (0.60, [[0, 1, 2]])],
)
def test_clusters_are_as_far_apart_as_their_members_on_average(
    distance: float, wanted: list[list[int]]
) -> None:
    # 0 and 2 are 1/6 apart, 1 is 4/7 from 0 and 5/8 from 2, 0.598 on average.
    assert grouped([[1, 2, 3], [1, 2, 4], [1, 2, 3, 3]], distance) == wanted


def test_equal_steps_are_one_cluster_at_any_distance() -> None:
    assert grouped([[5, 6], [8], [5, 6], [8]], 0.0) == [[0, 2], [1, 3]]


def test_steps_with_nothing_in_common_are_apart_up_to_one() -> None:
    assert grouped([[5, 6], [8, 9]], 0.99) == [[0], [1]]


def test_one_step_is_one_cluster() -> None:
    assert step_clusters([[5, 6]], 0.2).tolist() == [0]


@pytest.mark.parametrize("coverage", [0.0, 1.4])
def test_without_costs_it_is_rebase(coverage: float) -> None:
    for seed in SEEDS:
        searcher = ETS(12, cost_weight=0.0, coverage_weight=coverage)
        assert run(searcher, seed=seed) == run(REBASE(12), seed=seed)


def test_costs_change_the_search() -> None:
    plain = ETS(12, coverage_weight=0.0)
    assert any(run(plain, seed=seed) != run(REBASE(12), seed=seed) for seed in SEEDS)


def test_coverage_changes_the_search() -> None:
    plain, covering = ETS(12, cost_weight=3.0, coverage_weight=0.0), ETS(12, cost_weight=3.0)
    assert any(run(plain, seed=seed) != run(covering, seed=seed) for seed in SEEDS)


@pytest.mark.parametrize("coverage", [0.0, 0.6])
def test_the_live_prefixes_that_stay_are_the_best_choice_in_the_tree(coverage: float) -> None:
    searcher = ETS(7, temperature=1.0, cost_weight=1.4, coverage_weight=coverage)
    dropped = 0
    for seed in SEEDS:
        state = run(searcher, seed=seed, rounds=3, letters=2, end=0.1)
        live = [node for node in state.last if not state.nodes[node].finished]
        if len(live) < 2:
            continue
        nodes = sorted({0, *(at for node in live for at in state.path(node))})
        parents = [-1] + [nodes.index(state.nodes[node].parent) for node in nodes[1:]]
        counts = rebase_counts(np.array([state.nodes[node].scores[-1] for node in live]), len(live), 1.0)
        worth = (counts / counts.sum()).tolist()
        clusters = step_clusters([state.nodes[node].tokens for node in live], 0.2).tolist()
        kept = searcher.keep(state, live, len(live))
        found = objective(parents, worth, 1.4, coverage, clusters, [node in kept for node in live])
        assert found == pytest.approx(best_subset(parents, worth, 1.4, coverage, clusters), abs=1e-6)
        dropped += len(live) - len(kept)
    assert dropped


def test_as_many_responses_finish_as_the_width_has() -> None:
    for seed in SEEDS:
        state = run(ETS(9), seed=seed, alone=seed % 2 == 0)
        assert state.over
        assert len(state.finished()) == 9


def test_answers_may_come_in_any_order_and_twice() -> None:
    for seed in SEEDS:
        assert run(ETS(8), seed=seed, shuffle=seed) == run(ETS(8), seed=seed)


def test_a_search_goes_on_from_a_saved_state() -> None:
    for seed in SEEDS:
        assert run(ETS(8), seed=seed, save=True) == run(ETS(8), seed=seed)
