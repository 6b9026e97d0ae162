"""Run by a Python that has verl: its advantages of the groups of a JSON file, to another one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, compute_rloo_outcome_advantage


def advantages(outcomes: list[float], groups: list[int], how: str) -> list[float]:
    """One token a response: verl spreads the same number over all of them."""
    rewards, mask = torch.tensor(outcomes, dtype=torch.float64)[:, None], torch.ones(len(outcomes), 1)
    index = np.array(groups)
    if how == "rloo":
        found, _ = compute_rloo_outcome_advantage(rewards, mask, index)
    else:
        found, _ = compute_grpo_outcome_advantage(rewards, mask, index, norm_adv_by_std_in_grpo=how == "grpo")
    return found[:, 0].tolist()


if __name__ == "__main__":
    given, found = map(Path, sys.argv[1:])
    cases = json.loads(given.read_text())
    found.write_text(json.dumps([advantages(one["outcomes"], one["groups"], one["how"]) for one in cases]))
