"""The copy of a run folder: what is published, what a fetch brings, what goes wrong and is said."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airls_ray.config import Config
from airls_ray.errors import ConfigError, RunError
from airls_ray.runs.mirror import Mirror, open_mirror
from airls_ray.runs.run_folder import RunFolder
from airls_ray.runs.storage import Storage, open_storage


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    url = f"memory://{uuid.uuid4().hex}" if request.param == "memory" else (tmp_path / "store").as_uri()
    return open_storage(url, 10.0).below("run")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def mirror_of(storage: Storage, said: list[str]) -> Callable[..., Mirror]:
    return lambda run, there=storage, seconds=10.0: Mirror(run, there, seconds, said.append)


def checkpoint(run: RunFolder, iteration: int, outcome: float = 0.5, text: str = "weights") -> Path:
    run.log_metrics(iteration, {"outcome/mean": outcome})
    with run.checkpoint_folder(iteration) as folder:
        (folder / "policy").mkdir()
        (folder / "policy" / "model.safetensors").write_text(f"{text} {iteration}")
    return run.checkpoints_folder / f"iteration_{iteration:06d}"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Failing:
    """A storage whose calls of one name fail, or wait, while it is set so."""

    def __init__(self, storage: Storage, call: str) -> None:
        self._storage, self._call = storage, call
        self.down, self.gate = True, threading.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        if name != self._call:
            return method

        def call(*arguments: Any) -> Any:
            self.gate.wait(10)
            if self.down:
                raise RunError("the bucket is on fire")
            return method(*arguments)

        return call


def test_a_fetch_brings_back_the_whole_run(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror]
) -> None:
    run = RunFolder(tmp_path / "here")
    run.create(Config())
    (run.path / "samples").mkdir()
    (run.path / "samples" / "base.json").write_text("{}")
    with mirror_of(run) as mirror:
        mirror.checkpoint(checkpoint(run, 2))
        mirror.checkpoint(checkpoint(run, 4))
        run.write_summary({"done": True})
        mirror.finish()
    other = RunFolder(tmp_path / "there")
    assert mirror_of(other).fetch() == "iteration_000004"
    here, there = content(run.path), content(other.path)
    assert there == {name: data for name, data in here.items() if "iteration_000002" not in name}
    assert other.latest_checkpoint() == other.checkpoints_folder / "iteration_000004"


def test_locks_unfinished_and_hidden_files_stay_here(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror]
) -> None:
    run = RunFolder(tmp_path / "here")
    with run.locked(), mirror_of(run) as mirror:
        (run.path / ".sft.state").mkdir()
        (run.path / ".sft.state" / "x").touch()
        (run.path / ".unfinished-summary.json").touch()
        mirror.checkpoint(checkpoint(run, 2))
        mirror.finish()
    assert not [name for name in storage.files() if name.startswith((".", "run."))]
    assert "metrics.jsonl" in storage.files()


def test_a_checkpoint_is_published_by_its_pointer_after_everything_else(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror], said: list[str]
) -> None:
    """The copy dies before each of its steps in turn; every time a fetch finds the checkpoint before."""
    run = RunFolder(tmp_path / "here")
    with mirror_of(run) as mirror:
        mirror.checkpoint(checkpoint(run, 2))
        mirror.finish()
    newest = checkpoint(run, 4)
    for call in ("upload", "replace", "write_text"):
        with mirror_of(run, Failing(storage, call)) as mirror:
            mirror.checkpoint(newest)
            mirror._wait(10)
            assert mirror.metrics() == {"storage/errors": 1.0, "storage/skipped": 0.0}
        assert storage.read_text("checkpoints/latest") == "iteration_000002\n"
        other = RunFolder(tmp_path / call)
        assert mirror_of(other).fetch() == "iteration_000002"
        assert content(other.checkpoints_folder / "iteration_000002") == content(
            run.checkpoints_folder / "iteration_000002"
        )
    assert len(said) == 3
    assert all("iteration_000004 was not copied: the bucket is on fire; the run goes on" in s for s in said)


def test_an_incomplete_newest_copy_falls_back_to_the_one_before(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror], said: list[str]
) -> None:
    run = RunFolder(tmp_path / "here")
    with mirror_of(run) as mirror:
        for iteration in (2, 4):
            mirror.checkpoint(checkpoint(run, iteration))
            mirror.finish()
    storage.write_text("checkpoints/iteration_000004/policy/model.safetensors", "cut")
    other = RunFolder(tmp_path / "there")
    assert mirror_of(other).fetch() == "iteration_000002"
    assert "model.safetensors has 3 bytes" in said[0]
    assert [path.name for path in other.checkpoints()] == ["iteration_000002"]


def test_what_is_here_is_not_fetched_again_unless_the_storage_has_a_newer_one(
    tmp_path: Path, mirror_of: Callable[..., Mirror]
) -> None:
    run, other = RunFolder(tmp_path / "here"), RunFolder(tmp_path / "there")
    with mirror_of(run) as mirror:
        mirror.checkpoint(checkpoint(run, 2))
        mirror.finish()
        assert mirror.fetch() is None
        assert mirror_of(other).fetch() == "iteration_000002"
        mirror.checkpoint(checkpoint(run, 4))
        mirror.finish()
    assert mirror_of(other).fetch() == "iteration_000004"
    assert len(other.read_metrics()) == 2


def test_nothing_to_fetch(tmp_path: Path, mirror_of: Callable[..., Mirror]) -> None:
    run = RunFolder(tmp_path / "here")
    assert mirror_of(run).fetch() is None
    assert not run.path.exists()
    mirror_of(run).require_free()


def test_a_new_run_does_not_write_over_one_in_the_storage(
    tmp_path: Path, mirror_of: Callable[..., Mirror]
) -> None:
    run = RunFolder(tmp_path / "here")
    with mirror_of(run) as mirror:
        mirror.checkpoint(checkpoint(run, 2))
        mirror.finish()
    with pytest.raises(RunError, match="already holds a run: continue it with --resume or choose another"):
        mirror_of(RunFolder(tmp_path / "there")).require_free()


def test_the_copy_keeps_what_the_run_folder_would_keep(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror]
) -> None:
    run = RunFolder(tmp_path / "here", keep_checkpoints=1, keep_best=1)
    with mirror_of(run) as mirror:
        for iteration, outcome in ((2, 0.3), (4, 0.8), (6, 0.5), (8, 0.6)):
            mirror.checkpoint(checkpoint(run, iteration, outcome))
            mirror._wait(10)
    assert storage.folders("checkpoints") == ["iteration_000004", "iteration_000008"]
    assert storage.read_text("checkpoints/best") == "iteration_000004\n"


def test_a_broken_record_in_the_storage_keeps_no_copy_from_being_made(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror], said: list[str]
) -> None:
    run = RunFolder(tmp_path / "here", keep_checkpoints=1, keep_best=1)
    with mirror_of(run) as mirror:
        for iteration, outcome in ((2, 0.8), (4, 0.3), (6, 0.5)):
            mirror.checkpoint(checkpoint(run, iteration, outcome))
            mirror._wait(10)
            if iteration == 2:
                storage.write_text("checkpoints/iteration_000002/checkpoint.json", "{")
    assert said == []
    assert storage.folders("checkpoints") == ["iteration_000006"]


def test_a_storage_that_fails_costs_no_best_checkpoint(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror]
) -> None:
    run = RunFolder(tmp_path / "here", keep_checkpoints=1, keep_best=1)
    failing = Failing(storage, "read_text")
    failing.down = False
    with mirror_of(run, failing) as mirror:
        mirror.checkpoint(checkpoint(run, 2, 0.8))
        mirror._wait(10)
        failing.down = True
        with pytest.raises(RunError):
            mirror._prune(4)
    assert storage.folders("checkpoints") == ["iteration_000002"]


def test_a_fetch_brings_the_best_checkpoint_too(tmp_path: Path, mirror_of: Callable[..., Mirror]) -> None:
    run = RunFolder(tmp_path / "here", keep_checkpoints=1, keep_best=1)
    with mirror_of(run) as mirror:
        for iteration, outcome in ((2, 0.8), (4, 0.3), (6, 0.5)):
            mirror.checkpoint(checkpoint(run, iteration, outcome))
            mirror._wait(10)
    other = RunFolder(tmp_path / "there", keep_checkpoints=1, keep_best=1)
    assert mirror_of(other).fetch() == "iteration_000006"
    checkpoint(other, 8, 0.6)
    assert [path.name for path in other.checkpoints()] == ["iteration_000002", "iteration_000008"]
    assert other.store.best_file.read_text() == "iteration_000002\n"


def test_the_loop_does_not_wait_and_only_the_newest_waiting_checkpoint_is_copied(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror]
) -> None:
    run, slow = RunFolder(tmp_path / "here", keep_checkpoints=1), Failing(storage, "upload")
    slow.down = False
    slow.gate.clear()
    with mirror_of(run, slow) as mirror:
        for iteration in (2, 4, 6):
            mirror.checkpoint(checkpoint(run, iteration))
            if iteration == 2:
                while mirror._next is not None:  # the thread has begun with it
                    pass
        assert (run.checkpoints_folder / "iteration_000002").exists()  # it is being read
        slow.gate.set()
        mirror.finish()
        assert mirror.metrics() == {"storage/errors": 0.0, "storage/skipped": 1.0}
    assert storage.folders("checkpoints") == ["iteration_000006"]
    checkpoint(run, 8)
    assert [path.name for path in run.checkpoints()] == ["iteration_000008"]


def test_an_error_that_passes_is_made_good_at_the_end(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror]
) -> None:
    run, failing = RunFolder(tmp_path / "here"), Failing(storage, "upload")
    with mirror_of(run, failing) as mirror:
        mirror.checkpoint(checkpoint(run, 2))
        mirror._wait(10)
        failing.down = False
        mirror.finish()
        assert mirror.errors == 1
    assert storage.read_text("checkpoints/latest") == "iteration_000002\n"


def test_a_last_copy_that_fails_ends_the_run_with_a_sentence(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror]
) -> None:
    run = RunFolder(tmp_path / "here")
    with mirror_of(run, Failing(storage, "upload")) as mirror:
        checkpoint(run, 2)
        with pytest.raises(
            RunError, match=r"complete in .*here, but its last copy to .* failed: the bucket is"
        ):
            mirror.finish()


def test_a_last_copy_that_hangs_ends_the_run_with_a_sentence(
    tmp_path: Path, storage: Storage, mirror_of: Callable[..., Mirror]
) -> None:
    run, hanging = RunFolder(tmp_path / "here"), Failing(storage, "upload")
    hanging.gate.clear()
    with mirror_of(run, hanging, 0.1) as mirror:
        checkpoint(run, 2)
        with pytest.raises(RunError, match=r"failed: it took more than 0\.1 s"):
            mirror.finish()
        hanging.gate.set()


def test_no_storage_no_mirror(tmp_path: Path) -> None:
    assert open_mirror(Config(), RunFolder(tmp_path), print) is None


def test_a_run_folder_is_not_copied_onto_itself(tmp_path: Path) -> None:
    config = Config.model_validate({"train": {"storage": tmp_path.as_uri()}})
    with pytest.raises(ConfigError, match="where the run folder is already"):
        open_mirror(config, RunFolder(tmp_path / "run"), print)
    assert list(tmp_path.iterdir()) == []
