"""Rollout workers, learners, verifier and network in virtual time: seconds by the formulas of
`airls_ray/planning/costs.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from airls_ray.planning.costs import (
    Hardware,
    decode_seconds,
    forward_seconds,
    prefill_seconds,
    update_seconds,
    weight_bytes,
)
from airls_ray.planning.lengths import ResponseLengths
from airls_ray.planning.shapes import PUBLISHED, ModelShape

MODEL = "Qwen/Qwen2.5-7B-Instruct"
SHAPE = PUBLISHED[MODEL]
PROMPT = 512
"""Tokens of a prompt; assumed."""
REASONING = ResponseLengths.of_quantiles(4096, 24576, 0.99, 32768)
"""Median 4,096 tokens, 99 % within 24,576, cut at 32,768; assumed."""
EVEN = ResponseLengths(REASONING.mean_log, 0.0, REASONING.cap)
"""All as long as the median."""
ANSWERS_PER_SECOND = 200.0
"""Of one process of the verifier: the aim of `benchmarks/math_grader.py`."""
VERIFIER_PROCESSES = 16
"""`verifier.processes` of the configurations for 7B."""


@dataclass(frozen=True)
class Rollouts:
    """What a share comes to: the driver holds references only, so tokens need not be there."""

    groups: int
    responses: int
    tokens: int
    """Prompts included."""
    work: float
    """Seconds that the worker sampled."""


@dataclass
class Network:
    """Which node has which weights; a whole copy comes from a node that has one when it is asked for."""

    hardware: Hardware
    size: int
    seed: int = 0
    _copies: dict[int, dict[str, float]] = field(default_factory=dict)
    """By version: when each node has its copy."""
    _free: dict[str, float] = field(default_factory=dict)
    """When a node's network has sent what it was asked for."""

    def arrives(self, version: int, node: str, now: float) -> float:
        """Moment at which a node that asks now has the weights; it asks once, whoever else asks there.

        Who asks first for a version asks when the learner's node has it. Older ones are asked for no more.
        """
        if version not in self._copies:
            self._copies = {version: {"learner": now}}
        copies = self._copies[version]
        if node not in copies:
            there = [one for one, since in copies.items() if since <= now]
            random = np.random.default_rng([self.seed, version, len(copies)])
            source = there[int(random.integers(len(there)))]
            begin = max(now, self._free.get(source, 0.0))
            self._free[source] = begin + self.size / self.hardware.network
            copies[node] = self._free[source]
        return copies[node]


@dataclass(frozen=True)
class VirtualWorker:
    """A rollout worker with one GPU."""

    node: str
    network: Network
    lengths: ResponseLengths
    max_sequences: int = 256
    slower: float = 1.0
    """How many times as long its sampling takes."""

    def start(self) -> tuple[float, None]:
        """It is there."""
        return 0.0, None

    def generate(self, problems: Any, groups: Sequence[int], request: Any) -> tuple[float, Rollouts]:
        """The lengths follow from the iteration and the groups alone, as seeds do."""
        count = request.samples * len(groups)
        number = [one for one in request.seed_path if isinstance(one, int)]
        drawn = self.lengths.draw(count, np.random.default_rng([*number, groups[0]]))
        hardware = self.network.hardware
        seconds = prefill_seconds(SHAPE, hardware, len(groups), PROMPT)
        seconds += decode_seconds(SHAPE, hardware, drawn, prompt=PROMPT, max_sequences=self.max_sequences)
        seconds *= self.slower
        return seconds, Rollouts(len(groups), count, int(drawn.sum()) + count * PROMPT, seconds)

    def update_weights(self, version: int) -> tuple[float, None]:
        """From the node's memory into the GPU."""
        return self.network.size / self.network.hardware.loading, None

    def update_weights_begins(self, now: float, version: int) -> float:
        """When the node has them."""
        return self.network.arrives(version, self.node, now)

    def tell(
        self, others: Sequence[Any], call: str, arguments: Sequence[Any], deadline: float
    ) -> tuple[float, list[None]]:
        """The node's others do the same at the same time."""
        return getattr(self, call)(*arguments)[0], [None] * len(others)

    def tell_begins(self, now: float, others: Any, call: str, arguments: Sequence[Any], *_: Any) -> float:
        """See `update_weights_begins`."""
        return self.update_weights_begins(now, arguments[0].value) if call == "update_weights" else now

    def forget_prefixes(self) -> tuple[float, None]:
        """At once."""
        return 0.0, None


