"""The last values at the ends of curves, and the glossary."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from airls_ray.report.charts import Chart, Line, render
from airls_ray.report.endings import ending, spread
from airls_ray.report.glossary import GLOSSARY, meaning
from airls_ray.report.panels import DETAILS, LEARNING
from tests.unit.report_pages import Page


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.1, 0.98765], "0.988"),
        ([5.0], "5"),
        ([1.0, float("nan")], "1"),
        ([12345.0], "12.3k"),
        ([-0.5], "-0.5"),
        ([3.2e7], "3.2e+07"),
        ([float("nan")], ""),
        ([], ""),
    ],
)
def test_the_last_number_of_a_curve(values: list[float], text: str) -> None:
    assert ending(values) == text


def test_values_that_are_far_apart_stay_where_they_are() -> None:
    assert spread([50.0, 10.0, 30.0], 10.0, 100.0) == [50.0, 10.0, 30.0]


def test_values_that_are_close_are_moved_apart_around_their_middle() -> None:
    assert spread([20.0, 22.0], 10.0, 100.0) == [16.0, 26.0]
    assert spread([20.0, 20.0, 20.0], 10.0, 100.0) == [10.0, 20.0, 30.0]


@pytest.mark.parametrize("heights", [[99.0, 98.0, 97.0], [0.0, 5.0, 9.0, 11.0, 60.0, 61.0], [40.0] * 9])
def test_none_is_over_another_and_their_order_stays(heights: list[float]) -> None:
    found = spread(heights, 10.0, 100.0)
    order = sorted(range(len(heights)), key=lambda at: heights[at])
    assert all(found[b] - found[a] >= 10.0 - 1e-9 for a, b in pairwise(order))
    assert max(found) <= 100.0


def chart(**more: object) -> Chart:
    lines = [Line("a", [1, 2], [0.25, 0.5], 1), Line("b", [1, 2], [0.5, 0.125], 2)]
    return Chart("key", "Step AUROC", lines, levels=[("chance", 0.375)], **more)  # type: ignore[arg-type]


def test_every_line_ends_with_its_value_in_its_colour_and_the_legend_has_it_too() -> None:
    document = render(chart())
    for text, colour in (("0.5", "--c1"), ("0.125", "--c2")):
        assert re.search(rf'<text style="[^"]*var\({colour}\)[^"]*"[^>]*>{re.escape(text)}</text>', document)
    assert "a 0.5" in Page(document).text
    assert "b 0.125" in Page(document).text
    assert "chance 0.375" in Page(document).text


def test_the_values_of_areas_are_in_the_legend_alone() -> None:
    document = render(chart(stacked=True))
    assert "b 0.125" in Page(document).text
    assert not re.search(r"<text [^>]*var\(--c2\)", document)


# ------------------------------------------------------------------------------------ glossary
def test_terms_are_sentences() -> None:
    assert all(text[0].isupper() and text.endswith(".") for text in GLOSSARY.values())


def test_the_headings_of_the_curves_say_what_they_mean() -> None:
    without = {panel.title for panel in LEARNING + DETAILS if meaning(panel.title) is None}
    assert without <= {"Policy loss"}
    headings = [attributes for tag, attributes in Page(render(chart())).tags if tag == "h3"]
    assert headings == [{"title": GLOSSARY["Step AUROC"]}]


def test_a_heading_of_another_name_says_its_term() -> None:
    assert meaning("KL to the reference") == f"KL: {GLOSSARY['KL']}"
    assert meaning("Step AUROC: PRM") == GLOSSARY["Step AUROC"]
    assert meaning("something/else") is None
