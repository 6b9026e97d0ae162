"""The real loops with engines and learners that compute nothing: staleness, and what a death changes."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ray.cloudpickle import register_pickle_by_value

from actors.cluster import processes
from actors.rollout.rollout_pool import RolloutPool
from actors.train.async_loop import train_async
from actors.train.loop import train
from actors.train.tracking import Tracker

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # as for `python benchmarks/NAME.py`

import simulated_workers  # noqa: E402
import simulation  # noqa: E402

for module in (simulation, simulated_workers):
    register_pickle_by_value(module)  # the actors have no path to it

SECONDS = simulation.StageSeconds(0.2, 0.01, 0.05, 0.01, 0.1)
DIGESTS = ("prm/learner/digest", "policy/learner/digest")


def run(folder: Path, loop: Any, iterations: int = 6, **train: Any) -> list[dict[str, Any]]:
    config = simulation.simulated_config(folder, 2, iterations, **train)
    tokens = simulation.tokenizer_folder(folder / "tokenizer", config)
    workers = simulated_workers.hosted_workers(config, tokens, SECONDS.rollout, 2, 1)
    try:
        return simulation.run_loop(
            simulation.SimulatedRun(config, SECONDS), RolloutPool(workers, 60), folder / "run", loop
        )
    finally:
        processes.kill(workers[0].host)


def wait_for_weights(parts: Any, version: int) -> None:
    """Until no worker still reads what a learner has: simulated workers cannot be ended and replaced."""
    until, calm = time.monotonic() + 120, 0
    while calm < 3:
        waits = any(one.version != version for one in parts.pool.fleet.ready) or parts.pool._syncing
        calm = 0 if waits else calm + 1
        assert time.monotonic() < until
        time.sleep(0.05)


def digests(metrics: list[dict[str, Any]]) -> list[tuple[float, ...]]:
    return [tuple(line[name] for name in DIGESTS) for line in metrics]


@pytest.mark.parametrize("bound", [1, 2])
def test_no_rollout_is_older_than_the_bound(tmp_path: Path, bound: int) -> None:
    metrics = run(tmp_path, train_async, max_staleness=bound)
    oldest = [line["staleness/max"] for line in metrics]
    assert max(oldest) <= bound
    assert max(oldest) > 0  # it did sample ahead


def test_the_asynchronous_loop_learns_from_the_same_groups_in_the_same_order(tmp_path: Path) -> None:
    ahead = run(tmp_path / "ahead", train_async, max_staleness=1)
    assert digests(ahead) == digests(run(tmp_path / "turns", train))


def test_every_submitted_group_is_accepted_waits_or_runs(tmp_path: Path, monkeypatch: Any) -> None:
    seen = []
    record = Tracker.record

    def look(self: Any, state: Any, metrics: dict[str, float], **more: Any) -> Any:
        board = more["parts"].pool.counts
        accepted = 8 * state.iteration
        ahead = board.delivered - accepted  # sampled, and not yet learned from
        seen.append((board.submitted, accepted + ahead + len(board.dropped) + board.running + board.waiting))
        assert 0 <= board.submitted - accepted <= 8 * 3
        return record(self, state, metrics, **more)

    monkeypatch.setattr(Tracker, "record", look)
    run(tmp_path, train_async, max_staleness=2)
    assert all(submitted == total for submitted, total in seen)


LOOPS = pytest.mark.parametrize(("loop", "staleness"), [(train, 0), (train_async, 1)])
EVALUATION = {"evaluation.problems": 10, "evaluation.samples": 2, "evaluation.skip": 3}


def figures(line: dict[str, Any]) -> dict[str, Any]:
    others = ("time/", "tokens_per_second/", "evaluation/")
    return {name: value for name, value in line.items() if not name.startswith(others)}


@LOOPS
def test_an_evaluation_samples_the_same_with_the_weights_of_its_iteration_and_changes_nothing(
    tmp_path: Path, loop: Any, staleness: int
) -> None:
    plain = run(tmp_path / "plain", loop, max_staleness=staleness)
    lines = run(tmp_path / "evaluated", loop, max_staleness=staleness, evaluate_every=4, **EVALUATION)
    evaluated = [line for line in lines if "evaluation/accuracy" in line]
    assert [line["iteration"] for line in evaluated] == [4, 6]
    for line in evaluated:
        assert line["evaluation/oldest"] == line["evaluation/newest"] == line["policy/version"]
        assert line["time/evaluation"] > 0
    assert len({line["evaluation/digest"] for line in evaluated}) == 1
    assert digests(lines) == digests(plain)
    if loop is train:  # in the other one the age of the rollouts depends on the clock
        assert [figures(line) for line in lines] == [figures(line) for line in plain]


@LOOPS
def test_without_a_new_best_the_loop_ends_with_a_checkpoint(
    tmp_path: Path, loop: Any, staleness: int
) -> None:
    """The simulated samples are the same with all weights, so that nothing is better than the first."""
    settings = {"max_staleness": staleness, "evaluate_every": 1, "best_metric": "evaluation/accuracy"}
    lines = run(tmp_path, loop, **settings, **EVALUATION, patience=2)
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text() == "iteration_000003\n"
    more = run(tmp_path, loop, **settings, **EVALUATION, patience=4)
    assert [line["iteration"] for line in more] == [1, 2, 3, 4, 5]


@LOOPS
def test_a_learner_that_dies_leaves_what_is_learned_unchanged(
    tmp_path: Path, loop: Any, staleness: int, monkeypatch: Any
) -> None:
    """It is rebuilt from the last checkpoint, and the iterations since then are done again."""
    quiet = run(tmp_path / "quiet", loop, max_staleness=staleness)
    killed = threading.Event()
    record = Tracker.record

    def kill_once(self: Any, state: Any, metrics: dict[str, float], **more: Any) -> Any:
        if state.iteration == 4 and not killed.is_set():
            killed.set()
            wait_for_weights(more["parts"], state.version)
            processes.kill(more["parts"].learners[0])
        return record(self, state, metrics, **more)

    monkeypatch.setattr(Tracker, "record", kill_once)
    wounded = run(tmp_path / "wounded", loop, max_staleness=staleness, checkpoint_every=3)
    assert killed.is_set()
    assert digests(wounded) == digests(quiet)
    assert [line["iteration"] for line in wounded] == list(range(1, 7))


ROTATING = """
class Rotating:
    candidates_per_problem = 2
    def __init__(self): self.told = []
    def choose(self, candidates, count):
        turn = int(sum(self.told))
        return [(turn + at) % len(candidates) for at in range(count)]
    def seen(self, results): self.told += [sum(one.outcomes) for one in results]
    def state(self): return self.told
    def restore(self, state): self.told = state
