import errno
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airls_ray.config import Config, load_config
from airls_ray.errors import DataError, RunError
from airls_ray.files import is_disk_full
from airls_ray.runs.checkpoints import checkpoint_iteration
from airls_ray.runs.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def write_checkpoint(run: RunFolder, iteration: int, text: str = "weights") -> None:
    with run.checkpoint_folder(iteration) as folder:
        (folder / "policy").mkdir()
        (folder / "policy" / "model.safetensors").write_text(text)


def events(run: RunFolder) -> list[tuple[int, dict[str, float]]]:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found = []
    for path in sorted((run.path / "tensorboard").iterdir()):
        for event in LegacyEventFileLoader(str(path)).Load():
            found.append((event.step, {value.tag: value.simple_value for value in event.summary.value}))
    return [event for event in found if event[1]]


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def test_create_writes_a_config_that_loads_to_the_same(run: RunFolder) -> None:
    config = Config(name="x", seed=7)
    run.create(config)
    assert load_config(run.config_file, []) == config


def test_create_refuses_a_folder_with_results(run: RunFolder) -> None:
    run.create(Config())
    run.log_metrics(0, {"outcome/mean": 0.5})
    with pytest.raises(RunError, match=r"metrics\.jsonl.*--resume or choose another name"):
        run.create(Config())
    assert len(run.read_metrics()) == 1


def test_create_again_after_a_start_without_results_takes_the_new_config(run: RunFolder) -> None:
    run.create(Config(seed=1))
    run.create(Config(seed=2))
    assert load_config(run.config_file, []).seed == 2


def test_resume_keeps_the_results(run: RunFolder) -> None:
    run.create(Config())
    run.log_metrics(0, {"a": 1.0})
    write_checkpoint(run, 0)
    run.create(Config(), resume=True)
    assert len(run.read_metrics()) == 1
    assert run.latest_checkpoint() is not None


def test_resume_of_a_run_that_is_not_there_is_one_sentence(run: RunFolder) -> None:
    with pytest.raises(RunError, match="holds no run to continue"):
        run.create(Config(), resume=True)
    assert not run.path.exists()


def test_a_run_folder_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another output folder"):
        RunFolder(tmp_path / "file" / "run").create(Config())


def test_metrics_come_back_and_what_is_not_finite_is_null(run: RunFolder) -> None:
    run.log_metrics(3, {"a": np.float32(0.5), "b": math.nan, "c": math.inf, "d": None}, phase="warmup")
    assert run.read_metrics() == [
        {"iteration": 3, "phase": "warmup", "a": 0.5, "b": None, "c": None, "d": None}
    ]
    assert "NaN" not in run.metrics_file.read_text()


def test_a_line_is_on_disk_when_log_metrics_returns(run: RunFolder) -> None:
    for iteration in range(3):
        run.log_metrics(iteration, {"a": float(iteration)})
        assert [line["a"] for line in RunFolder(run.path).read_metrics()] == [0.0, 1.0, 2.0][: iteration + 1]


def test_a_torn_last_line_is_left_out(run: RunFolder) -> None:
    run.log_metrics(0, {"a": 1.0})
    with run.metrics_file.open("a") as file:
        file.write('{"iteration": 1, "a"')
    assert [line["iteration"] for line in run.read_metrics()] == [0]


def test_after_a_torn_line_the_next_one_is_whole(run: RunFolder) -> None:
    run.log_metrics(0, {"a": 1.0})
    with run.metrics_file.open("a") as file:
        file.write('{"iteration": 1, "a"')
    again = RunFolder(run.path)
    again.log_metrics(1, {"a": 2.0})
    assert [line["a"] for line in again.read_metrics()] == [1.0, 2.0]


def test_a_broken_line_in_the_middle_names_its_number(run: RunFolder) -> None:
    run.path.mkdir()
    run.metrics_file.write_text('{"iteration": 0}\nrubbish\n{"iteration": 2}\n')
    with pytest.raises(DataError, match="line 2"):
        run.read_metrics()


