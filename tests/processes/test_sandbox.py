"""Programs and tests in the sandbox: verdicts, values and how it ends."""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections import Counter, namedtuple
from decimal import Decimal
from fractions import Fraction

import pytest

from airls_ray.errors import ConfigError
from airls_ray.grading.sandbox import box, values
from airls_ray.grading.sandbox.box import Exam, Sandbox
from airls_ray.grading.sandbox.judge import equal
from airls_ray.grading.sandbox.limits import InForce, Limits
from airls_ray.grading.sandbox.text_compare import same_text
from tests.processes.sandboxes import ADD, ADD_ASSERTS, ADD_MAIN, RIGHT, SMALL, descendants, protected_sandbox


@pytest.fixture(scope="module")
def sandbox():
    yield from protected_sandbox()


def asserts(*tests, **fields):
    return Exam("assert", list(tests), **fields)


def test_a_right_program_passes_every_test(sandbox):
    for exam in (ADD, ADD_ASSERTS):
        verdict = sandbox.judge(RIGHT, exam)
        assert (verdict.reason, verdict.passed, verdict.total) == ("graded", 2, 2)
    assert sandbox.judge("a, b = map(int, input().split())\nprint(a + b)", ADD_MAIN).right


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def add(a, b):\n    return a - b", "wrong_answer"),
        ("def add(a, b:\n    return", "syntax_error"),
        ("\0", "syntax_error"),
        ("def add(a, b):\n    return a + c", "exception"),
        ("raise RuntimeError('no')", "exception"),
        ("def add(a, b):\n    raise MemoryError", "memory"),
        ("def add(a, b):\n    return [0] * 10**10", "memory"),
        ("def sub(a, b):\n    return a + b", "no_entry_point"),
        ("def add(a, b):\n    return 'x' * 3_000_000", "output_limit"),
        ("def add(a, b):\n    return (lambda: 3)", "wrong_answer"),
        ("import sys\ndef add(a, b):\n    sys.exit(0)", "exception"),
    ],
)
def test_a_failure_has_its_reason(sandbox, source, reason):
    assert sandbox.judge(source, ADD).reason == reason
    assert sandbox.judge(source, ADD_ASSERTS).reason == reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print(4)", "wrong_answer"),
        ("print(3", "syntax_error"),
        ("print(3)\n1 / 0", "exception"),
        ("x = [0] * 10**10", "memory"),
        ("print(3)\nraise SystemExit(1)", "ended_early"),
        (
            "import os, signal\nsignal.signal(11, signal.SIG_DFL)\nimport ctypes\nctypes.string_at(0)",
            "crashed",
        ),
    ],
)
def test_a_failure_of_a_whole_program_has_its_reason(sandbox, source, reason):
    assert sandbox.judge(source, ADD_MAIN).reason == reason


def test_tests_that_passed_before_a_time_out_stay_recorded(sandbox):
    slow = "def add(a, b):\n    while a == 5: pass\n    return a + b"
    for exam in (ADD, ADD_ASSERTS):
        verdict = sandbox.judge(slow, exam)
        assert (verdict.reason, verdict.passed, verdict.total) == ("timeout", 1, 2)
    verdict = sandbox.judge("a, b = map(int, input().split())\nwhile a == 5: pass\nprint(a + b)", ADD_MAIN)
    assert (verdict.reason, verdict.passed, verdict.total) == ("timeout", 1, 2)


def test_a_sleeping_program_costs_its_wall_time_and_no_more():
    for sandbox in protected_sandbox(Limits(wall_seconds=1, memory_mib=256)):
        started = time.monotonic()
        assert sandbox.judge("import time\ntime.sleep(600)", ADD).reason == "timeout"
        assert 1 <= time.monotonic() - started < 120


def test_endless_tests_have_the_same_deadline():
    for sandbox in protected_sandbox(Limits(wall_seconds=1, memory_mib=256)):
        exam = asserts("assert add(1, 2) == 3", "while add(1, 1): pass", entry_point="add")
        verdict = sandbox.judge(RIGHT, exam)
        assert (verdict.reason, verdict.passed) == ("timeout", 1)


