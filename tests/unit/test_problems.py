"""Problem tables, files and streams."""

import json
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from airls_ray.config.schema import ArithmeticTaskConfig, Config
from airls_ray.data.commands import make_data
from airls_ray.data.problems import (
    ProblemStream,
    problems_to_table,
    read_problems,
    replace_rows,
    table_to_problems,
    take_distinct,
    write_problems,
)
from airls_ray.data.schemas import PROBLEMS
from airls_ray.errors import ConfigError, DataError, RunError
from airls_ray.tasks import Problem, make_task

SAMPLE = [
    Problem("a", "1+1=", "2", ("1+1=2;", "2;"), {"level": 3}),
    Problem("b", "ü?", "naïve", (), {}),
]


def test_problems_survive_a_table():
    table = problems_to_table(SAMPLE)
    assert table.schema.equals(PROBLEMS, check_metadata=True)
    assert table_to_problems(table) == SAMPLE


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_problems_survive_a_file(tmp_path, suffix):
    path = tmp_path / f"problems{suffix}"
    write_problems(problems_to_table(SAMPLE), path)
    assert table_to_problems(read_problems(path)) == SAMPLE
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_users_may_give_one_trace_no_id_and_other_fields(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(
        '{"prompt": "p", "answer": "a", "trace": "t", "source": 1}\n\n{"prompt": "q", "answer": "b"}\n'
    )
    first, second = table_to_problems(read_problems(path))
    assert (first.traces, second.traces) == (("t",), ())
    assert first.problem_id != second.problem_id


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "row 2: not a JSON object"),
        ("[1]", "row 2: must be an object, but is a list"),
        ('{"answer": "a"}', "row 2: field 'prompt' is missing"),
        ('{"prompt": "p"}', "row 2: field 'answer' is missing"),
        ('{"prompt": "p", "answer": 7}', "row 2: field 'answer' must be text, but is a number"),
        ('{"prompt": "p", "answer": " "}', "row 2: field 'answer' is empty"),
        (
            '{"prompt": "p", "answer": "a", "traces": "t"}',
            "row 2: field 'traces' must be a list .* is text; give one",
        ),
        ('{"prompt": "p", "answer": "a", "traces": ["t", 1]}', "element 2 is a number"),
        ('{"prompt": "p", "answer": "a", "trace": "t", "traces": ["t"]}', "either field 'trace' or"),
        ('{"prompt": "p", "answer": "a", "problem_id": 5}', "row 2: field 'problem_id' must be text"),
        (
            '{"prompt": "p", "answer": "a", "problem_id": "one"}',
            "'one' is in .*row 1, too, but the prompts differ",
        ),
        ('{"prompt": "p", "answer": "a", "details": [1]}', "row 2: field 'details' must be an object"),
    ],
)
def test_a_bad_row_is_named_with_file_row_and_field(tmp_path, row, message):
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "first", "answer": "a", "problem_id": "one"}\n' + row + "\n")
    with pytest.raises(DataError, match=f"own.jsonl, {message}" if message.startswith("row") else message):
        read_problems(path)


ROW = '{"prompt": "p", "answer": "é"}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ROW.encode("latin-1"), r"own.jsonl, row 1: not UTF-8 \(byte 28 is 0xe9\); save the file as UTF-8$"),
        (ROW.encode("utf-16"), "own.jsonl: it is UTF-16; save it as UTF-8$"),
        (b'{"prompt": "\\ud83d", "answer": "a"}', r"own.jsonl, row 1: a text has \\ud83d, half of a"),
        (b'{"prompt": "p", "answer": "a", "details": {"\\udc00": 1}}', r"row 1: a text has \\udc00"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt": "p", "answer": ' + b"1" * 5000 + b"}", "row 1: .* too many digits"),
    ],
    ids=["latin-1", "UTF-16", "half a character", "half a character in a key", "deep", "long number"],
)
def test_what_is_no_text_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "own.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_problems(path)


def test_a_mark_before_utf8_and_whole_characters_from_two_escapes_are_read(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"prompt": "\\ud83d\\ude00", "answer": "a"}')
    assert read_problems(path)["prompt"].to_pylist() == ["\U0001f600"]


@pytest.mark.parametrize(
    ("name", "reason"), [("nowhere.jsonl", "no such file"), ("folder.jsonl", "a folder")]
)
def test_a_file_that_cannot_be_opened_is_said_in_plain_words(tmp_path, name, reason):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match=rf"cannot read .*{name}: .*{reason}"):
        read_problems(tmp_path / name)


