"""Rewards in child processes: what they say, how they fail, and what a run says before it starts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.train import launch
from actors.train.launch import run_training
from actors.verify.verifier import Verifier
from airls_ray.config import Config, load_config
from airls_ray.config.reward_section import RewardConfig
from airls_ray.console.progress import QuietProgress
from airls_ray.data.check_rewards import try_rewards
from airls_ray.data.problems import ProblemStream
from airls_ray.data.schemas import GRADES
from airls_ray.errors import DoorError, RunError
from airls_ray.grading.reward_calls import Row
from airls_ray.grading.reward_pool import NamedReward, RewardPool, RewardValue, find_rewards
from airls_ray.tasks import make_task
from airls_ray.text.codec import build_tokenizer
from tests.tiny import make_rollouts

EXAMPLES = Path(__file__).parents[2] / "examples"

# Rewards as users write them; those that swallow every exception are there to be ended by the deadline.
OWN = """
import asyncio, os, time
started = []
def plain(response, correct): return len(response) + correct
def batch(responses): return [float(len(responses))] * len(responses)
def wants_words(response): return float(len(response.split()[0]))
def hangs(response):
    while response != "fine":
        try: time.sleep(0.01)
        except Exception: pass
    return 1.0
def cannot_be_stopped(response):
    while response != "fine":
        try: time.sleep(10)
        except BaseException: pass
    return 1.0
def dies(response): return 1.0 if response == "fine" else os._exit(3)
def none(response): return None
def nan(response): return float("nan")
def text(response): return "1"
def too_few(responses): return [1.0]
def prints(response):
    print("noise"); os.write(1, b"more noise\\n")
    return 1.0
async def waits(response):
    started.append(response)
    await asyncio.sleep(0.2)
    return float(len(started))
async def waits_for_ever(response):
    await asyncio.sleep(0 if response == "fine" else 60)
    return 1.0
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def reward(name: str, **settings: Any) -> NamedReward:
    (found,) = find_rewards([RewardConfig(name=name, **settings)])
    return found


def rows(*responses: str) -> list[Row]:
    return [Row("p", response, "yes", [response], 0.5, {"level": 1}) for response in responses]


def score(name: str, *responses: str, seconds: float = 5.0, processes: int = 1) -> list[RewardValue]:
    with RewardPool(reward(name, deadline_seconds=seconds), processes) as pool:
        return pool.score(rows(*responses), list(range(len(responses))))


def test_values_come_in_order_from_several_children(own: Path) -> None:
    responses = ["x" * number for number in range(100)]
    found = score(f"{own}:plain", *responses, processes=2)
    assert [one.value for one in found] == [number + 0.5 for number in range(100)]


def test_a_file_opens_where_it_is_not(own: Path) -> None:
    found = reward(f"{own}:plain")
    own.unlink()
    with RewardPool(found, 1) as pool:
        assert pool.score(rows("abc"), [0])[0].value == 3.5


def test_a_batch_is_one_call_and_what_a_reward_prints_is_no_answer(own: Path) -> None:
    assert [one.value for one in score(f"{own}:batch", "a", "b", "c")] == [3.0] * 3
    assert score(f"{own}:prints", "a")[0].value == 1.0


def test_async_rewards_of_a_chunk_wait_side_by_side(own: Path) -> None:
    found = score(f"{own}:waits", *"abcdefgh")
    assert max(one.value for one in found if isinstance(one.value, float)) == 8.0  # all had begun


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("wants_words", r"raised IndexError: list index out of range \(own\.py line 6\)"),
        ("hangs", r"gave no value within 0\.5 s \(it was in line 9 of own\.py\)"),
        ("cannot_be_stopped", r"gave no value within 0\.5 s, and its process had to be ended"),
        ("waits_for_ever", r"gave no value within 0\.5 s"),
        ("dies", "ended its process"),
    ],
)
def test_a_failure_costs_its_response_alone_and_is_told(own: Path, name: str, problem: str) -> None:
    with RewardPool(reward(f"{own}:{name}", deadline_seconds=0.5), 1) as pool:
        good = "fine"
        found = pool.score(rows(good, "", good), [0, 1, 2])
        (told,) = pool.complaints()
    assert [one.failed for one in found] == [False, True, False]
    assert found[1].value is None and re.match(problem, str(found[1].problem))
    assert f"the reward {name} " in told and "such responses have no value of it" in told
    assert ("Traceback" in told) == (name in ("wants_words", "hangs"))


