from __future__ import annotations

import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from airls_ray.cli import main as cli
from airls_ray.errors import DataError
from airls_ray.prm import forms
from airls_ray.prm.forms import FORMS
from airls_ray.prm.items import StepText
from airls_ray.prm.load import load_step_scorer
from airls_ray.prm.score_file import read_solutions, write_scores
from tests.unit.prm_folders import token_classifier

ROWS = [
    {"id": 1, "problem": "is it so?", "steps": ["a = 1.", "b."], "nested": {"é": [1.5, None]}},
    {"problem": "why?", "steps": []},
    {"problem": "is it?", "steps": ["no."], "finished": "yes"},
]


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class ByLength:
    """Scores a step by the length of its text, and keeps the sizes of the calls."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        self.calls.append(len(items))
        return [[1 / (1 + len(step)) for step in item.steps] for item in items]


class Failing:
    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        raise DataError(f"{items[0].where}: too long")


@pytest.fixture
def loaded(monkeypatch) -> list[tuple[Any, ...]]:
    """Put a stand-in in the place of the models, and return what it is asked for."""
    seen: list[tuple[Any, ...]] = []

    def load(*arguments: Any, **options: Any) -> ByLength:
        seen.append((*arguments, options))
        return ByLength()

    module = types.ModuleType("airls_ray.prm.load")
    vars(module).update(load_step_scorer=load)
    monkeypatch.setitem(sys.modules, "airls_ray.prm.load", module)
    monkeypatch.setattr(forms, "choose_form", lambda path, form: f"chosen {form}")
    monkeypatch.setattr("airls_ray.prm.forms.check_prm", lambda *_: None)
    return seen


def test_a_real_prm_scores_a_file_and_keeps_its_other_fields(tmp_path, capsys):
    token_classifier(tmp_path / "prm")
    source, target = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "deep" / "out.jsonl"
    assert cli.run(["score", str(tmp_path / "prm"), str(source), str(target)]) == 0
    wanted = load_step_scorer(tmp_path / "prm").score(
        [StepText(row["problem"], row["steps"]) for row in ROWS]
    )
    written = read_rows(target)
    assert [row.pop("scores") for row in written] == wanted
    assert [len(scores) for scores in wanted] == [2, 0, 1]
    assert written == ROWS
    output = capsys.readouterr().out
    assert "3 steps of 3 solutions scored by" in output
    assert "(token_classification)" in output


def test_the_options_reach_the_prm(tmp_path, loaded):
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    command = ["score", "owner/prm", str(source), str(tmp_path / "out"), "--form", "marker"]
    command += ["--batch-tokens", "9", "--dtype", "bfloat16", "--separator", r"\n\n"]
    assert cli.run([*command, "--prompt-template", "chat"]) == 0
    options = {"separator": "\n\n", "prompt_template": "chat", "batch_tokens": 9}
    assert loaded == [("owner/prm", "chosen marker", "bfloat16", options)]


def test_the_help_names_every_form(capsys):
    assert cli.run(["score", "--help"]) == 0
    words = capsys.readouterr().out.replace("│", " ").replace(",", " ").replace(";", " ").split()
    assert set(FORMS) <= set(words)


def test_progress_is_shown(tmp_path, loaded, capsys):
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    assert cli.run(["score", "p", str(source), str(tmp_path / "out")]) == 0
    assert "3/3 (100%)" in capsys.readouterr().err


# -------------------------------------------------------------------------------------- the output
def test_an_existing_output_is_refused_before_anything_is_loaded(tmp_path, loaded, capsys):
    source, target = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    target.write_text("mine")
    assert cli.run(["score", "p", str(source), str(target)]) == 2
    assert capsys.readouterr().err == (
        f"Error: {target} exists: give another name, or --overwrite to replace it.\n"
    )
    assert target.read_text() == "mine"
    assert not loaded


def test_an_output_that_cannot_be_made_is_refused_before_anything_is_loaded(tmp_path, loaded, capsys):
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    assert cli.run(["score", str(tmp_path), str(source), str(source / "out.jsonl")]) == 2
    error = capsys.readouterr().err
    assert f"{source}: a file is where a folder must be" in error
    assert error.count("\n") == 1
    assert not loaded


def test_overwrite_replaces_the_output_even_where_it_is_the_input(tmp_path, loaded):
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    assert cli.run(["score", "p", str(source), str(source), "--overwrite"]) == 0
    assert [row["scores"] for row in read_rows(source)] == [[1 / 7, 1 / 3], [], [1 / 4]]


def test_a_failure_leaves_the_old_output_and_nothing_else(tmp_path):
    source, target = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    target.write_text("old")
    with pytest.raises(DataError, match=r"in\.jsonl, line 1: too long"):
        write_scores(Failing(), read_solutions(source), target)
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_many_rows_are_scored_in_parts_and_stay_in_order(tmp_path):
    rows = [{"problem": str(number), "steps": ["x" * (number % 7 + 1)]} for number in range(600)]
    scorer, target = ByLength(), tmp_path / "out.jsonl"
    assert write_scores(scorer, read_solutions(write_rows(tmp_path / "in.jsonl", rows)), target) == 600
    assert len(scorer.calls) > 1
    assert read_rows(target) == [row | {"scores": [1 / (2 + number % 7)]} for number, row in enumerate(rows)]


# --------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON object (Expecting property name"),
        ("[1]", "must be a JSON object with 'problem' and 'steps'"),
        ('{"steps": ["a"]}', "field 'problem' must be text"),
        ('{"problem": " ", "steps": ["a"]}', "field 'problem' must be text"),
        ('{"problem": "p"}', "field 'steps' must be a list of texts"),
        ('{"problem": "p", "steps": "abc"}', "field 'steps' must be a list of texts"),
        ('{"problem": "p", "steps": ["a", 1]}', "field 'steps' must be a list of texts"),
        ('{"problem": "p", "steps": ["a"], "scores": [1]}', "field 'scores' is there already"),
    ],
)
def test_a_bad_row_is_one_sentence_with_file_and_line(tmp_path, loaded, capsys, line, message):
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(ROWS[0]) + "\n\n" + line + "\n")
    assert cli.run(["score", "p", str(source), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {source}, line 3: {message}")
    assert error.count("\n") == 1
    assert not loaded


def test_a_row_that_the_prm_refuses_is_named_by_its_line(tmp_path, capsys):
    token_classifier(tmp_path / "prm")
    source = write_rows(tmp_path / "in.jsonl", [*ROWS, {"problem": "p", "steps": ["a", " "]}])
    assert cli.run(["score", str(tmp_path / "prm"), str(source), str(tmp_path / "out")]) == 2
    assert f"Error: {source}, line 4: step 2 is blank" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe"])
def test_an_input_without_rows_is_one_sentence(tmp_path, loaded, capsys, content):
    source = tmp_path / "in.jsonl"
    if content is not None:
        source.write_bytes(content)
    assert cli.run(["score", "p", str(source), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert str(source) in error
    assert error.count("\n") == 1


def test_an_unknown_form_is_one_sentence(tmp_path, capsys):
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    assert cli.run(["score", "p", str(source), str(tmp_path / "out"), "--form", "orm"]) == 2
    assert "there is no PRM form 'orm': the forms are token_classification, " in capsys.readouterr().err
