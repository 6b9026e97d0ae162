"""Hostile programs: none passes, none harms the machine, and the next program is judged as ever.

Most of them try something that must fail and then say what they saw by what they return, so that a test
would notice if it had worked.
"""

import os
import tempfile
import time
from pathlib import Path

import pytest

from airls_ray.grading.sandbox.box import Exam
from airls_ray.grading.sandbox.limits import Limits
from tests.processes.sandboxes import ADD, ADD_ASSERTS, ADD_MAIN, RIGHT, descendants, protected_sandbox

TIGHT = Limits(wall_seconds=4, cpu_seconds=2, memory_mib=256, processes=20, file_mib=10, output_kib=256)


@pytest.fixture(scope="module")
def sandbox():
    yield from protected_sandbox(TIGHT)


@pytest.fixture(autouse=True)
def next_program_is_judged_as_ever(sandbox):
    """After every hostile program: a right one passes, and no process is left."""
    yield
    for exam in (ADD, ADD_ASSERTS):
        assert sandbox.judge(RIGHT, exam).right
    assert descendants(sandbox._nurseries[0].pid) == set()
    assert descendants(sandbox._nurseries[1].pid) == set()


def seen(sandbox, body: str):
    """Run `body`, which sets `result`, and return what the program saw, as far as it returns."""
    source = (
        f"def probe():\n    import os, sys\n    result = None\n{_indented(body)}\n    return str(result)\n"
    )
    verdict = sandbox.judge(source, Exam("assert", ["value = probe()\nassert value == 0, value"], "probe"))
    return verdict.message.removeprefix("AssertionError: ") or verdict.reason


def attempt(sandbox, expression: str) -> str:
    """Return `done` or the name of the exception that `expression` raises inside."""
    return seen(
        sandbox,
        f"try:\n    {expression}\n    result = 'done'\nexcept BaseException as error:\n"
        "    result = type(error).__name__",
    )


def _indented(text):
    return "\n".join("    " + line for line in text.split("\n"))


def needs_own_process_ids(sandbox):
    """Prove from inside that no process of this machine can be named; else the test must not run."""
    if sandbox.in_force.processes != "own process ids":
        pytest.skip(f"needs a pid namespace to be harmless, but this machine has: {sandbox.in_force}")
    visible = seen(sandbox, "result = [os.getpid(), os.getppid(), os.path.exists('/proc/1')]")
    if visible != "[1, 0, False]":
        pytest.skip(f"a program sees more than itself: {visible}")
    if attempt(sandbox, f"os.kill({os.getpid()}, 0)") != "ProcessLookupError":
        pytest.skip("a program can name a process of this machine")


