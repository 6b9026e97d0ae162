"""The elastic fleet without Ray; its behaviour with real actors is in tests/ray."""

from __future__ import annotations

from typing import Any

import pytest

from actors.cluster import placement, processes
from actors.rollout.elastic_fleet import ElasticFleet, FleetEvents, Launch
from actors.rollout.fleet import Member
from airls_ray.config.schema import FailureConfig, Resources


@pytest.mark.parametrize(
    ("node_seen", "said"), [(0.0, "since it was asked for: first rollout after 12.0 s"),
                            (205.0, "since its node came up: first rollout after 7.0 s")],
)  # fmt: skip
def test_a_worker_that_joins_says_how_long_it_took_and_not_how_old_the_run_is(
    node_seen: float, said: str
) -> None:
    lines: list[str] = []
    fleet = ElasticFleet(
        Launch({}, lambda name, room: None), 1, 1, FailureConfig(), start_seconds=60,
        events=FleetEvents(say=lines.append), clock=lambda: 212.0,
    )  # fmt: skip
    fleet.set_weights(None, 3)
    fleet._node_seen["a"] = node_seen
    fleet.delivered(Member("rollout-1", None, node="a", asked=200.0))
    assert lines == [f"rollout-1 has joined; {said}"]


def test_room_is_given_back_when_its_worker_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []

    def reserve(bundle: dict[str, float], name: str) -> str:
        held.append(name)
        return name

    def refuse(name: str) -> Any:
        raise ValueError(f"no class for {name}")

    def start(name: str, room: Any) -> Any:
        return processes.start_actor("module:Worker", name, Resources(), room=room)

    monkeypatch.setattr(placement, "reserve", reserve)
    monkeypatch.setattr(placement, "release", held.remove)
    monkeypatch.setattr(placement, "nodes", lambda: placement.Nodes(frozenset(), frozenset()))
    monkeypatch.setattr(processes, "_host", refuse)
    fleet = ElasticFleet(Launch({}, start), 1, 1, FailureConfig(), start_seconds=60)
    with pytest.raises(ValueError, match="no class for Worker"):
        fleet.step(())
    assert not held
    assert not fleet.members
