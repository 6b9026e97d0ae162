"""Tasks of the user's own before a run: what they must give, and what is said of those that do not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from airls_ray.cli.main import run
from airls_ray.config import load_config
from airls_ray.config.task_choice import to_graders
from airls_ray.console.progress import QuietProgress
from airls_ray.data.check_config import check_before
from airls_ray.data.check_task import try_task
from airls_ray.errors import DataError, DoorError
from airls_ray.grading.pool import GradeRequest, GraderPool

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_task.py"

OWN = """
import itertools, os, random, time
class Right:
    def problem(self, rng): return {"prompt": f"{rng.random()}", "answer": "a", "traces": "a"}
    def grade(self, problem, response): return response == problem.answer
class Raises(Right):
    def grade(self, problem, response): return float(response[0] == "a")
class Hangs(Right):
    def grade(self, problem, response):
        while not response: time.sleep(0.1)
        return 0.0
class Dies(Right):
    def grade(self, problem, response): return 0.0 if response else os._exit(3)
class Beyond(Right):
    def grade(self, problem, response): return 2.0 if response == "a" else 0.0
class NotANumber(Right):
    def grade(self, problem, response): return float("nan")
class Nothing(Right):
    def grade(self, problem, response): pass
class Truth(Right):
    def step_truth(self, problem, steps): return [True]
class Unseeded(Right):
    def problem(self, rng): return super().problem(random)
class Shared(Right):
    problem = None
    def problems(self, split, seed): return (("same", "a") for _ in itertools.count())
class Blanks(Right):
    step_delimiter = ";"
    def vocabulary(self): return [*"0123456789abcdefghijklmnopqrstuvwxyz.-;"]
    def problem(self, rng): return {**super().problem(rng), "traces": "a a;"}
class WrongTraces(Right):
    def problem(self, rng): return {**super().problem(rng), "traces": "b"}
"""


def test_a_task_of_a_users_own_passes_and_its_graders_need_no_file(own: Path, tmp_path: Path) -> None:
    file = tmp_path / "copy.py"
    file.write_text(EXAMPLE.read_text())
    task = load_config(None, [f"task={file}:Largest"]).task
    written = to_graders(task)
    file.unlink()
    with GraderPool(written, 1, 5.0) as pool:
        asked = [GradeRequest("1 2 3 >", "3", "{}", "1 2 2;2 3 3;", ["1 2 2;", "2 3 2;"])]
        (result,) = pool.grade(asked)
    assert (result.outcome, result.answer, result.step_truth) == (1.0, "3", [True, False])
    try_task(load_config(None, [f"task={own}:Right"]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Raises", r"raised IndexError: string index out of range on the response '' to '0\."),
        ("Hangs", r"gave no verdict within 5 s on the response '' to"),
        ("Dies", r"ended its process on the response '' to"),
        (
            "Beyond",
            r"raised ValueError: grade returned 2\.0, and an outcome is a number from 0 to 1 on",
        ),
        ("NotANumber", r"raised ValueError: grade returned nan, and an outcome"),
        ("Nothing", r"raised ValueError: grade returned None, and an outcome"),
        ("Truth", r"raised ValueError: step_truth returned 1 verdicts on 0 steps on the response ''"),
        ("Unseeded", r"gives other problems for the same seed"),
        ("Blanks", r"the text 'a a;' would become 'aa;', since the vocabulary has no white space"),
        ("Shared", r"has the problem 'same' in training and test"),
    ],
)
def test_a_task_that_cannot_be_trained_on_is_a_sentence_within_ten_seconds(
    own: Path, name: str, said: str
) -> None:
    begun = time.monotonic()
    with pytest.raises(DoorError, match=rf"task.name: .*own.py:{name}:? {said}"):
        try_task(load_config(None, [f"task={own}:{name}"]))
    assert time.monotonic() - begun < 60  # of a machine that others use, too


def test_traces_that_its_own_grader_finds_wrong_stop_a_command_that_learns_from_them(own: Path) -> None:
    config = load_config(None, [f"task={own}:WrongTraces"])
    with pytest.raises(DataError, match="traces of training problems that do not grade right"):
        check_before(config, QuietProgress(), traces=True)


def test_the_command_line_checks_its_data(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = own.with_name("own.yaml")
    config.write_text("task: {name: own.py:Right, test_problems: 20}")
    assert run(["data", "check", str(config)]) == 1  # a warning: the traces are one step each
    assert "generated" in capsys.readouterr().out
    config.write_text("task: {name: own.py:Raises}")
    assert run(["data", "check", str(config)]) == 2
    assert "own.py:Raises raised IndexError" in " ".join(capsys.readouterr().out.split())
    config.write_text("task: {name: own.py:Rihgt}")
    assert run(["data", "check", str(config)]) == 2
    assert "has no attribute 'Rihgt' (did you mean 'Right'?)" in capsys.readouterr().out
