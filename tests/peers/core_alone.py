"""Run by test_core_alone.py where the core is installed and nothing else: what needs no training works."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import airls_ray


def main(prm_folder: str, url: str, problem: str, output: str) -> None:
    """Write what was found."""
    loaded = {name for name in ("torch", "transformers") if name in sys.modules}
    stack = [name for name in ("ray", "vllm", "deepspeed", "peft") if importlib.util.find_spec(name)]
    grade = airls_ray.grade("1/2", r"So it is \boxed{0.5}.")
    prm = airls_ray.load_prm(prm_folder, device="cpu")
    (found,) = airls_ray.search_endpoint(url, [problem], prm, algorithm="beam", budget=4)
    result = {
        "file": airls_ray.__file__,
        "loaded_by_the_import": sorted(loaded),
        "training_stack": stack,
        "outcome": grade.outcome,
        "scores": prm.score("What is 1+2-3?", ["Add 1+2.", "That is 3.", "So 0."]),
        "candidates": [[one.response, one.scores] for one in found.candidates],
    }
    Path(output).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
