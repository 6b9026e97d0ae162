"""Our outcome advantages against verl's, which is installed into an environment of its own for this test."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from airls_ray.credit.formulas import outcome_advantages
from tests.peers.environments import python_with

# Without its dependencies, which are an engine and a trainer: only what the advantages' module imports.
VERL = ("--no-deps", "verl==0.9.1", "hydra-core", "omegaconf", "antlr4-python3-runtime==4.9.3",
        "tensordict", "codetiming", "torchdata", "pyvers", "orjson")  # fmt: skip
GROUPS, MOST_OF_A_GROUP = 64, 9


def random_groups(seed: int) -> tuple[list[float], list[int]]:
    """Rewards of groups of different sizes, in mixed order; some are all equal, some alone."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, MOST_OF_A_GROUP + 1, (GROUPS,), generator=generator)
    groups = torch.repeat_interleave(torch.arange(GROUPS), sizes)
    # One number of two digits is exact, so that a group of equal rewards has no spread by rounding.
    rewards = torch.randint(-8, 9, groups.shape, generator=generator).double() / 4
    rewards[groups % 5 == 0] = 0.5
    order = torch.randperm(groups.numel(), generator=generator)
    return rewards[order].tolist(), groups[order].tolist()


def test_outcome_advantages_are_those_of_verl(tmp_path: Path) -> None:
    cases = [
        {"outcomes": outcomes, "groups": groups, "how": how}
        for how in ("grpo", "dr_grpo", "rloo")
        for outcomes, groups in map(random_groups, range(3))
    ]
    given, found = tmp_path / "cases.json", tmp_path / "results.json"
    given.write_text(json.dumps(cases))
    script = Path(__file__).with_name("verl_advantages.py")
    subprocess.run([python_with("verl", *VERL), str(script), str(given), str(found)], check=True, timeout=300)
    for case, theirs in zip(cases, json.loads(found.read_text()), strict=True):
        outcomes, groups = torch.tensor(case["outcomes"], dtype=torch.float64), torch.tensor(case["groups"])
        several = torch.bincount(groups)[groups] > 1  # a group of one: verl leaves its reward, ours is 0
        ours = outcome_advantages(outcomes, groups, case["how"])
        assert ours[several].tolist() == pytest.approx(torch.tensor(theirs)[several].tolist(), abs=1e-5)
        assert not ours[~several].any()
