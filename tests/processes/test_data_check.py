"""Problems and traces checked as a configuration will see them."""

from __future__ import annotations

import gzip
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.train.launch_checks import check_data
from airls_ray.cli.main import run
from airls_ray.config.schema import Config
from airls_ray.console.progress import QuietProgress
from airls_ray.data.check_answers import Effort, judge_problems
from airls_ray.data.check_config import check_before, check_config
from airls_ray.data.check_report import DataReport, Severity
from airls_ray.errors import DataError
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem
from airls_ray.tasks.choices import with_choices
from airls_ray.text.codec import build_tokenizer

Row = dict[str, Any]
GOOD: list[Row] = [
    {"prompt": "1+1=", "answer": "2", "traces": ["1+1=2;\n#### 2"]},
    {"prompt": "2+2=", "answer": "4", "traces": ["2+2=4;\n#### 4"]},
]
TEST: list[Row] = [{"prompt": "9-1=", "answer": "8"}]


def config_of(folder: Path, train: list[Row], test: list[Row] = TEST, **changes: Any) -> Config:
    for name, rows in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"train_file": folder / "train.jsonl", "test_file": folder / "test.jsonl"}
    task = {"name": "file", "grader": "exact", "steps": "lines", **files, **changes.pop("task", {})}
    return Config.model_validate({"task": task, "output": folder / "runs", **changes})


def programs_of(folder: Path, right: str, wrong: str, **task: Any) -> Config:
    """Two programs to train on that should double a number, and one to measure on."""
    row = {"task_id": 1, "text": "Double x.", "test_list": ["assert f(1) == 2"], "code": right}
    second, third = row | {"task_id": 2, "text": "q", "code": wrong}, row | {"task_id": 3, "text": "r"}
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(second))
    (folder / "test.jsonl").write_text(json.dumps(third))
    files = {"train_file": folder / "train.jsonl", "test_file": folder / "test.jsonl"}
    verifier = {"deadline_seconds": 15.0}
    return Config(task={"name": "code", "format": "mbpp", **files, **task}, verifier=verifier)


def kinds(report: DataReport, severity: Severity) -> dict[str, int]:
    return {one.what: len(one.cases) for one in report.findings if one.severity == severity}


def cases(report: DataReport, words: str) -> list[str]:
    (finding,) = [one for one in report.findings if words in one.what]
    return list(finding.cases)


