"""What the report's browser of rollouts holds, from tables made by hand."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airls_ray.config import Config
from airls_ray.errors import DataError
from airls_ray.report import write_report
from airls_ray.report.browser import browser_intro, render_browser
from airls_ray.report.data import load_run
from airls_ray.report.page import asset
from airls_ray.report.rollout_rows import BrowsedRollouts, read_rollouts, sample_evenly
from airls_ray.report.style import SCRIPT
from airls_ray.runs.run_folder import RunFolder
from airls_ray.text.make_tokenizer import train_tokenizer
from airls_ray.text.tokenizer_files import load_tokenizer
from tests.unit.report_pages import EVIL, Page, example

ROLLOUT = {
    "problem_id": "p1",
    "prompt": "1+1+1=",
    "steps": ["1+1=2\n", "2+1=3\n"],
    "outcome": 1.0,
    "logprobs": -0.5,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with a token a byte."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([], 258, folder)
    return folder


def table(tokenizer: Path, *rows: dict[str, Any]) -> pa.Table:
    """Rollouts as a run stores them; whatever else a row has becomes a column."""
    loaded = load_tokenizer(tokenizer, chat=False)
    found = []
    for given in rows:
        row = {**ROLLOUT, **given}
        pieces = [loaded.encode(text).ids for text in row.pop("steps")]
        pieces[-1] = [*pieces[-1], loaded.eos_id]
        response = [token for piece in pieces for token in piece]
        ends = [sum(map(len, pieces[: at + 1])) for at in range(len(pieces))]
        one_log = row.pop("logprobs")
        found.append(
            row
            | {"prompt": loaded.encode(row["prompt"]).ids, "response": response, "step_ends": ends}
            | {"logprobs": [one_log] * len(response), "finish": "stop", "version": 3}
        )
    return pa.Table.from_pylist(found)


def make_run(path: Path, tokenizer: Path, iterations: dict[int, pa.Table], **summary: Any) -> RunFolder:
    run = RunFolder(path)
    run.create(Config.model_validate({"name": path.name, "model": {"path": str(tokenizer)}}))
    run.log_metrics(1, {"outcome/mean": 0.5})
    run.write_summary({"seed": 7, **summary})
    for iteration, rows in iterations.items():
        run.write_rollouts(iteration, rows)
    return run


def write_samples(run: RunFolder, name: str, rows: pa.Table, grades: list[dict[str, Any]]) -> None:
    folder = run.path / "samples"
    folder.mkdir(exist_ok=True)
    pq.write_table(rows, folder / f"{name}.parquet")
    pq.write_table(pa.Table.from_pylist(grades), folder / f"{name}_grades.parquet")


def browsed(run: RunFolder, **more: Any) -> BrowsedRollouts:
    return read_rollouts(load_run(run.path), **more)


def selects(found: BrowsedRollouts) -> dict[str, list[str]]:
    """Values of the form's choices, by name."""
    page = Page(str(render_browser(found)))
    names: dict[str, list[str]] = {}
    for tag, attributes in page.tags:
        if tag == "select":
            names[str(attributes["name"])] = values = []
        elif tag == "input":
            names[str(attributes["name"])] = []
        elif tag == "option":
            values.append(str(attributes["value"]))
    return names


# ------------------------------------------------------------------------------------ the rows
def test_a_rollout_is_its_texts_with_what_is_known_of_each_step(tokenizer: Path, tmp_path: Path) -> None:
    row = {"scores": [0.25, 0.5], "step_truth": [True, False], "answer": "3", "outcome": 0.0}
    found = browsed(make_run(tmp_path / "a", tokenizer, {4: table(tokenizer, row)}))
    assert found.sources == [{"name": "iteration 4", "kind": "iteration", "rows": 1, "shown": 1}]
    assert found.prompts == ["1+1+1="]
    assert found.rows == [
        {
            "source": 0,
            "prompt": 0,
            "problem": "p1",
            "steps": ["1+1=2", "2+1=3"],
            "tokens": 13,  # two steps of six bytes, and the end of the response
            "finish": "stop",
            "outcome": 0.0,
            "version": 3,
            "answer": "3",
            "logs": [-3.0, -3.5],
            "scores": [0.25, 0.5],
            "trace": 0.125,  # their product, as prm.search_aggregate says
            "truths": [True, False],
        }
    ]


