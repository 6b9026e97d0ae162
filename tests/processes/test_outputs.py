"""Graded responses: figures against brute force, stored files, interrupted evaluations, an endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airls_ray.cli.main import run
from airls_ray.console.progress import QuietProgress
from airls_ray.data.problems import problems_to_table
from airls_ray.data.schemas import OUTPUTS, rows_to_table
from airls_ray.data.stored_outputs import read_responses
from airls_ray.errors import DataError, RunError
from airls_ray.evaluation.endpoint import Asked, Endpoint
from airls_ray.evaluation.output_parts import OutputParts
from airls_ray.evaluation.outputs import GREEDY, measure_outputs, output_rows
from airls_ray.tasks.base import Problem
from airls_ray.truncation import Truncation

PROBLEMS = problems_to_table(
    [
        Problem("a", "1+1=", "2", (), {"level": 1, "subject": "sums"}),
        Problem("b", "2+2=", "4", (), {"level": 2, "subject": "sums"}),
        Problem("c", "3+3=", "6", (), {"level": 2}),
    ]
)


def outputs(**problems: list[tuple[float, str | None]]) -> pa.Table:
    """Samples as outcome and answer, by problem."""
    rows = [
        (name, index, "text", 3, "stop", outcome, answer, "graded")
        for name, samples in problems.items()
        for index, (outcome, answer) in enumerate(samples)
    ]
    return rows_to_table(rows, OUTPUTS)


RIGHT, WRONG, OTHER = (1.0, "x"), (0.0, "y"), (0.0, "z")


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pass_at_k_is_the_mean_over_all_subsets(k: int) -> None:
    samples = {"a": [RIGHT, WRONG, WRONG, OTHER], "b": [WRONG, RIGHT, RIGHT, OTHER]}
    means = [
        sum(any(one[0] for one in some) for some in combinations(given, k))
        / len(list(combinations(given, k)))
        for given in samples.values()
    ]
    assert measure_outputs(outputs(**samples), PROBLEMS)["pass"][str(k)]["mean"] == pytest.approx(
        sum(means) / 2
    )


def test_the_majority_of_all_samples_is_the_most_frequent_answer() -> None:
    table = outputs(a=[WRONG, RIGHT, WRONG, OTHER], b=[WRONG, RIGHT, RIGHT, OTHER])
    assert measure_outputs(table, PROBLEMS)["majority"]["4"]["mean"] == 0.5


def test_without_answers_there_is_no_majority() -> None:
    table = outputs(a=[(1.0, None), (0.0, None)])
    assert measure_outputs(table, PROBLEMS)["majority"] == {}


def test_k_ends_with_the_fewest_samples_of_a_problem() -> None:
    summary = measure_outputs(outputs(a=[RIGHT] * 5, b=[WRONG] * 3), PROBLEMS)
    assert (summary["samples"], list(summary["pass"])) == (3, ["1", "2", "3"])


def test_a_greedy_response_is_no_sample() -> None:
    greedy = rows_to_table([("a", GREEDY, "text", 3, "stop", 1.0, "x", "graded")], OUTPUTS)
    summary = measure_outputs(pa.concat_tables([greedy, outputs(a=[WRONG, WRONG])]), PROBLEMS)
    assert (summary["greedy"]["mean"], summary["pass"]["1"]["mean"]) == (1.0, 0.0)


def test_levels_and_subjects_have_figures_of_their_own() -> None:
    by = measure_outputs(outputs(a=[RIGHT], b=[WRONG], c=[RIGHT]), PROBLEMS)["by"]
    assert {tag: {v: f["mean"] for v, f in values.items()} for tag, values in by.items()} == {
        "level": {"1": 1.0, "2": 0.5},
        "subject": {"sums": 0.5},
    }


def test_half_an_outcome_is_not_right() -> None:
    assert measure_outputs(outputs(a=[(0.5, "x")]), PROBLEMS)["pass"]["1"]["mean"] == 0.0


def test_an_interval_lies_around_its_mean() -> None:
    figure = measure_outputs(outputs(a=[RIGHT], b=[WRONG], c=[RIGHT]), PROBLEMS)["pass"]["1"]
    assert figure["low"] < figure["mean"] < figure["high"]


def test_lengths_and_failed_grades_are_counted() -> None:
    rows = [
        ("a", 0, "t", 2, "stop", 1.0, "x", "graded"),
        ("a", 1, "t", 6, "length", 0.0, None, "timeout"),
    ]
    summary = measure_outputs(rows_to_table(rows, OUTPUTS), PROBLEMS)
    assert (summary["tokens_mean"], summary["cut_share"], summary["without_answer_share"]) == (4.0, 0.5, 0.5)
    assert summary["status"] == {"graded": 1, "timeout": 1}


def test_the_table_names_every_figure() -> None:
    summary = measure_outputs(outputs(a=[RIGHT, WRONG], b=[WRONG, WRONG]), PROBLEMS)
    names = [row[0] for row in output_rows(summary)]
    assert names == ["pass@1", "pass@2", "majority@2", "level 1", "level 2", "subject sums"]


# ------------------------------------------------------------------------------- stored responses
def stored(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "responses.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_a_stored_response_finds_its_problem_by_id_or_prompt(tmp_path: Path) -> None:
    file = stored(
        tmp_path,
        {"prompt": " 2+2= ", "response": "4"},
        {"problem_id": "b", "response": "5", "tokens": 1, "finish": "length"},
        {"problem_id": "b", "response": "", "index": -1},
    )
    found = [(one.problem, one.index, one.text, one.tokens) for one in read_responses([file], PROBLEMS)]
    assert found == [(1, 0, "4", None), (1, 1, "5", 1), (1, GREEDY, "", None)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem_id": "q", "response": "4"}, "line 1: problem_id 'q' is none of the 3 test problems"),
        ({"problem_id": "a"}, "line 1: field 'response' must be text"),
        ({"response": "4"}, "line 1: field 'prompt' must be text"),
        ({"problem_id": "a", "response": "4", "tokens": "3"}, "field 'tokens' must be a whole number"),
    ],
)
def test_a_bad_stored_row_is_one_sentence(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_responses([stored(tmp_path, row)], PROBLEMS)


def test_the_command_grades_stored_responses(tmp_path: Path, capsys: Any) -> None:
    tests = tmp_path / "tests.jsonl"
    tests.write_text(
        "".join(json.dumps({"problem_id": n, "prompt": f"{n}?", "answer": n}) + "\n" for n in ("4", "7")),
        encoding="utf-8",
    )
    (tmp_path / "train.jsonl").write_text('{"prompt": "1?", "answer": "1"}\n', encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"name: stored\noutput: {tmp_path}\nmodel: {{path: some/model}}\ntask: {{name: file, "
        f"grader: exact, train_file: {tmp_path}/train.jsonl, test_file: {tests}}}\n",
        encoding="utf-8",
    )
    file = stored(
        tmp_path, {"problem_id": "4", "response": "#### 4"}, {"problem_id": "7", "response": "#### 8"}
    )
    command = ["evaluate", str(config), "--responses", str(file), "--output", str(tmp_path / "found")]
    assert run(command) == 0
    assert "pass@1" in capsys.readouterr().out
    summary = json.loads((tmp_path / "found" / "summary.json").read_text(encoding="utf-8"))
    assert summary["pass"]["1"]["mean"] == 0.5
    table = pq.read_table(tmp_path / "found" / "outputs.parquet")
    assert table["outcome"].to_pylist() == [1.0, 0.0]
    assert run(command) == 2  # it is there already
    assert run([*command, "--resume"]) == 0
    right = {"problem_id": "7", "response": "#### 7"}
    stored(tmp_path, {"problem_id": "4", "response": "#### 4"}, right)
    assert run([*command, "--resume"]) == 2
    assert "holds an evaluation with another files_content" in capsys.readouterr().err


def test_a_policy_and_responses_exclude_each_other(tmp_path: Path, capsys: Any) -> None:
    assert run(["evaluate", str(tmp_path), "--policy", "p", "--responses", "r.jsonl"]) == 2
    assert "--policy and --responses exclude each other" in capsys.readouterr().err


# --------------------------------------------------------------------------------- interruptions
def test_an_interrupted_evaluation_goes_on_with_the_missing_chunks(tmp_path: Path) -> None:
    made: list[int] = []

    def produce(first: int, some: pa.Table) -> pa.Table:
        if first == 2 and not resume:
            raise KeyboardInterrupt
        made.append(first)
        return outputs(**{name: [RIGHT] for name in some["problem_id"].to_pylist()})

    for resume in (False, True):
        parts = OutputParts(tmp_path / "found", {"seed": 1}, resume)
        try:
            parts.make(PROBLEMS, 2, produce, QuietProgress())
        except KeyboardInterrupt:
            assert not resume
    assert made == [0, 2]
    assert parts.finish(PROBLEMS, 2, QuietProgress(), 0)["problems"] == 3


def test_a_resume_with_other_settings_names_them(tmp_path: Path) -> None:
    OutputParts(tmp_path, {"seed": 1, "samples": 4}, resume=False)
    with pytest.raises(DataError, match="an evaluation with another samples: give another --output"):
        OutputParts(tmp_path, {"seed": 1, "samples": 8}, resume=True)


def test_a_setting_that_older_evaluations_lack_is_compared_where_it_is_known(tmp_path: Path) -> None:
    OutputParts(tmp_path, {"seed": 1}, resume=False)
    OutputParts(tmp_path, {"seed": 1, "content": "then"}, resume=True, newer=["content"])
    with pytest.raises(DataError, match="another content"):
        OutputParts(tmp_path, {"seed": 1, "content": "now"}, resume=True, newer=["content"])


# -------------------------------------------------------------------------------------- endpoint
class Server(BaseHTTPRequestHandler):
    """Answers with the prompt and the temperature; one choice a call, whatever is asked."""

    asked: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Server.asked.append(body)
        text = f"{body['messages'][0]['content']} at {body['temperature']:g}"
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_gives_a_greedy_response_and_as_many_samples_as_asked(address: str) -> None:
    found = Endpoint(address, "m", 20).responses(PROBLEMS.slice(0, 2), 0, Asked(2, 0.7, 16, seed=1))
    assert [(one.problem, one.index, one.text) for one in found] == [
        (row, index, f"{prompt} at {temperature}")
        for row, prompt in enumerate(("1+1=", "2+2="))
        for index, temperature in ((GREEDY, "0"), (0, "0.7"), (1, "0.7"))
    ]


def test_no_two_samples_of_an_endpoint_have_the_same_seed(address: str) -> None:
    Endpoint(address, "m", 20).responses(PROBLEMS, 0, Asked(3, 0.7, 16, seed=1))
    seeds = [body["seed"] for body in Server.asked if body["temperature"]]
    assert len(seeds) == len(set(seeds)) == 9


def test_an_endpoint_is_told_the_words_around_a_problem(address: str) -> None:
    class Wrapping:
        def wrap(self, prompt: str) -> tuple[str, str]:
            return "Be brief.", f"What is {prompt}"

    task: Any = Wrapping()
    Endpoint(address, "m", 20, task).responses(PROBLEMS.slice(0, 1), 0, Asked(1, 0.7, 16, seed=1))
    assert Server.asked[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1+1="},
    ]


def test_an_endpoint_is_told_the_turns_before_a_prompt(address: str) -> None:
    history = [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]
    problems = problems_to_table([Problem("a", "and 1?", "3", (), {"prompt_history": history})])
    Endpoint(address, "m", 20).responses(problems, 0, Asked(1, 0.7, 16, seed=1))
    assert Server.asked[0]["messages"] == [*history, {"role": "user", "content": "and 1?"}]


def test_an_endpoint_is_told_which_tokens_samples_are_drawn_from(address: str) -> None:
    cut = Truncation(0.9, 7, 0.25)
    Endpoint(address, "m", 20).responses(PROBLEMS.slice(0, 1), 0, Asked(1, 0.7, 16, 1, cut))
    found = [{name: body.get(name) for name in ("top_p", "top_k", "min_p")} for body in Server.asked]
    assert found == [dict.fromkeys(("top_p", "top_k", "min_p")), dict(cut.given())]  # greedy, sampled


@pytest.mark.parametrize("given", [{}, {"enable_thinking": False}])
def test_an_endpoint_is_told_the_variables_of_its_chat_template(address: str, given: dict[str, Any]) -> None:
    endpoint = Endpoint(address, "m", 20, chat_template_kwargs=given)
    endpoint.responses(PROBLEMS.slice(0, 1), 0, Asked(1, 0.7, 16, seed=1))
    assert [body.get("chat_template_kwargs") for body in Server.asked] == [given or None] * 2


def test_an_endpoint_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(RunError, match=r"the endpoint http://127\.0\.0\.1:9/v1 did not answer"):
        Endpoint("http://127.0.0.1:9/v1", "m", 5).responses(PROBLEMS, 0, Asked(1, 1.0, 8, seed=1))


def test_a_prompt_of_two_answers_is_no_place_for_a_response(tmp_path: Path) -> None:
    twice = [
        Problem("a", "1+1=", "2"),
        Problem("b", "1+1=", "3"),
        Problem("c", "3=", "3"),
        Problem("d", "3=", "3"),
    ]
    file = stored(tmp_path, {"prompt": "1+1=", "response": "3"})
    with pytest.raises(DataError, match=r"line 1: prompt '1\+1=' is that of 2 test problems with different"):
        read_responses([file], problems_to_table(twice))
    named = stored(tmp_path, {"problem_id": "b", "response": "3"}, {"prompt": "3=", "response": "3"})
    assert [one.problem for one in read_responses([named], problems_to_table(twice))] == [1, 2]


def test_half_a_character_in_a_stored_response_is_said_before_anything_is_graded(tmp_path: Path) -> None:
    file = tmp_path / "cut.jsonl"
    file.write_text('{"prompt": "1+1=", "response": "\\ud83d"}\n')
    with pytest.raises(DataError, match=r"cut\.jsonl, line 1: a text has \\ud83d, half of a surrogate pair"):
        read_responses([file], PROBLEMS)
