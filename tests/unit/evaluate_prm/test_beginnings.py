"""`airls-ray evaluate-prm --partial-tokens`: how beginnings of steps are ranked against whole ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import kendalltau

from airls_ray.cli.evaluate_prm import score_beginnings
from airls_ray.console.progress import QuietProgress
from airls_ray.data.step_files import StepRow
from airls_ray.prm.items import StepText
from airls_ray.prm.load import load_step_scorer
from tests.unit.evaluate_prm.fakes import run, summary_of, write
from tests.unit.prm_folders import token_classifier


class LetterScorer:
    """A token is a letter; scores are given by the step's text. Remembers what it was asked."""

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values
        self.calls: list[list[StepText]] = []

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        self.calls.append(list(items))
        return [[self.values[step] for step in item.steps] for item in items]

    def cut_last_step(self, item: StepText, tokens: int) -> StepText | None:
        *before, last = item.steps
        if len(last) <= tokens:
            return None
        return StepText(item.problem, [*before, last[:tokens]], finished=False, where=item.where)


LETTERS = {"ab": 0.3, "abc": 0.8, "abcd": 0.5, "abce": 0.9, "x": 0.1, "xyz": 0.2, "xy": 0.6, "a": 0.4}


def two_solutions(folder: Path) -> Path:
    rows = [["abcd", "xyz", "x"], ["abce", "xy"]]
    return write(
        folder / "a.jsonl",
        [{"problem": "p", "steps": steps, "labels": [None] * len(steps)} for steps in rows],
    )


def test_beginnings_are_ranked_against_whole_steps_as_scipy_does(tmp_path: Path, load: Any) -> None:
    load(LetterScorer(LETTERS))
    options = ("--partial-tokens", 1, "--partial-tokens", 2)
    assert run(two_solutions(tmp_path), "--prm", "p", *options, "--output", tmp_path / "out") == 0
    found = summary_of(tmp_path / "out")["partial_rank_correlation"]
    final = [LETTERS[step] for step in ("abcd", "xyz", "abce", "xy")]  # `x` is no longer than a token
    wanted = kendalltau([LETTERS[step] for step in ("a", "x", "a", "x")], final).statistic
    assert found["1"]["tau"] == pytest.approx(wanted)
    wanted = kendalltau([LETTERS[step] for step in ("ab", "xy", "ab")], final[:3]).statistic
    assert found["2"]["tau"] == pytest.approx(wanted)
    assert 0 < abs(found["1"]["tau"]) < 1
    assert found["1"]["tau"] != found["2"]["tau"]


def test_steps_that_are_not_longer_are_not_counted(tmp_path: Path, load: Any) -> None:
    load(LetterScorer(LETTERS))
    options = [part for count in (1, 2, 3, 4) for part in ("--partial-tokens", count)]
    assert run(two_solutions(tmp_path), "--prm", "p", *options, "--output", tmp_path / "out") == 0
    found = summary_of(tmp_path / "out")["partial_rank_correlation"]
    assert [one["steps"] for one in found.values()] == [4, 3, 2, 0]
    assert found["4"] == {"steps": 0, "tau": None, "tau_within": None}


def test_a_beginning_without_a_score_is_nan_in_its_place() -> None:
    rows = [StepRow("p", ("abcd", "x"), (None, None), "p", "a"), StepRow("q", ("xyz",), (None,), "q", "a")]
    found = score_beginnings(rows, LetterScorer(LETTERS), [1, 2], "p", QuietProgress())
    assert found[1][0][0] == LETTERS["a"]
    assert math.isnan(found[1][0][1])
    assert found[1][1] == [LETTERS["x"]]
    assert found[2][1] == [LETTERS["xy"]]


def test_earlier_steps_are_scored_whole_and_nothing_behind_the_cut(tmp_path: Path, load: Any) -> None:
    scorer = LetterScorer(LETTERS)
    load(scorer)
    assert run(two_solutions(tmp_path), "--prm", "p", "--partial-tokens", 2, "--output", tmp_path / "o") == 0
    whole, beginnings = scorer.calls
    assert all(item.finished for item in whole)
    assert [item.steps for item in beginnings] == [["ab"], ["abcd", "xy"], ["ab"]]
    assert not any(item.finished for item in beginnings)


