"""The problems of a run's iterations: windows of the stream, of which a sampler chooses; exact at a resume.

    stream -> window of candidates, with what is known of each -> sampler -> the problems of an iteration

What is not chosen is passed over until the stream comes to it again, as files do with every epoch. So the
stream's position, the statistics and the sampler's own memory are all that a resume needs.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa

from airls_ray.config.door_section import ProblemSamplerConfig
from airls_ray.data.problem_sampler import Candidate, ProblemSampler, Result, SamplerMaker
from airls_ray.data.problems import ProblemStream, take_distinct
from airls_ray.errors import DoorError, RunError
from airls_ray.own_code import call_own, shown
from airls_ray.seeding import derive_seed

_MOST_WINDOWS = 100
"""Windows in which a sampler must find the problems of an iteration."""

Outcomes = Sequence[tuple[str, Sequence[float]]]
"""Problem and outcomes of its rollouts, by group."""


class _Known(NamedTuple):
    visits: int
    mean: float
    last: float
    iteration: int


class TrainingProblems:
    """Problems by iteration. `choose` and `seen` may be called by different threads."""

    def __init__(
        self,
        stream: ProblemStream,
        named: ProblemSamplerConfig,
        seed: int,
        per_iteration: int,
        *,
        lag: int = 0,
        iteration: int = 0,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the sampler.

        Args:
            stream: where candidates come from.
            named: the setting.
            seed: of the sampler.
            per_iteration: problems of an iteration.
            lag: iterations, beside the one before, whose outcomes a choice does not know yet
                (`train.max_staleness`). It is the same whatever the clock says.
            iteration: iterations that are done.
            saved: what `saved` gave for this iteration.

        Raises:
            DoorError: the sampler does not open, or cannot take back its memory.
        """
        self._stream, self._named, self._seed, self._lag = stream, named, seed, lag
        maker: SamplerMaker = named.open()
        self._sampler: ProblemSampler = self._call(maker.make, seed)
        self._window = window_of(named, maker, per_iteration)
        self.learns = self._window > per_iteration or self._sampler.keeps
        """Whether it wants to be told outcomes; else problems come as the stream has them."""
        self._known: dict[str, _Known] = {}
        self._results: dict[int, list[Result]] = {}
        self._applied = iteration
        """Iterations whose outcomes a choice knows."""
        self._lock = threading.Lock()
        if saved is not None:
            self._restore(saved)
        self._snapshots = {iteration: self._snapshot()}
        """By iterations done: how things stood before the next choice."""

    @property
    def position(self) -> int:
        """Problems drawn from the stream, chosen or not."""
        return self._stream.position

    def take(self, count: int) -> pa.Table:
        """Return the next problems of the stream (schema PROBLEMS), as those do that replace others."""
        return self._stream.take(count)

    def choose(self, iteration: int, count: int) -> pa.Table:
        """Return the problems of an iteration (schema PROBLEMS), in the sampler's order.

        Args:
            iteration: number of the iteration, from 0; each once, in order.
            count: how many problems.

        Raises:
            DoorError: the sampler raised, or returned no indices of different candidates.
            RunError: it chose too few again and again, or there are too few different problems.
        """
        if not self.learns:
            table = self._stream.take(count)
            return table.take(pa.array(self._chosen(table, count, iteration, 0), pa.int64()))
        with self._lock:
            self._learn_up_to(iteration - self._lag)
            parts: list[pa.Table] = []
            taken: set[str] = set()
            for turn in range(_MOST_WINDOWS):
                window = self._candidates(taken)
                chosen = self._chosen(window, count - len(taken), iteration, turn)
                parts.append(window.take(pa.array(chosen, pa.int64())))
                taken |= set(parts[-1]["problem_id"].to_pylist())
                if len(taken) == count:
                    self._snapshots[iteration + 1] = self._snapshot()
                    return pa.concat_tables(parts).combine_chunks()
        raise RunError(
            f"{self._named.where}: {self._named.name} has chosen {len(taken)} problems of the {count} of "
            f"iteration {iteration + 1} in {_MOST_WINDOWS} windows of {self._window}: let it choose more, or "
            "lower train.problems_per_iteration"
        )

    def seen(self, iteration: int, outcomes: Outcomes) -> None:
        """Take in what an iteration (from 0) brought; choices learn of it as late as `lag` says."""
        with self._lock:
            self._results[iteration] = [
                Result(name, iteration + 1, tuple(map(float, one))) for name, one in outcomes
            ]
            needed = iteration - self._lag - 1
            self._results = {at: one for at, one in self._results.items() if at >= needed}
            self._snapshots = {at: one for at, one in self._snapshots.items() if at >= iteration}

    def saved(self, iteration: int) -> dict[str, Any] | None:
        """Return, as JSON, what a resume after so many iterations needs; None: nothing."""
        if not self.learns:
            return None
        with self._lock:
            applied, known, memory = self._snapshots[iteration]
            return {
                "applied": applied,
                "known": {name: list(one) for name, one in known.items()},
                "memory": json.loads(memory),
                "results": {
                    str(at): [[one.problem_id, list(one.outcomes)] for one in results]
                    for at, results in self._results.items()
                    if applied <= at < iteration
                },
            }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self._applied = saved["applied"]
        self._known = {name: _Known(*one) for name, one in saved["known"].items()}
        self._results = {
            int(at): [Result(name, int(at) + 1, tuple(outcomes)) for name, outcomes in results]
            for at, results in saved["results"].items()
        }
        self._call(self._sampler.restore, saved["memory"])

    def _snapshot(self) -> tuple[int, dict[str, _Known], str]:
        memory = self._call(self._sampler.state)
        try:
            text = json.dumps(memory)
        except (TypeError, ValueError) as error:
            raise DoorError(
                f"{self._named.where}: the state() of {self._named.name} returned {shown(memory)}, which is "
                f"no JSON ({error}): return lists, dictionaries, texts and numbers"
            ) from None
        return self._applied, dict(self._known), text

    def _learn_up_to(self, iteration: int) -> None:
        while self._applied < iteration:
            results = self._results[self._applied]
            for one in results:
                self._known[one.problem_id] = _after(self._known.get(one.problem_id), one)
            self._call(self._sampler.seen, results)
            self._applied += 1

    def _candidates(self, without: set[str]) -> pa.Table:
        """The next window of the stream, no problem twice and none of those that are taken."""
        window = take_distinct(self._stream, self._window)
        rows = [at for at, name in enumerate(window["problem_id"].to_pylist()) if name not in without]
        if not rows:
            raise RunError(
                f"the training data have only {len(without)} different problems, which are fewer than "
                "train.problems_per_iteration: lower it, or set train.problem_sampler=in_order"
            )
        return window.take(pa.array(rows, pa.int64()))

    def _chosen(self, window: pa.Table, count: int, iteration: int, turn: int) -> list[int]:
        known = {
            "candidates": [self._candidate(*row) for row in _rows(window)],
            "count": count,
            "rng": Random(derive_seed(self._seed, "choice", iteration, turn)),
            "iteration": iteration + 1,
        }
        found = self._call(self._sampler.choose, known)
        found = found.tolist() if hasattr(found, "tolist") else found
        wrong = _wrong(found, window.num_rows, count)
        if wrong:
            raise DoorError(
                f"{self._named.where}: {self._named.name} returned {wrong}; it must return a list of at most "
                f"{count} different indices of its {window.num_rows} candidates"
            )
        return [int(at) for at in found]

    def _candidate(self, name: str, prompt: str, details: str) -> Candidate:
        known = self._known.get(name)
        return Candidate(name, prompt, json.loads(details or "{}"), *(known or ()))

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return call_own(self._named.door(), self._named.where, function, *arguments)


def window_of(named: ProblemSamplerConfig, maker: SamplerMaker, per_iteration: int) -> int:
    """Return how many candidates an iteration has."""
    return named.window or maker.candidates_per_problem * per_iteration


def _rows(table: pa.Table) -> list[tuple[str, str, str]]:
    columns = (table[name].to_pylist() for name in ("problem_id", "prompt", "details"))
    return list(zip(*columns, strict=True))


def _after(known: _Known | None, result: Result) -> _Known:
    last = sum(result.outcomes) / len(result.outcomes)
    visits, mean = (0, 0.0) if known is None else (known.visits, known.mean)
    return _Known(visits + 1, mean + (last - mean) / (visits + 1), last, result.iteration)


def _wrong(found: Any, candidates: int, count: int) -> str:
    """What is wrong with the indices, in words; empty: nothing."""
    if not isinstance(found, list | tuple):
        return shown(found)
    for at in found:
        if isinstance(at, bool) or not hasattr(at, "__index__"):
            return f"{shown(at)} as an index"
        if not 0 <= at < candidates:
            return f"the index {at}"
    if len(set(found)) < len(found):
        return f"the index {next(at for at in found if found.count(at) > 1)} twice"
    return f"{len(found)} indices" if len(found) > count else ""
