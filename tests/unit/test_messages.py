"""Prompts that are conversations: read, told apart, and put to the policy by its chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.rollout.rollout_worker import RolloutRequest, RolloutWorker
from airls_ray.config.schema import Config
from airls_ray.data.importing import import_problems
from airls_ray.data.lengths import Lengths
from airls_ray.data.problems import problems_to_table, read_problems, table_to_problems, write_problems
from airls_ray.data.rollout_files import read_stored_rollouts
from airls_ray.data.stored_outputs import read_responses
from airls_ray.errors import DataError
from airls_ray.grading.reward_calls import Row, read_reward
from airls_ray.tasks.base import Problem
from airls_ray.tasks.problem_files import check_apart
from airls_ray.text.codec import TextCodec, encode_traces
from tests.fakes import make_fake_engine
from tests.unit.test_turn_ends import make

TAGS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}:{% endif %}"
)
SYSTEM = {"role": "system", "content": "Be brief."}
EARLIER = [{"role": "user", "content": "One and one?"}, {"role": "assistant", "content": "2"}]
LAST = {"role": "user", "content": "And three more?"}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one(path: Path, prompt: Any, **row: Any) -> Problem:
    rows = {"prompt": prompt, "answer": "5", **row}
    (problem,) = import_problems(write(path / "a.jsonl", rows), None, bad_rows="error", remedy="").problems
    return problem


def encoded(codec: TextCodec, problem: Problem) -> str:
    """The tokens of a problem as text, by the way of a table."""
    row = problems_to_table([problem]).to_pylist()[0]
    return codec.decode(codec.encode_problem(row["prompt"], row["details"]))


# ------------------------------------------------------------------------------------- reading
def test_the_last_turn_is_the_prompt_and_the_others_its_history(tmp_path: Path) -> None:
    problem = one(tmp_path, [SYSTEM, *EARLIER, {**LAST, "name": "me"}], details={"level": 2})
    assert problem.prompt == "And three more?"
    assert problem.details == {"level": 2, "prompt_history": [SYSTEM, *EARLIER]}


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([], "row 1: field 'prompt' is an empty list"),
        ([LAST, {"role": "tool", "content": "x"}], "row 1: the role of message 2 .* but is 'tool'"),
        ([{"content": "x"}], "row 1: the role of message 1 .* but is absent or null"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "content of message 1 .* is a list"),
        ([{"role": "system", "content": None}, LAST], "content of message 1 .* is absent or null"),
        ([LAST, EARLIER[1]], "row 1: the last message of field 'prompt' is the assistant's; .* the user's"),
        ([SYSTEM], "row 1: the last message of field 'prompt' is the system's"),
        ([SYSTEM, {"role": "user", "content": " \n"}], "row 1: the last message of field 'prompt' is empty"),
        ([LAST, "x"], "row 1: message 2 of field 'prompt' must be an object .* but is text"),
    ],
)
@pytest.mark.parametrize("form", [None, "gsm8k"])
def test_messages_that_are_no_prompt_are_one_sentence_with_the_row(
    tmp_path: Path, form: str | None, messages: Any, sentence: str
) -> None:
    name = "prompt" if form is None else "question"
    path = write(tmp_path / "a.jsonl", {name: messages, "answer": "#### 5"})
    with pytest.raises(DataError, match=sentence.replace("'prompt'", f"'{name}'")) as caught:
        import_problems(path, form, bad_rows="error", remedy="")
    assert "\n" not in str(caught.value)
    found = import_problems(
        write(tmp_path / "b.jsonl", {name: messages, "answer": "#### 5"}, GOOD[form]), form
    )
    assert found.kinds == {"messages not usable": 1}


GOOD: dict[str | None, dict[str, str]] = {
    None: {"prompt": "p", "answer": "1"},
    "gsm8k": {"question": "p", "answer": "#### 1"},
}


def test_other_histories_are_other_problems_and_one_message_is_its_text(tmp_path: Path) -> None:
    asked = [
        "And three more?",
        [LAST],
        [SYSTEM, LAST],
        [*EARLIER, LAST],
        [{**EARLIER[0], "content": "Two and one?"}, EARLIER[1], LAST],
        [SYSTEM, *EARLIER, LAST],
    ]
    identities = [one(tmp_path, prompt).problem_id for prompt in asked]
    assert identities[0] == identities[1] and len(set(identities)) == 5
    rows = [{"prompt": prompt, "answer": str(number)} for number, prompt in enumerate(asked[1:])]
    found = import_problems(write(tmp_path / "a.jsonl", *rows), None)
    assert [problem.answer for problem in found.problems] == ["0", "1", "2", "3", "4"]


def test_one_conversation_with_two_answers_is_a_contradiction(tmp_path: Path) -> None:
    rows = [{"prompt": [SYSTEM, LAST], "answer": answer} for answer in "56"]
    found = import_problems(write(tmp_path / "a.jsonl", *rows), None)
    assert found.kinds == {"contradicts an earlier row": 1} and "answers differ" in found.bad[0]


def test_a_test_problem_is_a_training_problem_by_its_whole_conversation(tmp_path: Path) -> None:
    problems = [
        one(tmp_path, [SYSTEM, *turns, LAST], problem_id=name) for name, turns in (("a", []), ("b", EARLIER))
    ]
    check_apart(problems[:1], problems[1:], tmp_path, tmp_path)
    again = one(tmp_path, [SYSTEM, {**LAST, "content": "And three more?\n"}], problem_id="c")
    with pytest.raises(DataError, match="occurs in both"):
        check_apart(problems[:1], [again], tmp_path, tmp_path)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_conversations_are_written_and_read_again(tmp_path: Path, suffix: str) -> None:
    problems = [
        one(tmp_path, prompt, details={"n": 1}) for prompt in ([LAST], [SYSTEM, *EARLIER, LAST], "text")
    ]
    target = tmp_path / f"out{suffix}"
    write_problems(problems_to_table(problems), target)
    assert table_to_problems(read_problems(target)) == problems


@pytest.mark.parametrize("history", ["text", [LAST, {"role": "tool", "content": "x"}]])
def test_turns_in_the_details_are_checked_like_those_of_a_prompt(tmp_path: Path, history: Any) -> None:
    with pytest.raises(DataError, match=r"row 1: .*'prompt_history'"):
        one(tmp_path, "p", details={"prompt_history": history})


# ------------------------------------------------------------------------------- to the policy
@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([LAST], "<system>Be exact.<user>Q: And three more?:"),
        ([SYSTEM, LAST], "<system>Be brief.<user>Q: And three more?:"),
        ([{**SYSTEM, "content": ""}, LAST], "<system><user>Q: And three more?:"),
        (
            [*EARLIER, LAST],
            "<system>Be exact.<user>One and one?<assistant>2<user>Q: And three more?:",
        ),
        (
            [SYSTEM, *EARLIER, LAST],
            "<system>Be brief.<user>One and one?<assistant>2<user>Q: And three more?:",
        ),
    ],
)
def test_the_rows_system_message_wins_and_words_stand_around_the_last_turn(
    tmp_path: Path, messages: Any, expected: str
) -> None:
    codec = make(tmp_path, TAGS, system_prompt="Be exact.", prompt_template="Q: {prompt}")
    assert encoded(codec, one(tmp_path, messages)) == expected


def test_a_conversation_is_what_transformers_makes_of_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    codec = make(tmp_path, TAGS)
    messages = [SYSTEM, *EARLIER, LAST]
    theirs = AutoTokenizer.from_pretrained(str(tmp_path)).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert codec.encode_prompt(LAST["content"], [SYSTEM, *EARLIER]) == theirs


def test_without_a_template_a_system_message_stands_before_the_prompt(tmp_path: Path) -> None:
    codec = make(tmp_path, system_prompt="Be exact.", prompt_template="Q: {prompt}")
    for prompt, before in (([SYSTEM, LAST], "Be brief.\n\n"), ([LAST], "Be exact.\n\n")):
        assert encoded(codec, one(tmp_path, prompt)) == f"<bos>{before}Q: And three more?"
    assert encoded(codec, one(tmp_path, [{**SYSTEM, "content": ""}, LAST])) == "<bos>Q: And three more?"


def test_without_a_template_earlier_turns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"earlier turns, .*: set model.prompt_template=chat"):
        encoded(make(tmp_path), one(tmp_path, [*EARLIER, LAST]))


def test_traces_stand_behind_the_whole_conversation(tmp_path: Path) -> None:
    codec = make(tmp_path, TAGS)
    problem = one(tmp_path, [SYSTEM, *EARLIER, LAST], trace="5")
    (row,) = encode_traces(problems_to_table([problem]), codec, 200).to_pylist()
    assert codec.decode(row["prompt"]) == encoded(codec, problem)


# ----------------------------------------------------------------------- stored files, rewards
def test_stored_rollouts_name_their_problem_by_messages(tmp_path: Path) -> None:
    codec = make(tmp_path, TAGS)
    row = {"response": "5", "correct": True}
    path = write(tmp_path / "r.jsonl", {"prompt": [SYSTEM, LAST], **row}, {"prompt": LAST["content"], **row})
    first, second = read_stored_rollouts([path], codec, 200).rollouts.to_pylist()
    assert codec.decode(first["prompt"]) == "<system>Be brief.<user>And three more?:"
    assert codec.decode(second["prompt"]) == "<user>And three more?:"
    assert first["problem_id"] != second["problem_id"]


def test_a_file_of_problems_gives_stored_rollouts_their_turns(tmp_path: Path) -> None:
    codec = make(tmp_path, TAGS)
    problems = write(tmp_path / "p.jsonl", {"prompt": [SYSTEM, LAST], "answer": "5", "problem_id": "x"})
    path = write(tmp_path / "r.jsonl", {"problem_id": "x", "response": "5", "correct": True})
    (row,) = read_stored_rollouts([path], codec, 200, problems=problems).rollouts.to_pylist()
    assert codec.decode(row["prompt"]) == "<system>Be brief.<user>And three more?:"


def test_stored_responses_name_their_conversation(tmp_path: Path) -> None:
    problems = [one(tmp_path, prompt) for prompt in ([SYSTEM, LAST], [*EARLIER, LAST], "other")]
    table = problems_to_table(problems)
    rows = [
        {"prompt": [*EARLIER, LAST], "response": "a"},
        {"prompt": [SYSTEM, LAST], "response": "b"},
        {"prompt": "other", "response": "c"},
    ]
    found = read_responses([write(tmp_path / "r.jsonl", *rows)], table)
    assert [response.problem for response in found] == [1, 0, 2]
    path = write(tmp_path / "s.jsonl", {"prompt": LAST["content"], "response": "a"})
    with pytest.raises(DataError, match="ends 2 conversations: name the right one by 'problem_id'"):
        read_responses([path], table)


def trl(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    assert "prompt_history" not in columns
    if isinstance(completions[0], str):
        return [float(prompts[0] == LAST["content"])]
    return [
        float(prompts[0] == [SYSTEM, LAST] and completions[0] == [{"role": "assistant", "content": "five"}])
    ]


@pytest.mark.parametrize("turns", [None, [SYSTEM]])
def test_a_reward_of_trl_sees_messages_where_the_data_had_messages(turns: Any) -> None:
    details = {} if turns is None else {"prompt_history": turns}
    reward = read_reward(trl, {})
    rows = [Row(LAST["content"], "five", "5", row=details)]
    assert reward.read(rows, reward.call(rows)) == [1.0]


def test_tables_of_problems_have_no_other_columns_for_it(tmp_path: Path) -> None:
    table = problems_to_table([one(tmp_path, [SYSTEM, LAST])])
    assert table.column_names == ["problem_id", "prompt", "answer", "traces", "details"]
    assert table.schema.field("prompt").type == pa.string()


# --------------------------------------------------------------------- whoever makes prompts of them
def test_the_turns_before_a_prompt_count_as_its_length(tmp_path: Path) -> None:
    codec = make(tmp_path, TAGS)
    problem = one(tmp_path, [SYSTEM, *EARLIER, LAST])
    tokens = len("<system>Be brief.<user>One and one?<assistant>2<user>And three more?:")
    assert Lengths(codec, tokens, 500).fit(problem) is problem
    assert Lengths(codec, tokens - 1, 500).fit(problem) is None
    with pytest.raises(DataError, match=f"problem '{problem.problem_id}': the prompt has earlier turns"):
        Lengths(make(tmp_path / "plain"), 500, 500).fit(problem)


def test_a_rollout_worker_samples_behind_the_whole_conversation(tmp_path: Path) -> None:
    codec = make(tmp_path, TAGS)
    task = {"name": "file", "train_file": "a", "test_file": "b"}
    config = Config.model_validate(
        {"task": task, "model": {"prompt_template": "chat"}, "rollout": {"max_response_tokens": 16}}
    )
    worker = RolloutWorker("rollout-0", config, str(tmp_path), make_fake_engine)
    worker.start()
    request = RolloutRequest(samples=1, temperature=1.0, seed=5, seed_path=("train", 0))
    table = problems_to_table([one(tmp_path, [SYSTEM, *EARLIER, LAST])])
    (row,) = worker.generate(table, [0], request).to_pylist()
    assert codec.decode(row["prompt"]).startswith("<system>Be brief.<user>One and one?<assistant>2<user>And")
