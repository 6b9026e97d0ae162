"""ETS, efficient tree search: REBASE on the prefixes that are worth the keys and values that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from airls_ray.search.allocation import choose_leaves
from airls_ray.search.rebase import REBASE
from airls_ray.search.tree import ROOT, SearchState


@dataclass(frozen=True)
class ETS(REBASE):
    """Drop prefixes before the width is shared out (Hooper et al. 2025, arXiv 2502.13575).

    `choose_leaves` says what is maximised; a prefix is worth its part of REBASE's shares, and the tree is
    that of the live prefixes and their ancestors. Equal prefixes are nodes of their own in it, as there.

    With cost weight 0 no prefix costs anything, none is dropped, and this is REBASE, with any coverage
    weight. (The published code turns a cost of 0 into a small bonus, to the same end.)
    """

    cost_weight: float = 1.0
    """lambda_c: price of keeping the whole tree, where the shares together are worth 1."""
    coverage_weight: float = 1.0
    """lambda_s: worth of keeping a prefix of every cluster. The authors tuned it with their clusters, of
    sentence embeddings."""
    distance: float = 0.2
    """Prefixes are in one cluster when their last steps are at most this apart (`step_clusters`)."""

    def keep(self, state: SearchState, live: Sequence[int], room: int) -> Sequence[int]:
        """Return the live nodes that are worth what they need."""
        if self.cost_weight == 0.0:
            return live
        counts = np.array(self.shares(state, live, room), dtype=np.float64)
        kept = choose_leaves(
            _subtree(state, live),
            counts / counts.sum(),
            self.cost_weight,
            self.coverage_weight,
            self._clusters(state, live),
        )
        return [node for node, keep in zip(live, kept, strict=True) if keep]

    def _clusters(self, state: SearchState, live: Sequence[int]) -> list[int] | None:
        if self.coverage_weight == 0.0:
            return None
        steps = [state.response(node)[-state.last_step(node)[0] :] for node in live]
        return step_clusters(steps, self.distance).tolist()


def _subtree(state: SearchState, live: Sequence[int]) -> list[int]:
    """Parents in the tree of `live` (ascending, no node above another) and all their ancestors."""
    nodes = sorted({at for node in live for at in (ROOT, *state.path(node))})
    place = {node: at for at, node in enumerate(nodes)}
    return [-1] + [place[state.nodes[node].parent] for node in nodes[1:]]


def step_clusters(steps: Sequence[Sequence[int]], distance: float) -> NDArray[np.int64]:
    """Cluster steps by their tokens, without a model.

    Two steps are as far apart as their sets of tokens and of pairs of neighbouring tokens (Jaccard: the
    share of both that is not in common, 0 to 1). Average linkage as in ETS, which measures cosines of
    sentence embeddings instead. It sees wording, not meaning: one token replaced in a step of forty is 0.07
    apart, one in a step of six 0.4; so with 0.2 short steps share a cluster only when they are nearly equal.

    Args:
        steps: [steps], tokens of each, at least one.
        distance: clusters whose average distance is at most this are one; 0: equal sets only.

    Returns:
        int64 [steps], labels from 0.
    """
    if len(steps) < 2:
        return np.zeros(len(steps), dtype=np.int64)
    grams = [_grams(step) for step in steps]
    column = {gram: at for at, gram in enumerate(sorted(set().union(*grams)))}
    present = np.zeros((len(steps), len(column)), dtype=np.float32)  # counts below 2**24 are exact
    for row, found in enumerate(grams):
        present[row, [column[gram] for gram in found]] = 1.0
    common = (present @ present.T).astype(np.float64)
    sizes = np.diag(common)
    apart = 1.0 - common / (sizes[:, None] + sizes - common)
    tree = linkage(squareform(apart, checks=False), method="average")
    return np.asarray(fcluster(tree, distance, criterion="distance") - 1, dtype=np.int64)


def _grams(step: Sequence[int]) -> set[tuple[int, ...]]:
    """Tokens and pairs of neighbouring tokens."""
    return {(token,) for token in step} | set(pairwise(step))
