"""`airls-ray evaluate-prm`: from files and a scorer to a table, a summary, scored rows and a picture."""

from __future__ import annotations

import json
import math
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from scipy.stats import kendalltau

from airls_ray.cli import main as cli
from airls_ray.cli.evaluate_prm import score_beginnings
from airls_ray.console.progress import QuietProgress
from airls_ray.data.step_files import StepRow
from airls_ray.evaluation.prm_metrics import report
from airls_ray.prm.items import StepText
from airls_ray.prm.load import load_step_scorer
from tests.unit.prm_folders import token_classifier

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawn() -> None:
    """The picture is drawn: a second of matplotlib."""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not, unless a test asks for `drawn`."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(report, "draw_step_scores", lambda path, *_: path.touch())


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def solutions(problems: int = 12, **more: Any) -> list[dict[str, Any]]:
    """Every third is right, the others have a first wrong step, which is called `bad`."""
    return [
        {
            "problem": f"problem {n}",
            "steps": ["bad" if step == n % 3 - 1 else "good" for step in range(3)],
            "label": n % 3 - 1,
            **more,
        }
        for n in range(problems)
    ]


class KeywordScorer:
    """Knows the words; remembers what it was asked."""

    def __init__(self, good: float = 0.9, bad: float = 0.2) -> None:
        self.values = {"good": good, "bad": bad}
        self.asked: list[StepText] = []

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        self.asked += items
        return [[self.values[step] for step in item.steps] for item in items]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[tuple[Any, ...]]]:
    """Return a function that makes a scorer the one of every folder, and the calls that ask for it."""

    def put(scorer: Any) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def load_step_scorer(*arguments: Any, **options: Any) -> Any:
            calls.append((*arguments, options))
            return scorer

        module = types.ModuleType("airls_ray.prm.load")
        vars(module)["load_step_scorer"] = load_step_scorer
        monkeypatch.setitem(sys.modules, "airls_ray.prm.load", module)
        monkeypatch.setattr("airls_ray.prm.forms.check_prm", lambda *_: None)
        return calls

    return put


def run(*arguments: Any) -> int:
    return cli.run(["evaluate-prm", *map(str, arguments)])


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_a_prm_is_measured_on_labelled_steps(drawn: None, tmp_path: Path, load: Any, capsys: Any) -> None:
    scorer = KeywordScorer()
    load(scorer)
    data = write(tmp_path / "gsm8k.jsonl", solutions())
    assert run(data, "--prm", "a/prm", "--output", tmp_path / "out") == 0
    summary = summary_of(tmp_path / "out")
    assert summary["prm"] == "a/prm"
    assert summary["first_error"]["mean"]["f1"] == 1.0
    assert summary["labels"]["all"]["auroc"] == 1.0
    assert summary["labels"]["all"]["steps"] == 4 * 3 + 4 * 1 + 4 * 2
    assert (tmp_path / "out" / "steps.png").read_bytes().startswith(PNG)
    printed = capsys.readouterr().out
    assert "First wrong step" in printed
    assert "gsm8k" in printed
    assert [item.problem for item in scorer.asked] == [f"problem {n}" for n in range(12)]
    assert scorer.asked[1].where == f"{data}, line 2"


def test_a_real_model_gives_the_scores_that_it_gives_by_itself(tmp_path: Path) -> None:
    token_classifier(tmp_path / "prm")
    data = write(tmp_path / "a.jsonl", solutions(3))
    assert run(data, "--prm", tmp_path / "prm", "--output", tmp_path / "out") == 0
    found = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    scorer = load_step_scorer(tmp_path / "prm")
    for row in found:
        (wanted,) = scorer.score([StepText(row["problem"], row["steps"])])
        assert row["scores"] == pytest.approx(wanted, abs=1e-6)