def test_every_iteration_is_there_in_order_and_prompts_once(tokenizer: Path, tmp_path: Path) -> None:
    rows = table(tokenizer, {}, {"prompt": "2+2="})
    run = make_run(tmp_path / "a", tokenizer, {10: rows, 2: rows})
    write_samples(
        run,
        "trained",
        rows,
        [{"answer": "3", "step_truth": [True, True]}, {"answer": None, "step_truth": None}],
    )
    found = browsed(run)
    assert [source["name"] for source in found.sources] == [
        "iteration 2",
        "iteration 10",
        "test samples, trained policy",
    ]
    assert [row["source"] for row in found.rows] == [0, 0, 1, 1, 2, 2]
    assert found.prompts == ["1+1+1=", "2+2="]
    assert [(row.get("answer"), row.get("truths")) for row in found.rows[4:]] == [
        ("3", [True, True]),
        (None, None),
    ]


def test_grades_that_are_not_of_these_samples_are_an_error(tokenizer: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", tokenizer, {})
    write_samples(run, "base", table(tokenizer, {}, {}), [{"answer": "3"}])
    with pytest.raises(DataError, match=r"base_grades\.parquet has 1 rows and base\.parquet 2"):
        browsed(run)


def test_own_rewards_are_columns_and_nan_is_nothing(tokenizer: Path, tmp_path: Path) -> None:
    row = {"reward": 0.75, "reward/short": float("nan"), "reward_steps": [0.5, 0.25]}
    found = browsed(make_run(tmp_path / "a", tokenizer, {1: table(tokenizer, row)}))
    assert found.rewards == ["reward", "reward/short"]
    assert found.rows[0]["rewards"] == [0.75, None]
    assert found.rows[0]["paid"] == [0.5, 0.25]
    assert {"reward_0", "reward_1"} <= set(selects(found)["sort"])


def test_a_broken_file_is_named(tokenizer: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", tokenizer, {1: table(tokenizer, {})})
    (run.rollouts_folder / "iteration_000001.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"iteration_000001\.parquet is no readable Parquet file"):
        browsed(run)


def test_the_task_of_the_run_is_not_opened(tokenizer: Path, tmp_path: Path) -> None:
    """A run folder of somebody else's may name code; a report runs none of it."""
    run = make_run(tmp_path / "a", tokenizer, {1: table(tokenizer, {})})
    (tmp_path / "task.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Task: pass\n")
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("task:\n", f"task:\n  name: {tmp_path}/task.py:Task\n", 1))
    assert browsed(run).rows
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------------- what is missing
def test_a_run_without_rollouts_has_no_browser(tokenizer: Path, tmp_path: Path) -> None:
    found = browsed(make_run(tmp_path / "a", tokenizer, {}))
    assert (found.rows, found.problem, render_browser(found)) == ([], "", None)
    assert "Rollouts" not in Page(write_report(tmp_path / "a").read_text()).headings


def test_a_run_without_a_prm_is_asked_for_no_disagreement(tokenizer: Path, tmp_path: Path) -> None:
    row = {"step_truth": [True, True], "scores": None}
    found = browsed(make_run(tmp_path / "a", tokenizer, {1: table(tokenizer, row)}))
    form = selects(found)
    assert not {"disagreement", "threshold"} & form.keys()
    assert not {"trace_high", "step_gap", "outcome_gap"} & set(form["sort"])
    assert "No step has a PRM score." in browser_intro(found)


def test_without_truths_only_the_outcome_can_disagree(tokenizer: Path, tmp_path: Path) -> None:
    found = browsed(make_run(tmp_path / "a", tokenizer, {1: table(tokenizer, {"scores": [0.1, 0.2]})}))
    assert selects(found)["disagreement"] == ["", "outcome", "outcome_high", "outcome_low"]
    assert "step_gap" not in selects(found)["sort"]


def test_iterations_of_an_older_run_have_no_scores_and_it_is_said(tokenizer: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", tokenizer, {1: table(tokenizer, {}), 2: table(tokenizer, {})})
    write_samples(run, "base", table(tokenizer, {"scores": [0.1, 0.2]}), [{"answer": None}])
    assert "No PRM scores are kept of iteration 1 and 1 more." in browser_intro(browsed(run))


def test_rollouts_that_are_not_graded_can_be_chosen(tokenizer: Path, tmp_path: Path) -> None:
    found = browsed(make_run(tmp_path / "a", tokenizer, {1: table(tokenizer, {"outcome": None})}))
    assert "outcome" not in found.rows[0]
    assert selects(found)["outcome"] == ["", "right", "wrong", "none"]


def test_without_a_tokenizer_the_examples_are_shown_and_the_reason(tokenizer: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", tmp_path / "gone", {1: table(tokenizer, {})})
    run.write_examples([example("2+2=4;", 0.25, True)])
    page = Page(write_report(run.path).read_text())
    assert "no tokenizer was found for them" in page.text
    assert "0.25 2+2=4; ✓" in page.text
    assert [text for attributes, text in page.scripts if not attributes] == [SCRIPT]


# -------------------------------------------------------------------------------- the sampling
def test_what_fits_is_there_whole() -> None:
    assert sample_evenly([[1, 1], [1]], ["a", "b"], 3, seed=0) == [[0, 1], [0]]


def test_as_many_of_each_file_are_kept_by_the_seed() -> None:
    sizes = [[1.0] * 100, [1.0] * 100, [1.0] * 3]
    kept = sample_evenly(sizes, ["a", "b", "c"], 23, seed=0)
    assert [len(rows) for rows in kept] == [10, 10, 3]
    assert all(rows == sorted(set(rows)) for rows in kept)
    assert kept == sample_evenly(sizes, ["a", "b", "c"], 23, seed=0)
    assert kept != sample_evenly(sizes, ["a", "b", "c"], 23, seed=1)
    assert kept[0] != kept[1]


def test_more_files_than_fit_are_thinned_evenly() -> None:
    kept = sample_evenly([[1.0]] * 10, [str(at) for at in range(10)], 5, seed=0)
    assert [at for at, rows in enumerate(kept) if rows] == [0, 2, 4, 6, 8]


def test_one_that_is_larger_than_everything_leaves_nothing_and_ends() -> None:
    assert sample_evenly([[10.0, 10.0], []], ["a", "b"], 5, seed=0) == [[], []]


def test_the_page_says_that_it_is_sampled_and_is_about_as_large_as_asked(
    tokenizer: Path, tmp_path: Path
) -> None:
    rows = table(tokenizer, *({"prompt": f"{at}+{at}=", "scores": [0.5, 0.5]} for at in range(300)))
    run = make_run(tmp_path / "a", tokenizer, {1: rows, 2: rows})
    found = browsed(run, most_bytes=60_000)
    shown = [source["shown"] for source in found.sources]
    assert abs(shown[0] - shown[1]) <= 1
    assert found.sources[0]["rows"] == 300
    assert 30_000 < len(json.dumps([found.rows, found.prompts])) < 80_000
    assert f"{len(found.rows)} of them are here" in browser_intro(found)
    assert "drawn with seed 7" in browser_intro(found)
    whole = browsed(run)
    assert len(whole.rows) == 600
    assert "of them are here" not in browser_intro(whole)


# ------------------------------------------------------------------------------------ the page
def test_text_that_is_html_stays_data(tokenizer: Path, tmp_path: Path) -> None:
    evil = f"</script>{EVIL}<!--"
    row = {"prompt": evil, "steps": [evil], "answer": evil, "problem_id": evil, "status": evil}
    page = Page(
        write_report(make_run(tmp_path / "a", tokenizer, {1: table(tokenizer, row)}).path).read_text()
    )
    assert [text for attributes, text in page.scripts if not attributes] == [SCRIPT, asset("browser.js")]
    data = next(json.loads(text) for attributes, text in page.scripts if attributes and '"rollouts"' in text)
    assert data["prompts"] == [evil]
    (found,) = data["rollouts"]
    assert (found["steps"], found["answer"], found["problem"]) == ([evil], evil, evil)


def test_both_scripts_are_allowed_by_their_hashes_and_no_other(tokenizer: Path, tmp_path: Path) -> None:
    document = write_report(make_run(tmp_path / "a", tokenizer, {1: table(tokenizer, {})}).path).read_text()
    page = Page(document)
    policy = next(str(attributes["content"]) for _, attributes in page.tags if "http-equiv" in attributes)
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for attributes, text in page.scripts
        if not attributes
    ]
    assert policy.partition("script-src ")[2] == " ".join(f"'sha256-{one}'" for one in hashes)
    assert len(hashes) == 2


def test_the_script_sets_no_html() -> None:
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "http"):
        assert word not in asset("browser.js")
