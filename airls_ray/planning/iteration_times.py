"""Where the seconds of an iteration go on so many GPUs, on paper: the formulas of `costs` put together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np

from airls_ray.planning.costs import (
    Hardware,
    broadcast_seconds,
    decode_seconds,
    forward_seconds,
    prefill_seconds,
    update_seconds,
    weight_bytes,
)
from airls_ray.planning.lengths import ResponseLengths
from airls_ray.planning.shapes import ModelShape


@dataclass(frozen=True)
class IterationSizes:
    """What an iteration samples and learns from."""

    problems: int
    rollouts_per_problem: int
    prompt: int
    """Tokens of a prompt."""
    lengths: ResponseLengths
    max_sequences: int = 256
    """`rollout.engine.max_sequences`."""
    replay_fraction: float = 0.5
    """Of the PRM's batch, `prm.replay_fraction`."""

    @property
    def context(self) -> float:
        """Mean tokens of a sequence."""
        return self.prompt + self.lengths.mean()

    @property
    def tokens(self) -> float:
        """Tokens of all rollouts, prompts included, in the mean."""
        return self.problems * self.rollouts_per_problem * self.context

    @property
    def prm_tokens(self) -> float:
        """Tokens of the PRM's batch: rollouts, a trace for each problem (as long as one), and replay."""
        return (self.tokens + self.problems * self.context) / (1.0 - self.replay_fraction)


@dataclass(frozen=True)
class GPUs:
    """Who has how many; a rollout worker has one."""

    rollout: int
    policy: int
    prm: int


@dataclass(frozen=True)
class IterationTimes:
    """Seconds of the stages."""

    work: float
    """Mean over the rollout workers of what they sample."""
    longest: float
    """Of the worker that takes longest, for which the synchronous loop waits."""
    prefill: float
    """Of `work`: reading prompts."""
    log_probs: float
    """Passes of the policy over rollouts (the asynchronous loop alone) and traces."""
    prm_update: float
    prm_score: float
    policy_update: float
    sync: float
    """NCCL."""
    sync_store: tuple[float, float]
    """The object store: at best, and where every copy comes from the learner's node."""
    recomputed: float
    """Of `log_probs`: the rollouts, which the synchronous loop has from the sampler."""

    @property
    def learning(self) -> float:
        """All that the learners do, one after the other, in the asynchronous loop."""
        return self.log_probs + self.prm_update + self.prm_score + self.policy_update

    @property
    def synchronous(self) -> float:
        """Seconds of an iteration of the synchronous loop: the stages one after the other."""
        return self.longest + self.learning - self.recomputed + self.sync

    def asynchronous(self, max_staleness: int) -> float:
        """Least seconds of an iteration of the asynchronous loop.

        Workers and learners work side by side, so it takes as long as the longer of both. And an iteration is
        sampled only when that `max_staleness` + 1 before it is trained: sampled and learned from, it is done
        `max_staleness` + 1 iterations later.
        """
        return max(self.work, self.learning, (self.longest + self.learning) / (max_staleness + 1))


def iteration_times(
    shape: ModelShape, hardware: Hardware, sizes: IterationSizes, gpus: GPUs, seed: int = 0
) -> IterationTimes:
    """Seconds of every stage where policy and PRM have the shape `shape`.

    Groups go to the workers in equal shares; their lengths are drawn by `seed`. Grading, what ranks send each
    other, and the driver are left out.
    """
    random = np.random.default_rng(seed)
    bounds = [sizes.problems * worker // gpus.rollout for worker in range(gpus.rollout + 1)]
    groups = np.diff(bounds)
    prefill = [prefill_seconds(shape, hardware, int(count), sizes.prompt) for count in groups]
    decoding = [
        decode_seconds(
            shape, hardware, sizes.lengths.draw(int(count) * sizes.rollouts_per_problem, random),
            prompt=sizes.prompt, max_sequences=sizes.max_sequences,
        )
        for count in groups
    ]  # fmt: skip
    work = np.add(prefill, decoding)
    context, traces = sizes.context, sizes.problems * sizes.context
    recomputed = forward_seconds(shape, hardware, gpus.policy, sizes.tokens, context)
    size = weight_bytes(shape)
    nodes = -(-gpus.rollout // hardware.gpus_per_node)
    return IterationTimes(
        work=float(work.mean()),
        longest=float(work.max()),
        prefill=float(np.mean(prefill)),
        log_probs=recomputed + forward_seconds(shape, hardware, gpus.policy, traces, context),
        prm_update=update_seconds(shape, hardware, gpus.prm, sizes.prm_tokens, context),
        prm_score=forward_seconds(shape, hardware, gpus.prm, sizes.tokens, context),
        policy_update=update_seconds(shape, hardware, gpus.policy, sizes.tokens, context),
        sync=size / hardware.collective,
        sync_store=broadcast_seconds(size, nodes, hardware.network),
        recomputed=recomputed,
    )


def splits(
    shape: ModelShape, hardware: Hardware, sizes: IterationSizes, nodes: int, steps: int = 16
) -> Iterator[GPUs]:
    """Ways to share out `nodes` nodes, at most `steps`: some to the workers, the rest to the learners.

    Policy and PRM learner take turns, and a / p + b / q with p + q given is least at
    p : q = sqrt(a) : sqrt(b).
    """
    one = iteration_times(shape, hardware, sizes, GPUs(sizes.problems, 1, 1))
    root_policy = sqrt(one.log_probs + one.policy_update)
    root_prm = sqrt(one.prm_update + one.prm_score)
    for rollout in sorted({max(1, round(nodes * step / (steps + 1))) for step in range(1, steps + 1)}):
        rest = nodes - rollout
        if rest < 2:
            continue
        policy = min(max(1, round(rest * root_policy / (root_policy + root_prm))), rest - 1)
        each = hardware.gpus_per_node
        yield GPUs(rollout * each, policy * each, (rest - policy) * each)
