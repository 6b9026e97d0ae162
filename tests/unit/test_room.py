"""Disk and memory before a run starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airls_ray.config import Config
from airls_ray.errors import ResourceError
from airls_ray.planning import make_plan
from airls_ray.planning.room import available_memory, check_room, main_memory, require_disk

GIB = 2**30


def config(tmp_path: Path, **sections: Any) -> Config:
    train = {"iterations": 100, "checkpoint_every": 10, "keep_checkpoints": 2, **sections.pop("train", {})}
    return Config.model_validate({"output": tmp_path, "method": "grpo", "train": train, **sections})


def bytes_each(config: Config) -> float:
    """Policy alone, fp32: weights, masters and two moments of every parameter."""
    return float(make_plan(config).sizes["parameters of the policy"] * (4 + 12))


@pytest.mark.parametrize(
    ("train", "at_once"),
    [({}, 3), ({"keep_best": 2}, 5), ({"checkpoint_every": 100}, 1), ({"checkpoint_every": 60}, 2)],
)
def test_checkpoints_that_do_not_fit_the_disk_are_refused(
    tmp_path: Path, train: dict[str, int], at_once: int
) -> None:
    plan = make_plan(config(tmp_path, train=train))
    needed = at_once * bytes_each(plan.config)
    require_disk(plan, int(needed) + 1)
    with pytest.raises(ResourceError, match=rf"\({at_once} of .* GiB at once\).*train\.keep_checkpoints"):
        require_disk(plan, int(needed) - 1)


def test_checkpoints_that_are_there_already_need_no_room(tmp_path: Path) -> None:
    plan = make_plan(config(tmp_path))
    each = int(bytes_each(plan.config))
    folder = tmp_path / plan.config.name / "checkpoints" / "iteration_000010"
    folder.mkdir(parents=True)
    with (folder / "weights").open("wb") as file:
        file.truncate(each)
    require_disk(plan, 2 * each + 1)
    with pytest.raises(ResourceError):
        require_disk(plan, 2 * each - 1)


def test_a_run_that_is_too_large_for_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airls_ray.planning.room._free", lambda folder: 1000)
    with pytest.raises(ResourceError, match=r"0\.0 GiB are free there"):
        check_room(config(tmp_path))


def test_too_little_memory_is_a_warning_on_our_own_cluster_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("airls_ray.planning.room.available_memory", lambda: GIB // 2)
    (warning,) = check_room(config(tmp_path))
    assert "0.5 GiB are free" in warning
    assert check_room(config(tmp_path, ray={"address": "head:6379"})) == []
    monkeypatch.setattr("airls_ray.planning.room.available_memory", lambda: 10_000 * GIB)
    assert check_room(config(tmp_path)) == []


def test_the_memory_of_a_run_is_that_of_all_its_processes(tmp_path: Path) -> None:
    one, two = (
        make_plan(config(tmp_path, rollout={"min_workers": count, "max_workers": 2})) for count in (1, 2)
    )
    needed = int(GIB + one.memory["policy learner"].total + one.engine.total)
    assert not list(main_memory(one, needed + 1))
    assert list(main_memory(one, needed - 1))
    assert list(main_memory(two, needed + one.engine.total - 1))
    assert not list(main_memory(two, needed + one.engine.total + 1))


def test_a_containers_limit_counts_where_it_is_less(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    assert available_memory(meminfo, tmp_path) == 50 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(meminfo, tmp_path) == 50 * 1024
    (tmp_path / "memory.max").write_text("30000\n")
    (tmp_path / "memory.current").write_text("10000\n")
    assert available_memory(meminfo, tmp_path) == 20000
    assert available_memory(tmp_path / "none", tmp_path / "none") is None
