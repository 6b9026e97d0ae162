"""The policy of a search behind an OpenAI-compatible address: continuations by `/v1/completions`.

With the policy's tokenizer here, prompts go as token ids and the sampled tokens come back as ids (vLLM's
`return_token_ids`), so that a prefix stays what the policy has sampled. Without it, all goes by text. Whole
responses by text work with any such endpoint; steps need one that says why it stopped (vLLM, SGLang).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import fsum
from typing import Any

import pyarrow as pa

from airls_ray.data.schemas import CONTINUATIONS
from airls_ray.errors import ConfigError, RunError
from airls_ray.evaluation.endpoint import Connection, Refusal
from airls_ray.search.tree import Finish
from airls_ray.text.character_codec import CharacterCodec, Codec

_AT_ONCE = 32
"""Expansions that are asked for side by side; the server makes its own batches of them."""
_REASONS = ("stop_reason", "matched_stop")
"""Fields in which vLLM and SGLang say what stopped a response; neither is OpenAI's."""


@dataclass(frozen=True)
class _Sample:
    """What one choice of an answer says."""

    tokens: list[int]
    logprobs: list[float]
    sampled: int
    """Tokens of the policy; by text 0, where the endpoint gives no log-probabilities."""
    over: bool
    """Whether the response ended by itself."""
    stopped: bool
    """Whether a step did."""


