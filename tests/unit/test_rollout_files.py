"""Files of stored rollouts: text and tokens, prompts and traces of other files, mistakes by their place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from airls_ray.config.schema import FileTaskConfig
from airls_ray.data.rollout_files import read_stored, read_stored_rollouts, write_stored
from airls_ray.errors import DataError
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from tests.tiny import make_rollouts

CONTEXT = 64
PROMPT = "How many ducks\u2019 eggs?"
SOLUTION = "She has 16 - 3 = 13 eggs — “fresh”.\nShe makes 13 * 2 = 26€.\n\nA: 26"
DATA = Path(os.environ.get("AIRLS_RAY_TEST_DATA", "nowhere")) / "gsm8k"


def byte_codec(folder: Path, texts: list[str]) -> TextCodec:
    """A byte-level BPE of a few merges, with steps that end in a line break."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>", "pad_token": "<pad>"}))
    task = FileTaskConfig(name="file", train_file=folder, test_file=folder, step_delimiter="\n")
    return TextCodec.from_folder(folder, make_task(task))


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    return byte_codec(tmp_path_factory.mktemp("tokenizer"), [PROMPT, SOLUTION] * 3)


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def row(**changes: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "response": SOLUTION, "correct": True} | changes


def read(file: Path, codec: TextCodec, **options: Any) -> list[dict[str, Any]]:
    found = read_stored_rollouts([file], codec, options.pop("context", 10_000), **options)
    rows: list[dict[str, Any]] = found.rollouts.to_pylist()
    return rows


# --------------------------------------------------------------------------------- text and tokens
def test_the_tokens_of_a_text_join_to_it_again_and_end_the_sequence(tmp_path: Path, codec: TextCodec) -> None:
    (got,) = read(write(tmp_path / "a.jsonl", [row()]), codec)
    assert codec.decode(got["prompt"]) == PROMPT
    assert codec.decode(got["response"][:-1]) == SOLUTION
    assert got["response"][-1] == codec.eos_id


def test_a_text_is_cut_after_each_delimiter_and_its_steps_join_to_it(
    tmp_path: Path, codec: TextCodec
) -> None:
    (got,) = read(write(tmp_path / "a.jsonl", [row()]), codec)
    steps = codec.step_texts(got["response"], got["step_ends"])
    assert len(steps) == 3  # the blank line belongs to the step before it
    assert [step.strip() for step in steps] == [line for line in SOLUTION.splitlines() if line]
    assert "".join(steps) == SOLUTION


def test_a_text_that_was_cut_does_not_end_the_sequence(tmp_path: Path, codec: TextCodec) -> None:
    whole, cut = read(write(tmp_path / "a.jsonl", [row(), row(finish="length")]), codec)
    assert cut["response"] == whole["response"][:-1]
    assert cut["step_ends"][-1] == len(cut["response"])


def test_rollouts_of_a_run_are_taken_as_they_are(tmp_path: Path, codec: TextCodec) -> None:
    rollouts = make_rollouts(3, 2)
    pq.write_table(rollouts, tmp_path / "iteration_000001.parquet")
    got = read(tmp_path / "iteration_000001.parquet", codec)
    names = ("problem_id", "prompt", "response", "step_ends", "logprobs", "outcome")
    assert [[line[name] for name in names] for line in got] == [
        [line[name] for name in names] for line in rollouts.to_pylist()
    ]
    assert {line["answer"] for line in got} == {None}


def test_tokens_without_step_ends_are_cut_as_text_is(tmp_path: Path, codec: TextCodec) -> None:
    file = write(tmp_path / "a.jsonl", [row(), row(response=codec.encode_trace(SOLUTION))])
    text, tokens = read(file, codec)
    assert tokens == text


def test_outcomes_may_be_numbers_and_answers_are_kept(tmp_path: Path, codec: TextCodec) -> None:
    file = write(tmp_path / "a.jsonl", [row(answer="26"), {**row(outcome=0.25), "correct": None}])
    assert [(line["outcome"], line["answer"]) for line in read(file, codec)] == [(1.0, "26"), (0.25, None)]


