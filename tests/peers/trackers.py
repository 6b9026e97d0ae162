"""Run by test_trackers.py beside a tracker's package: a run of two iterations, its resume from the first."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airls_ray.config import Config
from airls_ray.runs.trackers import TrackedRun, Trackers


def track(name: str, folder: Path, options: dict[str, Any]) -> list[str]:
    """Tell the tracker what a run tells it; returns what it complained of."""
    config = Config.model_validate({"train": {"trackers": [{"name": name, "options": options}]}})
    said: list[str] = []
    report = folder / "report.html"
    report.write_text("<p>the report")
    settings = {"seed": 3, "method": {"name": "grpo"}, "many": {str(number): number for number in range(150)}}
    for done, iterations in ((0, (1, 2)), (1, (2, 3))):
        trackers = Trackers(config.train.trackers, said.append)
        trackers.start(TrackedRun("arithmetic", folder, settings, done))
        with trackers:
            for iteration in iterations:
                trackers.metrics(iteration, {"outcome/mean": iteration / 2})
            trackers.summary({"accuracy": {"trained": 0.75}})
            trackers.file(report)
    return said


def read_trackio(folder: Path) -> Any:
    from trackio.sqlite_storage import SQLiteStorage  # type: ignore[import-not-found, unused-ignore]

    logs = SQLiteStorage.get_logs("airls-ray", "arithmetic")
    return [[line["step"], line["outcome/mean"]] for line in logs]


def read_mlflow(folder: Path) -> Any:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("airls-ray").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["method.name"] == "grpo"
    assert len(run.data.params) == 152  # more than one request takes
    return [[one.step, one.value] for one in client.get_metric_history(run.info.run_id, "outcome/mean")]


def read_wandb(folder: Path) -> Any:
    from wandb.proto.wandb_internal_pb2 import Record

    found, logs = [], sorted(folder.rglob("run-*.wandb"))
    assert len(logs) == 2 and len({path.stem for path in logs}) == 1  # named after the run
    for path in logs:
        for data in wandb_records(path.read_bytes()):
            items = Record.FromString(data).history.item
            line = {".".join(one.nested_key) or one.key: one.value_json for one in items}
            if "outcome/mean" in line:
                found.append([int(line["_step"]), float(line["outcome/mean"])])
    return found


def wandb_records(log: bytes) -> Iterator[bytes]:
    """Records of a file of W&B: LevelDB's log format (blocks of 32 KiB) behind a header of 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(log):
        if -at % 32768 < 7:  # no room for a header at the end of a block
            at += -at % 32768
        size, kind = struct.unpack("<HB", log[at + 4 : at + 7])
        record += log[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    options = {"wandb": {"mode": "offline"}, "mlflow": {"tracking_uri": f"sqlite:///{folder}/mlflow.db"}}
    said = track(name, folder, dict(options.get(name, {})))
    read = {"trackio": read_trackio, "mlflow": read_mlflow, "wandb": read_wandb}[name]
    (folder / "found.json").write_text(json.dumps({"said": said, "points": read(folder)}))
