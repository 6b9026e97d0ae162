"""Labelled rollouts on which a judge agrees: the rule, what is kept of a judge's work, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airls_ray.config.door_section import ConsensusConfig
from airls_ray.config.load import load_config
from airls_ray.console.progress import QuietProgress
from airls_ray.data.prm_labels import LabelFacts
from airls_ray.data.schemas import PRM_LABELS
from airls_ray.errors import ConfigError, DataError
from airls_ray.prm.consensus import first_errors, first_wrong, keep_agreeing, open_judge
from airls_ray.prm.items import StepText

NAMED = ConsensusConfig(name="gen_orm", options={"endpoint": "http://127.0.0.1:1/v1"})
ROOT = Path(__file__).resolve().parents[2]
FACTS = LabelFacts({"labels": "math_shepherd_soft"}, {"completions": 8.0})


class Judge:
    """Scores steps as it is told, and counts."""

    def __init__(self, scores: dict[str, list[float]], most: int | None = None) -> None:
        self.scores, self.most, self.asked = scores, most, 0

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        if self.most is not None and self.asked >= self.most:
            raise KeyboardInterrupt
        self.asked += len(items)
        return [self.scores[item.problem] for item in items]

    def told(self) -> str:
        return ""


def labels(rows: dict[str, list[float | None]]) -> pa.Table:
    """A solution a problem, its steps named after it."""
    columns: dict[str, Any] = {
        "problem_id": list(rows),
        "prompt": [[1]] * len(rows),
        "response": [[1] * len(row) for row in rows.values()],
        "step_ends": [list(range(1, len(row) + 1)) for row in rows.values()],
        "labels": list(rows.values()),
        "outcome": [row[-1] for row in rows.values()],
        "logprobs": [None] * len(rows),
        "step_truth": [None] * len(rows),
        "prompt_text": list(rows),
        "step_texts": [[f"{name} {at}" for at in range(len(row))] for name, row in rows.items()],
    }
    return pa.table({name: pa.array(columns[name], PRM_LABELS.field(name).type) for name in PRM_LABELS.names})


ROWS: dict[str, list[float | None]] = {
    "both right": [0.5, 1.0],
    "the same step": [0.75, 0.0, 0.0],
    "another step": [0.0, 0.0],
    "only labels": [0.25, 0.0],
    "only the judge": [0.25, 1.0],
    "unlabelled in between": [None, 0.0],
}
SCORES = {
    "both right": [0.5, 0.9],
    "the same step": [0.9, 0.49, 0.9],
    "another step": [0.9, 0.1],
    "only labels": [0.9, 0.9],
    "only the judge": [0.9, 0.1],
    "unlabelled in between": [0.9, 0.2],
}
KEPT = ["both right", "the same step", "unlabelled in between"]


def keep(judge: Judge, file: Path, rows: dict[str, list[float | None]] = ROWS) -> tuple[pa.Table, LabelFacts]:
    return keep_agreeing(labels(rows), FACTS, NAMED, judge, file, QuietProgress())


def test_the_first_wrong_step_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.random(size) < 0.2 for size in rng.integers(1, 12, 2000)]
    expected = [next((at for at, wrong in enumerate(row) if wrong), -1) for row in rows]
    found = first_wrong(np.concatenate(rows), np.array([len(row) for row in rows]))
    assert found.tolist() == expected
    assert -1 in expected and max(expected) > 5


def test_a_score_at_the_threshold_counts_as_right_and_a_small_share_of_completions_too() -> None:
    counts = np.array([2, 2])
    labels, scores = np.array([0.125, 1, 1, 0]), np.array([0.5, 1, 1, 0.49])
    by_labels, by_judge = first_errors(labels, scores, counts, 0.5)
    assert by_labels.tolist() == by_judge.tolist() == [-1, 1]


def test_what_both_say_alike_is_kept_and_the_others_are_counted_by_their_kind(tmp_path: Path) -> None:
    table, facts = keep(Judge(SCORES), tmp_path / "verdicts.jsonl")
    assert table["problem_id"].to_pylist() == KEPT
    assert table.schema == PRM_LABELS
    assert facts.cost == {
        "completions": 8.0, "consensus_judged": 6.0, "consensus_kept": 3.0, "consensus_kept_right": 1.0,
        "consensus_only_labels_wrong": 1.0, "consensus_only_judge_wrong": 1.0, "consensus_other_step": 1.0,
    }  # fmt: skip
    assert facts.settings["consensus"] == {"name": "gen_orm", "options": {}}


def test_an_interrupted_judge_is_asked_for_the_rest_alone(tmp_path: Path) -> None:
    rows: dict[str, list[float | None]] = {f"p{number}": [1.0, float(number % 2)] for number in range(150)}
    scores = {name: [0.9, 0.9] for name in rows}
    with pytest.raises(KeyboardInterrupt):
        keep(Judge(scores, most=64), tmp_path / "verdicts.jsonl", rows)
    second = Judge(scores)
    table, _ = keep(second, tmp_path / "verdicts.jsonl", rows)
    assert second.asked == 150 - 64
    assert table.num_rows == 75


def test_verdicts_on_other_solutions_are_refused_and_on_other_labels_taken(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.jsonl"
    keep(Judge(SCORES), file)
    again = Judge(SCORES)
    keep(again, file, {name: [1.0] * len(row) for name, row in ROWS.items()})
    assert again.asked == 0
    with pytest.raises(DataError, match=r"verdicts\.jsonl holds scores .* \(other solutions\)"):
        keep(Judge(SCORES), file, {"both right": [1.0, 1.0]})


def test_a_broken_file_of_verdicts_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.jsonl"
    keep(Judge(SCORES), file)
    file.write_text(file.read_text()[:-9])
    with pytest.raises(DataError, match=r"cannot be read .* delete it"):
        keep(Judge(SCORES), file)


def test_nothing_left_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gen_orm and the labels .* none of 1 rollouts"):
        keep(Judge(SCORES), tmp_path / "verdicts.jsonl", {"only labels": [0.25, 0.0]})


def test_labels_without_texts_are_refused(tmp_path: Path) -> None:
    table = labels(ROWS)
    at = table.schema.get_field_index("step_texts")
    bare = table.set_column(at, table.schema.field(at), pa.nulls(len(ROWS), table.schema.field(at).type))
    with pytest.raises(DataError, match="needs 'prompt_text' and 'step_texts'"):
        keep_agreeing(bare, FACTS, NAMED, Judge(SCORES), tmp_path / "v.jsonl", QuietProgress())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["supervised_prm.labels=outcome", "supervised_prm.consensus=gen_orm"],
            "labels=outcome does not give",
        ),
        (["supervised_prm.consensus=oracle"], "oracle is none: take a critic"),
    ],
)
def test_what_cannot_be_judged_is_said_before_anything_is_sampled(overrides: list[str], said: str) -> None:
    config = load_config(ROOT / "configs" / "arithmetic_train_prm.yaml", overrides)
    with pytest.raises(ConfigError, match=said):
        open_judge(config, QuietProgress(), sampled=True)


def test_without_a_judge_nothing_is_opened() -> None:
    config = load_config(ROOT / "configs" / "arithmetic_train_prm.yaml")
    assert open_judge(config, QuietProgress(), sampled=True) is None
