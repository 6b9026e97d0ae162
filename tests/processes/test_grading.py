"""The grader pool: verdicts, deadlines, crashes and what is left behind."""

import json
import os
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from airls_ray.config.schema import ArithmeticTaskConfig, CountdownTaskConfig, FileTaskConfig
from airls_ray.config.task_choice import to_graders
from airls_ray.data.problems import ProblemStream, table_to_problems
from airls_ray.data.schemas import GRADES
from airls_ray.errors import RunError
from airls_ray.grading.pool import GradeRequest, GraderPool
from airls_ray.grading.table import grade_table
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer

FAKE_TASK = """
import ctypes, os, sys, time
from airls_ray.grading.worker import serve
from airls_ray.tasks.base import Grade

class Odd:
    def __init__(self, value): self.value = value
    def __float__(self): return float(self.value)
    def __str__(self): return self.value

class Fake:
    def grade(self, problem, response):
        if response == "hang":
            while True: pass
        if response == "sleep": time.sleep(60)
        if response == "fork":
            if os.fork() == 0: time.sleep(60)
            time.sleep(60)
        if response == "exit": os._exit(3)
        if response == "leave":
            if os.fork() == 0: os.closerange(0, 100); time.sleep(60)
            os._exit(3)
        if response == "segfault": ctypes.string_at(0)
        if response == "raise": raise ValueError("a bug in a grader")
        if response == "nan": return Grade(float("nan"), None)
        if response == "two": return Grade(2.0, None)
        if response == "array": return Grade(Odd(1), Odd("yes"))
        if response == "half": return Grade(1.0, chr(0xd800))
        if response == "memory": return Grade(float(len(bytearray(6 << 30))), None)
        if response == "print": print("noise"); sys.stdout.flush(); os.write(1, b"more noise")
        return Grade(float(response == problem.answer), response)

    def step_truth(self, problem, steps):
        return [step == "good" for step in steps]

serve(lambda config: Fake())
"""


def fake_pool(processes=1, deadline=0.4, code=FAKE_TASK) -> GraderPool:
    return GraderPool("{}", processes, deadline, command=[sys.executable, "-c", code])


def requests(*responses: str) -> list[GradeRequest]:
    return [GradeRequest("p", "yes", "{}", response, ["good", "bad"]) for response in responses]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_verdicts_equal_those_of_the_task_in_order():
    task = make_task(ArithmeticTaskConfig())
    items, expected = [], []
    for number, problem in enumerate(table_to_problems(ProblemStream(task, "train", 0).take(500))):
        response = problem.traces[0] if number % 3 else problem.traces[0].replace("=1;", "=2;")
        steps = [step + ";" for step in response.split(";")[:-1]]
        items.append(GradeRequest(problem.prompt, problem.answer, "{}", response, steps))
        grade = task.grade(problem, response)
        expected.append((grade.outcome, grade.answer, task.step_truth(problem, steps), "graded"))
    with GraderPool(to_graders(ArithmeticTaskConfig()), 2, 5.0) as pool:
        for _ in range(2):
            results = pool.grade(items)
            assert [(r.outcome, r.answer, r.step_truth, r.status) for r in results] == expected


def test_a_hanging_grader_costs_its_response_alone():
    with fake_pool() as pool:
        pool.grade(requests("yes"))  # up and running
        before = pool.pids
        results = pool.grade(requests("yes", "no", "hang", "yes", "sleep", "yes"))
        assert [r.status for r in results] == ["graded", "graded", "timeout", "graded", "timeout", "graded"]
        assert [r.outcome for r in results] == [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]
        assert (results[2].answer, results[2].step_truth) == (None, None)
        assert not alive(before[0]) and pool.pids != before


def test_a_hang_costs_the_deadline_and_a_restart_and_no_more():
    with fake_pool(processes=2) as pool:
        pool.grade(requests("yes", "yes"))
        started = time.monotonic()
        pool.grade(requests("sleep"))
        assert 0.4 <= time.monotonic() - started < 50  # it sleeps for 60


