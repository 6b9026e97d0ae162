"""Answers and traces of foreign rows, graded while they are converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.commands import convert_data
from airls_ray.data.problems import read_problems, table_to_problems


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_conversion_keeps_and_shows_answers_that_cannot_be_parsed(tmp_path: Path) -> None:
    solved = {"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
    path = write(tmp_path / "a.jsonl", solved, {"question": "q", "answer": "#### ."})
    done = convert_data(path, tmp_path / "out.jsonl", "gsm8k", FieldsConfig())
    assert done.counts["answers that cannot be parsed"] == 1 and done.counts["problems"] == 2
    assert "row 2: the answer '.' cannot be parsed" in done.notes[0]
    assert [p.answer for p in table_to_problems(read_problems(tmp_path / "out.jsonl"))] == ["4", "."]


def test_conversion_leaves_out_wrong_traces_where_that_is_asked_for(tmp_path: Path) -> None:
    wrong = {"question": "Two and three?", "answer": "5", "traces": ["2 + 3 = 6\n#### 6", "so #### 5"]}
    path = write(tmp_path / "a.jsonl", wrong)
    fields = FieldsConfig(prompt="question", answer="answer", traces="traces")
    for drop, traces in ((False, tuple(wrong["traces"])), (True, ("so #### 5",))):
        done = convert_data(path, tmp_path / "out.jsonl", None, fields, drop_wrong_traces=drop)
        assert (done.counts["traces that grade wrong"], done.counts["traces"]) == (1, len(traces))
        assert "row 1: trace 1 ends in '6', but the answer of the row is '5'" in done.notes[0]
        (problem,) = table_to_problems(read_problems(tmp_path / "out.jsonl"))
        assert problem.traces == traces
