"""Data sets as verl and TRL have them, read as they are, with what their reward functions are given."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.data.importing import Imported, import_problems
from airls_ray.data.problems import problems_to_table, read_problems, table_to_problems, write_problems
from airls_ray.data.rl_rows import verl_details
from airls_ray.errors import DataError
from airls_ray.grading.reward_calls import Row, read_reward
from airls_ray.tasks.base import Problem
from airls_ray.tasks.math_grader import grade_math

USER = {"role": "user", "content": "Two and two?"}
SYSTEM = {"role": "system", "content": "Be brief."}
VERL = {
    "data_source": "openai/gsm8k",
    "prompt": [USER],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "4"},
    "extra_info": {"split": "train", "index": 3, "answer": "2 + 2 = 4 #### 4"},
}
"""As verl's examples/data_preprocess/gsm8k.py writes it."""
WORKED = "Two and two is $\\boxed{4}$."


def read(path: Path, form: str | None, *rows: dict[str, Any]) -> Imported:
    file = path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_problems(file, form)


def one(path: Path, form: str | None, row: dict[str, Any]) -> Problem:
    (problem,) = read(path, form, row).problems
    return problem


def given_to(function: Any, problem: Problem, response: str = "four") -> None:
    """Call a reward as it is called for a response to `problem`, by the way of the tables."""
    table = problems_to_table([problem])
    (made,) = table_to_problems(table)
    reward = read_reward(function, {})
    reward.call([Row(made.prompt, response, made.answer, correct=1.0, row=made.details)])


# ---------------------------------------------------------------------------------------- verl
@pytest.mark.parametrize("form", ["verl", None], ids=["named", "by its fields"])
def test_a_row_of_verl_is_a_problem(tmp_path: Path, form: str | None) -> None:
    problem = one(tmp_path, form, VERL | {"prompt": [SYSTEM, USER]})
    assert (problem.prompt, problem.answer, problem.traces) == ("Two and two?", "4", ())
    assert problem.details == {
        "subject": "math",
        "data_source": "openai/gsm8k",
        "extra_info": {"split": "train", "index": 3, "answer": "2 + 2 = 4 #### 4"},
        "prompt_history": [SYSTEM],
    }


def test_a_parquet_file_of_verl_is_read_as_it_is(tmp_path: Path) -> None:
    message = pa.struct([("content", pa.string()), ("role", pa.string())])
    info = pa.struct([("index", pa.int64()), ("split", pa.string()), ("seen", pa.timestamp("s"))])
    schema = pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", pa.list_(message)),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("ground_truth", pa.string()), ("style", pa.string())])),
            ("extra_info", info),
        ]
    )
    extra = {"index": 0, "split": "train", "seen": datetime.datetime(2025, 1, 1)}
    rows = [VERL | {"extra_info": extra}, VERL | {"prompt": [SYSTEM, USER], "extra_info": extra}]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    first, second = import_problems(path, None, bad_rows="error").problems
    assert first.details["extra_info"] == {"index": 0, "split": "train"}  # JSON has no times
    assert first.problem_id != second.problem_id and second.details["prompt_history"] == [SYSTEM]


@pytest.mark.parametrize(
    ("truth", "answer", "given"),
    [("4", "4", "4"), (4, "4", 4), (4.0, "4", 4.0), (["4"], "4", ["4"])],
)
def test_a_reward_of_verl_is_given_what_verl_gives_it(
    tmp_path: Path, truth: Any, answer: str, given: Any
) -> None:
    def compute_score(data_source: str, solution_str: str, ground_truth: Any, extra_info: Any) -> float:
        assert (data_source, solution_str) == ("openai/gsm8k", "four")
        assert ground_truth == given and type(ground_truth) is type(given)
        assert extra_info == VERL["extra_info"]
        return 1.0

    problem = one(tmp_path, "verl", VERL | {"reward_model": {"ground_truth": truth}})
    assert problem.answer == answer
    given_to(compute_score, problem)


def test_a_number_that_json_has_not_is_left_out() -> None:
    row = VERL | {"extra_info": {"index": float("nan"), "split": "train", "inner": {"low": float("-inf")}}}
    assert verl_details(row)["extra_info"] == {"split": "train", "inner": {}}


def test_without_extra_info_a_reward_of_verl_gets_the_details_as_before() -> None:
    def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> float:
        assert (data_source, ground_truth, extra_info) == ("", "4", {"level": 2})
        return 1.0

    given_to(compute_score, Problem("a", "p", "4", (), {"level": 2}))