def test_beginnings_are_scored_in_large_but_bounded_batches(tmp_path: Path, load: Any) -> None:
    scorer = LetterScorer(LETTERS)
    load(scorer)
    row = {"problem": "p", "steps": ["abcd"] * 10, "labels": [None] * 10}
    data = write(tmp_path / "a.jsonl", [row] * 60)
    assert run(data, "--prm", "p", "--partial-tokens", 2, "--output", tmp_path / "out") == 0
    assert [len(call) for call in scorer.calls] == [60, 256, 256, 88]


def test_a_real_prms_beginnings_are_those_of_its_tokenizer(tmp_path: Path) -> None:
    """Its tokens are bytes, so that five tokens are five letters."""
    token_classifier(tmp_path / "prm")
    steps = [["so it is", "and so on"], ["it was not", "but why"]]
    rows = [{"problem": "why?", "steps": part, "labels": [None, None]} for part in steps]
    data = write(tmp_path / "a.jsonl", rows)
    assert run(data, "--prm", tmp_path / "prm", "--partial-tokens", 5, "--output", tmp_path / "out") == 0
    scorer = load_step_scorer(tmp_path / "prm")
    final = [one for part in steps for one in scorer.score([StepText("why?", part)])[0]]
    cut = [StepText("why?", [*part[:at], part[at][:5]]) for part in steps for at in range(2)]
    partial = [scorer.score([item])[0][-1] for item in cut]
    found = summary_of(tmp_path / "out")["partial_rank_correlation"]["5"]
    assert found["tau"] == pytest.approx(kendalltau(partial, final).statistic)


def test_ranks_of_beginnings_are_printed_by_rising_number_of_tokens(
    tmp_path: Path, load: Any, capsys: Any
) -> None:
    load(LetterScorer(LETTERS))
    options = ("--partial-tokens", 2, "--partial-tokens", 1, "--partial-tokens", 2)
    assert run(two_solutions(tmp_path), "--prm", "p", *options, "--output", tmp_path / "out") == 0
    printed = capsys.readouterr().out.partition("Kendall's tau-b")[2].splitlines()
    numbers = [line.split()[:2] for line in printed if line.strip()[:1].isdigit()]
    assert numbers == [["1", "4"], ["2", "3"]]


def test_no_beginnings_are_scored_unless_asked_for(tmp_path: Path, load: Any, capsys: Any) -> None:
    scorer = LetterScorer(LETTERS)
    load(scorer)
    assert run(two_solutions(tmp_path), "--prm", "p", "--output", tmp_path / "out") == 0
    assert len(scorer.calls) == 1
    assert "partial_rank_correlation" not in summary_of(tmp_path / "out")
    assert "Kendall" not in capsys.readouterr().out


def test_progress_of_beginnings_is_shown(tmp_path: Path, load: Any, capsys: Any) -> None:
    load(LetterScorer(LETTERS))
    options = ("--partial-tokens", 1, "--partial-tokens", 2)
    assert run(two_solutions(tmp_path), "--prm", "p", *options, "--output", tmp_path / "out") == 0
    assert "10/10 (100%)" in capsys.readouterr().err


def test_beginnings_without_a_prm_are_refused_at_once(tmp_path: Path, capsys: Any) -> None:
    assert run(tmp_path / "none.jsonl", "--partial-tokens", 4) == 2
    assert capsys.readouterr().err.startswith("Error: --partial-tokens needs --prm")


def test_no_tokens_are_no_beginning(tmp_path: Path, capsys: Any) -> None:
    assert run(two_solutions(tmp_path), "--prm", "p", "--partial-tokens", 0) == 2
    assert "--partial-tokens" in capsys.readouterr().err


def test_a_wrong_score_of_a_beginning_is_named(tmp_path: Path, load: Any, capsys: Any) -> None:
    load(LetterScorer(LETTERS | {"ab": 1.5}))
    data = two_solutions(tmp_path)
    assert run(data, "--prm", "my-prm", "--partial-tokens", 2, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "my-prm must give one score in [0, 1] for each of the 1 steps of" in error
    assert "a.jsonl, line 1" in error
