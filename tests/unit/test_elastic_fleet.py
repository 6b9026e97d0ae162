"""The elastic fleet without Ray; its behaviour with real actors is in tests/ray."""

from __future__ import annotations

from typing import Any

import pytest

from actors.cluster import cluster, placement, processes
from actors.rollout.elastic_fleet import ElasticFleet, FleetEvents, Launch
from actors.rollout.fleet import Member
from actors.rollout.rollout_pool import RolloutPool
from actors.train.weight_sync import NCCLWeightSync
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


class Worker:
    """Every call of it is done at once."""

    room = None

    def __getattr__(self, call: str) -> Any:
        return type("Call", (), {"remote": lambda *_: "done"})()


class Learner:
    """Keeps to whom it has sent its weights."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self._workers = 0

    def finish(self, call: str, *arguments: Any) -> None:
        if call == "open_nccl":
            self._workers = len(arguments[0])
        else:
            self.sent.append(self._workers)


class Simulated:
    """A fleet of two workers at most that is synced over NCCL, with a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(placement, "nodes", lambda: placement.Nodes(frozenset(), frozenset()))
        monkeypatch.setattr(cluster, "first_ready", lambda refs, timeout=None: list(refs))
        monkeypatch.setattr(cluster, "fetch", lambda *_: 1.0)
        monkeypatch.setattr(processes, "kill", lambda _: None)
        self.now, self.wanted, self.learner = 0.0, 1, Learner()
        self.fleet = ElasticFleet(
            Launch({}, lambda name, room: Worker()), 1, 2, FailureConfig(), start_seconds=60,
            events=FleetEvents(wanted=lambda: self.wanted), joins_at_sync=True, clock=lambda: self.now,
        )  # fmt: skip
        self.wait()
        self.pool = RolloutPool(self.fleet, 60)
        self.sync = NCCLWeightSync(self.learner, self.pool, 1)  # type: ignore[arg-type]

    def wait(self) -> None:
        for _ in range(5):
            self.now += 20.0
            self.fleet.step(())


def test_over_nccl_a_worker_that_joins_does_not_sample_before_the_next_sync(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Simulated(monkeypatch)
    one.sync.push(1)
    one.wanted = 2
    one.wait()
    assert [member.state for member in one.fleet.members] == ["ready", "syncing"]
    one.sync.push(2)
    assert [(member.state, member.version) for member in one.fleet.members] == [("ready", 2)] * 2
    assert one.learner.sent == [1, 2]


def test_over_nccl_the_last_sync_is_done_again_where_all_workers_are_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Simulated(monkeypatch)
    one.sync.push(7)
    one.fleet.lost(one.fleet.members[0], "its node is gone")
    one.wait()
    assert not one.fleet.ready
    one.pool.advance(0.0)
    assert [member.version for member in one.fleet.ready] == [7]
    assert one.learner.sent == [1, 1]


def test_shares_of_a_worker_that_drains_before_it_gets_them_are_done_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "wait_done", lambda *_: None)
    monkeypatch.setattr(cluster, "all_ready", lambda refs, timeout: list(refs))
    one = Simulated(monkeypatch)
    one.wanted = 2
    one.wait()
    job = one.pool._submit(range(2), lambda worker, rows: object(), owners=[0, 1])
    one.wanted = 1
    one.wait()
    assert [member.name for member in one.fleet.ready] == ["rollout-0"]
    for _ in range(2):
        one.pool.advance(0.0)
    assert sorted(job.done) == [(0,), (1,)]


def test_a_worker_that_takes_large_weights_for_long_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It answers no probe meanwhile: its one thread is at that, or waits for the learner's export."""
    one = Simulated(monkeypatch)
    one.pool.update_weights("weights", 1, wait=False)
    monkeypatch.setattr(cluster, "first_ready", lambda refs, timeout=None: [])
    monkeypatch.setattr(cluster, "all_ready", lambda refs, timeout: [])
    for _ in range(5):
        one.now += 20.0
        one.pool.advance(0.0)
    assert one.fleet.deaths == 0
