"""One call to all workers at once: the driver calls one worker of each node, and that one the node's others.

What a call costs the driver then grows with the nodes, and the nodes' own calls run side by side. Large
objects go through the nodes in waves: Ray fetches a whole copy from any node that has one, so nodes that all
ask at once all get theirs from the one that made it, one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from actors.cluster import cluster
from actors.rollout.fleet import Member

_AT_ONCE = 4
"""Nodes that fetch one object at once from where it was made; more are told in waves."""
_RELAY_SECONDS = 10.0
"""Beyond the deadline for a worker that waits for others: its answer says which of them hung."""


def tell_all(
    members: Sequence[Member],
    call: str,
    arguments: Sequence[Any],
    deadline_seconds: float,
    what: str,
    *,
    large: bool = False,
) -> dict[str, str]:
    """Call a method of all members and wait; a second call must do no harm.

    A worker whose node is not known is called by the driver. So are the others of a node whose first worker
    fails, whatever it may have told them before.

    Args:
        members: workers that are ready.
        call: name of a method of theirs.
        arguments: values or references of it.
        deadline_seconds: longest time for one of them.
        what: the call in words.
        large: whether nodes should get the arguments from each other; each wave of nodes then has the
            deadline.

    Returns:
        By name of each that died, hung or failed: why.

    Raises:
        UserError: a worker's own sentence about its input.
    """
    nodes = by_node(members)
    failed: dict[str, str] = {}
    for wave in waves(nodes) if large else [nodes]:
        failed |= _tell(wave, call, arguments, deadline_seconds, what)
    return failed


def waves(nodes: Sequence[list[Member]]) -> list[Sequence[list[Member]]]:
    """Nodes that are told together: 1, 2, 4 and so on, as many as have it by then; few are one wave."""
    if len(nodes) <= _AT_ONCE:
        return [nodes]
    starts = [2**wave - 1 for wave in range(len(nodes).bit_length())]
    return [nodes[start : 2 * start + 1] for start in starts]


def _tell(
    nodes: Sequence[list[Member]], call: str, arguments: Sequence[Any], deadline_seconds: float, what: str
) -> dict[str, str]:
    """See `tell_all`."""
    asked = [
        (
            first,
            rest,
            first.handle.tell.remote([one.handle for one in rest], call, arguments, deadline_seconds),
        )
        if rest
        else (first, rest, getattr(first.handle, call).remote(*arguments))
        for first, *rest in nodes
    ]
    failed: dict[str, str] = {}
    orphans: list[Member] = []
    until = time.monotonic() + deadline_seconds
    for first, rest, ref in asked:
        try:
            answers = cluster.fetch(ref, deadline_seconds, what, until + (_RELAY_SECONDS if rest else 0.0))
        except cluster.ACTOR_FAILURES as error:
            failed[first.name] = cluster.sentence(error)
            orphans += rest
        else:
            if rest:
                failed |= {one.name: why for one, why in zip(rest, answers, strict=True) if why is not None}
    refs = [getattr(one.handle, call).remote(*arguments) for one in orphans]
    for one, why in zip(orphans, outcomes(refs, deadline_seconds, what), strict=True):
        if why is not None:
            failed[one.name] = why
    return failed


def by_node(members: Sequence[Member]) -> list[list[Member]]:
    """Members of the same node together; those of an unknown one each alone."""
    nodes: dict[str, list[Member]] = {}
    for member in members:
        nodes.setdefault(f"node {member.node}" if member.node else f"worker {member.name}", []).append(member)
    return list(nodes.values())


def outcomes(
    refs: Sequence[Any], deadline_seconds: float, what: str, until: float | None = None
) -> list[str | None]:
    """Wait for calls; for each None, or why it died, hung or failed.

    Args:
        refs: their references.
        deadline_seconds: longest time for all, counted from now.
        what: the call in words.
        until: its end in `time.monotonic()`, where it began before.

    Raises:
        UserError: a worker's own sentence about its input.
    """
    until = time.monotonic() + deadline_seconds if until is None else until
    reasons: list[str | None] = []
    for ref in refs:
        try:
            cluster.fetch(ref, deadline_seconds, what, until)
        except cluster.ACTOR_FAILURES as error:
            reasons.append(cluster.sentence(error))
        else:
            reasons.append(None)
    return reasons
