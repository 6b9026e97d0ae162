import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from airls_ray.config import Config
from airls_ray.errors import DataError, RunError
from airls_ray.report import write_comparison, write_report
from airls_ray.report.charts import Chart, Line, render
from airls_ray.report.comparison import without_seed
from airls_ray.report.data import RunData, load_run, mean_curve, rolling_mean
from airls_ray.report.examples import render_examples, score_colour
from airls_ray.report.markup import Markup, data_script, element, table
from airls_ray.report.panels import stage_seconds, without_outliers
from airls_ray.report.style import SCRIPT
from airls_ray.runs.run_folder import RunFolder

EVIL = "<script>alert('x')</script>&amp;\"$x"
VOID = {"meta", "br", "input"}


class Page(HTMLParser):
    """The page as a browser sees it: text by element, tags, attributes; unbalanced tags are an error."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.headings: list[str] = []
        self.feed(document)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self.stack and self.stack[-1] in ("h1", "h2", "h3", "summary"):
            self.headings.append(data)
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def metrics(iteration: int, prm: bool = True) -> dict[str, float]:
    found = {"outcome/mean": 0.5 + iteration / 100, "policy/entropy": 0.4, "time/rollout": 3.0}
    found |= {"time/iteration": 5.0, "time/policy_update": 1.5, "tokens_per_second/rollout": 6000.0}
    if prm:
        found |= {"prm/step_auroc": 0.9, "policy_log_prob/step_auroc": 0.8, "prm/loss": 1.3}
    return found


def summary(**more: Any) -> dict[str, Any]:
    accuracy = {"base": {"sampled": 0.53, "greedy": 0.6}, "trained": {"sampled": 0.745, "greedy": 0.78}}
    return {"name": "demo", "method": "airl_s", "seed": 3, "accuracy": accuracy, **more}


def search(start: float) -> dict[str, dict[str, float]]:
    methods = ("best_of_n", "majority", "weighted", "policy_log_prob", "oracle")
    return {name: {str(2**k): start + 0.03 * k for k in range(5)} for name in methods}


def example(text: str, score: float | None, truth: bool | None) -> dict[str, Any]:
    steps = [{"text": text, "score": score, "truth": truth}]
    return {"prompt": text, "answer": text, "outcome": 1.0, "policy": "trained", "steps": steps}


def write_run(path: Path, *, iterations: int = 30, prm: bool = True, **more: Any) -> Path:
    run = RunFolder(path)
    run.create(Config(name=path.name))
    for iteration in range(iterations):
        phase = "warmup" if prm and iteration < 10 else "train"
        run.log_metrics(iteration, metrics(iteration, prm), phase=phase)
    run.write_summary(summary(**more))
    return path


def in_memory(lines: list[dict[str, Any]], config: str = "", **more: Any) -> RunData:
    return RunData(Path("runs/demo"), lines, more, [], config)


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


# ---------------------------------------------------------------------------------------- charts
def lines() -> list[Line]:
    return [
        Line("a", [1, 2], [0.25, 0.5], 1),
        Line("b", [1, 2], [0.5, 1.0], 2),
        Line("c", [1, 2], [3, 4], 3, faint=True),
    ]


def test_a_chart_takes_its_colours_from_the_page() -> None:
    svg = render(Chart("key", "title", lines(), levels=[("chance", 0.5)], shade=(1, 1)))
    for variable in ("--c0", "--c1", "--c2", "--grid", "--muted", "--font"):
        assert f"var({variable})" in svg
    assert re.findall(r"#[0-9a-f]{6}\b", svg) == []


def test_ids_of_two_charts_differ() -> None:
    first, second = (
        set(
            re.findall(
                r'id="([^"]*)"', render(Chart(key, "title", [Line("a", [1, 2], [1, 2], 1, marker="o")]))
            )
        )
        for key in ("one", "two")
    )
    assert first
    assert first.isdisjoint(second)


def test_the_legend_and_the_read_out_name_the_lines_that_are_not_faint() -> None:
    page = Page(render(Chart("key", "title", lines())))
    data = json.loads(page.scripts[0][1])
    assert [line["name"] for line in data["lines"]] == ["a", "b"]
    assert data["lines"][0]["points"] == [[1, 0.25], [2, 0.5]]
    assert [tag for tag, _ in page.tags].count("li") == 2


def test_the_read_out_lies_over_the_plot() -> None:
    """The script finds a point where matplotlib drew it: compared with the path in the SVG."""
    page = Page(render(Chart("key", "title", [Line("a", [0, 10], [0.0, 1.0], 1)], y_range=(0.0, 1.0))))
    data = json.loads(page.scripts[0][1])
    paths = [attributes for tag, attributes in page.tags if tag == "path"]
    drawn = next(str(path["d"]) for path in paths if "var(--c1)" in str(path.get("style")))
    (x0, y0), (x1, y1) = [map(float, point) for point in re.findall(r"([\d.]+) ([\d.]+)", drawn)]
    left, top, width, height = data["box"]
    low, high = data["range"]
    assert x0 == pytest.approx(left + (0 - low) / (high - low) * width, abs=0.01)
    assert x1 == pytest.approx(left + (10 - low) / (high - low) * width, abs=0.01)
    assert (y0, y1) == pytest.approx((top + height, top), abs=0.01)


# ------------------------------------------------------------------------------------------ data
def test_of_an_iteration_logged_twice_the_last_counts() -> None:
    run = in_memory([{"iteration": 1, "a": 1.0}, {"iteration": 0, "a": 5.0}, {"iteration": 1, "a": 2.0}])
    assert run.curve("a") == ([0.0, 1.0], [5.0, 2.0])


def test_what_is_no_number_is_no_point() -> None:
    run = in_memory([{"iteration": 0, "a": None, "b": "x", "c": True}, {"iteration": 1, "a": 1}])
    assert run.curve("a") == ([1.0], [1.0])
    assert run.names() == ["a"]


def test_the_method_is_read_from_the_config_if_there_is_no_summary(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create(Config.model_validate({"method": "rloo"}))
    run.log_metrics(0, {"a": 1.0})
    assert load_run(run.path).method == "rloo"


def test_the_rolling_mean_of_a_long_curve() -> None:
    values = [float(value % 2) for value in range(40)]  # reach 2: windows of 5, 3 at the ends
    smooth = rolling_mean(values)
    assert smooth[:3] == pytest.approx([1 / 3, 2 / 4, 2 / 5])
    assert len(smooth) == 40
    assert rolling_mean([1.0, 5.0]) == [1.0, 5.0]


def test_the_mean_of_curves_is_over_the_iterations_that_all_have() -> None:
    assert mean_curve([([0, 1, 2], [1, 2, 3]), ([1, 2, 3], [4, 5, 6])]) == ([1, 2], [3, 4])


def test_the_time_beyond_the_stages_is_other() -> None:
    line = {
        "iteration": 4,
        "time/rollout": 3.0,
        "time/grade": 0.5,
        "time/reference": 0.0,
        "time/iteration": 4.0,
    }
    stages = stage_seconds(in_memory([line]))
    assert stages == {"rollouts": [(4.0, 3.0)], "grading": [(4.0, 0.5)], "other": [(4.0, 0.5)]}


def test_a_slow_start_is_cut_and_said() -> None:
    assert without_outliers([40.0] + [5.0] * 39) == (7.0, " (cut: the longest took 40 s)")
    assert without_outliers([6.0, 5.0, 5.0]) == (None, "")


# -------------------------------------------------------------------------------------- examples
def test_colours_of_scores() -> None:
    assert score_colour(1.0) == "color-mix(in srgb,var(--high) 100%,transparent)"
    assert score_colour(0.5) == "color-mix(in srgb,var(--high) 0%,transparent)"
    assert score_colour(0.25) == "color-mix(in srgb,var(--low) 50%,transparent)"
    assert score_colour(-9.0) == "color-mix(in srgb,var(--low) 100%,transparent)"


@pytest.mark.parametrize(("truth", "sign"), [(True, "✓"), (False, "✗"), (None, "·")])
def test_a_step_shows_its_score_beside_its_truth(truth: bool | None, sign: str) -> None:
    page = Page(render_examples([example("1+2=3;", 0.25, truth)]))
    step = next(attributes for tag, attributes in page.tags if tag == "li")
    assert step["style"] == f"background:{score_colour(0.25)}"
    assert f"0.25 1+2=3; {sign}" in page.text


def test_a_step_without_a_score_has_no_colour() -> None:
    page = Page(render_examples([example("1+2=3;", None, True)]))
    assert "style" not in next(attributes for tag, attributes in page.tags if tag == "li")


# ---------------------------------------------------------------------------------------- markup
def test_text_is_escaped_and_markup_is_not() -> None:
    assert element("p", "<b>", Markup("<i>x</i>"), [1, None, "&"]) == "<p>&lt;b&gt;<i>x</i>1&amp;</p>"


def test_attributes_are_escaped() -> None:
    assert element("p", class_='"><script>', hidden=True, id=None) == (
        '<p class="&quot;&gt;&lt;script&gt;" hidden></p>'
    )


def test_json_cannot_end_its_script() -> None:
    script = data_script({"a": "</script><!--"})
    assert script.count("<") == 2
    assert json.loads(Page(script).scripts[0][1]) == {"a": "</script><!--"}


def test_a_table_names_rows_and_columns() -> None:
    page = Page(table(["", "x"], [["row", 1]], [("", 1), ("over", 1)]))
    scopes = [attributes["scope"] for tag, attributes in page.tags if tag == "th"]
    assert scopes == ["colgroup", "colgroup", "col", "col", "row"]


# ------------------------------------------------------------------------------------ comparison
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