@pytest.mark.parametrize(
    "second",
    [
        {"prompt": "1+1", "answer": "3"},
        {"prompt": " 1+1 ", "answer": "3"},
        {"prompt": "1+1", "answer": "3", "problem_id": "another"},
    ],
)
def test_one_prompt_with_two_answers_is_an_error_that_names_both_rows(tmp_path, second):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"prompt": "1+1", "answer": "2"}) + "\n" + json.dumps(second) + "\n")
    with pytest.raises(
        DataError, match=r"row 2: the problem .*row 1, too, but the answers differ \('2' and '3'\)$"
    ):
        read_problems(path)


def test_the_same_problem_twice_is_one_problem_with_the_traces_of_both(tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"prompt": "p", "answer": "a", "traces": traces} for traces in (["s"], ["s", "t"])]
    path.write_text("\n".join(map(json.dumps, rows)))
    (problem,) = table_to_problems(read_problems(path))
    assert problem.traces == ("s", "t")


def test_a_bad_parquet_row_is_named(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "own.parquet"
    pq.write_table(pa.table({"prompt": ["p", "q"], "answer": ["a", None]}), path)
    with pytest.raises(DataError, match=r"own.parquet, row 2: field 'answer' is missing"):
        read_problems(path)


def test_details_that_json_has_not_are_refused(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "own.parquet"
    row = {"prompt": "p", "answer": "a", "details": {"level": b"1"}}
    pq.write_table(pa.Table.from_pylist([row]), path)
    with pytest.raises(DataError, match=r"row 1: field 'details' holds what JSON has not"):
        read_problems(path)


@pytest.mark.parametrize(
    "name", ["missing.jsonl", "missing.parquet", "table.csv", "empty.jsonl", "broken.parquet"]
)
def test_an_unreadable_file_is_named(tmp_path, name):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "broken.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=name):
        read_problems(tmp_path / name)


def test_a_failed_write_leaves_no_part_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.mkdir()  # cannot be replaced by a file
    with pytest.raises(RunError, match=r"cannot write .*problems.jsonl"):
        write_problems(problems_to_table(SAMPLE), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["problems.jsonl"]


def test_a_stream_resumes_at_its_position():
    task = make_task(ArithmeticTaskConfig())
    whole = ProblemStream(task, "train", 3).take(70)
    stream = ProblemStream(task, "train", 3)
    stream.take(30)
    resumed = ProblemStream(task, "train", 3, start=stream.position)
    assert stream.position == 30
    assert resumed.take(40).equals(whole.slice(30))


def test_a_test_stream_ends():
    stream = ProblemStream(make_task(ArithmeticTaskConfig(test_problems=5)), "test", 0)
    assert (stream.take(3).num_rows, stream.take(9).num_rows, stream.position) == (3, 2, 5)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_make_data_writes_problems_with_traces(tmp_path, suffix):
    path = tmp_path / "new" / f"data{suffix}"
    assert make_data(Config(), path, 12, "train") == 12
    problems = table_to_problems(read_problems(path))
    assert len(problems) == 12 and all(len(problem.traces) == 1 for problem in problems)


def test_make_data_is_limited_by_the_test_set(tmp_path):
    config = Config(task=ArithmeticTaskConfig(test_problems=4))
    assert make_data(config, tmp_path / "test.jsonl", 10, "test") == 4
    assert len((tmp_path / "test.jsonl").read_text().splitlines()) == 4
    assert "details" in json.loads((tmp_path / "test.jsonl").read_text().splitlines()[0])


def test_make_data_needs_a_positive_number(tmp_path):
    with pytest.raises(ConfigError, match=r"at least 1, but is 0"):
        make_data(Config(), tmp_path / "x.jsonl", 0, "train")


def table_of(names: str) -> pa.Table:
    return problems_to_table([Problem(name, name, name) for name in names])


def test_every_replaced_row_has_a_problem_of_its_own() -> None:
    found = replace_rows(table_of("abcd"), [1, 3], table_of("xy"))
    assert found["problem_id"].to_pylist() == ["a", "x", "c", "y"]


def test_no_more_distinct_problems_are_drawn_than_are_wanted() -> None:
    rest, drawn = list("aabcdefgh"), []

    def take(count: int) -> pa.Table:
        drawn.append(count)
        names, rest[:count] = "".join(rest[:count]), []
        return table_of(names)

    stream: Any = SimpleNamespace(take=take)
    assert take_distinct(stream, 4)["problem_id"].to_pylist() == ["a", "b", "c", "d"]
    assert drawn == [4, 1]
