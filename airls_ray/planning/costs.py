"""Seconds that the stages of an iteration take on GPUs, on paper: FLOPs and bytes over what hardware gives.

Nothing here is measured. Sources: FLOPs of a pass, Kaplan et al., arXiv 2001.08361, section 2.1 and table 1
(2 N a token forward, twice that backward, and 2 layers width L for attention over L tokens); recomputing
the activations is one more forward pass (Korthikanti et al., arXiv 2205.05198, section 5). Decoding reads
all weights once a step and the keys and values of every sequence (Pope et al., arXiv 2211.05102, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush

import numpy as np

from airls_ray.planning.memory import cache_bytes_per_token
from airls_ray.planning.shapes import ModelShape

_WIDTH = 2
"""Bytes of a bfloat16 weight, key or value."""


@dataclass(frozen=True)
class Hardware:
    """A GPU and its place in a cluster. By default an H100 SXM by its data sheet; shares are assumed."""

    flops: float = 989e12
    """Dense bfloat16 FLOP/s of a GPU."""
    memory_bandwidth: float = 3.35e12
    """Bytes/s of a GPU's memory."""
    gpus_per_node: int = 8
    network: float = 12.5e9
    """Bytes/s that one node sends through the object store (100 Gbit/s)."""
    collective: float = 25e9
    """Bytes/s of an NCCL broadcast between nodes (half of a 400 Gbit/s adapter for each GPU)."""
    loading: float = 25e9
    """Bytes/s from a node's memory into a GPU (half of PCIe 5)."""
    disk: float = 2e9
    """Bytes/s of the disk to which an object store spills, written or read."""
    training_share: float = 0.4
    """Of `flops` in an update."""
    forward_share: float = 0.5
    """Of `flops` in a forward pass over whole sequences (prefill, scores, log-probabilities)."""
    decoding_share: float = 0.7
    """Of `memory_bandwidth`, and of `flops` in a large batch, while decoding."""
    step_seconds: float = 1e-3
    """Of a decoding step beside reading and computing: kernel launches, sampling, scheduler."""


@lru_cache
def matrix_parameters(shape: ModelShape) -> int:
    """Parameters that a token is multiplied with: all but the input embedding, which is a look-up."""
    return shape.layers * shape.layer_parameters + shape.vocab * shape.hidden


def forward_flops(shape: ModelShape, tokens: float, context: float) -> float:
    """FLOPs of a forward pass over `tokens` tokens in causal sequences of `context` tokens each.

    2 N + 2 layers width context for each token, width being that of all query heads.
    """
    return tokens * (2.0 * matrix_parameters(shape) + 2.0 * shape.layers * shape.q_width * context)


def update_flops(shape: ModelShape, tokens: float, context: float, checkpointing: bool = True) -> float:
    """FLOPs of one update: forward and twice as much backward, and with checkpointing forward again."""
    return (4 if checkpointing else 3) * forward_flops(shape, tokens, context)


def decode_step_seconds(shape: ModelShape, hardware: Hardware, sequences: float, cached: float) -> float:
    """Seconds of one token for each of `sequences` sequences on one GPU.

    The larger of (bytes of the weights + `cached` tokens of keys and values) over the bandwidth, and 2 N
    FLOPs a sequence over the arithmetic; and `step_seconds`.

    Args:
        shape: of the policy.
        hardware: of the GPU.
        sequences: that are decoded at once.
        cached: tokens of all of them so far, prompts included.
    """
    moved = _WIDTH * matrix_parameters(shape) + cached * cache_bytes_per_token(shape, _WIDTH)
    reading = moved / (hardware.memory_bandwidth * hardware.decoding_share)
    computing = 2.0 * matrix_parameters(shape) * sequences / (hardware.flops * hardware.decoding_share)
    return max(reading, computing) + hardware.step_seconds


def decode_seconds(
    shape: ModelShape,
    hardware: Hardware,
    lengths: Sequence[int] | np.ndarray,
    *,
    prompt: int,
    max_sequences: int,
) -> float:
    """Seconds in which one engine samples responses of these lengths; as one ends, the next one begins.

    Between two ends the batch stays the same and the cache grows by it in each step, so the step in the
    middle stands for all of them. Room in the cache is taken for granted.

    Args:
        shape: of the policy.
        hardware: of the GPU.
        lengths: of the responses, in tokens, in the order in which they begin.
        prompt: tokens before each response.
        max_sequences: most that are decoded at once.
    """
    waiting = [int(length) for length in reversed(lengths)]
    running: list[tuple[int, int]] = []
    """(step at which it ends, step at which it began)."""
    step, begun, seconds = 0, 0, 0.0
    while waiting or running:
        while waiting and len(running) < max_sequences:
            heappush(running, (step + waiting.pop(), step))
            begun += step
        end = running[0][0]
        cached = len(running) * (prompt + (step + end + 1) / 2) - begun
        seconds += (end - step) * decode_step_seconds(shape, hardware, len(running), cached)
        step = end
        while running and running[0][0] == step:
            begun -= heappop(running)[1]
    return seconds


def prefill_seconds(shape: ModelShape, hardware: Hardware, prompts: int, prompt: int) -> float:
    """Seconds in which one engine reads `prompts` prompts of `prompt` tokens."""
    return forward_flops(shape, prompts * prompt, prompt) / (hardware.flops * hardware.forward_share)


def forward_seconds(shape: ModelShape, hardware: Hardware, gpus: int, tokens: float, context: float) -> float:
    """Seconds of a pass over `tokens` tokens that `gpus` GPUs share (scores, log-probabilities)."""
    return forward_flops(shape, tokens, context) / (gpus * hardware.flops * hardware.forward_share)


def update_seconds(
    shape: ModelShape,
    hardware: Hardware,
    gpus: int,
    tokens: float,
    context: float,
    checkpointing: bool = True,
) -> float:
    """Seconds in which `gpus` GPUs learn from `tokens` tokens once, without what ranks send each other."""
    flops = update_flops(shape, tokens, context, checkpointing)
    return flops / (gpus * hardware.flops * hardware.training_share)


def weight_bytes(shape: ModelShape) -> int:
    """Bytes of a weight sync in bfloat16."""
    return _WIDTH * shape.parameters


def broadcast_seconds(size: float, nodes: int, bandwidth: float) -> tuple[float, float]:
    """Seconds until `nodes` nodes have an object of another one: at best, and where it sends every copy.

    At best whoever has it sends it on: ceil(log2(nodes + 1)) rounds. Ray takes a whole copy from any node
    that has one, but when all ask at once there is but one.
    """
    return nodes.bit_length() * size / bandwidth, nodes * size / bandwidth