class Said(QuietProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_good_files_have_figures_and_no_warnings(tmp_path: Path) -> None:
    report = check_config(config_of(tmp_path, GOOD))
    assert report.severity == Severity.NOTE
    train = report.figures["training"]
    assert (train["problems"], train["graded traces"], train["steps of a trace, most"]) == (2, 2, 2)


def test_all_bad_rows_are_listed_and_not_only_the_first(tmp_path: Path) -> None:
    rows = [*GOOD, {"prompt": "p"}, {"answer": "a"}, {"prompt": "1+1=", "answer": "3"}, GOOD[0]]
    report = check_config(config_of(tmp_path, rows))
    found = cases(report, "that cannot be used")
    assert [case.split(", row ")[1][:2] for case in found] == ["3:", "4:", "5:"]
    assert "answers differ ('2' and '3')" in found[2]
    assert cases(report, "problem of an earlier row") == [
        f"{tmp_path / 'train.jsonl'}, row 6: the problem of {tmp_path / 'train.jsonl'}, row 1 again"
    ]
    assert report.severity == Severity.ERROR
    skipped = check_config(config_of(tmp_path, rows, task={"bad_rows": "skip"}))
    assert skipped.severity == Severity.WARNING


def test_a_trace_that_ends_in_another_answer_is_an_error_where_it_is_learned_from(tmp_path: Path) -> None:
    wrong = {"prompt": "3+3=", "answer": "6", "traces": ["3+3=6\n#### 6", "3+3=7\n#### 7"]}
    config = config_of(tmp_path, [*GOOD, wrong])
    sentence = f"{tmp_path / 'train.jsonl'}, row 3: trace 2 ends in '7', but the answer of the row is '6'"
    assert cases(check_config(config), "do not grade right") == [sentence]
    with pytest.raises(
        DataError, match=r"^traces of training problems .*: 1, the first: .*row 3: trace 2 ends"
    ):
        check_before(config, QuietProgress(), traces=True)
    check_before(config, QuietProgress(), traces=False)
    said = Said()
    check_before(config_of(tmp_path, [*GOOD, wrong], task={"bad_rows": "skip"}), said, traces=True)
    assert said.lines[0].startswith(
        "Warning: traces of training problems that do not grade right and are kept: 1, the"
    )


def test_a_run_does_not_begin_with_a_trace_that_grades_wrong(tmp_path: Path) -> None:
    build_tokenizer(make_task(Config().task), tmp_path / "policy")
    task = {"answer_marker": "=", "steps": "delimiter", "step_delimiter": ";"}
    for trace, wrong in (("1+1=2", False), ("1+1=3", True)):
        rows = [{"prompt": "1+1=", "answer": "2", "traces": [trace]}]
        config = config_of(tmp_path, rows, task=task)
        with pytest.raises(DataError, match="ends in '3', but") if wrong else nullcontext():
            check_data(config, str(tmp_path / "policy"), QuietProgress())


def test_an_answer_that_the_grader_cannot_compare_is_said(tmp_path: Path) -> None:
    rows = [*GOOD, {"prompt": "p", "answer": "#### 2"}]
    said = Said()
    check_before(config_of(tmp_path, rows), said, splits=("train",), traces=True)
    (line,) = said.lines
    assert (
        "answers of training problems that the grader cannot compare: right responses get 0: 1," in line
        and "row 3" in line
    )
    most = config_of(tmp_path, [{"prompt": f"p{n}", "answer": "#### 2"} for n in range(3)])
    with pytest.raises(DataError, match=r"answers of training problems .*: 3, the first"):
        check_before(most, QuietProgress(), traces=True)


def test_the_real_grader_of_mathematics_reads_answers_and_traces() -> None:
    task = Config.model_validate(
        {"task": {"name": "file", "train_file": "a.jsonl", "test_file": "b.jsonl", "grader": "math"}}
    ).task
    problems = [
        Problem("a", "p", "\\frac{1}{2}", ("so $\\boxed{0.5}$", "so $\\boxed{0.6}$")),
        Problem("b", "q", ".", ("so $\\boxed{3}$",)),
        with_choices(Problem("c", "r", "", ("for a reason",)), ["x", "y"], 1),
    ]
    judged = judge_problems(task, problems, {name: f"row {name}" for name in "abc"}, Effort())
    assert judged.unreadable == ["row b: the answer '.' cannot be parsed (unparsable)"]
    assert judged.wrong == [("a", 1)] and "row a: trace 2 ends in" in judged.wrong_traces[0]
    assert (judged.problems, judged.traces) == (3, 4)


def test_programs_of_a_file_are_run_on_their_tests(tmp_path: Path) -> None:
    report = check_config(programs_of(tmp_path, "def f(x): return 2 * x", "def f(x): return x"))
    (case,) = cases(report, "do not grade right")
    assert "row 2: the trace does not pass the tests" in case


def test_a_problem_of_both_files_is_an_error(tmp_path: Path) -> None:
    report = check_config(config_of(tmp_path, GOOD, [*TEST, {"prompt": " 1+1= ", "answer": "2"}]))
    assert "row 2: the problem" in cases(report, "training problems, too")[0]


def test_a_training_problem_that_is_another_parts_test_problem_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = config_of(tmp_path, [*GOOD, *TEST[:1]], test=[{"prompt": "8+8=", "answer": "16"}])
    other = config_of(tmp_path / "other", GOOD)
    parts = [{"task": each.task.model_dump(), "label": name} for name, each in (("a", one), ("b", other))]
    config = Config.model_validate({"task": {"name": "mixture", "parts": parts}})
    assert "row 1: the problem" in cases(check_config(config), "training problems, too")[0]
    with pytest.raises(DataError, match="training problems, too"):
        check_before(config, QuietProgress(), traces=False)


def test_traces_of_one_step_each_are_a_warning(tmp_path: Path) -> None:
    config = config_of(tmp_path, GOOD, task={"steps": "delimiter", "step_delimiter": "\n\n"})
    (case,) = cases(check_config(config), "single step")
    assert "task.steps=delimiter with '\\n\\n' cuts none of 2 traces" in case


OWN_STEPS = """
class Delimited:
    step_delimiter = "|"
    def problem(self, rng): return {"prompt": str(rng.random()), "answer": "1", "traces": "1"}
    def grade(self, problem, response): return float(response == problem.answer)
class Ruled(Delimited):
    step_rule = "sentences"
"""


@pytest.mark.parametrize(
    ("name", "said"), [("Delimited", "step_delimiter '|'"), ("Ruled", "step_rule 'sentences'")]
)
def test_what_cuts_no_trace_of_a_task_of_ones_own_is_said_by_its_name(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "own.py").write_text(OWN_STEPS)
    config = Config.model_validate({"task": {"name": f"{tmp_path}/own.py:{name}"}})
    (case,) = cases(check_config(config, sample=2), "single step")
    assert case == f"generated: the {said} of the task {tmp_path}/own.py:{name} cuts none of 200 traces"


def test_what_cuts_no_trace_of_programs_is_said_by_their_setting(tmp_path: Path) -> None:
    config = programs_of(tmp_path, "def f(x):\n    return 2 * x", "def f(x): return x", steps="blocks")
    (case,) = cases(check_config(config, sample=0), "single step")
    assert "task.steps=blocks cuts none of 2 traces" in case


def test_lengths_are_measured_where_there_is_a_tokenizer(tmp_path: Path) -> None:
    build_tokenizer(make_task(Config().task), tmp_path / "policy")
    rows: list[Row] = [
        {"prompt": "1+1=", "answer": "1+1=2;", "traces": ["1+1=2;"]},
        {"prompt": "1+1+1=" * 4, "answer": "3"},
        {"prompt": "x", "answer": "1"},
    ]
    model = {"path": str(tmp_path / "policy"), "context_tokens": 20}
    report = check_config(config_of(tmp_path, rows, model=model, rollout={"max_response_tokens": 8}))
    assert "row 2: the prompt has 24 tokens, more than 12" in cases(report, "do not fit")[0]
    assert "cannot encode 'x'" in cases(report, "cannot write")[0]
    assert report.figures["training"]["tokens of a trace, most"] == 7


def test_a_file_that_is_not_there_is_a_finding_and_the_other_one_is_checked(tmp_path: Path) -> None:
    config = config_of(tmp_path, GOOD)
    (tmp_path / "test.jsonl").unlink()
    report = check_config(config)
    assert "no such file" in cases(report, "test files that cannot be used")[0]
    assert list(report.figures) == ["training"]


def test_a_sample_is_drawn_by_the_seed_and_time_ends_it(tmp_path: Path) -> None:
    problems = [Problem(str(number), str(number), "a", ("b",)) for number in range(500)]
    places = {one.problem_id: one.problem_id for one in problems}
    task = config_of(tmp_path, GOOD).task
    first, same, other = (
        judge_problems(task, problems, places, Effort(problems=20, seed=seed)).wrong for seed in (1, 1, 2)
    )
    assert len(first) == 20 and first == same != other
    assert judge_problems(task, problems, places, Effort(seconds=0.0)).problems < 500


def test_a_generated_task_costs_nothing_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a grader was started")

    monkeypatch.setattr("airls_ray.data.check_config.judge_problems", never)
    check_before(Config(), QuietProgress(), traces=True)
    check_before(Config(task={"name": "countdown"}), QuietProgress(), traces=True)


def test_the_command_lists_findings_and_exits_by_their_severity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [{"prompt": f"p{number}"} for number in range(30)]
    for rows, code in ((GOOD, 0), ([*GOOD, {"prompt": "p", "answer": "#### 2"}], 1), ([*GOOD, *bad], 2)):
        config = config_of(tmp_path, rows).model_dump(mode="json")
        (tmp_path / "own.yaml").write_text(yaml.safe_dump({"task": config["task"]}))
        assert run(["data", "check", str(tmp_path / "own.yaml"), f"output={tmp_path}", "--show", "2"]) == code
    out = capsys.readouterr().out
    assert "that cannot be used: 30" in out and "... and 28 more (--show)" in out
    assert run(["data", "check", str(tmp_path / "own.yaml"), "task.bad_rows=skip", "task.nothing=1"]) == 2
    assert "unknown key task.nothing" in capsys.readouterr().err


def test_packed_files_are_checked_alone_and_with_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_of(tmp_path, GOOD)
    packed = tmp_path / "train.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "train.jsonl").read_bytes()))
    assert run(["data", "check", str(packed)]) == 0
    assert "2 problems, 2 traces" in capsys.readouterr().out
    assert check_config(config_of(tmp_path, GOOD, task={"train_file": packed})).severity == Severity.NOTE


def test_a_file_alone_is_checked_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config_of(tmp_path, [*GOOD, GOOD[1]])
    assert run(["data", "check", str(tmp_path / "train.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "2 problems, 2 traces, 0 problems without one, 1 rows with the problem of an earlier one" in out
    assert run(["data", "check", str(tmp_path / "train.jsonl"), "seed=1"]) == 2
    assert "settings belong to a YAML file" in capsys.readouterr().err


# ------------------------------------------------------------------------- conversations
TALK: list[Row] = [
    {
        "prompt": [
            {"role": "user", "content": "1+1="},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "and 1?"},
        ],
        "answer": "3",
    }
]
BRIEF: list[Row] = [
    {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "5="}], "answer": "5"}
]


def test_the_check_names_the_rows_that_need_a_chat_template(tmp_path: Path) -> None:
    report = check_config(config_of(tmp_path, [*GOOD, *TALK], BRIEF))
    assert cases(report, "earlier turns, which need model.prompt_template=chat") == [
        f"{tmp_path / 'train.jsonl'}, row 3"
    ]
    chat = check_config(config_of(tmp_path, [*GOOD, *TALK], BRIEF, model={"prompt_template": "chat"}))
    assert chat.severity == Severity.NOTE


def test_a_command_that_makes_prompts_stops_where_a_template_is_missing(tmp_path: Path) -> None:
    config = config_of(tmp_path, [*GOOD, *TALK], BRIEF)
    with pytest.raises(DataError, match=r"training prompts with earlier turns.*train.jsonl, row 3"):
        check_before(config, QuietProgress(), traces=False)
    check_before(config, QuietProgress(), splits=("test",), traces=False)
    check_before(config, QuietProgress(), traces=False, encodes=False)  # an endpoint has its own template
