"""The sandbox where namespaces are not allowed, as in most containers."""

import json
import os
import subprocess
import sys

import pytest

from airls_ray.grading.sandbox import kernel, seccomp

SCRIPT = r"""
import json, os, sys
from airls_ray.grading.sandbox import kernel, seccomp
seccomp._ALWAYS = {"unshare": seccomp._ALWAYS["unshare"]}
seccomp.forbid(forbid_signals=False)  # of what follows: no namespaces
from airls_ray.grading.sandbox.box import Exam, Sandbox
from airls_ray.grading.sandbox.limits import Limits

programs = json.loads(sys.stdin.read())
with Sandbox(Limits(wall_seconds=8, cpu_seconds=2, memory_mib=256, file_mib=10), require=[]) as sandbox:
    print(json.dumps([sandbox.in_force.network, sandbox.in_force.files, sandbox.in_force.processes]))
    exam = Exam("call", [{"arguments": [], "expected": "done"}], "f")
    for program in programs:
        verdict = sandbox.judge(program, exam)
        pids = [nursery.pid for nursery in sandbox._nurseries]
        children = [open(f"/proc/{pid}/task/{pid}/children").read() for pid in pids]
        print(json.dumps([verdict.reason, "".join(children)]))
print(json.dumps(os.listdir(os.environ["TMPDIR"])))
"""
if not (seccomp.supported() and kernel.landlock_version()):
    pytest.skip("the fallback needs seccomp and Landlock", allow_module_level=True)


def fallback(tmp_path, *programs):
    """Return what is in force, the reasons, and the files left in the folder for temporary files.

    Checks that no process is left after any program.
    """
    os.chmod(tmp_path, 0o755)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, input=json.dumps(programs), env=environment, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    force, *verdicts, left = map(json.loads, done.stdout.splitlines())
    assert [children for _, children in verdicts] == [""] * len(programs)
    return force, [reason for reason, _ in verdicts], left


def test_what_is_in_force_is_said(tmp_path):
    (network, files, processes), reasons, left = fallback(tmp_path, "def f(): return 'done'")
    assert network == "seccomp" and files == f"Landlock {kernel.landlock_version()}"
    assert processes in (None, "seccomp against signals")  # None: root that cannot become another user
    assert reasons == ["graded"] and left == []


def test_children_that_left_the_session_end_with_the_program(tmp_path):
    source = (
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.setsid()\n"
        "        for fd in range(64):\n            try: os.close(fd)\n            except OSError: pass\n"
        "        time.sleep(60)\n    os._exit(0)\n"
        "def f(): return 'done'\n"
    )
    _, reasons, _ = fallback(tmp_path, source, "import os\nos.fork()\nos.fork()\nwhile True: pass")
    assert reasons == ["graded", "timeout"]


def test_it_still_shuts_in(tmp_path):
    attempts = {
        "import socket\ndef f(): socket.socket(); return 'done'": "exception",
        "def f(): open('/etc/passwd').read(); return 'done'": "exception",
        "def f(): open('/tmp/made_by_a_program', 'w'); return 'done'": "exception",
        "import os\ndef f(): os.kill(os.getppid(), 0); return 'done'": "exception",
        "import os\ndef f(): os.listdir('..'); return 'done'": "exception",
        "def f(): open('x', 'w').write('y'); return open('x').read() + 'one'": "wrong_answer",
        "def f():\n    while True: pass": "timeout",
        "def f(): return 'done'": "graded",
    }
    _, reasons, left = fallback(tmp_path, *attempts)
    assert dict(zip(attempts, reasons, strict=True)) == attempts
    assert left == []
