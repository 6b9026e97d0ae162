"""What an engine takes and gives: requests, samples, and the protocol that a rollout worker speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from airls_ray.seeding import derive_seed
from airls_ray.truncation import WHOLE, Truncation
from airls_ray.weights import WeightBuffer

GREEDY_BELOW = 1e-5
"""Temperatures below it are greedy to vLLM, which then takes one sample of a prompt and no more."""


@dataclass(frozen=True)
class Sampling:
    """How to sample: `temperature` 0 is greedy; `max_tokens` counts the end-of-sequence token, one number
    for all prompts or one for each."""

    samples: int
    temperature: float
    max_tokens: int | Sequence[int]
    truncation: Truncation = WHOLE

    def limits(self, prompts: int) -> list[int]:
        """The most tokens of each of so many prompts."""
        limit = self.max_tokens
        return [limit] * prompts if isinstance(limit, int) else list(limit)


@dataclass(frozen=True)
class Request:
    """A prompt with its own way of sampling; sample i has seed + i."""

    prompt: Sequence[int]
    samples: int
    temperature: float
    max_tokens: int
    seed: int
    stop_ids: Sequence[int] = ()
    """Tokens that end a sample, besides the end of sequence; the sample contains the token."""
    truncation: Truncation = WHOLE
    """Which tokens are drawn from."""


@dataclass(frozen=True)
class Sample:
    """One response with the natural-log probability of each of its tokens and "stop" or "length".

    The log-probabilities are over all tokens at the temperature, whatever the truncation was."""

    tokens: Sequence[int]
    logprobs: Sequence[float]
    finish: str
    versions: Sequence[int] | None = None
    """Policy version of each token, where a weight sync came in between."""


@dataclass
class OpenSample:
    """A sample under way."""

    request: Request
    index: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    finish: str | None = None

    def rest(self) -> Request:
        """What is still to be sampled: what there is becomes part of the prompt."""
        request, done = self.request, len(self.tokens)
        seed = (
            request.seed + self.index if not done else derive_seed(request.seed + self.index, "after", done)
        )
        return replace(
            request,
            prompt=[*request.prompt, *self.tokens],
            samples=1,
            max_tokens=request.max_tokens - done,
            seed=seed,
        )

    def sample(self) -> Sample:
        """As it is now."""
        spans = len(set(self.versions)) > 1
        return Sample(self.tokens, self.logprobs, self.finish or "length", self.versions if spans else None)


class Engine(Protocol):
    """What a rollout worker needs of an engine; unit tests put a fake one here."""

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Sample]]:
        """Return `sampling.samples` samples for each prompt; equal seeds give equal samples."""
        ...

    def run(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Return the samples of each request, all sampled together."""
        ...

    def run_interruptible(
        self, requests: Sequence[Request], version: int, news: Callable[[], WeightBuffer | None]
    ) -> list[list[Sample]]:
        """As `run`, but weights that `news` brings are taken between two tokens, and sampling goes on.

        `news` is asked again only when they are loaded; an error before that says that they are not.
        """
        ...

    def forget_prefixes(self) -> None:
        """Empty the prefix cache."""
        ...

    def update_weights(self, weights: WeightBuffer) -> None:
        """Replace all weights and forget what was computed with the old ones."""
        ...


def flatten(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens int32 [total], log-probabilities float32 [total] and offsets int32 [samples + 1]."""
    offsets = np.zeros(len(samples) + 1, dtype=np.int32)
    np.cumsum([len(sample.tokens) for sample in samples], out=offsets[1:])
    tokens = np.fromiter((t for s in samples for t in s.tokens), dtype=np.int32, count=int(offsets[-1]))
    logprobs = np.fromiter((p for s in samples for p in s.logprobs), dtype=np.float32, count=int(offsets[-1]))
    return tokens, logprobs, offsets