def test_eurus_keeps_what_its_rows_have_of_verl(tmp_path: Path) -> None:
    problem = one(tmp_path, "eurus2_rl", VERL)
    assert (problem.prompt, problem.details["data_source"]) == ("Two and two?", "openai/gsm8k")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"reward_model": {"style": "model"}}, "no answer at 'only.reward_model.ground_truth.'"),
        ({"reward_model": {"ground_truth": {"target": [4]}}}, "must be text, but is an object"),
        ({"reward_model": {"ground_truth": ["4", "four"]}}, "must be text, but is a list"),
        ({"prompt": []}, "field 'prompt' is an empty list"),
        ({"prompt": [USER, {"role": "assistant", "content": "4"}]}, "is the assistant's"),
    ],
)
@pytest.mark.parametrize("form", ["verl", None])
def test_a_row_of_verl_that_cannot_be_used_is_named(
    tmp_path: Path, form: str | None, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DataError, match=f"a.jsonl, row 1: .*{sentence}"):
        read(tmp_path, form, VERL | change)


# ----------------------------------------------------------------------------------------- TRL
@pytest.mark.parametrize(
    ("row", "answer", "traces"),
    [
        ({"prompt": "p", "solution": WORKED}, "4", (WORKED,)),
        ({"prompt": "p", "solution": "2 + 2\n#### 4"}, "4", ("2 + 2\n#### 4",)),
        ({"prompt": "p", "solution": "$4$"}, "$4$", ()),
        ({"prompt": "p", "ground_truth": 4.0}, "4", ()),
        ({"prompt": "p", "ground_truth": ["4"], "solution": "so it is"}, "4", ()),
        ({"prompt": "p", "completion": WORKED}, "4", (WORKED,)),
        ({"prompt": [USER], "completion": [{"role": "assistant", "content": WORKED}]}, "4", (WORKED,)),
    ],
)
@pytest.mark.parametrize("form", ["trl", None], ids=["named", "by its fields"])
def test_a_row_of_trl_is_a_problem(
    tmp_path: Path, form: str | None, row: dict[str, Any], answer: str, traces: tuple[str, ...]
) -> None:
    problem = one(tmp_path, form, row)
    assert (problem.answer, problem.traces) == (answer, traces)
    assert grade_math(problem.answer, "\\boxed{4}").outcome == 1.0
    assert ("prompt_history" in problem.details) == isinstance(row["prompt"], list)


def test_a_reward_of_trl_is_given_the_columns_of_the_data(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def reward(prompts: Any, completions: Any, answer: Any, level: Any, **columns: Any) -> list[float]:
        seen.append({"prompts": prompts, "answer": answer, "level": level, **columns})
        return [1.0]

    row = {"prompt": [SYSTEM, USER], "answer": 4, "level": "easy", "solution": WORKED, "permutation": [1, 0]}
    problem = one(tmp_path, "trl", row)
    assert problem.answer == "4" and "permutation" not in problem.details  # which graders read
    given_to(reward, problem)
    (given,) = seen
    assert given["prompts"] == [[SYSTEM, USER]]
    assert (given["answer"], given["level"], given["solution"]) == ([4], ["easy"], [WORKED])
    assert not {"trl_columns", "prompt_history"} & set(given)


def test_in_a_batch_each_row_has_what_it_has() -> None:
    def reward(completions: Any, answer: Any, solution: Any) -> list[float]:
        assert (answer, solution) == (["4", 5], [None, "five"])
        return [1.0, 1.0]

    made = read_reward(reward, {})
    columns = {"answer": 5, "solution": "five"}
    made.call([Row("p", "r", "4"), Row("q", "r", "5", row={"trl_columns": columns})])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "p", "solution": " "}, "no answer|must be text"),
        ({"prompt": "p", "completion": "it is four"}, "no answer"),
        ({"prompt": "p", "completion": [USER]}, "completion.* one message of the assistant"),
        ({"prompt": "p", "completion": []}, "completion.* one message of the assistant"),
        ({"prompt": [SYSTEM], "solution": "4"}, "is the system's"),
    ],
)
def test_a_row_of_trl_that_cannot_be_used_is_named(
    tmp_path: Path, row: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DataError, match=f"a.jsonl, row 1: .*({sentence})"):
        read(tmp_path, "trl", row)


def test_fields_of_ones_own_go_before_those_of_the_form(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "p", "answer": "text", "target": "5"}) + "\n")
    (problem,) = import_problems(path, "trl", FieldsConfig(answer="target")).problems
    assert problem.answer == "5"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "answer": "5", "reward_model": {"ground_truth": "4"}},
        {"prompt": "p", "answer": "5", "solution": WORKED, "completion": "c"},
    ],
)
def test_a_row_with_our_fields_is_ours(tmp_path: Path, row: dict[str, Any]) -> None:
    assert one(tmp_path, None, row) == Problem(one(tmp_path, None, row).problem_id, "p", "5")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_is_kept_is_there_after_a_conversion(tmp_path: Path, suffix: str) -> None:
    found = read(tmp_path, None, VERL, {"prompt": [SYSTEM, USER], "solution": WORKED, "level": 1}).problems
    target = tmp_path / f"out{suffix}"
    write_problems(problems_to_table(found), target)
    assert table_to_problems(read_problems(target)) == found
