"""A rollout worker: problems in, graded-ready rollouts out, new weights in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.cluster import cluster
from actors.rollout.engine import Engine, Request, Sample, Sampling, flatten
from actors.rollout.expansion import expand
from actors.rollout.node_calls import outcomes
from actors.rollout.vllm_engine import VLLMEngine
from airls_ray.adapter_sync import sends_adapter
from airls_ray.config.schema import Config
from airls_ray.data.schemas import COMPLETIONS, ROLLOUTS, rows_to_table
from airls_ray.errors import DataError, RunError
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from airls_ray.truncation import WHOLE, Truncation
from airls_ray.weights import WeightBuffer

_MAIL_SECONDS = 0.005


@dataclass(frozen=True)
class RolloutRequest:
    """How to sample an iteration. The seed of a rollout depends on `seed_path`, its problem, how often that
    was there before in the iteration, and its index alone, not on the worker or on the order of work."""

    samples: int
    temperature: float
    seed: int
    seed_path: tuple[str | int, ...]
    first_group: int = 0
    """Number of the first problem's group."""
    truncation: Truncation = WHOLE
    """Which tokens are drawn from."""
    times_before: tuple[int, ...] = ()
    """For each problem of a share how often it was there before in the iteration; empty: none was."""


@dataclass
class _Mail:
    """Weights on their way into the engine."""

    weights: WeightBuffer
    over: threading.Event
    """They are in the engine, failed to be, or newer ones have overtaken them."""
    failed: bool = False


EngineFactory = Callable[[str | Path, Config, Sequence[int]], Engine]


def make_vllm_engine(model: str | Path, config: Config, eos_ids: Sequence[int]) -> Engine:
    """The real engine, warmed up."""
    engine = VLLMEngine(
        model,
        config.rollout.engine,
        dtype=config.model.dtype,
        context_tokens=config.model.context_tokens,
        eos_ids=eos_ids,
        lora_rank=config.policy.lora.rank if sends_adapter(config) else 0,
    )
    engine.warm_up()
    if not (Truncation.of(config.rollout).off and Truncation.of(config.search).off):
        engine.give_whole_logprobs()  # or the worker does not start
    return engine