"""


@LOOPS
def test_a_sampler_of_problems_is_told_and_goes_on_where_the_checkpoint_was(
    tmp_path: Path, loop: Any, staleness: int, monkeypatch: Any
) -> None:
    (tmp_path / "own.py").write_text(ROTATING)
    settings = {"max_staleness": staleness, "checkpoint_every": 3}
    sampler = {"problem_sampler": f"{tmp_path / 'own.py'}:Rotating"}
    quiet = run(tmp_path / "quiet", loop, **settings, **sampler)
    killed = threading.Event()
    record = Tracker.record

    def kill_once(self: Any, state: Any, metrics: dict[str, float], **more: Any) -> Any:
        if state.iteration == 5 and not killed.is_set():
            killed.set()
            wait_for_weights(more["parts"], state.version)
            processes.kill(more["parts"].learners[0])
        return record(self, state, metrics, **more)

    monkeypatch.setattr(Tracker, "record", kill_once)
    assert digests(run(tmp_path / "wounded", loop, **settings, **sampler)) == digests(quiet)
    assert killed.is_set()
    assert digests(quiet) != digests(run(tmp_path / "in_order", loop, **settings))


def test_a_verifier_that_dies_is_started_again(tmp_path: Path, monkeypatch: Any) -> None:
    killed = threading.Event()
    record = Tracker.record

    def kill_once(self: Any, state: Any, metrics: dict[str, float], **more: Any) -> Any:
        if state.iteration == 2 and not killed.is_set():
            killed.set()
            processes.kill(more["parts"].verifier._handle)
        return record(self, state, metrics, **more)

    quiet = run(tmp_path / "quiet", train, iterations=3)
    monkeypatch.setattr(Tracker, "record", kill_once)
    assert digests(run(tmp_path / "wounded", train, iterations=3)) == digests(quiet)
