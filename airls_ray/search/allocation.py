"""How REBASE shares a width out over prefixes, and which prefixes ETS keeps: pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from scipy.special import softmax

SOLVER_SECONDS = 10.0
"""Most seconds of the integer program. It takes 10 to 50 ms for 16 to 256 leaves, so that this is a guard,
not a part of the result."""


def rebase_counts(scores: NDArray[np.float64], width: int, temperature: float) -> NDArray[np.int64]:
    """Share `width` continuations out in proportion to exp(score / temperature).

    REBASE (Wu et al. 2024, arXiv 2408.00724). Its share of a node is a real number; here every node gets
    the whole part of its share, and what is left goes one each to the largest remainders (of equal ones to
    the higher score, then to the earlier node). So each count is less than one away from its share, and the
    sum is `width`. (The published loop rounds up node by node: it favours the best nodes, and by
    cancellation its sum exceeds `width` in one float64 case of ten.)

    Args:
        scores: [nodes], at least one, finite; higher is better.
        width: how many continuations, not negative.
        temperature: above 0, in units of the scores; inf shares out evenly, near 0 the best nodes get all.

    Returns:
        int64 [nodes], not negative, sum `width`.

    Raises:
        ValueError: an argument is not as above.
    """
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite and at least one, but are {scores}")
    if width < 0 or not temperature > 0.0:
        raise ValueError(
            f"the width must not be negative and the temperature above 0, but are {width} and {temperature}"
        )
    # Halves, so that the gap between any two numbers is finite; over a tiny temperature it may overflow,
    # and then its share is 0, as it should be.
    with np.errstate(over="ignore"):
        gaps = 2.0 * ((scores / 2.0 - scores.max() / 2.0) / temperature)
    shares = width * softmax(gaps)
    counts = np.floor(shares).astype(np.int64)
    by_remainder = np.lexsort((np.arange(len(scores)), -scores, counts - shares))
    counts[by_remainder[: width - counts.sum()]] += 1
    return counts


def choose_leaves(
    parents: Sequence[int],
    worth: NDArray[np.float64],
    cost_weight: float,
    coverage_weight: float = 0.0,
    clusters: Sequence[int] | None = None,
    seconds: float = SOLVER_SECONDS,
) -> NDArray[np.bool_]:
    """Choose the leaves of a tree that are worth the nodes that they need.

    The choice S of ETS (Hooper et al. 2025, arXiv 2502.13575): the leaves, at least one, that maximise

        sum of worth over S  -  cost_weight * (nodes that S needs) / (all nodes)
                             +  coverage_weight * (clusters with a leaf in S) / (all clusters)

    where S needs its leaves and all their ancestors. Exact, bottom-up, where the coverage changes nothing
    or belongs to single leaves; an integer program (HiGHS, exact up to its tolerances) else. A leaf or
    branch that changes nothing is kept by the first; so without costs every leaf is kept.

    Args:
        parents: [nodes], parent of each node, which comes before it; -1 for the root, which is node 0.
            Leaves are the nodes without children.
        worth: [leaves], in the order of the nodes; finite, not negative.
        cost_weight: lambda_c, not negative.
        coverage_weight: lambda_s, not negative.
        clusters: [leaves], labels; None: no coverage.
        seconds: limit of the integer program. Where it ends one, the best choice found so far is returned,
            or if there is none the choice without the clusters of several leaves.

    Returns:
        [leaves], True for those kept.

    Raises:
        ValueError: an argument is not as above.
    """
    _check_tree(parents)
    above = np.asarray(parents, dtype=np.int64)
    leaves = np.setdiff1d(np.arange(len(above)), above)
    _check_leaves(len(leaves), worth, cost_weight, coverage_weight, clusters)
    price = cost_weight / len(above)
    gains = np.asarray(worth, dtype=np.float64) - price
    if price == 0.0:
        return np.ones(len(leaves), dtype=np.bool_)
    if clusters is None or coverage_weight == 0.0:
        return _best_subtree(above, leaves, gains, price)
    _, labels, sizes = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    bonus = coverage_weight / len(sizes)
    if len(sizes) == 1:  # any choice covers it
        return _best_subtree(above, leaves, gains, price)
    alone = sizes[labels] == 1
    gains[alone] += bonus
    if alone.all():
        return _best_subtree(above, leaves, gains, price)
    labels[alone] = -1
    found = _integer_program(above, leaves, gains, price, labels, bonus, seconds)
    return _best_subtree(above, leaves, gains, price) if found is None else found


def _best_subtree(
    parents: NDArray[np.int64], leaves: NDArray[np.int64], gains: NDArray[np.float64], price: float
) -> NDArray[np.bool_]:
    """The best choice without coverage.

    What a node adds is its own gain (minus its price, for a branch) and the sum of its children that do not
    take away, or of the one that takes away least where all do.
    """
    value = np.full(len(parents), -price)
    value[leaves] = gains
    adds = [False] * len(parents)
    best = [-1] * len(parents)
    is_branch = np.ones(len(parents), dtype=np.bool_)
    is_branch[leaves] = False
    below = [0.0] * len(parents)
    for node in range(len(parents) - 1, -1, -1):
        if is_branch[node]:
            value[node] += below[node] if adds[node] else value[best[node]]
        above = parents[node]
        if node == 0:
            break
        if value[node] >= 0.0:
            adds[above] = True
            below[above] += value[node]
        if best[above] < 0 or value[node] >= value[best[above]]:
            best[above] = node
    kept = np.zeros(len(parents), dtype=np.bool_)
    kept[0] = True
    for node in range(1, len(parents)):
        above = parents[node]
        kept[node] = kept[above] and (value[node] >= 0.0 if adds[above] else best[above] == node)
    return np.asarray(kept[leaves])


def _integer_program(
    parents: NDArray[np.int64],
    leaves: NDArray[np.int64],
    gains: NDArray[np.float64],
    price: float,
    labels: NDArray[np.int64],
    bonus: float,
    seconds: float,
) -> NDArray[np.bool_] | None:
    """The best choice with coverage of the clusters whose label is not negative; None: none found in time.

    Variables: a number in [0, 1] for each node and each cluster. Only leaves must be integers: the others
    then are at an optimum, because a branch costs (so it is the largest of its children) and a cluster pays
    (so it is 1 as soon as one of its leaves is).
    """
    members = np.flatnonzero(labels >= 0)
    found, cluster = np.unique(labels[members], return_inverse=True)
    nodes, clusters, below = len(parents), np.arange(len(found)), np.arange(1, len(parents))
    value = np.full(nodes + len(found), -price)
    value[leaves], value[nodes:] = gains, bonus
    # Rows: parent >= child; sum of a cluster's leaves >= the cluster.
    rows = [below - 1, below - 1, nodes - 1 + cluster, nodes - 1 + clusters]
    columns = [parents[1:], below, leaves[members], nodes + clusters]
    signs = [np.ones(nodes - 1), -np.ones(nodes - 1), np.ones(len(members)), -np.ones(len(found))]
    matrix = coo_array((np.concatenate(signs), (np.concatenate(rows), np.concatenate(columns)))).tocsr()
    is_leaf = np.zeros(len(value))
    is_leaf[leaves] = 1.0
    result = milp(
        -value,
        integrality=is_leaf,
        bounds=Bounds(0.0, 1.0),
        constraints=[LinearConstraint(matrix, lb=0.0), LinearConstraint(is_leaf[None, :], lb=1.0)],
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    return None if result.x is None else np.asarray(result.x[leaves] > 0.5)


def _check_tree(parents: Sequence[int]) -> None:
    if not len(parents) or parents[0] != -1:
        raise ValueError("a tree needs a root, which is its first node and has the parent -1")
    for node, above in enumerate(parents):
        if node and not 0 <= above < node:
            raise ValueError(f"parents come before their children, but that of node {node} is {above}")


def _check_leaves(
    leaves: int,
    worth: NDArray[np.float64],
    cost_weight: float,
    coverage_weight: float,
    clusters: Sequence[int] | None,
) -> None:
    if len(worth) != leaves or (clusters is not None and len(clusters) != leaves):
        raise ValueError(f"the tree has {leaves} leaves: each needs a worth and a cluster")
    weights = (cost_weight, coverage_weight)
    if not all(weight >= 0.0 and isfinite(weight) for weight in (*weights, *worth)):
        raise ValueError(f"weights and worths must be finite and not negative: {weights}, {worth}")
