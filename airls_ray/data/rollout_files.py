"""Files of stored rollouts and of traces, as text or as tokens, to learn a PRM from without sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airls_ray import files
from airls_ray.data.messages import read_messages
from airls_ray.data.problems import read_problems
from airls_ray.data.rows import Row, kind_of, optional_text, outcome_of, read_rows, text_of, texts_of
from airls_ray.data.schemas import STORED_ROLLOUTS, conform, rows_to_table
from airls_ray.errors import DataError
from airls_ray.tasks.generate import content_id
from airls_ray.tasks.maths.naming import vote_name
from airls_ray.text.codec import TextCodec
from airls_ray.text.messages import HISTORY, asked_of, history_of

_LARGEST = float(np.finfo(np.float32).max)  # tables hold log-probabilities in float32
_ROUNDING = 1e-4  # a log-probability that was computed in low precision may lie this far above 0

Tokens = Sequence[int]
_Stored = tuple[Any, ...]


@dataclass(frozen=True)
class StoredRollouts:
    """What was read, in tokens."""

    rollouts: pa.Table
    """STORED_ROLLOUTS."""
    traces: pa.Table
    """STORED_ROLLOUTS with outcome 1: the traces of problems that have rollouts."""
    too_long: int = 0
    """Rollouts that were left out, since they do not fit the context."""
    traces_too_long: int = 0
    """The same of traces."""


def read_stored_rollouts(
    paths: Sequence[Path],
    codec: TextCodec,
    context_tokens: int,
    *,
    traces: Path | None = None,
    problems: Path | None = None,
) -> StoredRollouts:
    """Read JSONL, JSON or Parquet files of rollouts, and traces of the same problems.

    Fields of a rollout: `prompt` (text, messages or tokens; may be absent where `problem_id` is one of
    `problems`), `problem_id` (text; else rows of equal prompts are of one problem), `response` (text or
    tokens), `correct` or `outcome` (true, false or a number from 0 to 1); optionally `logprobs` (one number
    for every token of the response), `answer` (text), `step_ends` (of tokens) and `finish` ("length": the
    response was cut, so a text gets no end of sequence). Others are ignored; the files of a run's `rollouts/`
    fit.
    Of a trace: the prompt as above, and `trace` or `response` (text or tokens, with `logprobs` if known)
    or `traces` (a list of texts). Without `traces` those of `problems` are taken.

    Raises:
        DataError: one sentence with the file, the line (JSONL) or row and what is wrong.
    """
    reader = _Reader(codec)
    if problems is not None:
        reader.add_problems(problems)
    rows = [row for path in paths for where, line in read_rows(path) for row in [reader.rollout(where, line)]]
    kept, too_long = _fitting(rows, context_tokens)
    if not kept:
        raise DataError(
            f"none of the {len(rows)} rollouts fits model.context_tokens={context_tokens}: raise it, or give "
            "shorter rollouts"
        )
    known = {row[0] for row in kept}
    found = reader.traces(traces) if traces is not None else reader.traces_of_problems(known)
    ours = [row for row in found if row[0] in known]
    if traces is not None and not ours:
        raise DataError(
            f"no trace of {traces} is of a problem that has rollouts: give the same 'problem_id' or 'prompt'"
        )
    kept_traces, traces_too_long = _fitting(ours, context_tokens)
    return StoredRollouts(
        rows_to_table(kept, STORED_ROLLOUTS),
        rows_to_table(kept_traces, STORED_ROLLOUTS),
        too_long,
        traces_too_long,
    )


def lacking_logprobs(table: pa.Table) -> int:
    """How many rows of STORED_ROLLOUTS have no log-probabilities."""
    return int(table["logprobs"].null_count)


def write_stored(stored: StoredRollouts, rollouts: Path, traces: Path) -> None:
    """Write both tables as Parquet files, each whole or not at all."""
    for table, file in ((stored.rollouts, rollouts), (stored.traces, traces)):
        with files.replacing(file) as temporary:
            pq.write_table(table, temporary)


def read_stored(rollouts: Path, traces: Path) -> StoredRollouts:
    """Read what `write_stored` wrote."""
    # Parquet renames the inner field of lists.
    return StoredRollouts(*(conform(pq.read_table(file), STORED_ROLLOUTS) for file in (rollouts, traces)))


def _fitting(rows: list[_Stored], context_tokens: int) -> tuple[list[_Stored], int]:
    kept = [row for row in rows if len(row[1]) + len(row[2]) <= context_tokens]
    return kept, len(rows) - len(kept)


class _Reader:
    """Turns rows into tokens; knows the prompt of every problem that it has seen."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._prompts: dict[str, tuple[str, list[int]]] = {}
        self._by_tokens: dict[tuple[int, ...], str] = {}
        self._encoded: dict[str, list[int]] = {}
        self._traces: dict[str, list[str]] = {}

    def add_problems(self, path: Path) -> None:
        """Learn the prompts and traces of a problem file."""
        table = read_problems(path)
        columns = (table[name].to_pylist() for name in ("problem_id", "prompt", "details", "traces"))
        for identity, prompt, details, traces in zip(*columns, strict=True):
            where = f"{path}, problem {identity!r}"
            tokens = self._text_prompt(where, prompt, details)
            self._prompts.setdefault(identity, (where, tokens))
            self._by_tokens.setdefault(tuple(tokens), identity)
            self._traces.setdefault(identity, []).extend(traces or ())

    def rollout(self, where: str, row: Row) -> _Stored:
        """A row of STORED_ROLLOUTS."""
        identity, prompt = self._problem(where, row)
        response, ends = self._response(where, row, "response")
        logprobs = _logprobs(where, row, len(response))
        answer = vote_name(optional_text(where, row, "answer"))
        return identity, prompt, response, ends, logprobs, outcome_of(where, row), answer

    def traces(self, path: Path) -> Iterator[_Stored]:
        """The traces of a file."""
        for where, row in read_rows(path):
            identity, prompt = self._problem(where, row)
            if row.get("traces") is not None:
                for text in texts_of(where, row, "traces"):
                    yield self._trace(where, identity, prompt, text)
                continue
            response, ends = self._response(where, row, "response" if row.get("trace") is None else "trace")
            yield identity, prompt, response, ends, _logprobs(where, row, len(response)), 1.0, None

    def traces_of_problems(self, wanted: set[str]) -> Iterator[_Stored]:
        """The traces of the problem file, of the problems `wanted`."""
        for identity, texts in self._traces.items():
            where, prompt = self._prompts[identity]
            for text in texts if identity in wanted else ():
                yield self._trace(where, identity, prompt, text)

    def _trace(self, where: str, identity: str, prompt: list[int], text: str) -> _Stored:
        response = self._encode(where, text)
        return identity, prompt, response, self._codec.step_ends(response), None, 1.0, None

    def _problem(self, where: str, row: Row) -> tuple[str, list[int]]:
        """Identifier and prompt of a row's problem."""
        given = row.get("prompt")
        if given is None:
            identity = optional_text(where, row, "problem_id")
            if identity is None:
                raise DataError(f"{where}: has neither field 'prompt' nor field 'problem_id'; give one")
            if identity not in self._prompts:
                raise DataError(
                    f"{where}: field 'prompt' is absent and problem {identity!r} is in no file of problems; "
                    "give the prompt, or a file with it by --problems"
                )
            return identity, self._prompts[identity][1]
        if isinstance(given, list) and given and isinstance(given[0], Mapping):
            prompt = self._text_prompt(where, *read_messages(where, "prompt", given))
        elif isinstance(given, list):
            prompt = self._tokens(where, given, "prompt")
        else:
            prompt = self._text_prompt(where, text_of(where, row, "prompt"))
        return self._identity(where, row, prompt), prompt

    def _identity(self, where: str, row: Row, prompt: list[int]) -> str:
        """The row's identifier, else that of the problem with the same prompt, else a new one."""
        identity = optional_text(where, row, "problem_id") or self._by_tokens.get(tuple(prompt))
        identity = identity or content_id("file", " ".join(map(str, prompt)))
        before, known = self._prompts.setdefault(identity, (where, prompt))
        if known != prompt:
            raise DataError(
                f"{where}: field 'problem_id' is {identity!r} like that of {before}, but the prompts differ"
            )
        self._by_tokens.setdefault(tuple(prompt), identity)
        return identity

    def _response(self, where: str, row: Row, name: str) -> tuple[list[int], list[int]]:
        """Tokens and step ends."""
        given = row.get(name)
        if isinstance(given, list):
            tokens = self._tokens(where, given, name)
            ends = row.get("step_ends")
            return tokens, self._codec.step_ends(tokens) if ends is None else _ends(where, ends, len(tokens))
        if not isinstance(given, str):
            raise DataError(f"{where}: field {name!r} must be text or tokens, but is {kind_of(given)}")
        tokens = self._encode(where, given)
        if row.get("finish") == "length" and len(tokens) > 1:
            tokens = tokens[:-1]
        return tokens, self._codec.step_ends(tokens)

    def _text_prompt(
        self, where: str, text: str, details: str | Mapping[str, Any] | None = None
    ) -> list[int]:
        history = history_of(details)
        asked = text if not history else asked_of(text, {HISTORY: history})
        if asked not in self._encoded:
            try:
                self._encoded[asked] = self._codec.encode_prompt(text, history)
            except DataError as error:
                raise DataError(f"{where}: field 'prompt': {error}") from error
        return self._encoded[asked]

    def _encode(self, where: str, text: str) -> list[int]:
        try:
            return self._codec.encode_trace(text)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error

    def _tokens(self, where: str, given: list[Any], name: str) -> list[int]:
        if not given:
            raise DataError(f"{where}: field {name!r} must hold tokens, but is an empty list")
        for number, token in enumerate(given, 1):
            if not isinstance(token, int) or isinstance(token, bool):
                raise DataError(f"{where}: token {number} of field {name!r} is {kind_of(token)}, no integer")
            if not 0 <= token < self._codec.vocab_size:
                raise DataError(
                    f"{where}: token {number} of field {name!r} is {token}, outside the "
                    f"{self._codec.vocab_size} of the PRM's tokenizer; give text in place of tokens"
                )
        return given


def _ends(where: str, ends: Any, length: int) -> list[int]:
    rising = (
        isinstance(ends, list)
        and bool(ends)
        and all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
        and all(before < after for before, after in zip([0, *ends], ends, strict=False))
    )
    if not rising or ends[-1] != length:
        raise DataError(
            f"{where}: field 'step_ends' must be a rising list of integers that ends with {length}, the "
            "tokens of the response"
        )
    return list(ends)


def _logprobs(where: str, row: Row, length: int) -> list[float] | None:
    values = row.get("logprobs")
    if values is None:
        return None
    if not isinstance(values, list):
        raise DataError(f"{where}: field 'logprobs' must be a list of numbers, but is {kind_of(values)}")
    if len(values) != length:
        raise DataError(
            f"{where}: field 'logprobs' has {len(values)} numbers for the {length} tokens of the response "
            "(the end of sequence counts); give the sampler's tokens in place of text, or drop the field"
        )
    for number, value in enumerate(values, 1):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not -_LARGEST <= value <= _ROUNDING:
            shown = value if is_number else kind_of(value)
            raise DataError(
                f"{where}: number {number} of field 'logprobs' must be a logarithm of a probability, finite "
                f"and not above 0, but is {shown}"
            )
    return [float(value) for value in values]
