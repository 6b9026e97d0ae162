"""The report of a run as a page."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from airls_ray.errors import DataError, RunError
from airls_ray.report import write_report
from airls_ray.report.style import SCRIPT
from airls_ray.runs.run_folder import RunFolder
from tests.unit.report_pages import EVIL, Page, example, metrics, search, write_run


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> str:
    auroc = {"step_auroc": 0.968, "trace_auroc": 0.912}
    control = {"step_auroc": 0.902, "trace_auroc": None}
    path = write_run(
        tmp_path_factory.mktemp("runs") / "demo",
        prm=True,
        search={**search(0.75), EVIL: {"1": 0.7, "16": 0.8}},
        search_base=search(0.53),
        policy_log_prob=control,
        versions={"torch": EVIL},
        seconds={"train": 510, "total": None},
    )
    run = RunFolder(path)
    run.write_summary({**run.read_summary(), "prm": auroc, "name": EVIL, "method": EVIL})
    run.log_metrics(30, {EVIL: 1.0, "outcome/mean": 0.8})
    run.write_examples([example(EVIL, 0.9, True), {"prompt": None, "steps": [EVIL], "policy": EVIL}])
    return write_report(path).read_text()


def test_an_evaluation_stands_beside_the_outcome_and_on_its_own(tmp_path: Path) -> None:
    run = RunFolder(write_run(tmp_path / "demo", stopped_early={"sentence": "Stopped early after 9."}))
    assert "held-out problems (evaluation)" not in Page(write_report(run.path).read_text()).text
    found = {"evaluation/accuracy": 0.6, "evaluation/search/best_of_n": 0.7, "time/evaluation": 2.0}
    run.log_metrics(30, {**metrics(30), **found})
    page = Page(write_report(run.path).read_text())
    outcome, evaluation = (chart_after(page, name) for name in ("Outcome", "Evaluation"))
    assert "held-out problems (evaluation)" in outcome
    assert "best of N by PRM" in evaluation
    assert "evaluation/accuracy" not in page.headings  # it is not among the other metrics, too
    assert "Stopped early after 9." in page.text
    assert " evaluation 0.065 " in page.text  # 2 s in one of 31 iterations


def chart_after(page: Page, title: str) -> str:
    """The text from a chart's title to the next one's."""
    heads = page.headings
    following = heads[heads.index(title) + 1]
    return page.text.split(f" {title} ", 1)[1].split(f" {following} ", 1)[0]


# ------------------------------------------------------------------------------------- the page
def test_the_page_is_well_formed_and_has_all_sections(document: str) -> None:
    headings = Page(document).headings
    for name in (
        "Results",
        "Learning curves",
        "Search",
        "Rollouts",
        "Time",
        "All other metrics",
        "Configuration",
    ):
        assert name in headings
    for name in (
        "Outcome",
        "Step AUROC",
        "Trained policy",
        "Base policy",
        "Time per stage",
        "Policy entropy",
    ):
        assert name in headings


def test_nothing_is_loaded_from_elsewhere(document: str) -> None:
    links = {"src", "href", "xlink:href", "action", "srcset", "data"}
    for _, attributes in Page(document).tags:
        for name in links & attributes.keys():
            assert str(attributes[name]).startswith("#")
    assert "@import" not in document
    assert re.findall(r"url\((?!#)", document) == []


def test_untrusted_text_is_shown_and_never_run(document: str) -> None:
    page = Page(document)
    running = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    assert running == [SCRIPT]
    assert page.text.count(EVIL) >= 8  # name, method, version, search, metric, prompt, answer, step


def test_the_security_policy_allows_our_script_and_no_other(document: str) -> None:
    page = Page(document)
    script = next(text for attributes, text in page.scripts if not attributes)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_tables_hold_the_summary(document: str) -> None:
    text = Page(document).text
    assert "sampled 0.530 0.745 +21.5 points" in text
    assert "greedy 0.600 0.780 +18.0 points" in text
    assert "step AUROC 0.968 0.902 +0.066" in text
    assert "trace AUROC 0.912 - -" in text
    assert "best of N by PRM 0.750 0.780 0.810 0.840 0.870 0.530 0.560 0.590 0.620 0.650" in text
    assert "train 8:30 min" in text


def test_the_page_is_the_same_twice(tmp_path: Path) -> None:
    path = write_run(tmp_path / "demo", iterations=5)
    assert write_report(path).read_bytes() == write_report(path).read_bytes()


# ------------------------------------------------------------------------------- what is missing
def test_a_run_without_a_prm_has_no_prm_charts(tmp_path: Path) -> None:
    headings = Page(write_report(write_run(tmp_path / "grpo", prm=False)).read_text()).headings
    assert "Outcome" in headings
    for name in ("Step AUROC", "Discriminator accuracy", "Search", "Rollouts", "Scores against the truth"):
        assert name not in headings


def test_a_run_that_has_only_metrics_yet_is_reported(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "young")
    run.log_metrics(0, {"outcome/mean": 0.5, "prm/step_auroc": float("nan")})
    page = Page(write_report(run.path).read_text())
    assert page.headings[0] == "young"
    assert "Outcome" in page.headings
    assert "Step AUROC" not in page.headings


def test_a_run_that_has_only_a_summary_is_reported(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_summary({"accuracy": {"base": {"greedy": 0.5}}, "prm": None, "search": None})
    assert "greedy 0.500 - -" in Page(write_report(tmp_path).read_text()).text


def test_no_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        write_report(tmp_path / "none")
    with pytest.raises(RunError, match="neither metrics"):
        write_report(tmp_path)


def test_a_broken_file_of_the_run_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "demo", iterations=1)
    (tmp_path / "demo" / "examples.json").write_text("{}")
    with pytest.raises(DataError, match=r"examples\.json must hold a JSON list"):
        write_report(tmp_path / "demo")


def test_warnings_of_the_run_are_shown_as_text(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log_metrics(1, {"outcome/mean": 0.5})
    folder.log_warning(1, "falling outcome", "the outcome fell <b>far</b>")
    page = write_report(tmp_path).read_text()
    assert "iteration 1" in page
    assert "the outcome fell &lt;b&gt;far&lt;/b&gt;" in page


def test_a_run_without_warnings_has_no_such_section(tmp_path: Path) -> None:
    RunFolder(tmp_path).log_metrics(1, {"outcome/mean": 0.5})
    assert "Warnings" not in write_report(tmp_path).read_text()
