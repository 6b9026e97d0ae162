"""Stand-ins for engines, for unit tests and Ray tests that need no model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from actors.rollout.engine import Request, Sample, Sampling
from airls_ray.config.schema import Config
from airls_ray.weights import WeightBuffer


class FakeEngine:
    """Samples tokens from the seed alone; dies or fails on demand."""

    def __init__(self, vocabulary: int, eos: int) -> None:
        self.vocabulary = vocabulary
        self.eos = eos
        self.loaded: list[int] = []

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Sample]]:
        if os.environ.get("AIRLS_RAY_TEST_DIE") == "1":
            os._exit(1)
        return [[self._sample(seed + index) for index in range(sampling.samples)] for seed in seeds]

    def run(self, requests: Sequence[Request]) -> list[list[Sample]]:
        if os.environ.get("AIRLS_RAY_TEST_DIE") == "1":
            os._exit(1)
        return [[self._cut(self._sample(r.seed + index), r) for index in range(r.samples)] for r in requests]

    def run_interruptible(
        self, requests: Sequence[Request], version: int, news: Callable[[], WeightBuffer | None]
    ) -> list[list[Sample]]:
        return self.run(requests)

    def _cut(self, sample: Sample, request: Request) -> Sample:
        """As an engine stops: after the first stop token, or when no tokens are left."""
        stops = {*request.stop_ids, self.eos}
        ends = [at + 1 for at, token in enumerate(sample.tokens) if token in stops]
        end = min(ends[0], request.max_tokens)
        finish = "stop" if sample.tokens[end - 1] in stops else "length"
        return Sample(sample.tokens[:end], sample.logprobs[:end], finish)

    def forget_prefixes(self) -> None:
        pass

    def _sample(self, seed: int) -> Sample:
        random = np.random.default_rng(seed)
        length = int(random.integers(1, 9))
        tokens = [*random.integers(2, self.vocabulary, size=length).tolist(), self.eos]
        return Sample(tokens, (-random.random(length + 1)).tolist(), "stop")

    def update_weights(self, weights: WeightBuffer) -> None:
        self.loaded.append(weights.version)


def make_fake_engine(model: str | Path, config: Config, eos_ids: Sequence[int]) -> FakeEngine:
    return FakeEngine(vocabulary=12, eos=eos_ids[0])