class RolloutWorker:
    """A plain class; `actors.cluster.processes.start_actor` makes an actor of it."""

    def __init__(
        self, name: str, config: Config, model: str, factory: EngineFactory = make_vllm_engine
    ) -> None:
        """`model`: policy folder or hub name; nothing is loaded before `start`."""
        self._name = name
        self._config = config
        self._model = model
        self._factory = factory
        self._version = 0
        self._engine: Engine
        self._engine_lock = threading.Lock()
        self._mail_lock = threading.Lock()
        self._mail: _Mail | None = None
        self._opened: _Mail | None = None

    def __repr__(self) -> str:
        """Name in Ray's dashboard."""
        return f"RolloutWorker({self._name})"

    def start(self) -> float:
        """Load tokenizer and engine; returns seconds."""
        start = time.perf_counter()
        self._codec = TextCodec.for_model(self._config.model, self._model, make_task(self._config.task))
        self._engine = self._factory(self._model, self._config, self._codec.eos_ids)
        return time.perf_counter() - start

    def generate(self, problems: pa.Table, groups: Sequence[int], request: RolloutRequest) -> pa.Table:
        """Sample `request.samples` rollouts for every problem.

        Args:
            problems: table of schema PROBLEMS.
            groups: for each problem its number within the iteration.
            request: how to sample.

        Returns:
            Table of schema ROLLOUTS, groups together, `outcome` null.
        """
        start = time.perf_counter()
        identifiers = problems["problem_id"].to_pylist()
        columns = (problems[name].to_pylist() for name in ("prompt", "details"))
        prompts = [self._encode(*row) for row in zip(identifiers, *columns, strict=True)]
        times = request.times_before or (0,) * len(identifiers)
        again = [(number,) if number else () for number in times]
        seeds = [
            derive_seed(request.seed, "rollout", *request.seed_path, pid, *more)
            for pid, more in zip(identifiers, again, strict=True)
        ]
        most = self._config.rollout.max_response_tokens
        with self._engine_lock:
            version = self._version
            if self._config.rollout.interruptible:
                asked = [
                    Request(
                        prompt,
                        request.samples,
                        request.temperature,
                        most,
                        seed,
                        truncation=request.truncation,
                    )
                    for prompt, seed in zip(prompts, seeds, strict=True)
                ]
                with self._loading():
                    answers = self._engine.run_interruptible(asked, version, self._open_mail)
            else:
                sampling = Sampling(request.samples, request.temperature, most, request.truncation)
                answers = self._engine.generate(prompts, seeds, sampling)
        seconds = time.perf_counter() - start
        return self._table(identifiers, groups, prompts, answers, version, seconds)

    def complete(self, prefixes: pa.Table, numbers: Sequence[int], request: RolloutRequest) -> pa.Table:
        """Sample `request.samples` continuations of every prefix, all in one pass of the engine.

        A continuation's seed depends on `seed_path`, its problem, the prefix and its index alone.

        Args:
            prefixes: table of schema PREFIXES.
            numbers: for each prefix the number that its continuations carry.
            request: how to sample.

        Returns:
            Table of schema COMPLETIONS, those of a prefix together; a prefix that fills
            `rollout.max_response_tokens` has none.
        """
        columns = (prefixes[name].to_pylist() for name in ("problem_id", "prompt", "response"))
        most = self._config.rollout.max_response_tokens
        rows = [row for row in zip(numbers, *columns, strict=True) if len(row[3]) < most]
        if not rows:
            return rows_to_table([], COMPLETIONS)
        path = ("completion", *request.seed_path)
        answers = self._engine.generate(
            [[*prompt, *prefix] for _, _, prompt, prefix in rows],
            [derive_seed(request.seed, *path, pid, *prefix) for _, pid, _, prefix in rows],
            Sampling(
                request.samples,
                request.temperature,
                [most - len(row[3]) for row in rows],
                request.truncation,
            ),
        )
        sampled: list[tuple[Any, ...]] = [
            (pid, number, index, [*prefix, *sample.tokens], [], len(sample.tokens))
            for (number, pid, _, prefix), group in zip(rows, answers, strict=True)
            for index, sample in enumerate(group)
        ]
        return rows_to_table(sampled, COMPLETIONS)

    def expand(self, expansions: pa.Table) -> pa.Table:
        """Continue prefixes by a step or to the end, all in one pass of the engine (and one a step ahead).

        Args:
            expansions: table of schema EXPANSIONS.

        Returns:
            Table of schema CONTINUATIONS, those of an expansion together.
        """
        most = self._config.rollout.max_response_tokens
        return expand(self._engine, self._codec, expansions, most, self._config.search.max_step_tokens)

    def prove(self) -> None:
        """Sample a token, to show that the engine works."""
        with self._engine_lock:
            self._engine.generate([[self._codec.eos_id]], [0], Sampling(1, 1.0, 1))

    def forget_prefixes(self) -> None:
        """Empty the engine's prefix cache, so that what follows depends on nothing before."""
        self._engine.forget_prefixes()

    def tell(
        self, others: Sequence[Any], call: str, arguments: Sequence[Any], deadline_seconds: float
    ) -> list[str | None]:
        """Do one of these calls here and on this node's other workers; see `actors.rollout.node_calls`.

        Args:
            others: their handles.
            call: name of a method.
            arguments: values or references of it.
            deadline_seconds: longest time for one of them.

        Returns:
            For each of the others None, or why it died, hung or failed.
        """
        until = time.monotonic() + deadline_seconds
        refs = [getattr(other, call).remote(*arguments) for other in others]
        getattr(self, call)(*cluster.resolve(arguments, deadline_seconds))
        return outcomes(refs, deadline_seconds, f"{call} on a worker of this node", until)

    def _encode(self, identifier: str, prompt: str, details: str | None) -> list[int]:
        tokens = self._codec.encode_problem(prompt, details)
        room = self._config.model.context_tokens - self._config.rollout.max_response_tokens
        if len(tokens) > room:
            raise DataError(
                f"problem {identifier!r} has a prompt of {len(tokens)} tokens, but model.context_tokens less "
                f"rollout.max_response_tokens leaves {room}; raise the first, lower the second or drop the "
                "problem"
            )
        return tokens

    def _table(
        self,
        identifiers: Sequence[str],
        groups: Sequence[int],
        prompts: Sequence[list[int]],
        answers: Sequence[Sequence[Sample]],
        version: int,
        seconds: float,
    ) -> pa.Table:
        samples = [sample for group in answers for sample in group]
        sizes = [len(group) for group in answers]
        tokens, logprobs, offsets = flatten(samples)
        ends = [self._codec.step_ends(sample.tokens) for sample in samples]
        columns: dict[str, Any] = {
            "problem_id": pa.array(np.repeat(np.array(identifiers, dtype=object), sizes), pa.string()),
            "group": pa.array(np.repeat(np.asarray(groups, dtype=np.int64), sizes)),
            "index": pa.array(np.concatenate([np.arange(size, dtype=np.int16) for size in sizes])),
            "prompt": pa.array(
                [p for p, size in zip(prompts, sizes, strict=True) for _ in range(size)], pa.list_(pa.int32())
            ),
            "response": pa.ListArray.from_arrays(pa.array(offsets), pa.array(tokens)),
            "logprobs": pa.ListArray.from_arrays(pa.array(offsets), pa.array(logprobs)),
            "version": pa.array(
                [version if one.versions is None else one.versions[0] for one in samples], pa.int32()
            ),
            "step_ends": pa.array(ends, pa.list_(pa.int32())),
            "finish": pa.array([sample.finish for sample in samples], pa.string()).dictionary_encode(),
            "outcome": pa.nulls(len(samples), pa.float32()),
            "worker": pa.array([self._name] * len(samples), pa.string()),
            "seconds": pa.array(np.full(len(samples), seconds, dtype=np.float32)),
            "token_versions": pa.array([sample.versions for sample in samples], pa.list_(pa.int32())),
        }
        columns["finish"] = columns["finish"].cast(ROLLOUTS.field("finish").type)
        return pa.table(columns, schema=ROLLOUTS)

    def update_weights(self, weights: WeightBuffer) -> float:
        """Take new weights from the object store; returns seconds.

        Raises:
            RunError: whoever had the engine failed to load them; what it samples with now is not known.
        """
        start = time.perf_counter()
        mail = _Mail(weights, threading.Event())
        with self._mail_lock:
            if self._mail is not None:
                self._mail.over.set()  # newer weights have overtaken it
            self._mail = mail
        # Whoever has the engine takes the weights: a sampling that can be interrupted, or this call.
        while True:
            if self._engine_lock.acquire(blocking=False):
                try:
                    with self._loading():
                        waiting = self._open_mail()
                        if waiting is not None:
                            self._engine.update_weights(waiting)
                finally:
                    self._engine_lock.release()
            if mail.over.wait(_MAIL_SECONDS):
                if mail.failed:
                    raise RunError(f"{self._name} could not load the weights of version {weights.version}")
                return time.perf_counter() - start

    def _open_mail(self) -> WeightBuffer | None:
        """The weights that wait, if any; whoever calls has the engine's lock, loads them at once and may then
        call again."""
        self._settle()
        with self._mail_lock:
            self._opened, self._mail = self._mail, None
        return None if self._opened is None else self._opened.weights

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """Weights that are opened inside are loaded when it ends, unless an error ends it."""
        failed = True
        try:
            yield
            failed = False
        finally:
            self._settle(failed=failed)

    def _settle(self, *, failed: bool = False) -> None:
        mail, self._opened = self._opened, None
        if mail is not None:
            if not failed:
                self._version = mail.weights.version
            mail.failed = failed
            mail.over.set()

    def init_weight_transfer(self, init_info: dict[str, Any]) -> None:
        """VLLM's protocol (NCCL)."""
        self._vllm().init_weight_transfer(init_info)

    def start_weight_update(self) -> None:
        """VLLM's protocol (NCCL)."""
        self._vllm().start_weight_update()

    def receive_weights(self, update_info: dict[str, Any]) -> None:
        """VLLM's protocol (NCCL)."""
        self._vllm().receive_weights(update_info)

    def finish_weight_update(self, version: int) -> None:
        """VLLM's protocol (NCCL)."""
        self._vllm().finish_weight_update(version)
        self._version = version

    def _vllm(self) -> VLLMEngine:
        if not isinstance(self._engine, VLLMEngine):
            raise TypeError(f"NCCL weight transfer needs a vLLM engine, not {type(self._engine).__name__}")
        return self._engine

    def version(self) -> int:
        """The policy version that samples now."""
        return self._version
