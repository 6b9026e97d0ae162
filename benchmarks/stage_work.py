"""What the stages of an iteration compute: floating-point operations on paper."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from airls_ray.planning.costs import forward_flops, update_flops
from airls_ray.planning.shapes import ModelShape

GIGA = 1e9
_TRIES = 9


def stage_gflop(
    shape: ModelShape, line: Mapping[str, Any], *, groups: int, prompt: float, prm_shares: int = 1
) -> dict[str, float]:
    """GFLOP of each stage that passes a model, from an iteration's line of metrics.

    The PRM has the policy's shape. Passes for metrics alone (rollouts without a gradient) are left out.

    Args:
        shape: of the policy.
        line: of `metrics.jsonl`.
        groups: of the iteration; a prompt is read once for all of its rollouts.
        prompt: mean tokens.
        prm_shares: an update of the PRM passes one of so many shares of its sequences.
    """
    rollouts, tokens = line["policy/rollouts"], line["policy/tokens"]
    context = prompt + tokens / rollouts
    learned, updates = line["policy/sequences"] * context, line["policy/updates"]
    old = learned * (updates - 1) / max(updates, 1)
    found = {
        "rollout": forward_flops(shape, tokens + groups * prompt, context),
        "policy_update": update_flops(shape, learned, context, checkpointing=False)
        + forward_flops(shape, old, context),
    }
    if "prm/updates" in line:
        passed = line["prm/updates"] * line["prm/sequences"] / prm_shares * context
        found["prm_update"] = update_flops(shape, passed, context, checkpointing=False)
        found["prm_score"] = forward_flops(shape, rollouts * context, context)
    return {name: value / GIGA for name, value in found.items()}


def matmul_gflops(shape: ModelShape, rows: int = 2048) -> float:
    """GFLOP/s of this machine in the widest product of a layer, `rows` tokens at once, with all threads."""
    import torch

    tokens = torch.randn(rows, shape.hidden)
    weight = torch.randn(shape.hidden, shape.intermediate)
    seconds = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        for _ in range(_TRIES):
            tokens @ weight
        seconds.append((time.perf_counter() - start) / _TRIES)
    return 2.0 * rows * shape.hidden * shape.intermediate / median(seconds) / GIGA
