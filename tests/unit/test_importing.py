"""Problems out of other people's data: fields, formats, bad rows and the hub."""

import gzip
import json
import logging
import os
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airls_ray.config.fields_section import FieldsConfig
from airls_ray.config.schema import ArithmeticTaskConfig, FileTaskConfig
from airls_ray.data.commands import convert_data
from airls_ray.data.importing import import_problems
from airls_ray.data.problems import read_problems, table_to_problems
from airls_ray.data.sources import open_source, parse_hub
from airls_ray.errors import ConfigError, DataError
from airls_ray.tasks import Problem, make_task
from airls_ray.text.codec import build_tokenizer

DATA = Path(os.environ.get("AIRLS_RAY_TEST_DATA", "nowhere"))
WRONG, RIGHT = {"text": "a", "rating": -1}, {"text": "b", "rating": 1}
GSM8K = {"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one(path, form, row, **fields) -> Problem:
    (problem,) = import_problems(write(path / "a.jsonl", row), form, FieldsConfig(**fields)).problems
    return problem


@pytest.mark.parametrize(
    ("form", "row", "prompt", "answer", "traces"),
    [
        ("gsm8k", GSM8K, "Two and two?", "4", (GSM8K["answer"],)),
        ("math", {"problem": "p", "solution": "so $\\boxed{\\frac{1}{2}}$"}, "p", "\\frac{1}{2}", 1),
        ("math500", {"problem": "p", "answer": "x", "solution": "s", "level": 2}, "p", "x", 1),
        ("aime", {"ID": "2024-I-1", "Problem": "p", "Solution": "s", "Answer": 204}, "p", "204", 1),
        ("aime", {"id": 60, "problem": "p", "answer": "073"}, "p", "073", ()),
        ("amc", {"id": 0, "problem": "p", "answer": 142.0, "url": "u"}, "p", "142", ()),
        ("olympiad", {"question": "p", "final_answer": ["1", "2"], "solution": ["s", "t"]}, "p", "1, 2", 2),
        ("minerva", {"problem": "p", "solution": "\\boxed{6.5}", "type": "physics"}, "p", "6.5", 1),
        (
            "prm800k",
            {
                "question": {"problem": "p", "ground_truth_answer": "7"},
                "label": {
                    "finish_reason": "solution",
                    "steps": [
                        {"completions": [WRONG, RIGHT], "chosen_completion": 1},
                        {"completions": [], "chosen_completion": None, "human_completion": {"text": "c"}},
                    ],
                },
            },
            "p", "7", ("b\nc",),
        ),
        (
            "eurus2_rl",
            {
                "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}],
                "ability": "math",
                "reward_model": {"ground_truth": "3", "style": "rule"},
            },
            "p", "3", (),
        ),
    ],
)  # fmt: skip
def test_published_formats_by_hand(tmp_path, form, row, prompt, answer, traces):
    problem = one(tmp_path, form, row)
    assert (problem.prompt, problem.answer) == (prompt, answer)
    assert len(problem.traces) == traces if isinstance(traces, int) else problem.traces == traces


def test_a_field_of_ones_own_replaces_that_of_the_format(tmp_path):
    assert one(tmp_path, "gsm8k", GSM8K, traces="no_calculator(answer)").traces == ("2 + 2 = 4\n#### 4",)


def test_fields_are_found_by_paths_and_alternatives(tmp_path):
    row = {"a": {"b": ["x", "question"]}, "c.d": 5, "level": "Level 3"}
    problem = one(tmp_path, None, row, prompt="nothing|a.b.1", answer="c.d", level="level")
    assert (problem.prompt, problem.answer, problem.details) == ("question", "5", {"level": "Level 3"})


def test_an_unknown_extractor_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown extractor 'hash'.*after_hash"):
        one(tmp_path, None, GSM8K, prompt="question", answer="hash(answer)")


def test_every_row_is_accounted_for(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        GSM8K,
        {"question": "q", "answer": "no mark"},
        {"question": "Two and two?", "answer": "again\n#### 4"},
        {"question": "Two and two?", "answer": "#### 5"},
        [1],
    )
    with path.open("ab") as file:
        file.write(b'{"question": "\xff", "answer": "#### 1"}\n{"question": \n')
    found = import_problems(path, "gsm8k")
    assert (found.rows, len(found.problems), found.merged, len(found.bad)) == (7, 1, 1, 5)
    assert found.problems[0].traces == (GSM8K["answer"], "again\n#### 4")
    expected = [
        "row 2: no answer",
        "row 4: the problem",
        "row 5: must be an object",
        "row 6: not UTF-8",
        "row 7: not a JSON",
    ]
    for sentence, part in zip(found.bad, expected, strict=True):
        assert sentence.startswith(f"{path}, {part}")


def test_rows_are_tests_of_one_program_or_a_contradiction(tmp_path):
    row = {"task_id": 1, "text": "Double x.", "code": "def f(x): return 2 * x"}
    same = row | {"test_list": ["assert f(1) == 2"]}
    assert import_problems(write(tmp_path / "a.jsonl", same, same), "mbpp").merged == 1
    own = [{"prompt": "p", "answer": "-", "details": {"tests": [n]}} for n in (1, 2)]
    found = import_problems(write(tmp_path / "b.jsonl", *own), None)
    assert found.kinds == {"contradicts an earlier row": 1} and "the tests differ" in found.bad[0]


def test_a_problem_under_two_identifiers_is_two_problems_and_is_counted(tmp_path):
    rows = [{"prompt": "p", "answer": "a", "problem_id": name} for name in "xy"]
    found = import_problems(write(tmp_path / "a.jsonl", *rows), None)
    assert (len(found.problems), found.again, found.merged, found.bad) == (2, 1, 0, [])


@pytest.mark.parametrize("form", ["humaneval", "mbpp"])
def test_programs_with_tests_are_converted(tmp_path, form):
    rows = {
        "humaneval": {
            "prompt": "def f(x):\n    ...\n",
            "entry_point": "f",
            "test": "def check(f):\n assert f(1) == 2",
        },
        "mbpp": {"text": "Double x.", "code": "def f(x): return 2 * x", "test_list": ["assert f(1) == 2"]},
    }
    path = write(tmp_path / "a.jsonl", rows[form] | {"task_id": 1})
    done = convert_data(path, tmp_path / "out.jsonl", form, FieldsConfig())
    assert (done.counts["problems"], done.notes) == (1, [])
    (problem,) = table_to_problems(read_problems(tmp_path / "out.jsonl"))
    assert problem.details["entry_point"] == "f"


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("prm800k", {"question": {"problem": "p"}, "label": {"finish_reason": "solution", "steps": [3]}}),
        ("amc", {"problem": "p", "answer": float("nan")}),
        ("eurus2_rl", {"prompt": "text", "reward_model": 3}),
        ("gsm8k", {"question": ["q"], "answer": "#### 1"}),
        ("math", {"problem": "p", "solution": 5}),
    ],
)
def test_rows_of_another_shape_are_bad_rows_and_no_crash(tmp_path, form, row):
    with pytest.raises(DataError, match=r"a.jsonl, row 1: (no|the) (prompt|answer|traces)"):
        one(tmp_path, form, row)