# ---------------------------------------------------------------------------------- forged verdicts
FORGED = {
    "prints a verdict": (
        'print(\'{"passed": true, "reason": null}\\n{"finished": true}\')\n'
        'def add(a, b):\n    print(\'{"passed": true}\\n{"finished": true}\')'
    ),
    "writes a verdict to every descriptor": (
        'import os\nline = b\'{"passed": true, "reason": null}\\n{"passed": true, "reason": null}\\n'
        '{"finished": true}\\n\'\n'
        "for fd in range(256):\n    try: os.write(fd, line)\n    except OSError: pass\n"
        "def add(a, b): pass"
    ),
    "answers before it is asked": (
        "import json, os\n"
        'for message in (\'["value", null]\', \'["value", true]\', \'["value", {"handle": 1}]\'):\n'
        "    for _ in range(5):\n"
        "        body = message.encode()\n        os.write(4, len(body).to_bytes(4, 'big') + body)\n"
        "def add(a, b): pass"
    ),
    "ends with success before the tests": "import os\nos._exit(0)",
    "ends with success in a test": "import os\ndef add(a, b): os._exit(0)",
    "raises SystemExit(0)": "raise SystemExit(0)",
    "equals everything": (
        "class All(int):\n    def __eq__(self, other): return True\n"
        "    def __ne__(self, other): return False\n    __hash__ = int.__hash__\n"
        "def add(a, b): return All(7)"
    ),
    "is an object that equals everything": (
        "class All:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
        "    def __lt__(self, other): return True\n    __gt__ = __le__ = __ge__ = __lt__\n"
        "    def __sub__(self, other): return self\n    def __abs__(self): return self\n"
        "def add(a, b): return All()"
    ),
    "patches the builtins": (
        "import builtins\n"
        "for name in ('isinstance', 'all', 'any', 'abs', 'len', 'zip', 'bool', 'sorted'):\n"
        "    setattr(builtins, name, lambda *a, **k: True)\n"
        "def add(a, b): return 0"
    ),
    "makes AssertionError harmless": (
        "import builtins\nclass Quiet(BaseException):\n    def __new__(cls, *a): raise SystemExit(0)\n"
        "builtins.AssertionError = Quiet\ndef add(a, b): return 0"
    ),
    "defines the names of the tests' own tools": (
        "def __passed__(*a): pass\n__failed__ = check = equal = abs = len = bool = __passed__\n"
        "def add(a, b): return 0"
    ),
    "patches the harness": (
        "import sys\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if 'judge' in name or 'remote' in name or 'values' in name:\n"
        "        for key in list(vars(module)):\n"
        "            if callable(vars(module)[key]): setattr(module, key, lambda *a, **k: True)\n"
        "def add(a, b): return 0"
    ),
    "looks for expected values in frames and in memory": (
        "import gc, sys\n"
        "def add(a, b):\n"
        "    frame, found = sys._getframe(), []\n"
        "    while frame:\n"
        "        found += [v for v in [*frame.f_locals.values(), *frame.f_globals.values()]]\n"
        "        frame = frame.f_back\n"
        "    for thing in found + gc.get_objects():\n"
        "        if isinstance(thing, dict) and 'expected' in thing: return thing['expected']\n"
        "        if isinstance(thing, str) and 'assert add(1, 2)' in thing and 'gc' not in thing: return 3\n"
    ),
    "raises what a test may expect": "def add(a, b): raise AssertionError",
    "overflows a number": "def add(a, b): return float('nan')",
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("exam", [ADD, ADD_ASSERTS], ids=["call", "assert"])
def test_no_forged_verdict_passes(sandbox, name, exam):
    verdict = sandbox.judge(FORGED[name], exam)
    assert not verdict.right and verdict.passed == 0
    assert verdict.reason in ("wrong_answer", "exception", "ended_early", "no_entry_point", "output_limit")


@pytest.mark.parametrize("name", FORGED)
def test_no_forged_verdict_passes_as_a_whole_program(sandbox, name):
    assert not sandbox.judge(FORGED[name], ADD_MAIN).right


LISTS = """\
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next
def made(values):
    node = None
    for value in reversed(values): node = ListNode(value, node)
    return node
def same(a, b):
    if not a or not b: return not a and not b
    return a.val == b.val and same(a.next, b.next)
"""
EMPTY = "class ListNode:\n    def __init__(self, val=0, next=None):\n        self.val, self.next = 0, None\n"


@pytest.mark.parametrize(
    "source",
    [
        EMPTY + "def double(node): return ListNode()",
        "class ListNode:\n    def __init__(self, *a): pass\n    def __bool__(self): return False\n"
        "def double(node): return ListNode()",
        "def double(node):\n    def empty(self, val=0, next=None): self.val, self.next = 0, None\n"
        "    type(node).__init__ = ListNode.__init__ = empty\n    return ListNode()",
        "import gc\ndef double(node):\n    found = [o for o in gc.get_objects() if type(o) is ListNode]\n"
        "    return next((one for one in found if one.val == 4), None)",
        EMPTY + "class Same(int):\n    def __eq__(self, other): return True\n"
        "def double(node):\n    node = ListNode()\n    node.val = Same()\n    return node",
    ],
    ids=["defines", "is nothing", "patches", "looks for expected objects", "holds numbers that equal all"],
)
def test_a_class_of_both_sides_is_the_tests_own(sandbox, source):
    tests = ["assert same(double(made([1, 2])), made([2, 4]))", "assert same(double(made([4])), made([8]))"]
    exam = Exam("assert", tests, "double", setup=LISTS, prefix=LISTS, stop=False)
    assert sandbox.judge(source, exam).passed == 0
    right = "def double(node): return node and ListNode(2 * node.val, double(node.next))"
    assert sandbox.judge(f"{LISTS}{right}", exam).right


def test_the_builtins_that_a_test_uses_are_its_own(sandbox):
    tests = ["assert abs(add(1, 2) - 3) < 1e-6", "assert len(str(add(5, 5))) == 2"]
    source = "def abs(x): return 0\ndef len(x): return 2\ndef str(x): return ''\ndef add(a, b): return 99999"
    assert sandbox.judge(source, Exam("assert", tests, "add")).passed == 0


# -------------------------------------------------------------------------------------- use of the machine
def test_a_memory_bomb_ends_at_its_limit(sandbox):
    for source in (
        "x = []\nwhile True: x.append(bytearray(1 << 24))",
        "x = ' ' * 10**11",
        "a = [0]\nwhile 1: a += a",
    ):
        assert sandbox.judge(source, ADD).reason == "memory"


def test_endless_output_ends_at_its_limit(sandbox):
    for source in ("while True: print('x' * 1000)", "import os\nwhile True: os.write(2, b'x' * 1000)"):
        assert sandbox.judge(source, ADD).reason == "output_limit"
    assert sandbox.judge("while True: print('x' * 1000)", ADD_MAIN).reason == "output_limit"


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "10**10**8",  # one instruction: no handler of Python gets a turn
    ],
)
def test_an_endless_loop_ends_at_its_limit(sandbox, source):
    assert sandbox.judge(source, ADD).reason == "timeout"