def test_a_crashing_grader_costs_its_response_alone(capfd):
    with fake_pool() as pool:
        results = pool.grade(requests("yes", "exit", "no", "segfault", "memory", "yes"))
    crashed = ["crashed"]
    assert [r.status for r in results] == ["graded", *crashed, "graded", *crashed * 2, "graded"]
    assert [r.outcome for r in results] == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_a_grader_that_raises_costs_its_response_alone_and_no_process(caplog):
    with fake_pool() as pool:
        pool.grade(requests("yes"))
        before = pool.pids
        results = pool.grade(requests("yes", *["raise"] * 20, "no", "raise", "yes"))
        assert pool.pids == before
        complaints = pool.complaints() + pool.complaints()
    assert [r.status for r in results] == ["graded", *["raised"] * 20, "graded", "raised", "graded"]
    assert {r.outcome for r in results if r.status == "raised"} == {0.0}
    assert len(complaints) == 1  # the same error is told once
    assert "ValueError: a bug in a grader" in complaints[0] and "Traceback" in complaints[0]
    assert caplog.text.count("a bug in a grader") == 1


@pytest.mark.parametrize("wrong", ["nan", "two"])
def test_an_outcome_that_is_none_is_refused_and_the_pool_can_be_used_again(wrong):
    with fake_pool(deadline=5.0) as pool:
        with pytest.raises(RunError, match=r"outcome (nan|2\.0) for a response to 'p'.*from 0 to 1"):
            pool.grade(requests("yes", wrong, "yes", "no", "yes"))
        assert [r.outcome for r in pool.grade(requests("no", "yes"))] == [0.0, 1.0]


def test_verdicts_of_odd_types_arrive_as_numbers_and_text():
    with fake_pool() as pool:
        one, two = pool.grade(requests("array", "half"))
    assert (one.outcome, one.answer) == (1.0, "yes")
    assert two.answer == "?"  # a lone surrogate is no character, and no table holds it


def test_the_deadline_is_per_response_and_not_per_chunk():
    slow = FAKE_TASK.replace('if response == "hang":', 'time.sleep(0.1)\n        if response == "hang":')
    with fake_pool(deadline=0.6, code=slow) as pool:
        results = pool.grade(requests(*["yes"] * 12))
    assert {r.status for r in results} == {"graded"}


def test_others_go_on_while_one_child_hangs():
    with fake_pool(processes=2, deadline=1.5) as pool:
        pool.grade(requests("yes", "yes"))
        results = pool.grade(requests("hang", *["yes"] * 300))
    assert [r.status for r in results] == ["timeout", *["graded"] * 300]


def test_what_a_grader_prints_does_not_mix_with_verdicts(capfd):
    with fake_pool() as pool:
        results = pool.grade(requests("print", "yes"))
    assert [r.answer for r in results] == ["print", "yes"]
    assert "noise" in capfd.readouterr().err


def test_step_truth_comes_back():
    with fake_pool() as pool:
        assert pool.grade(requests("yes"))[0].step_truth == [True, False]


def test_large_requests_do_not_block():
    text = "x" * 300_000  # larger than a pipe holds
    with fake_pool(deadline=10) as pool:
        results = pool.grade(requests(*[text] * 20))
    assert all(r.answer == text for r in results)


def test_close_leaves_no_process_behind_even_while_one_hangs():
    pool = fake_pool(processes=3)
    pool.grade(requests("yes"))
    pids = pool.pids
    pool.close()
    pool.close()
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(RunError, match=r"closed"):
        pool.grade(requests("yes"))


def test_a_dropped_pool_leaves_no_process_behind():
    pool = fake_pool(processes=2)
    pids = pool.pids
    del pool
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize(("response", "status"), [("fork", "timeout"), ("leave", "crashed")])
def test_what_a_grader_started_is_killed_with_it(response, status):
    with fake_pool(deadline=3.0) as pool:
        pool.grade(requests("yes"))
        group = pool.pids[0]
        assert pool.grade(requests(response))[0].status == status
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("a process of the killed group is still there")


def test_an_idle_child_that_dies_is_replaced():
    with fake_pool() as pool:
        pool.grade(requests("yes"))
        os.kill(pool.pids[0], 9)
        time.sleep(0.05)
        assert [r.outcome for r in pool.grade(requests("yes", "no"))] == [1.0, 0.0]


