"""The library treequest behind a search that is asked in rounds, by a tree that is made again from its past.

treequest's algorithms are asked for trials and told a state and a score for each. Their own state is objects
that are no JSON, and they draw from numpy's global generator. So a search saves only what was told, and makes
the tree from that: with the seed of each batch set before it is asked, it asks for the same again. Trees are
kept while a search runs, since to make one again takes as many draws as all rounds before.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import numpy as np

from airls_ray.seeding import derive_seed

_ACTIONS = ["continue"]
"""The one way to make a child."""
Distribution = Literal["gaussian", "beta"]
Batch = list[tuple[int, float]]
"""Number and score in [0, 1] of each child of a batch."""


class Trial(Protocol):
    """What treequest asks for."""

    trial_id: str
    parent_state: int | None
    """State of the node that gets a child; None: the root."""


class TreeAlgorithm(Protocol):
    """What is used of `treequest.Algorithm`, whose nodes have the number of one of ours as their state."""

    def init_tree(self) -> Any:
        """A tree of the root alone."""
        ...

    def ask_batch(self, state: Any, batch_size: int, actions: list[str]) -> tuple[Any, Sequence[Trial]]:
        """Which nodes get children next."""
        ...

    def tell(self, state: Any, trial_id: str, result: tuple[int, float]) -> Any:
        """Take a child and its score in [0, 1]."""
        ...


class ReplayedTree:
    """A tree of treequest that has been told of some batches; asks for the next."""

    def __init__(self, algorithm: TreeAlgorithm, seed: int) -> None:
        """An empty tree whose batches are drawn by seeds derived from `seed`."""
        self._algorithm, self._seed = algorithm, seed
        self._tree = algorithm.init_tree()
        self._trials: Sequence[Trial] = ()
        self.told: list[Batch] = []

    def ask(self, size: int) -> list[int]:
        """Return the nodes that get a child each (0: the root), in the order in which `tell` takes these."""
        with _global_seed(derive_seed(self._seed, "treequest", len(self.told))):
            self._tree, self._trials = self._algorithm.ask_batch(self._tree, size, _ACTIONS)
        return [trial.parent_state or 0 for trial in self._trials]

    def tell(self, children: Batch) -> None:
        """Take the children of the last batch."""
        for trial, child in zip(self._trials, children, strict=True):
            self._tree = self._algorithm.tell(self._tree, trial.trial_id, child)
        self.told.append(children)
        self._trials = ()

    def follow(self, told: Sequence[Batch]) -> bool:
        """Take all batches that it has not been told of; False: it has seen another past."""
        known = len(self.told)
        if self.told != list(told[:known]):
            return False
        for batch in told[known:]:
            if not self._trials:
                self.ask(len(batch))
            self.tell(batch)
        return True


class TreeMemory:
    """Trees of the problems that are searched now, by their seeds; one that was dropped is made again."""

    def __init__(self, algorithm: Callable[[], TreeAlgorithm], most: int = 1024) -> None:
        """`most`: trees that are kept."""
        self._algorithm, self._most = algorithm, most
        self._trees: dict[int, ReplayedTree] = {}

    def tree(self, seed: int, told: Sequence[Batch]) -> ReplayedTree:
        """Return the tree of a seed that was told so much."""
        found = self._trees.pop(seed, None)
        if found is None or not found.follow(told):
            found = ReplayedTree(self._algorithm(), seed)
            found.follow(told)
        self._trees[seed] = found
        if len(self._trees) > self._most:
            del self._trees[next(iter(self._trees))]
        return found


def ab_mcts_a(distribution: Distribution) -> TreeAlgorithm:
    """Return AB-MCTS-A of the library, with the given distribution of a node's scores."""
    made: TreeAlgorithm = importlib.import_module("treequest").ABMCTSA(dist_type=distribution)
    return made


def lacks_treequest() -> str | None:
    """Return what to do where the library is missing, else None."""
    if importlib.util.find_spec("treequest") is not None:
        return None
    return "the search ab_mcts needs the package treequest: pip install treequest"


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Numpy's global generator with a seed, and as it was behind it."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
