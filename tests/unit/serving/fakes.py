"""An endpoint over chains of arithmetic that fakes engine and PRM."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
from starlette.applications import Starlette

from airls_ray.data.schemas import CONTINUATIONS
from airls_ray.serving.search_queue import SearchQueue
from airls_ray.serving.service import SearchService
from airls_ray.text.codec import TextCodec

END, DIGITS, SEMICOLON = 1, range(2, 12), 16
"""Tokens of arithmetic's vocabulary: <pad>, <eos>, 0..9, + - * = ;"""
STEP = (None, 12, None, 15, None, SEMICOLON)
"""Form of a step, `a+b=c;`: None is a digit."""
PROMPT = "7+3*4="
WAIT_SECONDS = 10.0


@dataclass
class Chains:
    """Samples `steps` steps `a+b=c;` of random digits, the last with the end of sequence."""

    steps: int = 3
    digits: int = 10
    """How many of the ten are drawn."""
    calls: list[list[str]] = field(default_factory=list)
    """Problems of the rows of each call."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """All that was asked."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """All that was answered, in order."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Calls wait until it is set."""
    error: Exception | None = None
    poison: Callable[[dict[str, Any]], Exception | None] = lambda row: None
    """What a row raises, and all rows of its call with it."""

    def expand(self, expansions: pa.Table, owners: Sequence[int]) -> pa.Table:
        asked = expansions.to_pylist()
        self.calls.append([row["problem_id"] for row in asked])
        self.rows += asked
        assert self.gate.wait(WAIT_SECONDS)
        for error in [self.error, *map(self.poison, asked)]:
            if error is not None:
                raise error
        found = [
            self.sample(number, row, index)
            for number, row in enumerate(asked)
            for index in range(row["count"])
        ]
        self.samples += found
        return pa.Table.from_pylist(found, schema=CONTINUATIONS)

    def sample(self, number: int, row: dict[str, Any], index: int) -> dict[str, Any]:
        seed = [row["seed"] + index] if row["temperature"] > 0 else []
        tokens: list[int] = []
        while not tokens or (row["whole"] and tokens[-1] != END):
            tokens += self.step([*row["prompt"], *row["response"], *tokens], row, len(tokens), seed)
        finish = "stop" if tokens[-1] == END else "step"
        if row["max_tokens"] is not None and len(tokens) > row["max_tokens"]:
            tokens, finish = tokens[: row["max_tokens"]], "length" if row["whole"] else "partial"
        ends = [at + 1 for at, token in enumerate(tokens) if token == SEMICOLON]
        if not ends or tokens[ends[-1] :] not in ([], [END]):
            ends.append(len(tokens))
        ends[-1] = len(tokens)
        return {
            "expansion": number,
            "index": index,
            "tokens": tokens,
            "logprobs": [-0.01 * token for token in tokens],
            "step_ends": ends,
            "finish": finish,
            "ahead": [],
            "ahead_logprobs": [],
            "ahead_ends": [],
            "sampled": len(tokens),
        }

    def step(self, seen: list[int], row: dict[str, Any], new: int, seed: list[int]) -> list[int]:
        """What is left of the step under way, and the end of sequence after the last."""
        response = seen[len(row["prompt"]) :]
        draw = np.random.default_rng([*seed, *seen])
        begun = len(response) % len(STEP)
        tokens = [
            form if form is not None else DIGITS[int(draw.integers(self.digits))] for form in STEP[begun:]
        ]
        last = (len(response) + len(tokens)) // len(STEP) == self.steps
        return [*tokens, END] if last else tokens


@dataclass
class Endpoint:
    """All parts of one."""

    app: Starlette
    service: SearchService
    queue: SearchQueue
    chains: Chains
    codec: TextCodec

    def post(self, path: str = "/v1/completions", **given: Any) -> httpx.Response:
        [reply] = self.post_all([given], path)
        return reply

    def post_all(
        self, bodies: Sequence[dict[str, Any]], path: str = "/v1/completions"
    ) -> list[httpx.Response]:
        """All at once, in one event loop."""

        async def send(client: httpx.AsyncClient) -> list[httpx.Response]:
            return await asyncio.gather(*(client.post(path, json=fields(path, body)) for body in bodies))

        return self.talk(send)

    def talk(self, act: Callable[[httpx.AsyncClient], Awaitable[Any]], **options: Any) -> Any:
        async def inside() -> Any:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://endpoint", **options
            ) as client:
                return await act(client)

        return asyncio.run(inside())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.talk(lambda client: client.get(path), headers=headers)


def fields(path: str, given: dict[str, Any]) -> dict[str, Any]:
    """A request's fields; "absent" leaves one out. The seed is fixed: with a drawn one, ranks have ties."""
    asks = {"messages": [{"role": "user", "content": PROMPT}]} if "chat" in path else {"prompt": PROMPT}
    body = {"model": "tiny", "seed": 2, **asks, **given}
    return {name: value for name, value in body.items() if value != "absent"}


Make = Callable[..., Endpoint]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < WAIT_SECONDS
        await asyncio.sleep(0.001)


def responses(endpoint: Endpoint) -> list[str]:
    """Texts of all whole responses that were sampled."""
    return [endpoint.codec.decode(sample["tokens"]) for sample in endpoint.chains.samples]


def probability(tokens: Sequence[int]) -> float:
    """Score of a response under LogProbScorer with `prod`: the mean over its tokens."""
    return exp(-0.01 * sum(tokens) / len(tokens))


def scope(path: str) -> dict[str, Any]:
    return {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [], "http_version": "1.1", "scheme": "http", "root_path": "", "client": None,
    }  # fmt: skip