def test_a_child_that_cannot_start_is_an_error(capfd):
    with (
        fake_pool(code="raise SystemExit('no such task')") as pool,
        pytest.raises(RunError, match=r"at its start"),
    ):
        pool.grade(requests("yes"))


def test_why_a_task_cannot_be_made_is_in_the_error(capfd):
    code = FAKE_TASK.replace("serve(lambda config: Fake())", "serve(lambda config: {}['no such grader'])")
    with fake_pool(code=code) as pool, pytest.raises(RunError, match="cannot start: KeyError: 'no such"):
        pool.grade(requests("yes"))


def test_a_child_ends_when_its_parent_is_gone():
    code = (
        "import os, sys\nfrom airls_ray.config.task_choice import to_graders\n"
        "from airls_ray.config.task_sections import ArithmeticTaskConfig\n"
        "from airls_ray.grading.pool import GradeRequest, GraderPool\n"
        "pool = GraderPool(to_graders(ArithmeticTaskConfig()), 1, 5.0)\n"
        "pool.grade([GradeRequest('1+1=', '2', '{}', '1+1=2;')])\n"
        "print(pool.pids[0], flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid, deadline = int(done.stdout), time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def test_math_is_graded_in_a_child():
    config = FileTaskConfig(train_file="a.jsonl", test_file="b.jsonl")
    items = [GradeRequest("p", "1/2", "{}", text) for text in ("$0.5$", "\\boxed{\\frac12}", "$2$", "")]
    with GraderPool(to_graders(config), 1, 20.0) as pool:
        results = pool.grade(items)
    assert [(r.outcome, r.step_truth, r.status) for r in results] == [
        (outcome, None, "graded") for outcome in (1.0, 1.0, 0.0, 0.0)
    ]


def test_no_items_need_no_child():
    with fake_pool(code="raise SystemExit(1)") as pool:
        assert pool.grade([]) == []


def test_a_table_of_rollouts_becomes_a_table_of_grades(tmp_path):
    task = make_task(CountdownTaskConfig())
    build_tokenizer(task, tmp_path)
    codec = TextCodec.from_folder(tmp_path, task)
    problems = ProblemStream(task, "train", 0).take(6)
    right = [codec.encode_trace(problem.traces[0]) for problem in table_to_problems(problems)]
    wrong = codec.encode_trace("1+1=3,2+2=5")
    responses = [right[5], wrong, right[0]]
    rollouts = pa.table(
        {
            "problem_id": [problems["problem_id"][row].as_py() for row in (5, 2, 0)],
            "response": pa.array(responses, pa.list_(pa.int32())),
            "step_ends": pa.array([codec.step_ends(tokens) for tokens in responses], pa.list_(pa.int32())),
        }
    )
    rollouts = pa.concat_tables([rollouts.slice(1, 2), rollouts])  # several chunks, one with an offset
    with GraderPool(to_graders(CountdownTaskConfig()), 1, 5.0) as pool:
        grades = grade_table(rollouts, problems, codec, pool)
    assert grades.schema.equals(GRADES, check_metadata=True)
    assert grades["outcome"].to_pylist() == [0.0, 1.0, 1.0, 0.0, 1.0]
    assert grades["step_truth"].to_pylist()[:2] == [[False, False], [True, True]]
    assert grades["status"].to_pylist() == ["graded"] * 5
    assert grades["answer"].to_pylist()[0] == "1+1=3,2+2=5"


def test_a_child_imports_only_its_task():
    code = (
        "import runpy, sys, io\n"
        "from airls_ray.grading import worker\n"
        'worker._make_task(\'{"section": {"name": "arithmetic"}, "doors": []}\')\n'
        "heavy = {'torch', 'pyarrow', 'numpy', 'transformers', 'ray', 'sympy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_children_may_wait_longer_for_their_first_work_than_their_start_may_take():
    problem = next(iter(make_task(ArithmeticTaskConfig()).problems("train", 0)))
    item = GradeRequest(problem.prompt, problem.answer, json.dumps(problem.details), "1+1=2;", ["1+1=2;"])
    config = to_graders(ArithmeticTaskConfig())
    with GraderPool(config, 1, deadline_seconds=20.0, start_deadline_seconds=3.0) as pool:
        time.sleep(3.2)
        assert [result.status for result in pool.grade([item])] == ["graded"]