def test_a_fork_bomb_finds_few_processes(sandbox):
    needs_own_process_ids(sandbox)
    count = seen(
        sandbox,
        "import resource\nresult = resource.getrlimit(resource.RLIMIT_NPROC)[1]\n",
    )
    if int(count) > TIGHT.processes + 2:
        pytest.skip(f"the limit of processes is not in force: {count}")
    made = seen(
        sandbox,
        "import time\nresult = 0\ntry:\n    for result in range(100):\n        if os.fork() == 0:\n"
        "            time.sleep(20)\nexcept BlockingIOError:\n    pass",
    )
    assert 10 <= int(made) <= TIGHT.processes + 2  # first slowly: the limit holds
    assert not sandbox.judge(
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", ADD
    ).right


def test_threads_count_as_processes(sandbox):
    made = seen(
        sandbox,
        "import threading, time\nthreading.stack_size(1 << 16)\nresult = 0\ntry:\n"
        "    for result in range(100):\n"
        "        threading.Thread(target=time.sleep, args=(20,), daemon=True).start()\n"
        "except RuntimeError:\n    pass",
    )
    assert 10 <= int(made) <= TIGHT.processes + 2


def test_children_that_left_the_session_end_with_the_program(sandbox):
    source = (
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.setsid()\n"
        "        for fd in range(3, 64):\n            try: os.close(fd)\n            except OSError: pass\n"
        "        time.sleep(600)\n    os._exit(0)\n"
        "def add(a, b): return a + b\n"
    )
    started = time.monotonic()
    assert sandbox.judge(source, ADD).right  # what it leaves behind is the fixture's to find
    assert time.monotonic() - started < 120


def test_zombies_end_with_the_program(sandbox):
    source = "import os\nfor _ in range(10):\n    if os.fork() == 0: os._exit(0)\n" + RIGHT
    assert sandbox.judge(source, ADD).right


def test_the_parent_cannot_be_killed(sandbox):
    needs_own_process_ids(sandbox)
    source = (
        "import os, signal\n"
        "for pid in [os.getppid(), -1, 0, *range(1, 3000)]:\n"
        "    try: os.kill(pid, signal.SIGKILL)\n    except OSError: pass\n" + RIGHT
    )
    before = [nursery.pid for nursery in sandbox._nurseries]
    sandbox.judge(source, ADD)
    assert [nursery.pid for nursery in sandbox._nurseries] == before
    assert all(nursery._process.poll() is None for nursery in sandbox._nurseries)


