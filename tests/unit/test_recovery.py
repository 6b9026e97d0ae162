"""Work that lost a learner is done again from the last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.train.recovery import Recovery
from actors.train.tracking import LoopState
from airls_ray.config import Config
from airls_ray.console.progress import QuietProgress
from airls_ray.errors import ProcessLost
from airls_ray.runs.run_control import RunControl
from airls_ray.runs.run_folder import RunFolder


def checkpoint(run: RunFolder, iteration: int) -> Path:
    with run.checkpoint_folder(iteration) as folder:
        (folder / "state").mkdir()
        (folder / "state" / "loop.json").write_text(f'{{"iteration": {iteration}}}')
    return run.checkpoints_folder / f"iteration_{iteration:06d}"


def test_what_a_run_started_from_outlives_a_rebuild_of_its_learners(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, keep_checkpoints=1)
    start = checkpoint(run, 2)
    run.use(start)  # rollout workers and verifiers that join later read it
    later = checkpoint(run, 4)
    rebuilt_from: list[Path | None] = []

    def rebuild(parts: Any, state: LoopState, folder: Path | None, times: int) -> Any:
        rebuilt_from.append(folder)
        return parts

    config, control = Config.model_validate({"method": "grpo"}), RunControl(tmp_path, 9)
    recovery = Recovery(object(), LoopState(2), config, run, control, rebuild, QuietProgress())  # type: ignore[arg-type]

    def work(parts: Any, state: LoopState) -> None:
        if not rebuilt_from:
            raise ProcessLost("the policy learner died")
        checkpoint(run, 6)

    recovery.work(work)
    assert rebuilt_from == [later]
    assert start.is_dir() and later.is_dir()
