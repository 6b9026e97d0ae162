"""Problems and traces longer than the context: found before a run begins, left out where that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import TYPE_CHECKING

from airls_ray.config.task_choice import parts_of
from airls_ray.config.task_sections import FileTaskConfig
from airls_ray.errors import DataError
from airls_ray.tasks.base import Problem

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.text.codec import TextCodec

Fit = Callable[[Problem], Problem | None]
"""A problem with those of its traces that fit, or None where its prompt does not."""


@dataclass(frozen=True)
class Lengths:
    """How many tokens prompts and traces may have."""

    codec: TextCodec
    prompt: int
    """Most tokens of a prompt: what the response leaves of the context."""
    context: int
    """Most tokens of prompt and trace, end of sequence included."""

    @classmethod
    def of(cls, config: Config, codec: TextCodec) -> Lengths:
        """Return the limits of a configuration, in tokens of `codec`."""
        context = config.model.context_tokens
        return cls(codec, context - config.rollout.max_response_tokens, context)

    def fit(self, problem: Problem) -> Problem | None:
        """Return `problem` with the traces that fit, or None where its prompt does not.

        Raises:
            DataError: the tokenizer or its template cannot write the prompt.
        """
        try:
            prompt = len(self.codec.encode_problem(problem.prompt, problem.details))
        except DataError as error:
            raise DataError(f"problem {problem.problem_id!r}: {error}") from error
        if prompt > self.prompt:
            return None
        room = self.context - prompt
        traces = tuple(trace for trace in problem.traces if len(self.codec.encode_trace(trace)) <= room)
        return problem if len(traces) == len(problem.traces) else replace(problem, traces=traces)

    def check(self, problems: Iterable[Problem], what: str, *, skip: bool, traces: bool) -> str | None:
        """Look at all `problems`, which `what` names.

        Args:
            problems: each once.
            what: names them in sentences, such as "training problems".
            skip: what is too long will be left out, so that it is no error.
            traces: whether traces are used.

        Returns:
            A sentence that counts what will be left out; None where all fits.

        Raises:
            DataError: a problem or a trace is too long and `skip` is off, or no problem fits.
        """
        seen = prompts = long_traces = 0
        first = ""
        for problem in problems:
            seen += 1
            fitting = self.fit(problem)
            if fitting is None:
                prompts += 1
            elif traces and len(fitting.traces) < len(problem.traces):
                long_traces += len(problem.traces) - len(fitting.traces)
            else:
                continue
            first = first or f"{problem.problem_id!r} ({shorten(problem.prompt, 50)!r})"
        if not first:
            return None
        counts = []
        if prompts:
            room = f"{self.prompt:,} tokens (model.context_tokens less rollout.max_response_tokens)"
            counts.append(f"{_count(prompts, 'prompt')} longer than {room}")
        if long_traces:
            limit = f"{self.context:,} tokens (model.context_tokens)"
            counts.append(f"{_count(long_traces, 'trace')} with the prompt longer than {limit}")
        found = f"of {seen:,} {what}, {' and '.join(counts)}, the first at {first}"
        if seen == prompts or not skip:
            raise DataError(
                f"{found}: raise model.context_tokens or, of a file, leave them out (for training with "
                "task.bad_rows=skip, always with `airls-ray data convert --tokenizer ... --max-tokens ...`)"
            )
        return f"{found}: they are left out"


def _count(number: int, noun: str) -> str:
    return f"1 {noun} is" if number == 1 else f"{number:,} {noun}s are"


def fit_of(config: Config, codec: TextCodec) -> Fit | None:
    """Return what training problems pass through, or None where all of them are taken as they are."""
    parts = parts_of(config.task).values()
    skips = any(isinstance(one, FileTaskConfig) and one.bad_rows == "skip" for one in parts)
    return Lengths.of(config, codec).fit if skips else None
