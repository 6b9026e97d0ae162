"""What a report is made of: charts, curves, examples and markup."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from airls_ray.config import Config
from airls_ray.report.charts import Chart, Line, render
from airls_ray.report.data import load_run, mean_curve, rolling_mean
from airls_ray.report.examples import render_examples, score_colour
from airls_ray.report.markup import Markup, data_script, element, table
from airls_ray.report.panels import stage_seconds, without_outliers
from airls_ray.runs.run_folder import RunFolder
from tests.unit.report_pages import Page, example, in_memory


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