def test_the_threshold_decides_what_is_called_wrong(tmp_path: Path, load: Any) -> None:
    load(KeywordScorer(good=0.4, bad=0.2))
    data = write(tmp_path / "a.jsonl", solutions())
    for threshold, wanted in ((0.5, 0.0), (0.3, 1.0)):
        assert run(data, "--prm", "p", "--threshold", threshold, "--output", tmp_path / "out") == 0
        assert summary_of(tmp_path / "out")["first_error"]["mean"]["f1"] == wanted


def test_the_options_of_the_prm_reach_its_loader(tmp_path: Path, load: Any) -> None:
    calls = load(KeywordScorer())
    data = write(tmp_path / "a.jsonl", solutions())
    options = ("--form", "marker", "--dtype", "bfloat16", "--separator", r"\n\n", "--batch-tokens", "99")
    assert run(data, "--prm", "p", *options, "--prompt-template", "chat", "--output", tmp_path / "out") == 0
    wanted = {"separator": "\n\n", "prompt_template": "chat", "batch_tokens": 99}
    assert calls == [("p", "marker", "bfloat16", wanted)]


def test_scores_in_the_file_need_no_prm(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", solutions(scores=[0.9, 0.9, 0.9]))
    assert run(data, "--output", tmp_path / "out") == 0
    summary = summary_of(tmp_path / "out")
    assert summary["prm"] is None
    assert summary["first_error"]["subsets"]["a"]["accuracy_right"] == 1.0
    assert summary["first_error"]["subsets"]["a"]["accuracy_wrong"] == 0.0


def test_a_prm_goes_before_scores_in_the_file(tmp_path: Path, load: Any) -> None:
    load(KeywordScorer())
    data = write(tmp_path / "a.jsonl", solutions(scores=[0.1, 0.1, 0.1]))
    assert run(data, "--prm", "p", "--output", tmp_path / "out") == 0
    assert summary_of(tmp_path / "out")["first_error"]["mean"]["f1"] == 1.0


def test_scored_rows_are_read_again_with_the_same_result(tmp_path: Path, load: Any) -> None:
    """Both benchmarks at once: labels that are unknown and pairs survive the trip."""
    load(KeywordScorer())
    first = write(tmp_path / "a.jsonl", solutions(final_answer_correct=True))
    changed = {
        "original_question": "q", "original_process": ["good", "good"], "modified_process": ["good", "bad"],
        "error_steps": [2], "classification": "circular",
    }  # fmt: skip
    second = write(tmp_path / "b.jsonl", [changed])
    assert run(first, second, "--prm", "p", "--output", tmp_path / "out") == 0
    assert run(tmp_path / "out" / "scores.parquet", "--output", tmp_path / "again") == 0
    one, two = summary_of(tmp_path / "out"), summary_of(tmp_path / "again")
    for name in ("data", "prm"):
        del one[name], two[name]
    assert one == two
    assert one["prmbench"]["overall"]["prm_score"] == 1.0
    table = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert table[1]["scores"] == [0.2, 0.9, 0.9]
    assert table[1]["labels"] == [False, None, None]


def test_the_given_format_is_used(tmp_path: Path) -> None:
    rows = [row | {"labels": [1, 1, 1], "scores": [0.9, 0.9, 0.9]} for row in solutions()]
    data = write(tmp_path / "a.jsonl", rows)
    assert run(data, "--output", tmp_path / "own") == 0
    assert run(data, "--data-format", "processbench", "--output", tmp_path / "first") == 0
    assert summary_of(tmp_path / "own")["first_error"]["subsets"]["a"]["wrong"] == 0
    assert summary_of(tmp_path / "first")["first_error"]["subsets"]["a"]["wrong"] == 8


def test_solutions_with_a_blank_step_are_left_out_and_named_once(
    tmp_path: Path, load: Any, capsys: Any
) -> None:
    load(KeywordScorer())
    rows = solutions()
    rows[3]["steps"] = ["good", " ", "good"]
    assert run(write(tmp_path / "a.jsonl", rows), "--prm", "p", "--output", tmp_path / "out") == 0
    assert summary_of(tmp_path / "out")["rows"] == 11
    assert capsys.readouterr().err.count("1 of 12 solutions have a blank step and are left out") == 1


def test_labels_behind_the_last_step_are_named_once(tmp_path: Path, capsys: Any) -> None:
    changed = {
        "original_question": "q", "original_process": ["a"], "modified_process": ["a", "b"],
        "error_steps": [2, 3], "classification": "circular", "scores": [0.9, 0.1],
    }  # fmt: skip
    assert run(write(tmp_path / "a.jsonl", [changed, changed]), "--output", tmp_path / "out") == 0
    assert capsys.readouterr().err.count("2 solutions have labels of wrong steps behind their last step") == 1
    assert summary_of(tmp_path / "out")["prmbench"]["overall"]["negative_f1"] == 1.0


def test_rows_without_scores_and_prm_say_what_to_do(tmp_path: Path, capsys: Any) -> None:
    assert run(write(tmp_path / "a.jsonl", solutions()), "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert "a.jsonl, line 1: has no 'scores': give --prm" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("values", [[0.5], [0.5, 1.5, 0.5], [0.5, float("nan"), 0.5]])
def test_a_scorer_that_breaks_its_word_is_named(tmp_path: Path, load: Any, capsys: Any, values: Any) -> None:
    class Broken:
        def score(self, items: Sequence[StepText]) -> list[list[float]]:
            return [values for _ in items]

    load(Broken())
    assert run(write(tmp_path / "a.jsonl", solutions()), "--prm", "my-prm", "--output", tmp_path / "out") == 2
    assert "my-prm must give one score in [0, 1] for each of the 3 steps of" in capsys.readouterr().err


def test_a_solution_that_is_cut_at_its_first_wrong_step_is_scored_as_not_finished(
    tmp_path: Path, load: Any
) -> None:
    asked: list[StepText] = []

    class Listening(KeywordScorer):
        def score(self, items: Sequence[StepText]) -> list[list[float]]:
            asked.extend(items)
            return [[0.5] * len(item.steps) for item in items]

    load(Listening())
    rows = [
        {
            "question": {"problem": "q"},
            "label": {
                "steps": [{"completions": [{"text": text, "rating": -1}]}],
                "finish_reason": "found_error",
            },
        }
        for text in ("bad", "bad\n\n# Answer\n\n1")
    ]
    assert run(write(tmp_path / "a.jsonl", rows), "--prm", "p", "--output", tmp_path / "out") == 0
    assert [item.finished for item in asked] == [False, True]


def test_the_results_lie_in_runs_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "math.jsonl", solutions(scores=[0.9, 0.9, 0.9]))
    monkeypatch.chdir(tmp_path)
    assert run(data) == 0
    assert (tmp_path / "runs" / "evaluate_prm" / "math" / "summary.json").is_file()


# ------------------------------------------------------------------------------- beginnings of steps
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


class ShortScorer(KeywordScorer):
    def fits(self, item: StepText) -> bool:
        return len(item.steps) < 3


def test_long_solutions_are_left_out_and_counted(load: Any, tmp_path: Path, capsys: Any) -> None:
    scorer = ShortScorer()
    load(scorer)
    source = tmp_path / "own.jsonl"
    rows = [
        {"problem": f"p{n}", "steps": ["good"] * n, "labels": [True] * (n - 1) + [False]} for n in (1, 2, 3)
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["evaluate-prm", str(source), "--prm", "x", "--output", str(tmp_path / "out")]
    assert cli.run([*command, "--skip-long"]) == 0
    assert [item.problem for item in scorer.asked] == ["p1", "p2"]
    assert "1 of 3 solutions are too long for the PRM" in " ".join(capsys.readouterr().err.split())
    source.write_text(json.dumps(rows[2]) + "\n")
    assert cli.run([*command, "--skip-long"]) == 2
    assert "every solution is too long" in capsys.readouterr().err
