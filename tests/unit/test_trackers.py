"""Trackers: what they are told, and that their failures cost no iteration."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from actors.train.tracking import LoopState, Shown, Tracker
from airls_ray.config import Config, load_config
from airls_ray.config.named import find_doors
from airls_ray.errors import DoorError, RunError
from airls_ray.runs import trackers as module
from airls_ray.runs.run_folder import RunFolder
from airls_ray.runs.told_once import ToldOnce
from airls_ray.runs.trackers import TrackedRun, Trackers, make_tracker

RUN = TrackedRun("run", Path("runs/run"), {"seed": 0})

OWN = """
import threading
calls, gate = [], threading.Event()
def told(iteration, values): calls.append((iteration, values))
class Full:
    def __init__(self, project="p"): calls.append(("made", project))
    def start(self, run): calls.append(("start", run.name, run.config["seed"]))
    def metrics(self, iteration, values): calls.append((iteration, values))
    def summary(self, values): calls.append(("summary", values))
    def file(self, path): calls.append(("file", path.name))
    def end(self, how): calls.append(("end", how))
class Broken:
    def metrics(self, iteration, values): 1 / 0
class Refused(Broken):
    def start(self, run): raise KeyError("no api key")
class Slow:
    def metrics(self, iteration, values): gate.wait()
class Never:
    def start(self, run): gate.wait()
    def metrics(self, iteration, values): pass
class Odd:
    def metrics(self, values): pass
class Mute:
    pass
class Leaves:
    def metrics(self, iteration, values): raise SystemExit(1)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN + f"# {tmp_path}\n")  # a module of its own for each test
    return path


def trackers(said: list[str], *given: Any) -> Trackers:
    config = Config.model_validate({"train": {"trackers": list(given)}})
    return Trackers(config.train.trackers, said.append)


def calls_of(found: Trackers) -> list[Any]:
    (one,) = found._told
    method = one._tracker.metrics
    calls: list[Any] = getattr(method, "__globals__", None)["calls"]  # type: ignore[index]
    return calls


def test_a_tracker_is_told_everything_in_order(own: Path) -> None:
    found = trackers([], {"name": f"{own}:Full", "options": {"project": "mine"}})
    found.start(RUN)
    with found:
        found.metrics(1, {"a": 1.0, "b": math.nan})
        found.summary({"c": 2})
        found.file(Path("report.html"))
    assert calls_of(found) == [
        ("made", "mine"),
        ("start", "run", 0),
        (1, {"a": 1.0}),
        ("summary", {"c": 2}),
        ("file", "report.html"),
        ("end", "finished"),
    ]


def test_a_function_is_a_tracker(own: Path) -> None:
    found = trackers([], f"{own}:told")
    with found:
        found.start(RUN)
        found.metrics(3, {"a": 1.0})
        found._told[0].tell("metrics", 4, {}).wait(5)
    assert calls_of(found) == [(3, {"a": 1.0}), (4, {})]


@pytest.mark.parametrize(
    ("error", "how"), [(KeyboardInterrupt, "interrupted"), (RunError, "failed"), (ValueError, "failed")]
)
def test_a_tracker_is_told_how_a_run_ended(own: Path, error: type[BaseException], how: str) -> None:
    found = trackers([], f"{own}:Full")
    with pytest.raises(error), found:
        raise error("x")
    assert calls_of(found)[-1] == ("end", how)


def test_what_a_tracker_raises_is_said_once_and_counted(own: Path) -> None:
    said: list[str] = []
    with trackers(said, f"{own}:Broken") as found:
        for iteration in range(3):
            found.metrics(iteration, {})
    assert found.counts() == {"trackers/errors": 3.0}
    (line,) = said
    assert "the tracker Broken raised ZeroDivisionError: division by zero" in line


def test_a_tracker_that_hangs_costs_no_iteration(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 2)
    monkeypatch.setattr(module, "_END_SECONDS", 0.1)
    said: list[str] = []
    found = trackers(said, f"{own}:Slow")
    with found:
        for iteration in range(10):
            found.metrics(iteration, {})
    assert found.counts()["trackers/errors"] >= 7
    assert said == ["Warning: the tracker Slow takes too long, and calls to it are dropped"]
    found._told[0]._tracker.metrics.__globals__["gate"].set()


def test_a_tracker_that_cannot_start_ends_a_run_before_it_begins(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match=r"tracker Refused cannot start \(KeyError: 'no api key'\)"):
        trackers([], f"{own}:Refused").start(RUN)
    monkeypatch.setattr(module, "_START_SECONDS", 0.1)
    found = trackers([], f"{own}:Never")
    with pytest.raises(RunError, match=r"tracker Never has not started within 0\.1 s"):
        found.start(RUN)
    found._told[0]._tracker.metrics.__globals__["gate"].set()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("Odd", {}, r"has metrics\(values\), which is called with 2"),
        ("Mute", {}, "has no method `metrics`"),
        ("Full", {"projekt": "x"}, r"takes no option 'projekt' \(did you mean 'project'\?\)"),
        ("told", {"x": 1}, "is a function, which takes no options"),
        ("gate", {}, "which is neither a class nor a function"),
    ],
)
def test_what_is_no_tracker_is_one_sentence(own: Path, name: str, options: Any, said: str) -> None:
    with pytest.raises(DoorError, match=rf"train\.trackers: .*own\.py:{name} .*{said}"):
        trackers([], {"name": f"{own}:{name}", "options": options})


