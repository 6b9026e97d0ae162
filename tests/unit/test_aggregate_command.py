"""`airls-ray aggregate`: accuracy of stored samples by aggregation, answer rule and number of samples."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airls_ray.cli import main as cli
from airls_ray.evaluation.prm_metrics import report


@pytest.fixture
def drawn() -> None:
    """The picture is drawn: a second of matplotlib."""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not, unless a test asks for `drawn`."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(report, "draw_sample_curves", lambda path, *_: path.touch())


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sample(problem: str, answer: str | None, scores: list[float], **more: Any) -> dict[str, Any]:
    return {"problem_id": problem, "answer": answer, "correct": answer == "right", "scores": scores, **more}


# By last the third is best, by min and prod the first, by mean the second.
ONE_PROBLEM = [
    sample("p", "right", [0.6, 0.6]),
    sample("p", "w", [1.0, 0.3]),
    sample("p", "v", [0.1, 0.9]),
    sample("p", "w", [0.2, 0.2]),
]


def run(tmp_path: Path, rows: Sequence[Any] | Path, *arguments: Any) -> dict[str, Any]:
    data = rows if isinstance(rows, Path) else write(tmp_path / "samples.jsonl", rows)
    assert cli.run(["aggregate", str(data), "--output", str(tmp_path / "out"), *map(str, arguments)]) == 0
    return json.loads((tmp_path / "out" / "summary.json").read_text())


def test_every_aggregation_and_rule_is_measured_by_hand(drawn: None, tmp_path: Path, capsys: Any) -> None:
    """Votes for right, w, v: last .6, .5, .9; min .6, .5, .1; prod .36, .34, .09; mean .6, .85, .5."""
    curves = run(tmp_path, ONE_PROBLEM)["curves"]
    at_4 = {way: curve["4"]["accuracy"] for way, curve in curves.items()}
    assert at_4 == {
        "mean": 0.25, "oracle": 1.0, "majority": 0.0,
        "best/last": 0.0, "best/min": 1.0, "best/prod": 1.0, "best/mean": 0.0,
        "weighted/last": 0.0, "weighted/min": 1.0, "weighted/prod": 1.0, "weighted/mean": 0.0,
        # No answer has more than half of the votes. By mean scores and votes w leads, in two cases tied.
        "hybrid/last": 0.0, "hybrid/min": 1.0, "hybrid/prod": 1.0, "hybrid/mean": 0.0,
        "reward_frequency/last": 0.0, "reward_frequency/min": 0.0, "reward_frequency/prod": 0.0,
        "reward_frequency/mean": 0.5,
    }  # fmt: skip
    # Of the six pairs, three hold the right sample; by last it loses to v alone, by mean to the first w.
    assert curves["oracle"]["2"]["accuracy"] == pytest.approx(1 / 2)
    assert curves["best/last"]["2"]["accuracy"] == pytest.approx(2 / 6)
    assert curves["best/mean"]["2"]["accuracy"] == pytest.approx(2 / 6)
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    printed = capsys.readouterr().out
    assert "weighted vote" in printed
    assert "k = 4" in printed


def test_sizes_are_powers_of_two_up_to_the_samples(tmp_path: Path) -> None:
    rows = [sample("p", "right", [0.5]) for _ in range(6)]
    summary = run(tmp_path, rows)
    assert summary["samples"] == 6
    assert list(summary["curves"]["majority"]) == ["1", "2", "4"]


def test_problems_with_more_samples_use_them_all_and_the_fewest_are_said_once(
    tmp_path: Path, capsys: Any
) -> None:
    """Of three samples the best of two is right in one of three pairs, whatever their order."""
    more = [sample("q", "right", [0.9]), sample("q", "w", [0.1]), sample("q", "w", [1.0])]
    rows = [
        sample("p", "right", [0.9]),
        sample("p", "w", [0.1]),
        *more,
        *(one | {"problem_id": "r"} for one in more),
    ]
    for given in (rows, rows[::-1]):
        summary = run(tmp_path, given)
        assert (summary["problems"], summary["samples"]) == (3, 2)
        assert summary["curves"]["best/last"]["2"]["accuracy"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
        assert capsys.readouterr().err.count("problems have 2 to 3 samples: the curves end at 2") == 1


def test_equal_answers_are_one_vote_however_they_are_written(tmp_path: Path) -> None:
    """Two of five say the square root of 12, three others differ: the majority is right."""
    texts = ("2\\sqrt3", "\\sqrt{12}", "7", "8", "9")
    rows = [
        sample("p", "w", [0.5]) | {"answer": text, "correct": number < 2} for number, text in enumerate(texts)
    ]
    curve = run(tmp_path, [*rows, *rows[:1]])["curves"]["majority"]
    assert curve["4"]["accuracy"] > 0.8


def test_the_interval_is_over_problems(tmp_path: Path) -> None:
    """Half of 100 problems are always right: more samples of each do not narrow the interval."""
    few = [sample(f"p{n}", "right" if n % 2 else "w", [0.5]) for n in range(100)]
    narrow = run(tmp_path, few)["curves"]["majority"]["1"]
    wide = run(tmp_path, [one for one in few for _ in range(8)])["curves"]["majority"]["8"]
    assert narrow["accuracy"] == wide["accuracy"] == 0.5
    assert (narrow["low"], narrow["high"]) == (wide["low"], wide["high"])
    assert narrow["high"] - narrow["low"] == pytest.approx(2 * 1.96 * 0.05, rel=0.1)


def test_the_log_probability_is_a_way_of_its_own_where_all_have_it(tmp_path: Path) -> None:
    rows = [one | {"log_prob": value} for one, value in zip(ONE_PROBLEM, (-1, -2, -3, -4), strict=True)]
    assert run(tmp_path, rows)["curves"]["policy_log_prob"]["4"]["accuracy"] == 1.0
    assert "policy_log_prob" not in run(tmp_path, [*rows[:3], ONE_PROBLEM[3]])["curves"]


def test_samples_without_any_answer_leave_out_the_votes(tmp_path: Path, capsys: Any) -> None:
    rows = [one | {"answer": None} for one in ONE_PROBLEM]
    curves = run(tmp_path, rows)["curves"]
    assert set(curves) == {"mean", "oracle", "best/last", "best/min", "best/prod", "best/mean"}
    assert curves["best/min"]["4"]["accuracy"] == 1.0
    assert "no sample has an answer, so there are no votes" in capsys.readouterr().err


def test_parquet_reads_as_lines_do(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ONE_PROBLEM), tmp_path / "samples.parquet")
    wanted = run(tmp_path, ONE_PROBLEM)["curves"]
    assert run(tmp_path, tmp_path / "samples.parquet")["curves"] == wanted


def test_records_of_a_search_are_a_sample_for_each_finished_response(tmp_path: Path) -> None:
    leaves = [{**one, "outcome": float(one["correct"])} for one in ONE_PROBLEM]
    for leaf in leaves:
        del leaf["correct"], leaf["problem_id"]
    record = {"problem_id": "p", "algorithm": "best_of_n", "budget": 4, "seed": 0, "leaves": leaves}
    searched = run(tmp_path, [record])
    assert searched["curves"] == run(tmp_path, ONE_PROBLEM)["curves"]


def test_records_of_several_searches_are_measured_each_by_itself(tmp_path: Path) -> None:
    rows = [
        {"problem_id": "p", "algorithm": name, "budget": 1, "seed": 0, "leaves": leaves}
        for name, leaves in (("beam", ONE_PROBLEM[:1]), ("best_of_n", ONE_PROBLEM))
    ]
    data = write(tmp_path / "records.jsonl", rows)
    assert cli.run(["aggregate", str(data), "--output", str(tmp_path / "out")]) == 0
    folders = (tmp_path / "out").iterdir()
    summaries = {folder.name: json.loads((folder / "summary.json").read_text()) for folder in folders}
    assert summaries["beam_with_N_1_seed_0"]["samples"] == 1
    assert summaries["best_of_n_with_N_1_seed_0"]["curves"] == run(tmp_path, ONE_PROBLEM)["curves"]


def test_the_seed_decides_the_intervals(tmp_path: Path) -> None:
    rows = [sample(f"p{n}", "right" if k < n % 5 else "w", [k / 4]) for n in range(40) for k in range(4)]
    first, again, other = (run(tmp_path, rows, "--seed", seed)["curves"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_broken_row_is_one_sentence(tmp_path: Path, capsys: Any) -> None:
    data = write(tmp_path / "samples.jsonl", [ONE_PROBLEM[0], {"problem_id": "p", "correct": True}])
    assert cli.run(["aggregate", str(data), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "samples.jsonl, line 2: field 'scores'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------------------- real samples
PUBLISHED = Path(os.environ.get("AIRLS_RAY_TEST_DATA", "nowhere")) / "gsm8k" / "example_model_solutions.jsonl"


def as_number(answer: str) -> float | str:
    """The value of an answer such as `$1,800.`; else its text."""
    try:
        return float(answer.replace(",", "").strip("$ .").rstrip("."))
    except ValueError:
        return answer


@pytest.mark.skipif(
    not PUBLISHED.is_file(), reason="AIRLS_RAY_TEST_DATA has no gsm8k/example_model_solutions"
)
def test_real_solutions_of_four_models_give_their_counts(tmp_path: Path) -> None:
    """A score that knows the verdict is pass@4; the majority is what plain counting finds, ties shared."""
    rows, majority, any_right = [], 0.0, 0
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    for number, line in enumerate(PUBLISHED.read_text().splitlines()):
        found = [json.loads(line)[model] for model in models]
        answers = [one["solution"].rpartition("A: ")[2].strip() or None for one in found]
        rows += [
            {
                "problem_id": str(number),
                "answer": answer,
                "correct": one["is_correct"],
                "scores": [float(one["is_correct"])] * len(one["solution"].splitlines()),
            }
            for one, answer in zip(found, answers, strict=True)
        ]
        values = [None if answer is None else as_number(answer) for answer in answers]
        votes = Counter(value for value in values if value is not None)
        tied = [value for value in votes if votes[value] == max(votes.values())]
        right = {value: found[values.index(value)]["is_correct"] for value in tied}
        majority += sum(right.values()) / len(tied)
        any_right += any(one["is_correct"] for one in found)
    curves = run(tmp_path, rows)["curves"]
    problems = len(rows) // 4
    assert problems == 1319
    assert curves["oracle"]["4"]["accuracy"] == pytest.approx(any_right / problems)
    assert curves["best/min"]["4"]["accuracy"] == pytest.approx(any_right / problems)
    assert curves["majority"]["4"]["accuracy"] == pytest.approx(majority / problems)
    assert curves["mean"]["4"]["accuracy"] == pytest.approx(sum(row["correct"] for row in rows) / len(rows))