@dataclass
class VirtualLearner:
    """All ranks of the policy learner or of the PRM as one."""

    shape: ModelShape
    network: Network
    gpus: int
    slower: float = 1.0
    spills: bool = False
    """Whether the object store has room for one copy of the weights: the old one is written to disk first."""

    def start(self, state: Any) -> tuple[float, float]:
        """It is there."""
        return 0.0, 0.0

    def update(self, *arguments: Any) -> tuple[float, dict[str, float]]:
        """As `actors/learn/learners.py` and `prm_learner.py`: problems, rollouts, and what else they take."""
        tokens, context = _size(arguments[1])
        seconds = update_seconds(self.shape, self.network.hardware, self.gpus, tokens, context)
        return seconds * self.slower, {}

    def _forward(self, rollouts: Sequence[Any]) -> float:
        tokens, context = _size(rollouts)
        return forward_seconds(self.shape, self.network.hardware, self.gpus, tokens, context) * self.slower

    def score(self, rollouts: Sequence[Any], *_: Any) -> tuple[float, None]:
        """One pass."""
        return self._forward(rollouts), None

    def rollout_log_probs(self, rollouts: Sequence[Any]) -> tuple[float, None]:
        """One pass."""
        return self._forward(rollouts), None

    def trace_log_probs(self, problems: Any, iteration: int) -> tuple[float, None]:
        """A trace for each problem, as long as a median response."""
        tokens = problems.num_rows * (np.exp(REASONING.mean_log) + PROMPT)
        context = tokens / problems.num_rows
        hardware = self.network.hardware
        return forward_seconds(self.shape, hardware, self.gpus, tokens, context) * self.slower, None

    def send_nccl(self) -> tuple[float, None]:
        """A broadcast in a pipeline takes as long whatever the number of receivers; assumed."""
        return self.network.size / self.network.hardware.collective, None

    def open_nccl(self, *_: Any) -> tuple[float, None]:
        """Once; not counted."""
        return 0.0, None

    def save(self, model: str, state: str) -> tuple[float, None]:
        """Nothing but the folders."""
        for folder in (model, state):
            Path(folder).mkdir(parents=True, exist_ok=True)
        return 0.0, None


@dataclass
class VirtualPolicy(VirtualLearner):
    """The policy learner, which exports its weights."""

    version: int = 0

    def update(self, *arguments: Any) -> tuple[float, dict[str, float]]:
        """As the base class; the weights are then those of the version that comes last."""
        self.version = arguments[-1]
        return super().update(*arguments)

    def export_weights(self) -> tuple[float, int]:
        """From a GPU into the node's memory; the reference stands for the version."""
        spilled = self.network.size / self.network.hardware.disk if self.spills else 0.0
        return self.network.size / self.network.hardware.loading + spilled, self.version


class VirtualVerifier:
    """Grades at a steady rate; of the row filters' groups a share is kept, by the group's number."""

    def __init__(self, kept_share: float) -> None:
        """`kept_share`: of the groups that the row filters keep."""
        self._kept_share = kept_share

    def grade(self, rollouts: Sequence[Any], problems: Any, *_: Any) -> tuple[float, None]:
        """All responses by the verifier's processes."""
        responses = sum(ref.value.responses for ref in rollouts)
        return responses / (ANSWERS_PER_SECOND * VERIFIER_PROCESSES), None

    def kept_groups(self, rollouts: Sequence[Any], grades: Any) -> tuple[float, int]:
        """The share."""
        return 0.0, round(self._kept_share * sum(ref.value.groups for ref in rollouts))

    def join_grades(self, parts: Sequence[Any]) -> tuple[float, None]:
        """At once."""
        return 0.0, None

    def summarise(self, rollouts: Sequence[Any], grades: Any) -> tuple[float, dict[str, float]]:
        """What the loop needs, and what the workers did."""
        shares = [ref.value for ref in rollouts]
        return 0.0, {
            "rollout/response_tokens": float(sum(one.tokens - PROMPT * one.responses for one in shares)),
            "outcome/mean": 0.5,
            "simulated/responses": float(sum(one.responses for one in shares)),
            "simulated/work": sum(one.work for one in shares),
            "simulated/longest_share": max(one.work for one in shares),
        }

    def measure(self, *_: Any) -> tuple[float, dict[str, float]]:
        """Nothing."""
        return 0.0, {}

    def staleness(self, *_: Any) -> tuple[float, dict[str, float]]:
        """Nothing."""
        return 0.0, {}

    def close(self) -> tuple[float, None]:
        """Nothing."""
        return 0.0, None


def weights_size() -> int:
    """Bytes of a weight sync."""
    return weight_bytes(SHAPE)


def _size(rollouts: Sequence[Any]) -> tuple[float, float]:
    """Tokens of all sequences, and of one in the mean."""
    shares = [ref.value for ref in rollouts]
    tokens = float(sum(one.tokens for one in shares))
    return tokens, tokens / max(sum(one.responses for one in shares), 1)