def test_a_call_that_cannot_be_stopped_ends_with_its_parent(own: Path) -> None:
    script = (
        "import os, sys, threading, time\n"
        "from airls_ray.config.reward_section import RewardConfig\n"
        "from airls_ray.grading.reward_calls import Row\n"
        "from airls_ray.grading.reward_pool import RewardPool, find_rewards\n"
        "(found,) = find_rewards([RewardConfig(name=sys.argv[1], deadline_seconds=0.5)])\n"
        "pool = RewardPool(found, 1)\n"
        "pool.wait_ready()\n"
        "print(pool.pids[0], flush=True)\n"
        "threading.Timer(0.3, lambda: os.kill(os.getpid(), 9)).start()\n"
        "pool.score([Row('p', 'r', 'a')], [0])\n"
    )
    command = [sys.executable, "-c", script, f"{own}:cannot_be_stopped"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert parent.wait(30) == -9
    child, until = Path(f"/proc/{pid}/cmdline"), time.monotonic() + 10
    while child.exists() and time.monotonic() < until:
        time.sleep(0.05)
    left = child.exists()
    if left:
        os.kill(pid, signal.SIGKILL)
    assert not left


# ---- a server ----------------------------------------------------------------------------------
@contextmanager
def server(answers: list[tuple[int, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that gives `answers` (status, JSON) one by one; yields its URL and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, said = answers[min(len(asked), len(answers)) - 1]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/score", asked
        http.shutdown()


def test_a_url_is_asked_in_batches_and_again_where_it_fails() -> None:
    with server([(503, {}), (200, {"rewards": [1, 0.5]})]) as (url, asked):
        assert [one.value for one in score(url, "a", "b")] == [1.0, 0.5]
    assert len(asked) == 2 and asked[0] == asked[1]
    assert asked[0]["responses"] == ["a", "b"] and asked[0]["rows"] == [{"level": 1}] * 2


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((404, {}), "raised HTTPError: HTTP Error 404"),
        ((200, {"rewards": [1]}), "returned 1 values for 2 responses"),
        ((200, {"scores": [1, 2]}), "answered an object with scores, and it must have `rewards`"),
    ],
)
def test_a_server_that_answers_otherwise_is_a_failure(answer: tuple[int, Any], problem: str) -> None:
    with server([answer]) as (url, asked):
        found = score(url, "a", "b")
    assert [one.failed for one in found] == [True, True] and len(asked) == 1
    assert str(found[0].problem).startswith(problem)


def test_a_server_that_is_not_there_is_tried_until_the_deadline() -> None:
    started = time.monotonic()
    (found,) = score("http://127.0.0.1:9/score", "a", seconds=2.0)
    assert found.failed and "Connection refused" in str(found.problem)
    assert time.monotonic() - started < 60  # it does not try for ever


# ---- before a run ------------------------------------------------------------------------------
class Said(QuietProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def stopped_launch(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A run that ends where its actors would start; returns what they would be started with."""
    given: list[Any] = []

    def start_parts(config: Config, sources: Any, *_: Any) -> None:
        given.append(sources)
        raise RunError("far enough")

    for name, fake in {
        "connected": lambda _: nullcontext(),
        "base_policy": lambda _: "owner/name",
        "check_data": lambda *_: None,
        "start_parts": start_parts,
    }.items():
        monkeypatch.setattr(launch, name, fake)
    return given


def run_config(tmp_path: Path, reward: Any, **more: Any) -> Config:
    task = {"name": "arithmetic", "reward": reward}
    return Config.model_validate({"method": "grpo", "output": tmp_path, "task": task, **more})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wants_words", r"raised IndexError: list index out of range \(own\.py line 6\), on the response ''"),
        ("hangs", r"gave no value within 5 s \(it was in line 9 of own\.py\), on the response '"),
        ("nan", "returned nan, and a reward is finite, on the response '"),
        ("none", "returned None, and a reward is a number, on the response '"),
        ("text", "returned the text '1', and a reward is a number, on the response '"),
        ("too_few", "returned 1 values for 9 responses, on the response '"),
        ("dies", "ended its process, on the response '"),
        ("nothing", "has no attribute 'nothing'"),
    ],
)
def test_a_reward_that_does_not_work_is_one_sentence_before_a_run_starts(
    tmp_path: Path, own: Path, stopped_launch: list[Any], name: str, said: str
) -> None:
    with pytest.raises(DoorError, match=said) as caught:
        run_training(run_config(tmp_path, f"{own}:{name}"))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("task.reward: ")
    assert not stopped_launch


def test_a_run_folder_records_its_rewards_and_a_resume_says_what_changed(
    tmp_path: Path, own: Path, stopped_launch: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(tmp_path, [f"{own}:plain", "length"])
    for resume in (False, True):
        with pytest.raises(RunError, match="far enough"):
            run_training(config, resume)
        kept = json.loads((tmp_path / "run" / "doors.json").read_text())
        assert [one["name"] for one in kept] == [f"{own}:plain", "length"]
        assert ("is another one than before" in capsys.readouterr().err) == resume
        own.write_text(OWN + "# another text\n")
    (first, _) = stopped_launch
    assert [one.door.text for one in first.rewards] == [OWN, ""]


def test_a_run_without_rewards_records_nothing(tmp_path: Path, stopped_launch: list[Any]) -> None:
    with pytest.raises(RunError, match="far enough"):
        run_training(run_config(tmp_path, []))
    assert not (tmp_path / "run" / "doors.json").exists()
    assert stopped_launch[0].rewards == ()


def test_credit_for_steps_needs_a_reward_that_gives_it(tmp_path: Path, own: Path) -> None:
    method = {"name": "grpo", "step_weight": 0.5}
    config = run_config(tmp_path, f"{own}:plain", method=method)
    with pytest.raises(DoorError, match=r"step_weight is 0\.5, but no reward .* gives one number a step"):
        try_rewards(config, find_rewards(config.task.reward), Said())
    name = f"{EXAMPLES / 'own_reward.py'}:steps_are_equations"
    config = run_config(tmp_path, name, method=method)
    try_rewards(config, find_rewards(config.task.reward), Said())


def test_the_example_opens_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config, progress = load_config(EXAMPLES / "own_reward.yaml"), Said()
    try_rewards(config, find_rewards(config.task.reward), progress)
    assert [line.partition(" on ")[0] for line in progress.lines][1:] == [
        "Reward steps_are_equations: 0 to 6",
        "Reward repetition: 0 to 0",
    ]


# ---- the verifier ------------------------------------------------------------------------------
@pytest.fixture
def verifier(tmp_path: Path, own: Path) -> Iterator[Any]:
    made: list[Verifier] = []

    def make(*rewards: Any) -> Verifier:
        config = run_config(tmp_path, list(rewards))
        build_tokenizer(make_task(config.task), tmp_path / "policy")
        made.append(Verifier(config, str(tmp_path / "policy"), find_rewards(config.task.reward)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def rollouts_of(problems: pa.Table) -> pa.Table:
    """Two groups of four rollouts of random tokens."""
    table = make_rollouts(2, 4)
    ids = [problems["problem_id"][group].as_py() for group in table["group"].to_pylist()]
    return table.set_column(0, table.schema.field(0), pa.array(ids))


def test_the_verifier_gives_rewards_beside_the_same_outcomes(verifier: Any, own: Path) -> None:
    judge = verifier({"name": f"{own}:plain", "weight": 0.5}, {"name": f"{own}:batch", "label": "many"})
    problems = ProblemStream(make_task(Config().task), "train", 0).take(2)
    rollouts = rollouts_of(problems)
    plain = judge.grade([rollouts], problems)
    assert plain.schema.equals(GRADES, check_metadata=True)
    graded = judge.grade([rollouts], problems, True)
    assert graded.select(GRADES.names).equals(plain)
    assert graded["reward/many"].to_pylist() == [8.0] * 8
    own_values = graded["reward/plain"].to_pylist()
    assert graded["reward"].to_pylist() == pytest.approx([0.5 * value + 8 for value in own_values])
    metrics = judge.summarise([rollouts], graded)
    assert metrics["reward/many"] == 8.0 and metrics["reward/plain_failed_share"] == 0.0
    assert metrics.items() >= judge.summarise([rollouts], plain).items()


def test_a_reward_that_fails_everywhere_ends_the_run(verifier: Any, own: Path) -> None:
    judge = verifier(f"{own}:nan")
    problems = ProblemStream(make_task(Config().task), "train", 0).take(2)
    with pytest.raises(RunError, match=r"reward nan returned nan.* on all 8 responses: .*--resume"):
        judge.grade([rollouts_of(problems)], problems, True)
    assert any("the reward nan returned nan" in text for text in judge.complaints())