def test_with_shares_every_test_counts(sandbox):
    source = "def add(a, b):\n    if a == 0: raise ValueError\n    return a + b if a < 5 else 0"
    tests = [f"assert add({a}, 1) == {a + 1}" for a in range(10)]
    verdict = sandbox.judge(source, asserts(*tests, entry_point="add", stop=False))
    assert (verdict.passed, verdict.total) == (4, 10)
    one = "def check(candidate):\n" + "".join(f"    {test.replace('add', 'candidate')}\n" for test in tests)
    verdict = sandbox.judge(source, asserts(one + "check(add)", entry_point="add", stop=False))
    assert (verdict.passed, verdict.total) == (4, 10)


def test_tests_that_assert_nothing_pass_nobody(sandbox):
    assert sandbox.judge(RIGHT, asserts("add(1, 2)", entry_point="add")).reason == "no_test_ran"


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -1, 2**53, 10**5000, -(2**200), 1.5, float("inf"), "", "a\ud800b", b"\0\xff"),
        *([], [1, [2, (3, {4})]], (), (1,), set(), {1, (2, 3)}, frozenset({1}), {}, {(1, 2): [3]}),
        *(1 + 2j, range(1, 10, 3), Decimal("1.10"), Fraction(1, 3), {"tuple": [1]}, int, bytearray(b"x")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_plain_value_survives_the_way_there_and_back(value):
    decoded = values.decode(json.loads(json.dumps(values.encode(value))))
    assert decoded == value and type(decoded) is type(value)


def test_subclasses_become_the_plain_type():
    point = namedtuple("point", "x y")(1, 2)
    assert values.decode(values.encode([Counter("aab"), point])) == [{"a": 2, "b": 1}, (1, 2)]


@pytest.mark.parametrize(
    "data", [{}, {"x": 1}, {"set": [[1]]}, {"int": "zz"}, {"dict": [[1]]}, {"range": [[1]]}, {"handle": 3}]
)
def test_what_is_no_value_is_refused(data):
    with pytest.raises(values.BadFrame):
        values.decode(data)


def test_values_arrive_with_their_types(sandbox):
    source = "def echo(*values, **named): return (values, named)"
    tests = [
        "assert echo([1, (2,)], {3}, x=b'y') == (([1, (2,)], {3}), {'x': b'y'})",
        "assert echo(1) != [(1,), {}]",
    ]
    assert sandbox.judge(source, asserts(*tests, entry_point="echo")).right


def test_objects_of_the_program_can_be_made_changed_and_handed_back(sandbox):
    source = (
        "class Node:\n    def __init__(self, value): self.value, self.next = value, None\n"
        "    def total(self): return self.value + (self.next.total() if self.next else 0)\n"
        "def total(node): return node.total()\n"
        "def evens(): return (x for x in range(0, 6, 2))\n"
    )
    tests = [
        "first = Node(1); first.next = Node(2)",
        "assert total(first) == 3",
        "assert first.total() == 3 and first.next.value == 2",
        "assert list(evens()) == [0, 2, 4]",
    ]
    exam = asserts(*tests, entry_point="total", names=["Node", "evens"])
    assert sandbox.judge(source, exam).passed == 2 + 0 + 1


NODES = """\
from dataclasses import dataclass
from enum import Enum
class Node:
    def __init__(self, val, *neighbours):
        self.val, self.neighbours = val, list(neighbours)
class Slim:
    __slots__ = ("val", "next")
    def __init__(self, val, next=None):
        self.val, self.next = val, next
@dataclass(frozen=True)
class Point:
    x: int
class Colour(Enum):
    RED = 1
class Odd(ValueError): pass
"""


@pytest.mark.parametrize(
    ("source", "test"),
    [
        (  # a circle, one object in two places, and what the result shares with the argument
            "def f(node):\n    node.neighbours[0].neighbours += [node]\n    node.val += 1\n    return node",
            "one = Node(1, Node(2))\nfound = f(one)\nassert found is one and one.val == 2\n"
            "assert found.neighbours[0].neighbours == [found]\nassert isinstance(found, Node)",
        ),
        ("def f(a, b): return a.next is b", "tail = Slim(2)\nassert f(Slim(1, tail), tail)"),
        (
            "def f(node): node.next = Slim(3)",
            "one = Slim(1)\nassert f(one) is None\nassert one.next.val == 3",
        ),
        (
            "def f(nodes): nodes.reverse()",
            "a, b = Slim(1), Slim(2)\nall = [a, b]\nf(all)\nassert all == [b, a]",
        ),
        (
            "def f(x): return [Point(x), Colour.RED]",
            "assert f(1) == [Point(1), Colour.RED]\nassert f(1) != f(2)",
        ),
        ("def f(kind): return kind(3).val", "assert f(Slim) == 3"),
        ("def f(x): raise Odd(x)", "try:\n    f(1)\nexcept Odd:\n    assert True"),
        ("def f(g): return g(Slim(1)).val", "assert f(lambda node: Slim(node.val + 1)) == 2"),
        (
            "def f(n):\n    node = None\n    for at in range(n): node = Slim(at, node)\n    return node",
            "node, count = f(9000), 0\nwhile node: node, count = node.next, count + 1\nassert count == 9000",
        ),
    ],
)
def test_objects_of_a_class_of_both_sides_travel_as_data(sandbox, source, test):
    exam = asserts(test, entry_point="f", setup=NODES, prefix=NODES)
    assert sandbox.judge(source, exam).reason == "graded"


def test_a_test_can_expect_an_exception(sandbox):
    source = "class Odd(Exception): pass\ndef f(x):\n    if x: raise ValueError('no')\n    raise Odd"
    expects = (
        "try:\n    f(1)\nexcept ValueError as error:\n    assert str(error) == 'no'\nelse:\n    assert False"
    )
    assert sandbox.judge(source, asserts(expects, entry_point="f")).right
    assert (
        sandbox.judge(source, asserts(expects.replace("f(1)", "f(0)"), entry_point="f")).reason == "exception"
    )


def test_methods_get_a_new_object_for_every_test(sandbox):
    source = "class Solution:\n    n = 0\n    def f(self, x):\n        self.n += x\n        return self.n"
    tests = [{"arguments": [2], "expected": 2}, {"arguments": [3], "expected": 3}]
    assert sandbox.judge(source, Exam("call", tests, "Solution.f")).right


def test_a_function_may_work_in_place_where_the_test_says_so(sandbox):
    source = "def f(x): x.reverse()"
    test = {"arguments": [[1, 2, 3]], "expected": [3, 2, 1]}
    assert not sandbox.judge(source, Exam("call", [test], "f")).right
    assert sandbox.judge(source, Exam("call", [{**test, "in_place": True}], "f")).right


def test_a_program_is_not_main_when_its_functions_are_called(sandbox):
    assert sandbox.judge(RIGHT + "if __name__ == '__main__':\n    input()", ADD).right


def test_a_whole_program_may_use_threads_and_a_deep_stack(sandbox):
    source = (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "def main():\n    a, b = map(int, sys.stdin.read().split())\n"
        "    print(depth(20000) - 20000 + a + b)\n"
        "threading.Thread(target=main).start()\n"
    )
    assert sandbox.judge(source, ADD_MAIN).right


def test_tests_and_programs_may_define_dataclasses_and_read_annotations(sandbox):
    cases = "from dataclasses import dataclass\n@dataclass\nclass Case:\n    given: int\n    wanted: int\n"
    test = "for case in [Case(1, 2), Case(2, 3)]:\n    assert f(case.given) == case.wanted"
    source = "def f(x: int) -> int:\n    return x + 1 if f.__annotations__['x'] is int else None"
    assert sandbox.judge(source, asserts(test, entry_point="f", setup=cases)).reason == "graded"
    assert sandbox.judge(source, asserts(f"{cases}{test}", entry_point="f")).reason == "graded"
    whole = f"{cases}def add(a: int): return a\nassert add.__annotations__['a'] is int\nprint(3)"
    assert sandbox.judge(whole, Exam("stdin", [{"input": "", "output": "3"}])).reason == "graded"


def test_a_test_that_hands_over_an_object_of_its_own_is_named_as_not_supported(sandbox):
    exam = asserts("class Own: pass\nassert add(Own(), 2) == 3", entry_point="add")
    assert sandbox.judge(RIGHT, exam).reason == "unsupported_test"


def test_numbers_are_compared_with_the_tolerance():
    assert equal([1.0, {"x": 2}], (1.0 + 1e-9, {"x": 2}), 1e-6)
    assert not equal([1.0], [1.0 + 1e-9], 0.0)
    assert not equal([1, 2], [1, 3], 1e-1) and not equal([1], [1, 1], 0.0)
    assert not equal({"a": 1}, {"b": 1}, 0.0)


def test_output_is_compared_without_white_space_at_the_ends():
    assert same_text("1 2  \n3\n\n", "1 2\n3")
    assert not same_text("1  2", "1 2") and not same_text("1\n2", "1 2") and not same_text(" 1", "1")
    assert same_text("a 0.3333334\n", "a 0.3333333", 1e-6)
    assert not same_text("a 0.3333334\n", "a 0.3333333") and not same_text("12", "13", 0.5)
    assert not same_text("nan", "1.0", 1e-6) and not same_text("1.0 2.0", "1.0", 1e-6)


def test_a_missing_protection_is_one_sentence(monkeypatch):
    lacking = InForce(None, "Landlock 1", "own process ids", ("unshare: Operation not permitted",))
    monkeypatch.setattr(box.NurseryHandle, "in_force", lambda self: lacking)
    with pytest.raises(ConfigError, match=r"protection of network, which .*unshare: Operation not permitted"):
        Sandbox(SMALL)
    Sandbox(SMALL, require=["files"]).close()


def test_a_nursery_that_dies_costs_one_program(sandbox):
    os.kill(sandbox._nurseries[0].pid, 9)
    assert sandbox.judge(RIGHT, ADD).reason == "crashed"
    assert sandbox.judge(RIGHT, ADD).right


def test_a_nursery_does_not_share_its_owners_limit_of_cpu_time():
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (100_000, hard))
    try:
        for sandbox in protected_sandbox():
            assert resource.prlimit(sandbox._nurseries[0].pid, resource.RLIMIT_CPU) == (hard, hard)
            assert sandbox.judge(RIGHT, ADD).right
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def test_nothing_is_left_when_the_owner_is_killed(tmp_path):
    code = (
        "import sys, time\nfrom airls_ray.grading.sandbox.box import Sandbox, Exam\n"
        "from airls_ray.grading.sandbox.limits import Limits\n"
        "s = Sandbox(Limits(wall_seconds=60), require=[])\n"
        "print(*(n.pid for n in s._nurseries), flush=True)\n"
        "s.judge('import time\\ntime.sleep(50)', Exam('call', [{'arguments': [], 'expected': 0}], 'f'))\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    nurseries = {int(word) for word in owner.stdout.readline().split()}
    deadline = time.monotonic() + 40
    while len(left := descendants(owner.pid)) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    # Two nurseries, a waiting process each, and what they wait for.
    assert len(left) == 6 and nurseries < left
    began = {pid: _began(pid) for pid in left}
    owner.kill()
    owner.wait()
    deadline = time.monotonic() + 40
    # A number may be another process's by then: the suite starts thousands.
    while (
        runs := [pid for pid in left if began[pid] == _began(pid) is not None]
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert runs == []


def _began(pid):
    """When a process that runs was started, in ticks; None: it runs no more."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def test_descriptors_do_not_pile_up(sandbox):
    sandbox.judge(RIGHT, ADD)
    before = len(os.listdir("/proc/self/fd"))
    for source in (RIGHT, "def", "raise SystemExit", "print('x' * 5_000_000)"):
        for exam in (ADD, ADD_ASSERTS, ADD_MAIN):
            sandbox.judge(source, exam)
    assert len(os.listdir("/proc/self/fd")) == before


def test_frames_have_a_limit():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        values.send(theirs.fileno(), ["x" * 1000])
        with pytest.raises(values.FrameTooLarge):
            values.receive(ours.fileno(), 999)
