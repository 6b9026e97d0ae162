"""What a method names is looked at and tried by a driver that imports no PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

OWN = """
import torch
class Mine:
    base = "reference"
    needs_traces = False
    def __init__(self, config): pass
    def loss(self, actions): return (actions.f * actions.expert_weights).sum(), {}
def broken(rewards):
    print("to standard output")
    return rewards / 0
"""
PROGRAM = """
import json, sys
from airls_ray import doors
from airls_ray.config import load_config
from airls_ray.config.named import find_doors
from airls_ray.console.progress import QuietProgress
from airls_ray.data.check_method import try_own_code
from airls_ray.errors import DoorError
for kind in doors.KINDS:
    doors.builtins(doors.kind_of(kind))
config = load_config(None, [f"method.prm_objective={sys.argv[1]}:Mine", *sys.argv[2:]])
said = {"reference": config.uses_reference, "found": [door.name for door in find_doors(config)]}
try:
    try_own_code(config, QuietProgress())
except DoorError as error:
    said["sentence"] = str(error)
said["heavy"] = sorted({"torch", "transformers", "ray", "vllm"} & set(sys.modules))
print(json.dumps(said))
"""


def test_a_driver_tries_a_method_without_pytorch(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN)

    def run(*overrides: str) -> dict[str, object]:
        command = [sys.executable, "-c", PROGRAM, str(own), *overrides]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said: dict[str, object] = json.loads(done.stdout)
        return said

    assert run() == {"reference": True, "found": [f"{own}:Mine"], "heavy": []}
    said = run(f"method.step_transforms={own}:broken")
    assert said["heavy"] == []
    assert said["sentence"] == (
        f"method.step_transforms: {own}:broken returned nan for number 0 of the steps, and it must be finite"
    )
