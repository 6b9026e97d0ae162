"""Pages of the documentation that list what the code has: nothing of it is missing there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from actors.cluster.monitoring import KEYS
from airls_ray import doors
from airls_ray.config import load_config
from airls_ray.config.explain import known_keys
from airls_ray.learning import policy
from airls_ray.learning.engine import norm_metrics
from airls_ray.runs.best_metric import GROUPS, evaluation_names
from airls_ray.runs.diagnostics import CHECKS

ROOT = Path(__file__).resolve().parents[2]
NOT_WRITTEN = {"rollout/response_tokens", "evaluation/", "reward/", "prm/"}
"""Taken out of a line before it is written; beginnings of names."""


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def source() -> str:
    files = [path for folder in ("airls_ray", "actors") for path in sorted((ROOT / folder).rglob("*.py"))]
    return "\n".join(path.read_text() for path in files)


def written_metrics() -> set[str]:
    """Metrics that the code names: whole ones, those of stages, of a policy's loss and of evaluations."""
    text, groups = source(), "|".join(sorted(GROUPS | {"label", "sft", "train_prm"}))
    whole = set(re.findall(rf'"((?:{groups})/[\w/]*)"', text))
    stages = {f"time/{stage}" for stage in re.findall(r'clock\("(\w+)"\)', text)}
    of_losses = {f"policy/{name}" for name in policy._NAMES.values()}
    of_updates = {f"{part}/{name}" for part in ("policy", "prm") for name in norm_metrics([])}
    config = load_config(None, ["train.evaluation.greedy=true"])
    named = (whole, stages, of_losses, of_updates, evaluation_names(config))
    return set().union(*named) - NOT_WRITTEN


def metrics_on_the_page() -> set[str]:
    return set(re.findall(r"`([a-z_]+/\w[\w/]*)`", page("metrics.md").partition("## When training")[0]))


def settings_of(text: str) -> set[str]:
    return {one.partition("=")[0] for one in re.findall(r"`([a-z]\w*(?:\.\w+)+(?:=[^`]+)?)`", text)}


@pytest.mark.parametrize("kind", doors.KINDS)
def test_every_kind_of_door_has_a_section_or_a_row(kind: str) -> None:
    named = re.findall(r"^(?:## (.+)|\| ([^|]+) \|)", page("doors.md").lower(), flags=re.MULTILINE)
    assert any(kind.lower() in heading + row for heading, row in named)


def test_every_metric_that_is_shown_on_prometheus_is_on_the_page() -> None:
    assert not set(KEYS) - metrics_on_the_page()


def test_every_metric_that_the_code_writes_is_on_the_page() -> None:
    assert len(written_metrics()) > 100
    assert not written_metrics() - metrics_on_the_page()


def test_the_page_names_no_metric_of_a_run_that_nothing_writes() -> None:
    of_a_run = page("metrics.md").partition("## Other commands")[0]
    named = set(re.findall(r"^\| ((?:`[^`]+`(?:, )?)+)", of_a_run, flags=re.MULTILINE))
    metrics = {one for cell in named for one in re.findall(r"`([^`]+)`", cell)}
    made = {one for one in metrics if re.search(r"[A-Z]", one)} | {
        "grade/graded_share"
    }  # f"grade/{reason}_share"
    assert not metrics - made - written_metrics()


@pytest.mark.parametrize("kind", CHECKS)
def test_every_warning_of_a_run_has_a_row_with_what_to_change(kind: str) -> None:
    (row,) = re.findall(rf"^\| \*\*{kind}\*\*.*$", page("metrics.md"), flags=re.MULTILINE)
    assert settings_of(row.split("|")[3])


@pytest.mark.parametrize("name", ["metrics.md", "coming_from.md"])
def test_every_setting_that_a_page_names_exists(name: str) -> None:
    names = settings_of(page(name).partition("\n## TRL\n")[0])  # behind it those of others
    files = {one for one in names if one.endswith((".md", ".jsonl", ".yaml"))}
    sections = {key.rpartition(".")[0] for key in known_keys()}
    assert names and not names - files - known_keys() - sections
