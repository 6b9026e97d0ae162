"""Which actors fit on which node: first fit of their GPUs, the largest first.

Ray decides for itself at run time; this says that a placement exists, and shows one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_EPSILON = 1e-9


@dataclass(frozen=True)
class ActorDemand:
    """`count` equal actors, and what each asks of Ray."""

    name: str
    count: int
    cpus: float
    gpus: float
    custom: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Node:
    """A machine: who stands on it, and on which of its GPUs."""

    gpus: list[list[str]]
    """Names of the actors on each GPU."""
    actors: Counter[str] = field(default_factory=Counter)
    cpus: float = 0.0
    """CPUs that its actors ask for."""
    free: list[float] = field(default_factory=list)
    """Free share of each GPU."""
    custom: frozenset[str] = frozenset()
    """Custom resources that the node must have for its actors."""


@dataclass(frozen=True)
class Placement:
    """The nodes that are needed, and a sentence for each actor that can never be placed."""

    nodes: tuple[Node, ...]
    never: tuple[str, ...]


def place(demands: Sequence[ActorDemand], gpus_per_node: int) -> Placement:
    """Put every actor on the first node that has its GPUs free; nodes are added as they are needed.

    A share below 1 goes on one GPU, which actors may share; an actor with several GPUs has them whole and
    on one node. A custom resource marks the nodes that have it: actors that ask for different ones stand on
    different nodes. How much a node has of it, and of CPUs, is not known and limits nothing.
    """
    nodes = [_new_node(gpus_per_node)]
    never: list[str] = []
    for demand in sorted(demands, key=lambda one: -one.gpus):
        reason = _impossible(demand, gpus_per_node)
        if reason is not None:
            never.append(reason)
            continue
        for _ in range(demand.count):
            node = next((one for one in nodes if _takes(one, demand)), None)
            if node is None:
                node = _new_node(gpus_per_node)
                nodes.append(node)
            _put(node, demand)
    return Placement(tuple(nodes), tuple(never))


def _new_node(gpus: int) -> Node:
    return Node(gpus=[[] for _ in range(gpus)], free=[1.0] * gpus)


def _impossible(demand: ActorDemand, gpus_per_node: int) -> str | None:
    if demand.count and demand.gpus > gpus_per_node:
        return (
            f"a {demand.name} can never be placed: it needs {demand.gpus:g} GPUs of one node, and a node has "
            f"{gpus_per_node}"
        )
    if demand.count and demand.gpus > 1 and demand.gpus != int(demand.gpus):
        return (
            f"a {demand.name} can never be placed: Ray gives whole GPUs above 1, but it needs {demand.gpus:g}"
        )
    return None


def _chosen(node: Node, gpus: float) -> list[int] | None:
    """Numbers of the GPUs that an actor would get on this node, or None."""
    count, share = (1, gpus) if 0 < gpus < 1 else (int(gpus), 1.0)
    fitting = [number for number, free in enumerate(node.free) if free + _EPSILON >= share]
    return fitting[:count] if len(fitting) >= count else None


def _takes(node: Node, demand: ActorDemand) -> bool:
    asked = _asked(demand)
    mixed = node.custom and asked and node.custom != asked
    return not mixed and _chosen(node, demand.gpus) is not None


def _asked(demand: ActorDemand) -> frozenset[str]:
    return frozenset(name for name, amount in demand.custom.items() if amount)


def _put(node: Node, demand: ActorDemand) -> None:
    for number in _chosen(node, demand.gpus) or []:
        node.free[number] -= min(demand.gpus, 1.0)
        node.gpus[number].append(demand.name)
    node.actors[demand.name] += 1
    node.cpus += demand.cpus
    node.custom |= _asked(demand)
