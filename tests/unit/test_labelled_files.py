"""`train-prm --steps` without Ray: labelled steps to tokens, training, and scores of the same texts."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from airls_ray.config import Config, load_config
from airls_ray.console.progress import QuietProgress
from airls_ray.data.prm_labels import read_labels, write_labels
from airls_ray.errors import DataError
from airls_ray.learning.engine import TorchEngine
from airls_ray.models.load import load_prm_module, save_hf
from airls_ray.prm.folder import PromptForm, read_prompt_form, write_prm_form
from airls_ray.prm.items import StepText
from airls_ray.prm.labelled_files import StepFiles, StepLabels, read_step_labels, say_left_out, step_end_of
from airls_ray.prm.load import load_step_scorer
from airls_ray.prm.step_encoder import StepEncoder
from airls_ray.prm.supervised import split_by_problem
from airls_ray.prm.training import LabelTraining, run_epochs
from airls_ray.text.tokenizer_files import load_tokenizer
from tests.tiny import make_text_policy

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ROW = {"problem": "1+1?", "steps": ["one", "two", "three"], "labels": [1, 0.25, None]}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_policy(tmp_path_factory.mktemp("policy"))


def read(policy: Path, folder: Path, *rows: Any, **sections: Any) -> StepLabels:
    file = folder / "steps.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sections = {"model": {"context_tokens": 200}, **sections}
    return read_step_labels(Config(**sections), policy, StepFiles([file]))


# ------------------------------------------------------------------------------------- as tokens
def test_steps_end_as_a_policys_do_and_the_label_stands_at_the_last_token(
    policy: Path, tmp_path: Path
) -> None:
    (row,) = read(policy, tmp_path, ROW).table.to_pylist()
    decode = load_tokenizer(policy, chat=False).backend.decode
    ends = [0, *row["step_ends"]]
    texts = [decode(row["response"][a:b], skip_special_tokens=False) for a, b in pairwise(ends)]
    assert texts == ["one\n\n", "two\n\n", "three<eos>"]
    assert decode(row["prompt"]) == row["prompt_text"] == "1+1?"
    assert row["labels"] == [1.0, 0.25, None]


def test_an_unfinished_solution_ends_as_a_step_and_not_as_a_sequence(policy: Path, tmp_path: Path) -> None:
    steps = [{"completions": [{"text": "s", "rating": -1}], "chosen_completion": None}]
    label = {"steps": steps, "finish_reason": "found_error"}
    (row,) = read(policy, tmp_path, {"question": {"problem": "1?"}, "label": label}).table.to_pylist()
    assert load_tokenizer(policy, chat=False).backend.decode(row["response"]) == "s\n\n"
    assert (row["step_texts"], row["labels"]) == (["s\n\n"], [0.0])


def test_what_ends_a_step_is_there_once_and_may_be_chosen(policy: Path, tmp_path: Path) -> None:
    row, other = ROW | {"steps": ["one\n\n", "two \n", "three"]}, ROW | {"steps": ["one ;", "two", "three"]}
    (default,) = read(policy, tmp_path, row).table["step_texts"].to_pylist()
    (chosen,) = (
        read(policy, tmp_path, other, supervised_prm={"step_end": " ;"}).table["step_texts"].to_pylist()
    )
    (none,) = read(policy, tmp_path, row, supervised_prm={"step_end": ""}).table["step_texts"].to_pylist()
    assert default == ["one\n\n", "two\n\n", "three"]
    assert chosen == ["one ;", "two ;", "three"]
    assert none == row["steps"]


@pytest.mark.parametrize(
    ("task", "end"),
    [
        ({"name": "countdown"}, "\n\n"),
        ({"name": "file", "train_file": "a", "test_file": "b", "step_delimiter": "\n"}, "\n"),
        ({"name": "file", "train_file": "a", "test_file": "b", "steps": "numbered"}, "\n"),
        ({"name": "file", "train_file": "a", "test_file": "b", "steps": "sentences"}, ""),
    ],
)
def test_a_step_ends_as_those_of_a_task_of_texts(task: dict[str, Any], end: str) -> None:
    model = {"path": "x"} if task["name"] == "file" else {}
    assert step_end_of(Config(task=task, model=model)) == end


def test_problems_are_put_as_a_task_of_texts_says(policy: Path, tmp_path: Path) -> None:
    task = {"name": "file", "train_file": "a", "test_file": "b", "prompt_template": "Q: {prompt} A:"}
    model = {"path": "x", "context_tokens": 200}
    (row,) = read(policy, tmp_path, ROW, task=task, model=model).table.to_pylist()
    assert load_tokenizer(policy, chat=False).backend.decode(row["prompt"]) == "Q: 1+1? A:"


def test_the_beginning_of_a_step_does_not_get_what_ends_one(policy: Path) -> None:
    encoder = StepEncoder.from_folder(policy, PromptForm(step_end="\n\n"))
    begun = encoder.cut_last_step(StepText("1+1?", ["one", "two"]), tokens=2)
    assert begun is not None
    assert encoder.texts(begun) == ["one\n\n", "tw"]


# ------------------------------------------------------------------------------- problems and rows
def test_equal_problems_are_one_whatever_their_rows_call_them(policy: Path, tmp_path: Path) -> None:
    rows = [
        ROW | {"problem_id": "a"},
        ROW | {"problem_id": "b", "problem": " 1+1?\n"},
        ROW | {"problem": "2?"},
    ]
    first, second, other = read(policy, tmp_path, *rows).table["problem_id"].to_pylist()
    assert first == second != other


def test_different_problems_are_two_whatever_their_rows_call_them(policy: Path, tmp_path: Path) -> None:
    """Files that each count from 0; else they would be compared with each other."""
    rows = [ROW | {"problem_id": "0"}, ROW | {"problem_id": "0", "problem": "How tall is K2?"}]
    first, second = read(policy, tmp_path, *rows).table["problem_id"].to_pylist()
    assert first == "0" != second


LONG = ROW | {"problem": "x" * 200}
BLANK = ROW | {"steps": ["one", " ", "three"]}
SHORT = ROW | {"labels": [1]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (LONG, "problem and steps have 216 tokens, but model.context_tokens is 200"),
        (BLANK, "step 2 is blank"),
        (SHORT, "field 'labels' must be a list with one value a step"),
    ],
)
def test_a_bad_row_stops_with_its_line_or_is_left_out_and_named(
    policy: Path, tmp_path: Path, row: Any, said: str
) -> None:
    with pytest.raises(DataError, match=rf"steps\.jsonl, line 2: {said}.*supervised_prm\.bad_rows=skip"):
        read(policy, tmp_path, ROW, row)
    found = read(policy, tmp_path, ROW, row, supervised_prm={"bad_rows": "skip"})
    assert found.table.num_rows == 1
    (named,) = found.bad
    assert f"steps.jsonl, line 2: {said}" in named
    assert found.facts.cost["rows_left_out"] == 1


def test_a_line_that_is_no_json_may_be_left_out_too(policy: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("{\n" + json.dumps(ROW) + "\n")
    config = Config(supervised_prm={"bad_rows": "skip"})
    found = read_step_labels(config, policy, StepFiles([file]))
    assert (found.table.num_rows, len(found.bad)) == (1, 1)
    assert "a.jsonl, line 1: not a JSON object" in found.bad[0]


def test_rows_without_any_label_are_left_out_and_counted(policy: Path, tmp_path: Path) -> None:
    found = read(policy, tmp_path, ROW, ROW | {"labels": [None, None, None]})
    assert (found.table.num_rows, found.unlabelled, found.bad) == (1, 1, ())
    with pytest.raises(
        DataError, match=r"steps\.jsonl has no solution with a label that can be used among 1 rows"
    ):
        read(policy, tmp_path, ROW | {"labels": [None, None, None]})


def test_what_was_left_out_is_said(policy: Path, tmp_path: Path) -> None:
    lines: list[str] = []

    class Said(QuietProgress):
        def say(self, text: str) -> None:
            lines.append(text)

    rows = (ROW, *[SHORT] * 4, ROW | {"labels": [None, None, None]})
    say_left_out(read(policy, tmp_path, *rows, supervised_prm={"bad_rows": "skip"}), Said())
    left_out, without = lines
    assert left_out.startswith("4 rows were left out: ")
    assert [f"line {number}" in left_out for number in range(1, 7)] == [False, True, True, True, False, False]
    assert without == "1 rows were left out, since none of their steps has a label"


def test_the_labels_are_counted(policy: Path, tmp_path: Path) -> None:
    cost = read(policy, tmp_path, ROW, ROW).facts.cost
    assert (cost["steps_right"], cost["steps_wrong"], cost["steps_unlabelled"]) == (2, 2, 2)


def test_the_table_may_be_written_and_given_as_labels(policy: Path, tmp_path: Path) -> None:
    found = read(policy, tmp_path, ROW, ROW | {"problem": "2?", "correct": 1})
    write_labels(found.table, tmp_path / "step_labels.parquet", found.facts)
    assert read_labels(tmp_path / "step_labels.parquet").to_pylist() == found.table.to_pylist()


# --------------------------------------------------------------------------------------- example
def test_the_example_learns_and_its_prm_scores_the_texts_as_it_learned_them(
    policy: Path, tmp_path: Path, one_thread: None
) -> None:
    config = load_config(EXAMPLES / "prm_from_step_labels.yaml", ["prm.learner.learning_rate=0.003"])
    found = read_step_labels(config, policy, StepFiles([EXAMPLES / "prm_from_step_labels.jsonl"]))
    assert (found.table.num_rows, found.bad, found.unlabelled) == (12, (), 0)
    learn, held_out = split_by_problem(found.table, config.supervised_prm.held_out, config.seed)
    assert (learn.num_rows, held_out.num_rows) == (10, 2)
    assert len(set(held_out["problem_id"].to_pylist())) == 1

    module = load_prm_module(policy, "scalar_head")
    engine = TorchEngine(module, config.prm.learner)
    training = LabelTraining(engine, config, learn, held_out, pad_id=0)
    lines = [line for line, _ in run_epochs(training, config.supervised_prm.epochs)]
    losses = [line["train_prm/loss"] for line in lines if "train_prm/loss" in line]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert lines[-1]["prm/loss"] > 0

    save_hf(module, None, policy, tmp_path)
    write_prm_form(config.prm, tmp_path, PromptForm.of(config, found.facts.settings["step_end"]))
    assert read_prompt_form(tmp_path) == PromptForm("plain", "", "{prompt}", "\n\n")
    raw = [json.loads(line) for line in (EXAMPLES / "prm_from_step_labels.jsonl").open()]
    scores = load_step_scorer(tmp_path).score([StepText(row["prompt"], row["completions"]) for row in raw])
    for row, one in zip(found.table.to_pylist(), scores, strict=True):
        tokens = torch.tensor([[*row["prompt"], *row["response"]]])
        with torch.no_grad():
            logits = module.model(tokens).logits[0, :, 0]
        places = [len(row["prompt"]) + end - 1 for end in row["step_ends"]]
        assert one == pytest.approx(logits[places].sigmoid().tolist(), abs=1e-5)
