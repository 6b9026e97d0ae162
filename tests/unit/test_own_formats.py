"""Data formats of the user's own: what a function may give of a row, and what is said of others."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from airls_ray.cli.main import run
from airls_ray.config import Config, load_config
from airls_ray.config.fields_section import FieldsConfig
from airls_ray.config.load import dump_config
from airls_ray.config.named import find_doors
from airls_ray.data.importing import Imported, import_problems
from airls_ray.errors import ConfigError, DataError, DoorError
from airls_ray.tasks import Problem, make_task

OWN = """
def read(row, unit=""):
    if row["kind"] == "code":
        return None
    return {
        "prompt": row["q"] + unit, "answer": row["a"] + 1, "traces": row.get("how"),
        "source": "mine", "details": {"kind": row["kind"]},
    }
def lettered(row):
    return {"prompt": row["q"], "answer": row["a"], "choices": ("no", "yes"), "traces": ("so", "thus")}
def given(row, where):
    return Problem("id", where, row["a"])
def broken(row):
    return row["nothing"]
def a_number(row):
    return 3
def no_answer(row):
    return {"prompt": row["q"]}
def not_json(row):
    return {"prompt": "p", "answer": "a", "made": object()}
def half(row):
    return {"prompt": "\\ud83d", "answer": "a"}
def programs(row):
    return {"prompt": row["q"], "details": {"form": "assert", "entry_point": "f", "tests": ["assert f(1)"]}}