# ------------------------------------------------------------------------------------- problems
def test_a_prompt_and_its_traces_are_found_by_the_problem_id(tmp_path: Path, codec: TextCodec) -> None:
    problems = write(
        tmp_path / "problems.jsonl",
        [
            {"problem_id": "p", "prompt": PROMPT, "answer": "26", "traces": [SOLUTION, "A: 26"]},
            {"problem_id": "other", "prompt": "?", "answer": "1", "traces": ["A: 1"]},
        ],
    )
    file = write(tmp_path / "a.jsonl", [{"problem_id": "p", "response": "A: 3", "correct": False}])
    found = read_stored_rollouts([file], codec, 10_000, problems=problems)
    assert codec.decode(found.rollouts["prompt"][0].as_py()) == PROMPT
    assert [codec.decode(tokens) for tokens in found.traces["response"].to_pylist()] == [SOLUTION, "A: 26"]
    assert found.traces["problem_id"].to_pylist() == ["p", "p"]
    assert found.traces["outcome"].to_pylist() == [1.0, 1.0]


def test_rows_of_equal_prompts_are_of_one_problem(tmp_path: Path, codec: TextCodec) -> None:
    file = write(tmp_path / "a.jsonl", [row(), row(correct=False), row(prompt="Another?")])
    first, second, third = (line["problem_id"] for line in read(file, codec))
    assert first == second != third


def test_a_trace_belongs_to_the_problem_with_its_prompt(tmp_path: Path, codec: TextCodec) -> None:
    file = write(tmp_path / "a.jsonl", [row(problem_id="p")])
    traces = write(tmp_path / "t.jsonl", [{"prompt": PROMPT, "trace": SOLUTION}])
    found = read_stored_rollouts([file], codec, 10_000, traces=traces)
    assert found.traces["problem_id"].to_pylist() == ["p"]


def test_a_trace_may_bring_its_log_probabilities(tmp_path: Path, codec: TextCodec) -> None:
    tokens = codec.encode_trace("A: 26")
    file = write(tmp_path / "a.jsonl", [row()])
    given = {"prompt": PROMPT, "response": tokens, "logprobs": [-0.5] * len(tokens)}
    found = read_stored_rollouts([file], codec, 10_000, traces=write(tmp_path / "t.jsonl", [given]))
    assert found.traces["logprobs"].to_pylist() == [[-0.5] * len(tokens)]


def test_a_trace_that_is_null_leaves_the_response(tmp_path: Path, codec: TextCodec) -> None:
    file = write(tmp_path / "a.jsonl", [row()])
    given = {"prompt": PROMPT, "trace": None, "response": SOLUTION}
    found = read_stored_rollouts([file], codec, 10_000, traces=write(tmp_path / "t.jsonl", [given]))
    assert codec.decode(found.traces["response"][0].as_py()) == SOLUTION


def test_traces_of_other_problems_alone_are_refused(tmp_path: Path, codec: TextCodec) -> None:
    traces = write(tmp_path / "t.jsonl", [{"prompt": "Another?", "trace": SOLUTION}])
    with pytest.raises(DataError, match=r"no trace of .*t\.jsonl is of a problem that has rollouts"):
        read_stored_rollouts([write(tmp_path / "a.jsonl", [row()])], codec, 10_000, traces=traces)


def test_a_problem_has_one_prompt_across_files(tmp_path: Path, codec: TextCodec) -> None:
    files = [
        write(tmp_path / "a.jsonl", [row(problem_id="p")]),
        write(tmp_path / "b.jsonl", [row(problem_id="p"), row(problem_id="p", prompt="Another?")]),
    ]
    with pytest.raises(DataError, match=r"b\.jsonl, line 2: .*'p' like that of .*a\.jsonl, line 1"):
        read_stored_rollouts(files, codec, 10_000)


# --------------------------------------------------------------------------------------- length
def test_what_does_not_fit_the_context_is_left_out_and_counted(tmp_path: Path, codec: TextCodec) -> None:
    size = len(codec.encode_prompt(PROMPT)) + len(codec.encode_trace(SOLUTION))
    file = write(tmp_path / "a.jsonl", [row(), row(response=SOLUTION + "!"), row(response="A: 26")])
    traces = write(tmp_path / "t.jsonl", [{"prompt": PROMPT, "traces": [SOLUTION + "!", "A: 26"]}])
    found = read_stored_rollouts([file], codec, size, traces=traces)
    assert (found.rollouts.num_rows, found.too_long) == (2, 1)
    assert (found.traces.num_rows, found.traces_too_long) == (1, 1)