def test_bad_rows_stop_where_that_is_asked_for(tmp_path):
    path = write(tmp_path / "a.jsonl", GSM8K, {"question": "q", "answer": "no mark"})
    with pytest.raises(DataError, match=r"a.jsonl, row 2: no answer .* task.bad_rows=skip"):
        import_problems(path, "gsm8k", bad_rows="error")


def test_a_source_of_another_schema_says_what_fields_it_has(tmp_path):
    with pytest.raises(DataError, match=r"no usable problem among 1 rows.*the row has: question, answer"):
        one(tmp_path, "math", GSM8K)


def test_all_kinds_of_files_give_the_same_rows(tmp_path):
    table = pa.table({"question": ["p", "q"], "answer": ["#### 1", "#### 2"]})
    pq.write_table(table, tmp_path / "a.parquet")
    for name, make in (("a.arrow", pa.ipc.new_file), ("b.arrow", pa.ipc.new_stream)):
        with make(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    (tmp_path / "a.json").write_text(json.dumps(table.to_pylist()))
    (tmp_path / "a.csv").write_text("question,answer\np,#### 1\nq,#### 2\n")
    for path in sorted(tmp_path.iterdir()):
        rows = list(open_source(path))
        assert [row for _, row in rows] == table.to_pylist(), path
        assert rows[1][0] == f"{path}, row 2"


def test_a_row_of_csv_with_other_columns_than_the_head_is_bad(tmp_path):
    path = tmp_path / "a.csv"
    long = "x" * 200_000
    path.write_text(f"prompt,answer\np,1,000\nq\n\nr,2\n{long},3\n")
    found = import_problems(path, None)
    assert [one.answer for one in found.problems] == ["2", "3"]
    assert [one.removeprefix(f"{path}, ") for one in found.bad] == [
        "row 1: 3 columns, where the first line has 2",
        "row 2: 1 columns, where the first line has 2",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('prompt,answer\n"p,1\nq,2\n', "unexpected end of data"),
        ("answer,prompt,answer\n1,p,2\n", "two columns are called 'answer'"),
    ],
)
def test_csv_that_swallows_rows_or_columns_is_an_error(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        import_problems(tmp_path / "a.csv", None)


def test_numbers_and_choices_without_end_are_bad_rows(tmp_path):
    fields = FieldsConfig(prompt="prompt", answer="answer", choices="choices", level="level")
    good = {"prompt": "p", "choices": ["x", "y"], "answer": 0, "level": 10**400}
    many = {"prompt": "q", "choices": [str(number) for number in range(27)], "answer": 0}
    found = import_problems(write(tmp_path / "a.jsonl", good, many), None, fields)
    assert [one.details["level"] for one in found.problems] == [str(10**400)]
    assert found.kinds == {"choices not usable": 1}


def test_an_unknown_suffix_is_an_error():
    with pytest.raises(DataError, match=r"a.txt must end in one of .jsonl, .json, .csv"):
        open_source("a.txt")


def test_code_of_a_mixed_set_is_left_out_and_counted(tmp_path):
    row = {"prompt": [{"role": "user", "content": "p"}], "reward_model": {"ground_truth": "3"}}
    path = write(tmp_path / "a.jsonl", {**row, "ability": "math"}, {**row, "ability": "code"})
    found = import_problems(path, "eurus2_rl")
    assert (len(found.problems), found.other, found.bad) == (1, 1, [])


def test_hub_addresses_are_read_part_by_part():
    full = parse_hub("hub:openai/gsm8k:main:train@" + "a" * 40)
    assert (full.name, full.config, full.split, full.revision) == ("openai/gsm8k", "main", "train", "a" * 40)
    assert parse_hub("hub:a/b:test").config is None
    with pytest.raises(DataError, match=r"write hub:OWNER/NAME"):
        parse_hub("hub:openai/gsm8k")


def test_the_hub_is_asked_for_a_pinned_revision_and_warns_of_another(tmp_path, monkeypatch, caplog):
    asked = []

    def load_dataset(name, config, *, split, revision):
        asked.append((name, config, split, revision))
        return [GSM8K]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with caplog.at_level(logging.WARNING):
        assert import_problems("hub:o/g:main:train@" + "b" * 40, "gsm8k").problems[0].answer == "4"
        assert not caplog.records
        import_problems("hub:o/g:main:train@v1", "gsm8k")
    assert asked == [("o/g", "main", "train", "b" * 40), ("o/g", "main", "train", "v1")]
    assert "is not pinned" in caplog.text


def test_a_hub_that_is_out_of_reach_names_the_way_without_it(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=r"no route.*give the path"):
        import_problems("hub:o/g:train", "gsm8k")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"`datasets`, which is not installed.*give the path"):
        import_problems("hub:o/g:train", "gsm8k")


