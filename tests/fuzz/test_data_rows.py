"""Any rows and any bytes: a problem that can be written and read again, or one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airls_ray.config.task_sections import FileTaskConfig
from airls_ray.data.importing import import_problems
from airls_ray.data.problems import problems_to_table, read_problems, table_to_problems, write_problems
from airls_ray.data.step_files import StepForm, step_rows
from airls_ray.data.stored_outputs import read_responses
from airls_ray.errors import DataError, UserError
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem
from airls_ray.text.characters import whole_characters
from tests.fuzz.budget import FEW
from tests.unit.test_turn_ends import make

LABEL = {
    "finish_reason": "solution",
    "steps": [{"completions": [{"text": "a", "rating": 1}], "chosen_completion": 0}],
}
ROWS: dict[str | None, dict[str, Any]] = {
    None: {"prompt": "p", "answer": "1", "traces": ["t"], "problem_id": "x", "details": {"level": 1}},
    "gsm8k": {"question": "q", "answer": "so\n#### 4"},
    "math": {"problem": "p", "solution": "\\boxed{4}", "level": "Level 1", "type": "sums"},
    "olympiad": {
        "question": "p",
        "final_answer": ["1", "2"],
        "solution": ["s"],
        "id": 7,
        "difficulty": "hard",
    },
    "gpqa": {"Question": "q", "Correct Answer": "a", "Record ID": "r"}
    | {f"Incorrect Answer {n}": str(n) for n in (1, 2, 3)},
    "mmlu": {"question": "q", "choices": ["a", "b"], "answer": 1},
    "prm800k": {"question": {"problem": "p", "ground_truth_answer": "7"}, "label": LABEL},
    "eurus2_rl": {
        "prompt": [{"role": "user", "content": "p"}],
        "ability": "math",
        "reward_model": {"ground_truth": "3"},
    },
    "verl": {
        "data_source": "d",
        "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"index": 1, "split": "train"},
    },
    "trl": {
        "prompt": [{"role": "user", "content": "p"}],
        "completion": [{"role": "assistant", "content": "\\boxed{3}"}],
        "solution": "\\boxed{3}",
        "ground_truth": 3,
        "level": 1,
    },
    "humaneval": {
        "task_id": "h",
        "prompt": "def f(x):\n    ...\n",
        "entry_point": "f",
        "test": "def check(f):\n    assert f(1) == 2\n",
        "canonical_solution": "    return 2 * x\n",
    },
    "mbpp": {
        "task_id": 1,
        "text": "Double x.",
        "code": "def f(x): return 2 * x",
        "test_list": ["assert f(1) == 2"],
        "test_setup_code": "",
        "test_imports": ["import math"],
    },
    "leetcode": {
        "task_id": "l",
        "query": "q",
        "entry_point": "Solution().f",
        "prompt": "import math\n",
        "test": "def check(f):\n    assert f(1) == 2\n",
        "completion": "class Solution: ...",
    },
    "livecodebench": {
        "question_id": "x",
        "question_content": "q",
        "starter_code": "",
        "metadata": '{"func_name": "f"}',
        "public_test_cases": '[{"input": "1", "output": "2", "testtype": "functional"}]',
        "private_test_cases": [{"input": "1", "output": "2", "testtype": "functional"}],
    },
}
"""A good row of each form."""
SUFFIXES = [".jsonl", ".json", ".csv", ".parquet", ".arrow", ".jsonl.gz"]

WORDS = ["", " ", "p", "A", "#### 4", "\\boxed{4}", "def f(x):\n    return x\n", "assert f(1) == 1", "[{}]"]
texts = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=()), max_size=8),  # halves of surrogate pairs, too
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3))


values = st.recursive(scalars, nested, max_leaves=8)


@st.composite
def changed(draw: st.DrawFn, row: dict[str, Any]) -> Any:
    """Return a good row in which some fields are others, or none is left."""
    fields = draw(st.lists(st.sampled_from(sorted(row)), max_size=3, unique=True))
    return draw(st.one_of(st.just(row | {name: draw(values) for name in fields}), values))


good = st.fixed_dictionaries(
    {"prompt": st.sampled_from("abc"), "answer": st.sampled_from("12")},
    optional={"traces": st.lists(texts, max_size=2), "problem_id": st.sampled_from("xyz"), "details": values},
)


turns = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": texts},
            optional={"name": scalars},
        ),
        st.dictionaries(st.sampled_from(["role", "content"]), values, max_size=2),
        values,
    ),
    max_size=4,
)
"""What may be a conversation."""


def sentence_of(error: UserError) -> str:
    sentence = str(error)
    assert sentence and "\n" not in sentence and "Traceback" not in sentence
    return sentence


def problems_of(folder: Path, form: str | None, rows: list[Any]) -> list[Problem] | None:
    """Import rows, of which each is a problem or a sentence; None where the file is one sentence."""
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        found = import_problems(path, form)
    except DataError as error:
        sentence_of(error)
        return None
    assert found.rows == len(found.problems) + found.merged + found.other + len(found.bad)
    assert not any("\n" in sentence for sentence in found.bad)
    return found.problems


def written_again(folder: Path, problems: list[Problem]) -> Iterator[list[Problem]]:
    """Write problems in each form of ours and read them."""
    for suffix in (".jsonl", ".parquet"):
        target = folder / f"out{suffix}"
        write_problems(problems_to_table(problems), target)
        yield table_to_problems(read_problems(target))


@pytest.mark.parametrize("form", ROWS)
@given(st.data())
@settings(FEW, max_examples=40)
def test_every_row_is_a_problem_or_a_sentence(tmp_path: Path, form: str | None, data: st.DataObject) -> None:
    given_rows = data.draw(st.lists(changed(ROWS[form]), max_size=4))
    problems = problems_of(tmp_path, form, given_rows)
    if problems is None:
        return
    for again in written_again(tmp_path, problems):
        assert [one.prompt for one in again] == [one.prompt for one in problems]


@pytest.mark.parametrize("form", [None, "gsm8k", "verl", "trl"])
@given(st.data())
@settings(FEW, max_examples=60)
def test_every_conversation_is_a_problem_or_a_sentence(
    tmp_path: Path, form: str | None, data: st.DataObject
) -> None:
    name = "question" if form == "gsm8k" else "prompt"
    rows = [ROWS[form] | {name: messages} for messages in data.draw(st.lists(turns, max_size=4))]
    problems = problems_of(tmp_path, form, rows)
    if problems is None:
        return
    codec = make(tmp_path / "chat", TAGS)
    for problem in problems:
        turns_of = [*problem.details.get("prompt_history", ()), {"role": "user", "content": problem.prompt}]
        said = "".join(f"<{one['role']}>{whole_characters(one['content'])}" for one in turns_of)
        assert codec.decode(codec.encode_problem(problem.prompt, problem.details)) == said
    for again in written_again(tmp_path, problems):
        assert again == problems


TAGS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
MARKED = "1+1? Step 1: 2 ки\nStep 2: 3 ки"
STEP_ROWS: dict[StepForm, dict[str, Any]] = {
    "labels": {"problem": "p", "steps": ["a", "b"], "labels": [1, 0.5], "problem_id": "x", "correct": True},
    "stepwise": {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]},
    "math_shepherd": {"input": MARKED, "label": MARKED.replace("ки", "+")},
    "processbench": {"problem": "p", "steps": ["a", "b"], "label": 1, "final_answer_correct": False},
    "prmbench": {
        "original_question": "p",
        "original_process": ["a"],
        "modified_process": ["b"],
        "error_steps": [1],
        "classification": "circular",
    },
    "prm800k": {"question": {"problem": "p"}, "label": LABEL},
    "records": {
        "problem_id": "x",
        "prompt": "p",
        "leaves": [{"steps": ["a"], "step_truth": [True], "scores": [0.5], "outcome": 1.0}],
    },
    "prm_labels": {"problem_id": "x", "prompt_text": "p", "step_texts": ["a"], "step_truth": [True]},
}
"""A good row of each form of labelled steps."""


@st.composite
def changed_deep(draw: st.DrawFn, row: Any) -> Any:
    """Return a good row with another value somewhere in it."""
    if not isinstance(row, dict | list) or not row or draw(st.integers(0, 4)) == 0:
        return draw(values)
    key = draw(st.sampled_from(sorted(row) if isinstance(row, dict) else range(len(row))))
    copy: Any = row.copy()
    copy[key] = draw(changed_deep(row[key]))
    return copy


@pytest.mark.parametrize("form", STEP_ROWS)
@given(st.data())
@settings(FEW, max_examples=60)
def test_every_row_of_steps_has_a_label_a_step_or_is_a_sentence(
    tmp_path: Path, form: StepForm, data: st.DataObject
) -> None:
    row = STEP_ROWS[form]
    path = tmp_path / "a.jsonl"
    changes = data.draw(st.lists(st.one_of(changed(row), changed_deep(row)), max_size=4))
    path.write_text("".join(json.dumps(one) + "\n" for one in changes))
    try:
        found = list(step_rows(path, form, alternatives=True))
    except DataError as error:
        sentence_of(error)
        return
    for one in found:
        if isinstance(one, DataError):
            sentence_of(one)
        else:
            assert len(one.steps) == len(one.labels) == len(one.targets) > 0
            assert all(target is None or 0 <= target <= 1 for target in one.targets)
            assert isinstance(one.problem, str)


@given(st.lists(good, max_size=8))
@settings(FEW, max_examples=40)
def test_no_prompt_or_identifier_has_two_answers(tmp_path: Path, given_rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given_rows))
    try:
        found = import_problems(path, None).problems
    except DataError as error:
        sentence_of(error)
        return
    for key in ("prompt", "problem_id"):
        answers: dict[str, set[str]] = {}
        for problem in found:
            answers.setdefault(getattr(problem, key), set()).add(problem.answer)
        assert all(len(one) == 1 for one in answers.values())
    assert len({one.problem_id for one in found}) == len(found)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(st.one_of(st.binary(max_size=40), texts.map(lambda text: text.encode("utf-8", "surrogatepass"))))
@settings(FEW, max_examples=40)
def test_any_bytes_are_rows_or_a_sentence(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    task = make_task(FileTaskConfig(train_file=path, test_file=path, format="gsm8k", bad_rows="skip"))
    for read in (lambda: import_problems(path, None), lambda: next(task.problems("train", 0))):
        with pytest.raises(DataError) as caught:
            read()
        sentence_of(caught.value)


stored = st.dictionaries(st.sampled_from(["problem_id", "prompt", "response", "tokens"]), scalars)


@given(st.lists(stored, max_size=4))
@settings(FEW, max_examples=40)
def test_stored_responses_are_read_or_refused(tmp_path: Path, given_rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given_rows))
    problems = problems_to_table([Problem("p", "p", "1"), Problem("A", "A", "2")])
    try:
        found = read_responses([path], problems)
    except DataError as error:
        sentence_of(error)
        return
    assert [one.text for one in found] == [row["response"] for row in given_rows]


PIECES = ["<eos>", "<end_of_turn>", "<start_of_turn>", "<bos>", "<", "a", "\n", " ", "é", "😀", "."]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(FEW, max_examples=40)
def test_text_comes_back_from_its_tokens_whatever_it_says(tmp_path: Path, text: str) -> None:
    codec = make(tmp_path, ends=["<eos>", "<end_of_turn>"])
    response = codec.encode_trace(text)
    assert codec.decode(response) == text
    assert not set(response[:-1]) & {*codec.eos_ids, codec.encode_prompt("")[0]}
    assert "".join(codec.step_texts(response, codec.step_ends(response))) == text