class Reader: pass
def odd(rows): pass
from airls_ray.tasks import Problem
"""
MATHS, CODE = {"kind": "maths", "q": "1+1?", "a": 1, "how": "2"}, {"kind": "code", "q": "c", "a": 0}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def rows(folder: Path, *given: Any, name: str = "a.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in given))
    return folder / name


def read(own: Path, name: str, *given: Any, **settings: Any) -> Imported:
    return import_problems(rows(own.parent, *given), f"{own}:{name}", **settings)


def config_of(own: Path, form: str) -> Config:
    train, test = rows(own.parent, MATHS), rows(own.parent, {**MATHS, "q": "2+2?"}, name="b.jsonl")
    files = [f"task.train_file={train}", f"task.test_file={test}"]
    return load_config(None, ["task=file", *files, f"task.format={form}"])


def test_a_function_says_what_is_the_problem_and_further_keys_are_details(own: Path) -> None:
    (problem,) = read(own, "read", MATHS).problems
    assert (problem.prompt, problem.answer, problem.traces) == ("1+1?", "2", ("2",))
    assert problem.details == {"kind": "maths", "source": "mine"}


def test_choices_are_shown_and_the_answer_is_a_letter(own: Path) -> None:
    (problem,) = read(own, "lettered", {"q": "q", "a": "yes"}).problems
    assert problem.answer == "B" and {"A) ", "B) "} <= {line[:3] for line in problem.prompt.splitlines()}
    assert len(problem.traces) == 2 and problem.details["choices"] == ["no", "yes"]


def test_a_whole_problem_is_taken_as_it_is(own: Path) -> None:
    (problem,) = read(own, "given", {"a": "x"}).problems
    assert problem == Problem("id", f"{own.parent / 'a.jsonl'}, row 1", "x")


def test_a_row_of_which_a_function_says_none_is_left_out_and_counted(own: Path) -> None:
    found = read(own, "read", MATHS, CODE)
    assert (found.rows, len(found.problems), found.other, found.bad) == (2, 1, 1, [])


def test_a_row_on_which_a_function_raises_is_a_bad_row_with_its_place(own: Path) -> None:
    found = read(own, "read", {"kind": "maths"}, MATHS)
    place = f"{own.parent / 'a.jsonl'}, row 1"
    assert found.bad == [f"{place}: {own}:read raises KeyError: 'q' (own.py line 6)"]
    assert found.kinds == {"the format raises": 1} and len(found.problems) == 1
    with pytest.raises(DataError, match=r"row 1: .* raises KeyError: 'q' .*task.bad_rows=skip"):
        read(own, "read", {"kind": "maths"}, MATHS, bad_rows="error")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a_number", r"returned 3 \(int\), and it must be a mapping with prompt and answer, or None"),
        ("no_answer", r"no answer at 'answer' \(the row has: prompt\)"),
        ("not_json", "field 'details' holds what JSON has not"),
        ("half", r"a text of the format has \\ud83d"),
    ],
)
def test_what_is_no_problem_is_a_bad_row(own: Path, name: str, said: str) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl, row 1: .*{said}"):
        read(own, name, MATHS, bad_rows="error")


def test_the_settings_fields_go_before_what_a_function_says(own: Path) -> None:
    found = read(own, "read", {**MATHS, "b": 5}, fields=FieldsConfig(answer="b", traces="q"))
    assert [(one.answer, one.traces) for one in found.problems] == [("5", ("1+1?",))]


@pytest.mark.parametrize(
    ("name", "said"),
    [("Reader", "is a class, and it must be a function"), ("odd", r"takes 'rows'.*did you mean 'row'")],
)
def test_what_is_no_format_is_one_sentence(own: Path, name: str, said: str) -> None:
    with pytest.raises(DoorError, match=rf"task\.format: .*:{name} {said}.*copy from .*formats/gsm8k\.py"):
        read(own, name, MATHS)


def test_options_are_keywords_of_the_function_and_a_table_of_fields_has_none(own: Path) -> None:
    config = config_of(own, f"{{name: '{own}:read', options: {{unit: ' m'}}}}")
    assert next(make_task(config.task).problems("train", 0)).prompt == "1+1? m"
    with pytest.raises(DoorError, match=r"gsm8k takes no option 'unit': set task\.fields"):
        next(make_task(config_of(own, "{name: gsm8k, options: {unit: m}}").task).problems("train", 0))


def test_a_configuration_says_the_name_alone_where_there_are_no_options(own: Path) -> None:
    plain, whole = (
        config_of(own, form) for form in ("gsm8k", f"{{name: '{own}:read', options: {{unit: m}}}}")
    )
    assert plain.task.model_dump(mode="json")["format"] == "gsm8k"
    for config in (plain, whole):
        dump_config(config, own.parent / "config.yaml")
        assert load_config(own.parent / "config.yaml") == config


def test_a_run_records_it_and_the_code_travels(own: Path) -> None:
    config = config_of(own, f"{own}:read")
    assert [(one.kind, one.name) for one in find_doors(config)] == [("data format", f"{own}:read")]
    sent = pickle.dumps(config)
    own.unlink()
    assert next(make_task(pickle.loads(sent).task).problems("test", 0)).prompt == "2+2?"


def test_programs_have_a_format_of_their_own_and_need_no_answer(own: Path) -> None:
    train, test = rows(own.parent, {"q": "p"}), rows(own.parent, {"q": "q"}, name="b.jsonl")
    files = [f"task.train_file={train}", f"task.test_file={test}"]
    files += ["verifier.deadline_seconds=20", f"task.format={own}:programs"]
    config = load_config(None, ["task=code", *files])
    problem = next(make_task(config.task).problems("train", 0))
    assert (problem.prompt, problem.details["entry_point"]) == ("p", "f")


@pytest.mark.parametrize(
    ("task", "form", "said"),
    [
        ("file", "gsm9k", r"task\.format: there is no data format 'gsm9k' .did you mean 'gsm8k'"),
        ("file", "mbpp", r"task\.format: must be a format of answers, but mbpp is one of programs"),
        ("code", "mbp", r"task\.format: there is no code format 'mbp' .did you mean 'mbpp'"),
    ],
)
def test_a_name_that_is_none_is_said_at_once(task: str, form: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, [f"task={task}", "task.train_file=a", "task.test_file=b", f"task.format={form}"])


def test_data_convert_takes_a_file_of_the_users(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = rows(own.parent, MATHS, CODE), own.parent / "out.jsonl"
    arguments = ["data", "convert", str(source), str(target), "--format", f"{own}:read", "--no-check-answers"]
    assert run(arguments) == 0
    (problem,) = import_problems(target, None).problems
    assert (problem.prompt, problem.answer) == ("1+1?", "2")