def test_a_task_trains_on_a_published_file_and_says_what_it_left_out(tmp_path, caplog):
    train = write(tmp_path / "train.jsonl", GSM8K, {"question": "bad", "answer": "x"})
    test = write(tmp_path / "test.jsonl", {"question": "t", "answer": "#### 9"})
    made = make_task(FileTaskConfig(train_file=train, test_file=test, format="gsm8k", bad_rows="skip"))
    with caplog.at_level(logging.WARNING):
        assert [p.answer for p in islice(made.problems("train", 0), 2)] == ["4", "4"]
    assert "1 of 2 rows were left out" in caplog.text and "row 2" in caplog.text


def test_a_template_that_loses_the_prompt_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold \{prompt\} exactly once"):
        FileTaskConfig(train_file="a.jsonl", test_file="b.jsonl", prompt_template="Think.")


def test_conversion_counts_tokens_and_names_the_row_that_has_none(tmp_path):
    build_tokenizer(make_task(ArithmeticTaskConfig()), tmp_path / "policy")
    short, long = (
        {"prompt": "1+1=", "answer": "2", "traces": ["1+1=2;", "2;"]},
        {"prompt": "1+" * 9, "answer": "2"},
    )
    settings = {"tokenizer": str(tmp_path / "policy"), "max_tokens": 8, "check_answers": False}
    done = convert_data(
        write(tmp_path / "a.jsonl", short, long), tmp_path / "out.jsonl", None, FieldsConfig(), **settings
    )
    (problem,) = table_to_problems(read_problems(tmp_path / "out.jsonl"))
    assert problem.traces == ("2;",)  # 4 tokens of the prompt, 2 of the trace, the end of the response
    assert done.counts["problems longer than the limit"] == done.counts["traces longer than the limit"] == 1
    path = write(tmp_path / "b.jsonl", short, {"prompt": "x", "answer": "2"})
    with pytest.raises(DataError, match=r"b\.jsonl, row 2: the tokenizer of .* cannot encode 'x'"):
        convert_data(path, tmp_path / "out.jsonl", None, FieldsConfig(), **settings)


