"""Names of metrics, and what is shown without a cluster."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from actors.cluster.monitoring import KEYS, NoMonitor, exported_names, metric_name
from actors.train.tracking import Stopwatch

ROOT = Path(__file__).resolve().parents[2]


def test_a_key_becomes_a_name_that_prometheus_takes() -> None:
    assert metric_name("outcome/mean") == "airls_ray_outcome_mean"
    assert metric_name("tokens_per_second/rollout") == "airls_ray_tokens_per_second_rollout"


def test_ray_takes_every_name() -> None:
    """Ray drops a metric with another name, and only warns."""
    for name in exported_names():
        assert re.fullmatch(r"ray_airls_ray_[a-z][a-z0-9_]*", name), name


def test_no_two_keys_have_one_name() -> None:
    assert len({metric_name(key) for key in KEYS}) == len(KEYS)
    assert "ray_airls_ray_groups_requeued_total" in exported_names()


def sources() -> list[str]:
    """The texts of all modules but that of the list itself."""
    paths = [*(ROOT / "actors").rglob("*.py"), *(ROOT / "airls_ray").rglob("*.py")]
    return [path.read_text(encoding="utf-8") for path in sorted(paths) if path.name != "monitoring.py"]


def written(source: str) -> set[str]:
    """Lines of all strings of a module, f-strings with {} where a value goes."""
    texts = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            texts.append(
                "".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in node.values)
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return set("\n".join(texts).splitlines())


def name_of(key: str) -> str:
    return key.split("/")[1]


def forms(key: str) -> set[str]:
    """How a key may stand in the sources: whole, behind a section that is a variable, or without one."""
    name = name_of(key)
    return {key, "{}/" + name, name}


def test_every_described_key_is_one_that_a_run_writes() -> None:
    unknown = set(KEYS)
    # To parse a module takes long: those that name most keys first, and only while there are some left.
    for source in sorted(sources(), key=lambda source: -sum(name_of(key) in source for key in KEYS)):
        if any(name_of(key) in source for key in unknown):
            lines = written(source)
            unknown = {key for key in unknown if lines.isdisjoint(forms(key))}
    assert not unknown


def test_nothing_is_shown_by_default() -> None:
    monitor = NoMonitor()
    monitor.record(1, {"outcome/mean": 0.5, "time/rollout": None}, "train")
    monitor.stage("rollout")
    assert not monitor._metrics
    monitor.close()


def test_a_stopwatch_says_which_stage_begins() -> None:
    seen: list[str] = []
    clock = Stopwatch(seen.append)
    with clock("rollout"):
        assert seen == ["rollout"]
    with clock("grade"):
        pass
    assert seen == ["rollout", "grade"]


@pytest.mark.parametrize("key", ["prm/step_auroc", "policy_log_prob/step_auroc", "time/iteration"])
def test_keys_of_a_real_run_are_described(key: str) -> None:
    assert f"ray_{metric_name(key)}" in exported_names()