def test_a_file_of_which_nothing_fits_is_refused(tmp_path: Path, codec: TextCodec) -> None:
    with pytest.raises(DataError, match=r"none of the 1 rollouts fits model.context_tokens=5"):
        read_stored_rollouts([write(tmp_path / "a.jsonl", [row()])], codec, 5)


# ------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prompt": None}, "neither field 'prompt' nor field 'problem_id'"),
        ({"prompt": None, "problem_id": "x"}, "problem 'x' is in no file of problems.*--problems"),
        ({"prompt": ""}, "field 'prompt' must be text, but is empty text"),
        ({"prompt": []}, "field 'prompt' must hold tokens, but is an empty list"),
        ({"response": None}, "field 'response' must be text or tokens, but is absent or null"),
        ({"response": [3, 100_000]}, "token 2 of field 'response' is 100000, outside the"),
        ({"response": [3, 1.5]}, "token 2 of field 'response' is 1.5, no integer"),
        ({"response": [3, 4], "step_ends": [1, 1, 2]}, "field 'step_ends' must be a rising list"),
        ({"response": [3, 4], "step_ends": [True, 2]}, "field 'step_ends' must be a rising list"),
        ({"response": [3, 4], "step_ends": [1]}, "ends with 2, the tokens of the response"),
        ({"response": [3, 4], "logprobs": [-1.0]}, "has 1 numbers for the 2 tokens"),
        ({"response": [3, 4], "logprobs": [-1.0, 0.5]}, "number 2 of field 'logprobs' must be .* but is 0.5"),
        (
            {"response": [3, 4], "logprobs": [-1.0, -(10**400)]},
            "number 2 of field 'logprobs' must be .* -1000",
        ),
        ({"response": [3, 4], "logprobs": [-1.0, None]}, "number 2 .* but is absent or null"),
        ({"correct": None}, r"field 'correct' \(or 'outcome'\) must say"),
        ({"correct": 2}, "field 'correct' must be true, false or a number from 0 to 1"),
    ],
)
def test_a_bad_row_is_named_with_its_field(
    tmp_path: Path, codec: TextCodec, wrong: dict[str, Any], said: str
) -> None:
    file = write(tmp_path / "a.jsonl", [row(), row(**wrong)])
    with pytest.raises(DataError, match=rf"a\.jsonl, line 2: .*{said}"):
        read_stored_rollouts([file], codec, CONTEXT)


# ------------------------------------------------------------------------------------ real files
def test_what_is_written_is_read_again(tmp_path: Path, codec: TextCodec) -> None:
    file = write(tmp_path / "a.jsonl", [row(problem_id="p", answer="26"), row(problem_id="p", correct=False)])
    traces = write(tmp_path / "t.jsonl", [{"problem_id": "p", "trace": "A: 26"}])
    found = read_stored_rollouts([file], codec, 10_000, traces=traces)
    write_stored(found, tmp_path / "rollouts.parquet", tmp_path / "traces.parquet")
    again = read_stored(tmp_path / "rollouts.parquet", tmp_path / "traces.parquet")
    assert again.rollouts.equals(found.rollouts)
    assert again.traces.equals(found.traces)


@pytest.mark.skipif(
    not (DATA / "example_model_solutions.jsonl").is_file(),
    reason="AIRLS_RAY_TEST_DATA has no gsm8k/example_model_solutions.jsonl",
)
def test_the_tokens_of_real_solutions_join_to_their_texts(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (DATA / "example_model_solutions.jsonl").open()][:300]
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    found = [(line["question"], line[model]) for line in lines for model in models]
    codec = byte_codec(tmp_path, [solution["solution"] for _, solution in found[:200]])
    rows = [
        row(prompt=question, response=one["solution"], correct=one["is_correct"]) for question, one in found
    ]
    got = read(write(tmp_path / "a.jsonl", rows), codec)
    for line, given in zip(got, rows, strict=True):
        assert "".join(codec.step_texts(line["response"], line["step_ends"])) == given["response"]
    assert len({line["problem_id"] for line in got}) == len({line["question"] for line in lines})