class EndpointSampler:
    """Continues prefixes by an endpoint; implements `search.driver.Generator` and `SamplesElsewhere`."""

    def __init__(
        self,
        connection: Connection,
        codec: Codec,
        stop: str | None,
        max_response_tokens: int,
        max_step_tokens: int,
    ) -> None:
        """Ask nothing yet.

        Args:
            connection: to the endpoint.
            codec: of the policy's tokens, or a `CharacterCodec`.
            stop: text that surely ends a step; None: steps are cut from longer pieces.
            max_response_tokens: longest response. By text it bounds each call alone, since nobody counts the
                tokens of a prefix.
            max_step_tokens: a step that has not ended after so many ends its response there.
        """
        self._connection = connection
        self._codec = codec
        self._by_text = codec if isinstance(codec, CharacterCodec) else None
        self._stop = stop
        self._most = max_response_tokens
        self._most_of_step = max_step_tokens

    def expand(self, expansions: pa.Table, owners: Sequence[int]) -> pa.Table:
        """See `Generator.expand`.

        Raises:
            ConfigError: a step is to be looked ahead of.
            Refusal: it does not take a problem. A longer prefix that it does not take ends there.
            RunError: the endpoint cannot be reached, or does not say what is needed.
        """
        rows = expansions.to_pylist()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(self._continue, range(len(rows)), rows))
        return pa.Table.from_pylist([piece for pieces in found for piece in pieces], schema=CONTINUATIONS)

    def begin(self, expansions: pa.Table, owners: Sequence[int]) -> Callable[[], pa.Table]:
        """See `SamplesElsewhere.begin`; what it returns raises as `expand` does."""
        with_one = ThreadPoolExecutor(1)
        found = with_one.submit(self.expand, expansions, owners)
        with_one.shutdown(wait=False)
        return found.result

    def _continue(self, number: int, row: dict[str, Any]) -> list[dict[str, Any]]:
        if row["lookahead"]:
            raise ConfigError("an endpoint looks no steps ahead: take another algorithm than lookahead")
        used = 0 if self._by_text else len(row["response"])
        room = self._most - used
        limit = room if row["whole"] else min(room, self._most_of_step)
        asked = limit if row["max_tokens"] is None else min(limit, row["max_tokens"])
        try:
            choices = self._choices(row, asked)
        except Refusal:
            if not row["response"]:
                raise
            # Others of its problem are shorter: this prefix alone ends, where the model's context does.
            end = {"tokens": [self._codec.eos_id], "logprobs": [0.0], "step_ends": [1], "finish": "length"}
            none = {"ahead": [], "ahead_logprobs": [], "ahead_ends": [], "sampled": 0}
            return [{"expansion": number, "index": at, **end, **none} for at in range(row["count"])]
        samples = [self._sample(choice, row["whole"]) for choice in choices]
        return [
            self._piece(number, index, row, sample, asked < limit, room)
            for index, sample in enumerate(samples)
        ]

    def _choices(self, row: dict[str, Any], asked: int) -> list[Any]:
        choices: list[Any] = []
        while len(choices) < row["count"]:  # some servers give one choice whatever `n` is
            choices += self._ask(row, asked, row["count"] - len(choices), row["seed"] + len(choices))
        return choices[: row["count"]]

    def _ask(self, row: dict[str, Any], tokens: int, n: int, seed: int) -> list[Any]:
        prefix = [*row["prompt"], *row["response"]]
        stop = None if row["whole"] else self._stop
        extra: dict[str, Any] = {} if self._by_text else {"return_token_ids": True}
        if stop is not None:
            extra["include_stop_str_in_output"] = True
        if row["top_k"]:
            extra["top_k"] = row["top_k"]
        if row["min_p"]:
            extra["min_p"] = round(row["min_p"], 6)
        return self._connection.choices(
            lambda client, model: client.completions.create(
                model=model,
                prompt=self._codec.decode(prefix) if self._by_text else prefix,
                n=n,
                max_tokens=tokens,
                temperature=round(row["temperature"], 6),  # it was float32
                top_p=round(row["top_p"], 6),
                seed=seed,
                stop=stop,
                logprobs=1,
                extra_body=extra,
            )
        )

    def _sample(self, choice: Any, whole: bool) -> _Sample:
        reasons = [getattr(choice, name) for name in _REASONS if hasattr(choice, name)]
        ended = choice.finish_reason == "stop"
        stopped = ended and not whole and self._stop is not None and self._stop in reasons
        if ended and not whole and self._stop is not None and not reasons:
            raise RunError(
                f"{self._connection} does not say whether a step or the whole response has ended (vLLM's "
                "stop_reason): search it by best_of_n, which samples whole responses"
            )
        logprobs = list(getattr(choice.logprobs, "token_logprobs", None) or [])
        if self._by_text:
            tokens = self._by_text.encode(choice.text)
            if stopped and not choice.text.endswith(str(self._stop)):
                tokens += self._by_text.encode(str(self._stop))
            sampled = len(logprobs)
            # Which characters a token stands for is not known: the sum stands at the last one.
            logprobs = [0.0] * (len(tokens) - 1) + [fsum(one or 0.0 for one in logprobs)] if tokens else []
        else:
            tokens = self._ids(choice, logprobs)
            sampled = len(tokens)
        over = ended and not stopped
        if over and (not tokens or tokens[-1] not in self._codec.eos_ids):
            tokens, logprobs = [*tokens, self._codec.eos_id], [*logprobs, 0.0]
        if not tokens:
            raise RunError(f"{self._connection} answered without a single token")
        return _Sample(tokens, logprobs, sampled, over, stopped)

    def _ids(self, choice: Any, logprobs: Sequence[float]) -> list[int]:
        ids = getattr(choice, "token_ids", None)
        if ids is None or len(ids) != len(logprobs):
            raise RunError(
                f"{self._connection} gives no token ids with their log-probabilities (vLLM's "
                "return_token_ids): leave out the tokenizer, and the search goes by text"
            )
        return [int(token) for token in ids]

    def _piece(
        self, number: int, index: int, row: dict[str, Any], sample: _Sample, was_cut: bool, room: int
    ) -> dict[str, Any]:
        """A row of CONTINUATIONS: of one step, where not the whole response was wanted."""
        tokens, logprobs, over = sample.tokens, sample.logprobs, sample.over
        ends = self._codec.step_ends(tokens)
        behind = not row["whole"] and ends[0] < len(tokens)
        if behind:
            tokens, logprobs, ends, over = tokens[: ends[0]], logprobs[: ends[0]], ends[:1], False
        finish: Finish = "length"  # no tokens were left: of the step or of the response
        if over:
            finish = "stop"
        elif behind or sample.stopped:
            finish = "step" if self._by_text or len(tokens) < room else "length"
        elif was_cut:
            finish = "partial"
        return {
            "expansion": number,
            "index": index,
            "tokens": tokens,
            "logprobs": logprobs,
            "step_ends": ends,
            "finish": finish,
            "ahead": [],
            "ahead_logprobs": [],
            "ahead_ends": [],
            "sampled": sample.sampled,
        }
