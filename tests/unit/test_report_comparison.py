"""The comparison of runs: what is averaged, and under which names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airls_ray.errors import RunError
from airls_ray.report import write_comparison
from airls_ray.report.comparison import without_seed
from airls_ray.runs.run_folder import RunFolder
from tests.unit.report_pages import EVIL, Page, write_run


def test_seeds_of_a_method_are_averaged(tmp_path: Path) -> None:
    runs = []
    for seed, accuracy in enumerate((0.7, 0.8)):
        runs.append(write_run(tmp_path / f"airl_s-seed{seed}", iterations=3))
        RunFolder(runs[-1]).write_summary({"accuracy": {"trained": {"sampled": accuracy}}})
    runs.append(write_run(tmp_path / "grpo-seed0", iterations=3, prm=False))
    page = Page(write_comparison(runs, tmp_path / "page.html", title=EVIL).read_text())
    assert page.headings[0] == EVIL
    assert "airl_s 2 - 0.750 ± 0.071" in page.text
    data = json.loads(page.scripts[0][1])
    assert [line["name"] for line in data["lines"]] == ["airl_s", "demo"]


def test_labels_decide_what_is_averaged(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, iterations=2) for name in ("a", "b")]
    page = Page(write_comparison(runs, tmp_path / "page.html", labels=["mine", "mine"]).read_text())
    assert "mine 2" in page.text
    with pytest.raises(ValueError, match="2 runs need as many labels"):
        write_comparison(runs, tmp_path / "page.html", labels=["one"])


def test_runs_without_a_common_iteration_are_drawn_though_they_have_no_mean(tmp_path: Path) -> None:
    runs = []
    for name, first in (("a", 1), ("b", 50)):
        folder = write_run(tmp_path / name, iterations=3)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            line["iteration"] += first - 1
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        runs.append(folder)
    page = Page(write_comparison(runs, tmp_path / "both.html", labels=["mine", "mine"]).read_text())
    data = json.loads(page.scripts[0][1])
    assert [line["name"] for line in data["lines"]] == ["mine", "mine"]


def test_a_comparison_of_nothing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no runs to compare"):
        write_comparison([], tmp_path / "page.html")


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("grpo-seed3", "grpo"),
        ("grpo_s3", "grpo"),
        ("lr-0.3", "lr-0.3"),
        ("dr_grpo", "dr_grpo"),
        ("run7", "run7"),
    ],
)
def test_a_seed_at_the_end_of_a_name_is_left_out(name: str, short: str) -> None:
    assert without_seed(name) == short
