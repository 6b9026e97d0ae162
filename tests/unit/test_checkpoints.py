"""Records of checkpoints, what a resume refuses by them, and which checkpoints stay."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from airls_ray.config import Config
from airls_ray.errors import RunError
from airls_ray.runs.checkpoint_record import RECORD, check_files, check_inputs, fingerprints, read_record
from airls_ray.runs.checkpoints import checkpoint_iteration, kept, ranking
from airls_ray.runs.run_folder import RunFolder


def model(folder: Path, value: float = 0.0, **config: Any) -> Path:
    folder.mkdir()
    shape = {"model_type": "qwen3", "hidden_size": 8, "vocab_size": 3, **config}
    (folder / "config.json").write_text(json.dumps({**shape, "transformers_version": "1"}))
    (folder / "tokenizer.json").write_text('{"a": 0}')
    save_file({"weight": np.full(2**20, value, np.float32)}, folder / "model.safetensors")
    return folder


def checkpoint(run: RunFolder, iteration: int, **metrics: float) -> Path:
    run.log_metrics(iteration, metrics)
    with run.checkpoint_folder(iteration) as folder:
        (folder / "state").mkdir()
        (folder / "state" / "loop.json").write_text("{}")
    return run.checkpoints_folder / f"iteration_{iteration:06d}"


# ---------------------------------------------------------------------------------------------- records


def test_a_record_has_the_metrics_of_its_iteration_and_the_size_of_every_file(tmp_path: Path) -> None:
    record = read_record(checkpoint(RunFolder(tmp_path), 4, loss=0.5))
    assert record is not None
    assert (record.iteration, record.metrics) == (4, {"loss": 0.5})
    assert record.sizes == {"state/loop.json": 2}


def test_metrics_of_an_earlier_iteration_are_not_taken_for_its_own(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log_metrics(3, {"loss": 0.5})
    with run.checkpoint_folder(4):
        pass
    record = read_record(run.checkpoints_folder / "iteration_000004")
    assert record is not None and record.metrics == {}


def test_another_format_version_is_one_sentence(tmp_path: Path) -> None:
    folder = checkpoint(RunFolder(tmp_path), 4)
    (folder / RECORD).write_text('{"format": 7}')
    with pytest.raises(RunError, match=r"is of checkpoint format 7, and this version .* reads format 1"):
        read_record(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"iteration": 4}'])
def test_a_broken_record_is_one_sentence(tmp_path: Path, text: str) -> None:
    folder = checkpoint(RunFolder(tmp_path), 4)
    (folder / RECORD).write_text(text)
    with pytest.raises(RunError, match=r"checkpoint\.json is broken or was changed: delete that checkpoint"):
        read_record(folder)


def test_a_changed_record_is_noticed_by_its_digest(tmp_path: Path) -> None:
    folder = checkpoint(RunFolder(tmp_path), 4)
    (folder / RECORD).write_text((folder / RECORD).read_text().replace('"iteration": 4', '"iteration": 5'))
    with pytest.raises(RunError, match="was changed"):
        read_record(folder)


def test_a_checkpoint_without_a_record_is_of_a_time_before_records(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None


@pytest.mark.parametrize(("change", "said"), [(b"{", "has 1 bytes where .* says 2"), (None, "is missing")])
def test_files_that_were_cut_short_or_lost_are_named(tmp_path: Path, change: bytes | None, said: str) -> None:
    folder = checkpoint(RunFolder(tmp_path), 4)
    record = read_record(folder)
    assert record is not None
    check_files(folder, record)
    file = folder / "state" / "loop.json"
    file.unlink() if change is None else file.write_bytes(change)
    with pytest.raises(RunError, match=rf"loop\.json.*{said}"):
        check_files(folder, record)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"hidden_size": 16}, r"another model than model\.path names now: hidden_size 16 \(was 8\)"),
        ({"vocab_size": 5}, r"another model .*: vocab_size 5 \(was 3\)"),
        ({"value": 1.0}, r"begun from other weights than model\.path"),
    ],
)
def test_another_base_model_is_told_at_once(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    run = RunFolder(tmp_path / "run")
    run.store.inputs = fingerprints({"model.path": model(tmp_path / "a")})
    record = read_record(checkpoint(run, 2))
    assert record is not None
    now = fingerprints({"model.path": model(tmp_path / "b", **other)})
    with pytest.raises(RunError, match=rf"iteration_000002 (is of|was) .*{said}|iteration_000002 .*{said}"):
        check_inputs(record, now, "iteration_000002")


def test_another_tokenizer_is_told(tmp_path: Path) -> None:
    run, base = RunFolder(tmp_path / "run"), model(tmp_path / "a")
    run.store.inputs = fingerprints({"model.path": base})
    record = read_record(checkpoint(run, 2))
    (base / "tokenizer.json").write_text('{"b": 0}')
    assert record is not None
    with pytest.raises(RunError, match="another vocabulary"):
        check_inputs(record, fingerprints({"model.path": base}), "x")


def test_the_same_model_and_data_at_another_place_are_the_same(tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        model(tmp_path / place / "base")
        (tmp_path / place / "train.jsonl").write_text("{}\n")
    run = RunFolder(tmp_path / "run")

    def of(place: str) -> Any:
        return fingerprints(
            {
                "model.path": str(tmp_path / place / "base"),
                "task.train_file": tmp_path / place / "train.jsonl",
                "task.hold_out_files": [],
                "prm.path": None,
            }
        )

    run.store.inputs = of("here")
    record = read_record(checkpoint(run, 2))
    assert record is not None and set(record.inputs) == {"model.path", "task.train_file"}
    assert check_inputs(record, of("there"), "x") == {"model.path", "task.train_file"}
    (tmp_path / "there" / "train.jsonl").write_text("{ }\n")
    with pytest.raises(RunError, match=r"content of task\.train_file is no longer"):
        check_inputs(record, of("there"), "x")


# --------------------------------------------------------------------------------------------- retention


def test_the_newest_the_best_and_the_latest_stay() -> None:
    scores = {10: 0.9, 20: 0.5, 30: None, 40: 0.7, 50: 0.1, 60: 0.2}
    assert kept(scores, 60, newest=2, best=2) == {10, 40, 50, 60}
    assert kept(scores, 20, newest=1, best=0) == {20, 60}


def test_of_equal_checkpoints_the_newer_is_better() -> None:
    assert ranking({1: 0.5, 2: 0.5, 3: 0.4, 4: None}) == [2, 1, 3]


def test_the_best_checkpoint_outlives_newer_ones_and_has_a_pointer(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_checkpoints=1, keep_best=1, best_metric="outcome/mean")
    for iteration, outcome in ((2, 0.3), (4, 0.8), (6, 0.5), (8, math.nan)):
        checkpoint(run, iteration, **{"outcome/mean": outcome})
    assert [path.name for path in run.checkpoints()] == ["iteration_000004", "iteration_000008"]
    assert (run.checkpoints_folder / "best").read_text() == "iteration_000004\n"
    assert (run.checkpoints_folder / "latest").read_text() == "iteration_000008\n"


def test_without_keep_best_there_is_no_pointer_and_no_question_of_a_metric(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_checkpoints=1, best_metric="no such")
    for iteration in (2, 4):
        checkpoint(run, iteration, loss=0.5)
    assert sorted(path.name for path in run.checkpoints_folder.iterdir()) == ["iteration_000004", "latest"]


def test_an_unknown_metric_is_told_at_the_first_training_iteration(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_best=1, best_metric="policy/entropi")
    run.create(Config())
    run.log_metrics(1, {"outcome/mean": 0.5}, phase="warmup")
    with pytest.raises(RunError, match=r"best_metric is 'policy/entropi'.*such as policy/entropy"):
        run.log_metrics(2, {"outcome/mean": 0.5, "policy/entropy": 1.0})


def test_where_only_the_prm_learns_its_first_iteration_tells(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_best=1, best_metric="no such")
    run.create(Config.model_validate({"train": {"iterations": 0}, "prm": {"warmup_iterations": 3}}))
    with pytest.raises(RunError, match="no metric of this run"):
        run.log_metrics(1, {"prm/loss": 0.5}, phase="warmup")


def test_a_checkpoint_that_is_read_is_kept_until_all_readers_are_done(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_checkpoints=1)
    first = checkpoint(run, 2)
    run.use(first)
    run.store.hold(first)
    checkpoint(run, 4)
    run.store.release(first)
    checkpoint(run, 6)
    assert first.exists()
    run.use(None)
    assert not first.exists()


# ------------------------------------------------------------------------------------------- a killed driver


def write_for_ever(path: Path, first: int, done: Any) -> None:
    run = RunFolder(path, keep_checkpoints=1)
    for iteration in itertools.count(first):
        run.log_metrics(iteration, {"loss": 0.5})
        with run.checkpoint_folder(iteration) as folder:
            for name in ("a", "b", "c"):
                (folder / name).write_bytes(bytes(100_000))
        done.send(iteration)


def test_a_writer_killed_at_any_moment_leaves_a_whole_latest_checkpoint(tmp_path: Path) -> None:
    """Twelve kills, each a little later after a checkpoint than the one before."""
    run, iteration = RunFolder(tmp_path / "run"), 1
    processes = multiprocessing.get_context("fork")
    for kill in range(12):
        reader, writer = processes.Pipe(duplex=False)
        process = processes.Process(target=write_for_ever, args=(run.path, iteration, writer))
        process.start()
        iteration = reader.recv()
        time.sleep(0.0005 * kill)
        process.kill()
        process.join()
        latest = run.latest_checkpoint()
        assert latest is not None and checkpoint_iteration(latest) >= iteration
        record = read_record(latest)
        assert record is not None and set(record.sizes) == {"a", "b", "c"}
        check_files(latest, record)
        assert all(line["loss"] == 0.5 for line in run.read_metrics())
        iteration = checkpoint_iteration(latest) + 1