def test_jsonl_writes_a_line_an_iteration(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    with trackers([], {"name": "jsonl", "options": {"path": str(path)}}) as found:
        found.metrics(1, {"a": 0.5})
        found.metrics(2, {"a": 1.5})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"iteration": 1, "a": 0.5}, {"iteration": 2, "a": 1.5}]


def test_jsonl_has_one_line_of_an_iteration_that_is_done_again_and_the_summary(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps({"iteration": 9, "a": 1.0}) + "\n")  # of a run before
    for begin, end in ((0, 4), (2, 5)):
        with trackers([], {"name": "jsonl", "options": {"path": str(path)}}) as found:
            found.start(TrackedRun("run", tmp_path, {}, begin))
            for iteration in range(begin, end):
                found.metrics(iteration + 1, {"a": float(begin)})
            found.metrics(end, {"a": 7.0})  # after a recovery
            found.summary({"b": math.nan})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    metrics = [(9, 1.0), (1, 0.0), (2, 0.0), (3, 2.0), (4, 2.0), (5, 7.0)]
    assert lines == [*({"iteration": at, "a": a} for at, a in metrics), {"summary": {"b": None}}]


def test_a_tracker_that_ends_its_thread_is_counted(own: Path) -> None:
    said: list[str] = []
    with trackers(said, f"{own}:Leaves") as found:
        found.metrics(1, {})
        found.metrics(2, {})
    assert found.counts() == {"trackers/errors": 2.0} and "raised SystemExit" in said[0]


def test_the_loop_tells_them_what_it_logs(own: Path, tmp_path: Path) -> None:
    class Bar:
        def advance(self, n: int = 1, **fields: Any) -> None:
            pass

    found = trackers([], f"{own}:told")
    run = RunFolder(tmp_path / "run")
    tracker = Tracker(run, Config(), Shown(Bar(), 0), trackers=found)
    metrics = {
        "rollout/response_tokens": 8.0,
        "time/rollout": 2.0,
        "time/iteration": 5.0,
        "outcome/mean": 0.5,
    }
    tracker.record(
        LoopState(iteration=2, version=1),
        metrics,
        phase="train",
        rollouts=[],
        grades=None,
        parts=None,  # type: ignore[arg-type]
    )
    found._told[0].tell("metrics", 9, {}).wait(5)
    (line,) = run.read_metrics()
    iteration, values = calls_of(found)[0]
    assert {"iteration": iteration, "phase": "train", **values} == line
    assert values["trackers/errors"] == 0.0


def test_without_trackers_there_is_no_metric_of_them_and_no_thread() -> None:
    before = threading.active_count()
    assert Trackers((), print).counts() == {}
    assert threading.active_count() == before


def test_a_configuration_names_them(tmp_path: Path) -> None:
    given = load_config(None, ["train.trackers=[jsonl, {name: wandb, options: {project: x}}]"]).train.trackers
    assert [(one.name, one.options) for one in given] == [("jsonl", {}), ("wandb", {"project": "x"})]
    with pytest.raises(DoorError, match="did you mean 'jsonl'"):
        find_doors(load_config(None, ["train.trackers=json"]))


def test_an_object_with_the_methods_is_one_already() -> None:
    class Told:
        def metrics(self, iteration: int, values: Any) -> None:
            pass

    told = Told()
    assert make_tracker(told, {}) is told


def test_a_resume_tells_no_iteration_twice(tmp_path: Path) -> None:
    first = ToldOnce(TrackedRun("run", tmp_path, {}), "id")
    first.call("theirs")
    for iteration in (1, 2, 3):
        assert first.is_new(iteration)
        first.told(iteration)
    again = ToldOnce(TrackedRun("run", tmp_path, {}, iteration=1), "id")
    assert again.name == "theirs"
    assert [again.is_new(iteration) for iteration in (2, 3, 4)] == [False, False, True]


def test_a_run_from_the_start_is_new_to_a_tracker(tmp_path: Path) -> None:
    ToldOnce(TrackedRun("run", tmp_path, {}), "id").call("theirs")
    again = ToldOnce(TrackedRun("run", tmp_path, {}), "id")
    assert not again.name and again.is_new(1)


def test_a_name_without_an_iteration_was_told_up_to_the_resume(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("theirs\n")  # as an earlier version kept it
    again = ToldOnce(TrackedRun("run", tmp_path, {}, iteration=4), "id")
    assert [again.is_new(iteration) for iteration in (4, 5)] == [False, True]
