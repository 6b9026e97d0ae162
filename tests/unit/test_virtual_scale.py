"""The real loops in virtual time: against the stages by hand and a plain recurrence, and twice the same."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from virtual_cluster import Clock, Ref, VirtualActor
from virtual_loop import Scenario, learner_gpus, simulate
from virtual_parts import EVEN, PROMPT, REASONING, SHAPE, Network, weights_size

from airls_ray.errors import ProcessLost
from airls_ray.planning.costs import Hardware, decode_seconds, prefill_seconds

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SIZE = weights_size()


class Sleeper:
    """Takes the seconds it is told, and says when."""

    def work(self, seconds: float, *_: object) -> tuple[float, str]:
        return seconds, f"after {seconds:g}"


def test_calls_of_an_actor_run_one_after_the_other() -> None:
    clock = Clock()
    actor = VirtualActor(clock, Sleeper())
    refs = [actor.work.remote(seconds) for seconds in (3.0, 1.0, 2.0)]
    seen = []
    for ref in refs:
        clock.wait_done(ref, 100, "work")
        seen.append(clock.now)
    assert seen == [3.0, 4.0, 6.0]


def test_a_call_waits_for_what_it_reads_and_holds_up_those_behind_it() -> None:
    clock = Clock()
    slow, actor = VirtualActor(clock, Sleeper()), VirtualActor(clock, Sleeper())
    late = slow.work.remote(5.0)
    first, second = actor.work.remote(1.0, [late]), actor.work.remote(1.0)
    assert clock.fetch([first, second], 100, "work") == ["after 1", "after 1"]
    assert clock.now == 7.0


def test_a_deadline_is_kept_to_the_second() -> None:
    clock = Clock()
    ref = VirtualActor(clock, Sleeper()).work.remote(8.0)
    with pytest.raises(ProcessLost, match="work did not finish within 5 s"):
        clock.fetch(ref, 5.0, "work")
    assert clock.now == 5.0


def test_waiting_for_many_ends_with_the_first() -> None:
    clock = Clock()
    refs = [VirtualActor(clock, Sleeper()).work.remote(seconds) for seconds in (7.0, 2.0, 9.0)]
    assert clock.all_ready(refs, 1.5) == []
    assert (clock.all_ready(refs, 10.0), clock.now) == ([refs[1]], 2.0)


def test_what_is_there_is_not_waited_for() -> None:
    clock = Clock()
    assert (clock.fetch(Ref.of(4), 1.0, "a value"), clock.now) == (4, 0.0)


def test_nodes_that_ask_at_once_are_served_one_after_the_other() -> None:
    network = Network(Hardware(network=SIZE / 2.0), SIZE)
    assert [network.arrives(1, f"node-{node}", 10.0) for node in range(3)] == pytest.approx([12, 14, 16])
    assert network.arrives(1, "node-1", 10.0) == pytest.approx(14)  # who asks again gets no second copy


def test_nodes_that_ask_in_turn_may_get_it_from_each_other() -> None:
    network = Network(Hardware(network=SIZE / 2.0), SIZE)
    now, wave, done = 0.0, 1, 0
    while done < 127:
        now = max(network.arrives(1, f"node-{done + one}", now) for one in range(wave))
        done, wave = done + wave, 2 * wave
    assert now < 127 * 2.0 / 4  # the seconds of one source, four times over; at best 7 rounds of 2 s
    assert now >= 7 * 2.0


def share_seconds(rollouts: int = 64) -> float:
    decoding = decode_seconds(SHAPE, Hardware(), [4096] * rollouts, prompt=PROMPT, max_sequences=256)
    return prefill_seconds(SHAPE, Hardware(), rollouts // 8, PROMPT) + decoding


def learning_seconds(scenario: Scenario) -> float:
    """Passes and updates of both learners, by their FLOPs."""
    tokens = scenario.workers * 64 * (4096 + PROMPT)
    token = 2 * 7_070_615_552 + 2 * 28 * 3584 * (4096 + PROMPT)
    policy, prm = learner_gpus(scenario)
    update, passes = 4 * token * tokens / (989e12 * 0.4), token * tokens / (989e12 * 0.5)
    return (update + passes) / prm + (update + passes * (scenario.staleness > 0)) / policy


def test_the_synchronous_loop_takes_its_stages_one_after_the_other(tmp_path: Path) -> None:
    scenario = Scenario(16, 4, lengths=EVEN, learning_seconds=50.0, nccl=True)
    found = simulate(scenario, tmp_path / "run")
    grading, sync = 16 * 64 / (16 * 200.0), SIZE / 25e9
    by_hand = share_seconds() + grading + learning_seconds(scenario) + sync
    assert found.iteration_seconds == pytest.approx(by_hand, rel=1e-6)
    assert found.rollouts_per_second == pytest.approx(16 * 64 / by_hand, rel=1e-6)
    assert found.busy_share == pytest.approx(share_seconds() / by_hand, rel=1e-6)


@pytest.mark.parametrize("staleness", [1, 2, 3])
@pytest.mark.parametrize("learning", [20.0, 60.0])
def test_sampling_and_learning_overlap(staleness: int, learning: float, tmp_path: Path) -> None:
    scenario = Scenario(16, 12, lengths=EVEN, learning_seconds=learning, staleness=staleness)
    found = simulate(scenario, tmp_path / "run")
    rollout, grading, learn = share_seconds(), 16 * 64 / (16 * 200.0), learning_seconds(scenario)
    sampled = graded = trained = 0.0
    ends: list[float] = []
    for number in range(12):
        opened = ends[number - staleness - 1] if number > staleness else 0.0
        sampled = max(sampled, opened) + rollout
        graded = max(graded, sampled) + grading
        trained = max(trained, graded) + learn
        ends.append(trained)
    by_hand = (ends[-1] - ends[staleness - 1]) / (12 - staleness)
    # Beyond it: weights that a worker takes between two shares, and the turns of the stream.
    assert by_hand <= found.iteration_seconds < 1.05 * by_hand


def test_one_update_of_staleness_does_not_hide_the_longest_share(tmp_path: Path) -> None:
    scenario = Scenario(16, 8, staleness=1)
    found = simulate(scenario, tmp_path / "run")
    longest = []
    for number in range(1, 8):
        drawn = [REASONING.draw(64, np.random.default_rng([number, 8 * worker])) for worker in range(16)]
        shares = [decode_seconds(SHAPE, Hardware(), one, prompt=PROMPT, max_sequences=256) for one in drawn]
        longest.append(max(shares))
    # An iteration is sampled when that two before it is trained, so two take as long as both stages of one.
    learning = sum(found.stages[name] for name in ("log_probs", "prm_update", "prm_score", "policy_update"))
    by_hand = (np.mean(longest) + learning) / 2
    assert by_hand > 1.1 * learning  # else the learners would be the bound
    assert found.iteration_seconds == pytest.approx(by_hand, rel=0.06)


def test_whoever_is_free_takes_the_next_share(tmp_path: Path) -> None:
    scenario = Scenario(16, 3, lengths=EVEN, shares_per_worker=4, slow_nodes=1, slower=2.0, nccl=True)
    found = simulate(scenario, tmp_path / "run")
    # 64 shares; in two units of time eight slow workers do one each and eight fast ones two: 48 in four.
    # Then 16 are left, one for each worker, of which the slow ones take two units.
    assert found.stages["rollout"] == pytest.approx(6 * share_seconds(16), rel=1e-6)


def test_every_rollout_of_an_iteration_is_sampled_once_by_512_workers(tmp_path: Path) -> None:
    scenario = Scenario(512, 3, shares_per_worker=2)
    found = simulate(scenario, tmp_path / "run")
    assert found.rollouts_per_second * found.iteration_seconds == pytest.approx(512 * 64)


@pytest.mark.parametrize("staleness", [0, 2])
def test_the_same_scenario_takes_the_same_time(staleness: int, tmp_path: Path) -> None:
    scenario = Scenario(16, 4, staleness=staleness)
    found = [simulate(scenario, tmp_path / name) for name in ("one", "two")]
    assert replace(found[0], driver_cores=0) == replace(found[1], driver_cores=0)


def test_a_slow_node_holds_up_the_synchronous_loop_for_the_rest_of_its_share(tmp_path: Path) -> None:
    scenario = Scenario(16, 3, lengths=EVEN, nccl=True)
    found = [
        simulate(one, tmp_path / name).stages["rollout"]
        for name, one in (("well", scenario), ("slow", replace(scenario, slow_nodes=1, slower=2.0)))
    ]
    assert found[1] - found[0] == pytest.approx(share_seconds(), rel=1e-6)


def test_two_nodes_get_the_weights_one_after_the_other(tmp_path: Path) -> None:
    found = simulate(Scenario(16, 3, lengths=EVEN), tmp_path / "run")
    # Out of a GPU, twice over the network, into a GPU.
    assert found.stages["sync"] == pytest.approx(SIZE / 25e9 + 2 * SIZE / 12.5e9 + SIZE / 25e9, rel=1e-6)


def test_sixteen_nodes_get_the_weights_from_each_other(tmp_path: Path) -> None:
    found = simulate(Scenario(128, 2, lengths=EVEN), tmp_path / "run")
    copy, load = SIZE / 12.5e9, SIZE / 25e9
    # Five waves (1, 2, 4, 8 and the last one) at best; 16 copies one after the other at worst.
    assert 5 * (copy + load) + load <= found.stages["sync"] + 1e-6
    assert found.stages["sync"] < 2 * load + 16 * copy


def test_a_full_store_costs_the_writing_of_the_old_weights(tmp_path: Path) -> None:
    scenario = Scenario(16, 3, lengths=EVEN)
    found = [simulate(replace(scenario, spills=one), tmp_path / str(one)).stages["sync"] for one in (0, 1)]
    assert found[1] - found[0] == pytest.approx(SIZE / 2e9, rel=1e-6)


def test_groups_that_are_left_out_cost_another_round(tmp_path: Path) -> None:
    scenario = Scenario(16, 3, lengths=EVEN, refill_rounds=1, kept_share=0.5, nccl=True)
    found = simulate(scenario, tmp_path / "run")
    assert found.rollouts_per_second * found.iteration_seconds == pytest.approx(1.5 * 16 * 64)
    assert found.stages["rollout"] == pytest.approx(share_seconds() + share_seconds(32), rel=1e-6)


def test_a_worker_takes_the_lengths_of_its_groups_wherever_they_go(tmp_path: Path) -> None:
    tail = Scenario(16, 3)
    work = [
        simulate(one, tmp_path / name) for name, one in (("sync", tail), ("async", replace(tail, nccl=True)))
    ]
    sampled = [one.busy_share * one.iteration_seconds for one in work]
    assert np.ptp(sampled) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("table", ["sizes", "loops", "tails", "faults"])
def test_the_page_has_the_tables_of_the_command(table: str) -> None:
    page = (BENCHMARKS.parent / "docs" / "scale.md").read_text(encoding="utf-8")
    assert (BENCHMARKS / "results" / f"virtual_scale_{table}.md").read_text(encoding="utf-8") in page
