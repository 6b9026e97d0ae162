"""The adapter to Ray's placement groups and nodes: room for one actor each, and which nodes come and go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import state as _state
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

_CREATED = "CREATED"


@dataclass(frozen=True)
class Nodes:
    """The cluster's nodes by identifier."""

    alive: frozenset[str]
    draining: frozenset[str]
    """Alive, but about to go: nothing new belongs there."""


def nodes() -> Nodes:
    """The nodes as they are now."""
    alive = frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])
    return Nodes(alive, frozenset(_state.get_draining_nodes()) & alive)


def reserve(bundle: dict[str, float], name: str) -> Any:
    """Ask for room for one actor; returns the placement group at once.

    A group that no node can hold yet waits; an autoscaler reads it as demand and brings a node.
    """
    return placement_group([bundle or {"CPU": 0.001}], name=name)


def node_of(group: Any) -> str | None:
    """Node on which the room is, or None while there is none."""
    table = placement_group_table(group)
    if table.get("state") != _CREATED:
        return None
    found = table["bundles_to_node_id"]
    return str(next(iter(found.values()))) if found else None


def release(group: Any) -> None:
    """Give the room back; an actor in it ends."""
    remove_placement_group(group)
