"""`airls-ray evaluate-prm`: from files and a scorer to a table, a summary, scored rows and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from airls_ray.cli import main as cli
from airls_ray.prm.items import StepText
from airls_ray.prm.load import load_step_scorer
from tests.unit.evaluate_prm.fakes import KeywordScorer, run, solutions, summary_of, write
from tests.unit.prm_folders import token_classifier

PNG = b"\x89PNG\r\n\x1a\n"


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