def test_rewind_drops_later_iterations(run: RunFolder) -> None:
    for iteration in range(5):
        run.log_metrics(iteration, {"a": float(iteration)})
    run.rewind(2)
    run.log_metrics(3, {"a": 30.0})
    assert [line["a"] for line in run.read_metrics()] == [0.0, 1.0, 2.0, 30.0]


def test_tensorboard_holds_the_same_numbers_without_nulls(run: RunFolder) -> None:
    run.log_metrics(0, {"outcome/mean": 0.25, "prm/loss": math.nan})
    run.log_metrics(1, {"outcome/mean": 0.5})
    assert events(run) == [(0, {"outcome/mean": 0.25}), (1, {"outcome/mean": 0.5})]


def test_tensorboard_forgets_rewound_points(run: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for iteration in range(4):
        run.log_metrics(iteration, {"a": 1.0})
    again = RunFolder(run.path)
    again.rewind(1)
    again.log_metrics(2, {"a": 2.0})
    accumulator = EventAccumulator(str(run.path / "tensorboard"))
    accumulator.Reload()
    assert [(event.step, event.value) for event in accumulator.Scalars("a")] == [(0, 1.0), (1, 1.0), (2, 2.0)]


def test_a_full_disk_leaves_the_metrics_readable(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.log_metrics(0, {"a": 1.0})

    def half_then_full(path: Path, data: bytes) -> None:
        raise full_disk()

    monkeypatch.setattr("airls_ray.files.append", half_then_full)
    with pytest.raises(RunError, match="full"):
        run.log_metrics(1, {"a": 2.0})
    assert len(run.read_metrics()) == 1


def test_rollouts_are_parquet(run: RunFolder) -> None:
    table = pa.table({"response": pa.array([[1, 2], [3]], pa.list_(pa.int32()))})
    path = run.write_rollouts(40, table)
    assert path == run.path / "rollouts" / "iteration_000040.parquet"
    assert pq.read_table(path).equals(table)


def test_a_full_disk_leaves_no_half_parquet(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def writer(table: pa.Table, path: Path, **options: object) -> None:
        path.write_bytes(b"PAR1")
        raise full_disk()

    monkeypatch.setattr(pq, "write_table", writer)
    with pytest.raises(RunError, match="the rollouts could not be written"):
        run.write_rollouts(1, pa.table({"a": [1]}))
    assert list(run.rollouts_folder.iterdir()) == []


def test_a_checkpoint_appears_whole_and_latest_names_it(run: RunFolder) -> None:
    with run.checkpoint_folder(20) as folder:
        (folder / "policy").mkdir()
        assert run.checkpoints() == []
        assert run.latest_checkpoint() is None
    latest = run.latest_checkpoint()
    assert latest == run.checkpoints_folder / "iteration_000020"
    assert (latest / "policy").is_dir()
    assert checkpoint_iteration(latest) == 20


@pytest.mark.parametrize("error", [full_disk(), KeyboardInterrupt(), ValueError("other")])
def test_a_failed_checkpoint_leaves_the_one_before(run: RunFolder, error: BaseException) -> None:
    write_checkpoint(run, 20)
    with pytest.raises((RunError, KeyboardInterrupt, ValueError)), run.checkpoint_folder(40) as folder:
        (folder / "half").write_text("half")
        raise error
    assert sorted(path.name for path in run.checkpoints_folder.iterdir()) == ["iteration_000020", "latest"]
    assert run.latest_checkpoint() == run.checkpoints_folder / "iteration_000020"


def test_a_full_disk_is_one_sentence_with_the_remedy(run: RunFolder) -> None:
    write_checkpoint(run, 20)
    message = (
        r"is full, the checkpoint of iteration 40 could not be written: .*--resume \(from iteration_000020\)"
    )
    with pytest.raises(RunError, match=message), run.checkpoint_folder(40):
        raise full_disk()


def test_a_full_disk_in_another_process_is_recognised(tmp_path: Path) -> None:
    class TaskError(Exception):
        """Like Ray's: the cause as an attribute, no errno of its own."""

        def __init__(self, cause: BaseException) -> None:
            super().__init__("remote traceback")
            self.cause = cause

    assert is_disk_full(TaskError(full_disk()), tmp_path)
    assert is_disk_full(Exception("Error while serializing: No space left on device (os error 28)"), tmp_path)
    assert not is_disk_full(TaskError(OSError(errno.EACCES, "Permission denied")), tmp_path)


def test_torch_writer_errors_mean_a_full_disk_only_without_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2**40}))
    assert not is_disk_full(error, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert is_disk_full(error, tmp_path)


def test_a_checkpoint_in_use_is_kept_until_it_is_not(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_checkpoints=1)
    with run.checkpoint_folder(2):
        pass
    run.use(run.latest_checkpoint())
    for iteration in (4, 6):
        with run.checkpoint_folder(iteration):
            pass
    assert [folder.name for folder in run.checkpoints()] == ["iteration_000002", "iteration_000006"]
    run.use(None)
    assert [folder.name for folder in run.checkpoints()] == ["iteration_000006"]


def test_of_the_checkpoints_that_learners_were_rebuilt_from_the_last_is_kept(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_checkpoints=1)
    write_checkpoint(run, 2)
    run.use(run.latest_checkpoint())
    for iteration in (4, 6, 8):
        write_checkpoint(run, iteration)
        run.use_rebuilt(run.latest_checkpoint())
    write_checkpoint(run, 10)
    assert [checkpoint_iteration(path) for path in run.checkpoints()] == [2, 8, 10]
    run.use(None)
    assert [checkpoint_iteration(path) for path in run.checkpoints()] == [10]


def test_old_checkpoints_are_pruned(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_checkpoints=2)
    for iteration in (10, 20, 30, 1_000_000):
        write_checkpoint(run, iteration)
    assert [checkpoint_iteration(path) for path in run.checkpoints()] == [30, 1_000_000]


def test_pruning_never_takes_the_latest(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_checkpoints=1)
    for iteration in (10, 20, 5):  # 5: an older checkpoint was resumed with another schedule
        write_checkpoint(run, iteration)
    latest = run.latest_checkpoint()
    assert latest is not None and checkpoint_iteration(latest) == 5
    assert latest in run.checkpoints()


def test_a_checkpoint_can_be_written_again(run: RunFolder) -> None:
    write_checkpoint(run, 20, "first")
    write_checkpoint(run, 20, "second")
    latest = run.latest_checkpoint()
    assert latest is not None
    assert (latest / "policy" / "model.safetensors").read_text() == "second"
    assert sorted(path.name for path in run.checkpoints_folder.iterdir()) == ["iteration_000020", "latest"]


def test_what_a_killed_writer_left_is_removed(run: RunFolder) -> None:
    run.create(Config())
    (run.checkpoints_folder / ".unfinished-iteration_000020").mkdir()
    (run.path / ".unfinished-summary.json").write_text("{")
    assert run.checkpoints() == []
    run.create(Config())
    assert [path.name for path in run.path.rglob(".*")] == []


def test_a_lost_latest_checkpoint_falls_back_to_the_newest(run: RunFolder) -> None:
    write_checkpoint(run, 10)
    run.latest_file.write_text("iteration_000020\n")
    assert run.latest_checkpoint() == run.checkpoints_folder / "iteration_000010"


def test_summary_is_json_that_any_parser_reads(run: RunFolder) -> None:
    run.path.mkdir()
    run.write_summary({"prm": {"step_auroc": math.nan}, "tokens": np.int64(5), "search": {1: 0.5}})
    expected = {"prm": {"step_auroc": None}, "tokens": 5, "search": {"1": 0.5}}
    assert json.loads(run.summary_file.read_text()) == expected
    assert run.read_summary() == expected


def test_a_failed_summary_leaves_the_old_one(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write_summary({"a": 1})

    def write_half(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(text[:3].encode())
        raise full_disk()

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(RunError):
        run.write_summary({"a": 2})
    assert run.read_summary() == {"a": 1}
    assert [path.name for path in run.path.iterdir()] == ["summary.json"]


def test_a_broken_summary_names_the_file(run: RunFolder) -> None:
    run.path.mkdir()
    run.summary_file.write_text("{")
    with pytest.raises(DataError, match=r"summary\.json is no valid JSON"):
        run.read_summary()