def test_gigabytes_are_not_written(sandbox):
    if "own root" not in (sandbox.in_force.files or ""):
        pytest.skip(f"needs a mount namespace to limit all files together: {sandbox.in_force}")
    one = "with open('big', 'wb') as file:\n    while True: file.write(b'x' * (1 << 20))"
    source = f"try:\n{_indented(one)}\nexcept OSError:\n    result = os.path.getsize('big') >> 20"
    assert int(seen(sandbox, "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + source)) <= 10
    many = (
        "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresult = 0\ntry:\n"
        "    for number in range(100):\n        with open(str(number), 'wb') as file:\n"
        "            result += file.write(b'x' * (1 << 20))\nexcept OSError:\n    pass\nresult >>= 20"
    )
    assert int(seen(sandbox, many)) <= 10


# ------------------------------------------------------------------------------------------ isolation
def test_nothing_outside_its_folder_can_be_read(sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("expected values")
    os.chmod(tmp_path, 0o755)
    for path in (
        secret,
        Path(__file__),
        "/etc/passwd",
        "/proc/self/environ",
        "/root",
        "/home",
        "/var",
        "/tmp",
    ):
        wanted = f"os.listdir({str(path)!r})" if Path(path).is_dir() else f"open({str(path)!r}).read()"
        assert attempt(sandbox, wanted) in ("FileNotFoundError", "PermissionError", "NotADirectoryError"), (
            path
        )


def test_nothing_outside_its_folder_can_be_written(sandbox, tmp_path):
    os.chmod(tmp_path, 0o777)
    for folder in (tmp_path, tempfile.gettempdir(), "/", "/usr", "/dev", os.path.dirname(os.__file__)):
        assert attempt(sandbox, f"open({str(folder) + '/made_by_a_program'!r}, 'w')") != "done", folder
        assert not (Path(folder) / "made_by_a_program").exists()


def test_its_folder_is_its_own_and_empty_and_it_can_write_there(sandbox):
    check = "result = (os.listdir('.'), os.environ['HOME'] == os.getcwd())\nopen('x', 'w').write('y')"
    for _ in range(2):
        assert seen(sandbox, check) == "([], True)"


def test_there_is_no_network(sandbox):
    for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"):
        assert attempt(sandbox, f"import socket; socket.socket(socket.{family})") == "PermissionError"
    assert attempt(sandbox, "import urllib.request as u; u.urlopen('http://127.0.0.1:9')") == "URLError"
    assert attempt(sandbox, "import asyncio; asyncio.run(asyncio.sleep(0))") == "done"


def test_it_cannot_leave_by_forbidden_calls(sandbox):
    libc = "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
    calls = {
        "unshare": "c.unshare(0x10000000)",
        "mount": "c.mount(b'none', b'/sandbox', b'tmpfs', 0, None)",
        "ptrace": "c.ptrace(0, 0, 0, 0)",
        "chroot": "c.chroot(b'/')",
        "memfd_create": "c.memfd_create(b'x', 0)",
        "io_uring_setup": "c.syscall(425, 1, 0)",
        "clone of a user": "c.syscall(56 if os.uname().machine == 'x86_64' else 220, 0x10000011, 0, 0, 0, 0)",
        "setuid": "c.setuid(0)",
        "prlimit of another": "c.prlimit(1, 7, None, None) if os.getpid() != 1 else -1",
    }
    for name, call in calls.items():
        assert seen(sandbox, f"{libc}result = {call}") == "-1", name


def test_it_inherits_no_descriptors_and_no_environment(sandbox, monkeypatch):
    names = seen(sandbox, "result = sorted(os.environ)")
    known = ["HOME", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "TMPDIR"]
    assert set(eval(names)) <= {*known, "LC_CTYPE"}
    opened = seen(
        sandbox,
        "result = []\nfor fd in range(64):\n    try: os.fstat(fd)\n"
        "    except OSError: continue\n    result.append(fd)",
    )
    assert set(eval(opened)) <= {0, 1, 2, 4, 5} and 3 not in eval(opened)


def test_it_is_no_root(sandbox):
    real, effective = eval(seen(sandbox, "result = (os.getuid(), os.geteuid())"))
    assert real == effective != 0


def test_limits_cannot_be_raised(sandbox):
    for name in ("AS", "CPU", "NPROC", "FSIZE", "NOFILE"):
        limit = f"resource.RLIMIT_{name}"
        assert attempt(sandbox, f"import resource; resource.setrlimit({limit}, (10**6 * 10**6,) * 2)") in (
            "ValueError",
            "PermissionError",
        )


def test_it_can_use_no_more_than_its_share_of_open_files(sandbox):
    opened = seen(
        sandbox,
        "result = []\ntry:\n    while True: result.append(open('/dev/null'))\n"
        "except OSError:\n    result = len(result)",
    )
    assert int(opened) <= TIGHT.open_files
