"""What the policy itself says of rollouts, for terms and transforms of credit that ask for it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from torch import Tensor

from airls_ray.config.schema import LearnerConfig, MethodConfig
from airls_ray.learning.alone_logprobs import mean_logprobs_alone, takes_alone
from airls_ray.learning.answer_gains import answer_gains
from airls_ray.learning.engine import TrainEngine
from airls_ray.text.codec import TextCodec


@dataclass(frozen=True)
class PolicyReader:
    """A policy as it is before its update; every call is collective."""

    engine: TrainEngine
    """This rank's engine, its module a `PolicyModule`."""
    learner: LearnerConfig
    """Micro-batches and layout."""
    codec: TextCodec
    """The policy's."""
    temperature: float
    """The sampler's."""
    context_tokens: int
    """Most tokens that it reads at once."""

    def mean_logprobs_alone(self, method: MethodConfig, rollouts: pa.Table) -> Tensor | None:
        """Mean log-probabilities of the responses behind an empty problem; None where no term needs them."""
        if not takes_alone(method):
            return None
        return mean_logprobs_alone(
            self.engine,
            rollouts,
            self.codec.encode_prompt("") or [self.codec.eos_id],
            self.learner,
            temperature=self.temperature,
            pad_id=self.codec.pad_id,
        )

    def answer_gains(self, rollouts: pa.Table, problems: pa.Table, intro: str) -> Tensor:
        """How much each step raises the probability of the right answer behind the text `intro`.

        Args:
            rollouts: ROLLOUTS.
            problems: PROBLEMS of these rollouts, in any order.
            intro: text between a step and the answer.

        Raises:
            DataError: the intro or an answer cannot be written in the policy's tokens.
        """
        names = problems["problem_id"].to_pylist()
        answers = [answer or "" for answer in problems["answer"].to_pylist()]
        tokens = {text: self.codec.encode_trace(text)[:-1] for text in {intro, *answers}}
        by_name = {name: tokens[answer] for name, answer in zip(names, answers, strict=True)}
        return answer_gains(
            self.engine,
            rollouts,
            [by_name[name] for name in rollouts["problem_id"].to_pylist()],
            tokens[intro],
            self.learner,
            temperature=self.temperature,
            pad_id=self.codec.pad_id,
            context_tokens=self.context_tokens,
        )
