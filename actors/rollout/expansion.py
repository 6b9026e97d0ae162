"""Continuations of prefixes by an engine: steps for a search, on token ids alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actors.rollout.engine import GREEDY_BELOW, Engine, Request, Sample
from airls_ray.data.schemas import CONTINUATIONS
from airls_ray.text.codec import TextCodec
from airls_ray.truncation import WHOLE, Truncation


@dataclass
class _Piece:
    """One continuation in the making."""

    expansion: int
    index: int
    tokens: list[int]
    logprobs: list[float]
    step_ends: list[int]
    finish: str
    sampled: int
    ahead: list[int]
    ahead_logprobs: list[float]
    ahead_ends: list[int]
    ahead_open: bool


def expand(
    engine: Engine, codec: TextCodec, expansions: pa.Table, max_response_tokens: int, max_step_tokens: int
) -> pa.Table:
    """Continue every prefix of `expansions` (schema EXPANSIONS).

    A step ends with the token that completes the delimiter; what was sampled behind it (where a delimiter is
    split over tokens) is cut off and paid for. The end of sequence ends the response. A response of
    `max_response_tokens` (its last step over or not), or a step of `max_step_tokens`, ends as "length".

    Returns:
        Table of schema CONTINUATIONS, in the order of the expansions.
    """
    rows = expansions.to_pylist()
    stops = codec.step_stop_ids()
    requests, limits, room = [], [], []
    for row in rows:
        left = max_response_tokens - len(row["response"])
        room.append(left)
        cut = left if row["whole"] else min(left, max_step_tokens)
        asked = cut if row["max_tokens"] is None else min(cut, row["max_tokens"])
        limits.append(cut)
        requests.append(
            Request(
                [*row["prompt"], *row["response"]],
                row["count"],
                row["temperature"],
                asked,
                row["seed"],
                () if row["whole"] else stops,
                Truncation(row["top_p"], row["top_k"], row["min_p"]),
            )
        )
    pieces = [
        _piece(codec, number, index, sample, rows[number]["whole"], limits[number], room[number])
        for number, samples in enumerate(engine.run(requests))
        for index, sample in enumerate(samples)
    ]
    for step in range(max((row["lookahead"] for row in rows), default=0)):
        _look_ahead(engine, codec, rows, pieces, step, max_response_tokens, max_step_tokens, stops)
    columns: dict[str, list[Any]] = {
        name: [getattr(piece, name) for piece in pieces] for name in CONTINUATIONS.names
    }
    arrays = [_array(columns[field.name], field.type) for field in CONTINUATIONS]
    return pa.Table.from_arrays(arrays, schema=CONTINUATIONS)


def _piece(
    codec: TextCodec, number: int, index: int, sample: Sample, whole: bool, limit: int, room: int
) -> _Piece:
    tokens, logprobs = list(sample.tokens), list(sample.logprobs)
    sampled = len(tokens)
    ends = codec.step_ends(tokens)
    if not whole and ends[0] < len(tokens):
        tokens, logprobs, ends = tokens[: ends[0]], logprobs[: ends[0]], ends[:1]
    if tokens[-1] in codec.eos_ids:
        finish = "stop"
    elif whole:
        finish = "length"
    elif len(tokens) < sampled or sample.finish == "stop":
        finish = "step" if len(tokens) < room else "length"  # nothing could follow
    else:  # no tokens were left: of the step, of the response, or of the piece that was asked for
        finish = "length" if sampled >= limit else "partial"
    return _Piece(number, index, tokens, logprobs, ends, finish, sampled, [], [], [], finish == "step")


def _look_ahead(
    engine: Engine,
    codec: TextCodec,
    rows: Sequence[dict[str, Any]],
    pieces: Sequence[_Piece],
    step: int,
    max_response_tokens: int,
    max_step_tokens: int,
    stops: Sequence[int],
) -> None:
    """Add one greedy step to every piece that still wants one."""
    going, requests = [], []
    for piece in pieces:
        row = rows[piece.expansion]
        used = len(row["response"]) + len(piece.tokens) + len(piece.ahead)
        if step < row["lookahead"] and piece.ahead_open and used < max_response_tokens:
            going.append((piece, used))
            prompt = [*row["prompt"], *row["response"], *piece.tokens, *piece.ahead]
            most = min(max_response_tokens - used, max_step_tokens)
            temperature, truncation = _greedy(row["temperature"])
            requests.append(Request(prompt, 1, temperature, most, 0, stops, truncation))
    for (piece, used), [sample] in zip(going, engine.run(requests) if requests else [], strict=True):
        found = _piece(
            codec, piece.expansion, 0, sample, False, len(sample.tokens), max_response_tokens - used
        )
        piece.ahead_ends.append(len(piece.ahead) + len(found.tokens))
        piece.ahead += found.tokens
        piece.ahead_logprobs += found.logprobs
        piece.sampled += found.sampled
        piece.ahead_open = found.finish == "step"


def _greedy(temperature: float) -> tuple[float, Truncation]:
    """Temperature and truncation that draw the most probable token, whose log-probability is that at the
    temperature given: an engine's own greedy choice has those at temperature 1."""
    if temperature < GREEDY_BELOW or temperature == 1.0:
        return 0.0, WHOLE
    return temperature, Truncation(top_k=1)


def _array(column: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(column, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(column, kind)