def test_conversion_needs_tokenizer_and_limit_together(tmp_path):
    with pytest.raises(ConfigError, match=r"--tokenizer and --max-tokens together"):
        convert_data("a.jsonl", tmp_path / "b.jsonl", "gsm8k", FieldsConfig(), max_tokens=5)


PUBLISHED = [
    ("gsm8k", "gsm8k/train.jsonl", 7473),
    ("gsm8k", "gsm8k/test.jsonl", 1319),
    ("math", "math/math_demonstrations.jsonl", 4500),
    ("math500", "math/math500_test.jsonl", 500),
]


@pytest.mark.skipif(not DATA.is_dir(), reason="AIRLS_RAY_TEST_DATA is not set")
@pytest.mark.parametrize(("form", "name", "count"), PUBLISHED)
def test_published_files_read_without_a_bad_row(form, name, count):
    found = import_problems(DATA / name, form)
    assert (found.rows, len(found.problems), found.traces, found.bad) == (count, count, count, [])


@pytest.mark.parametrize("whole", [True, False])
def test_a_packed_file_is_read_and_a_broken_one_is_named(tmp_path: Path, whole: bool) -> None:
    data = gzip.compress(b'{"prompt": "p", "answer": "a"}\n')
    path = tmp_path / "own.jsonl.gz"
    path.write_bytes(data if whole else data[:-4])
    if whole:
        assert [one.prompt for one in import_problems(path, None).problems] == ["p"]
    else:
        with pytest.raises(DataError, match=r"cannot read .*own\.jsonl\.gz: not a whole gzip file"):
            import_problems(path, None)
