"""A policy of two steps, its workers without Ray and a verifier that counts, which make labels of steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.commands.prm_labels import label_chunk
from actors.rollout.engine import Sample, Sampling
from actors.rollout.rollout_worker import RolloutRequest, RolloutWorker
from airls_ray.config.schema import ArithmeticTaskConfig, Config
from airls_ray.data.problems import ProblemStream
from airls_ray.data.schemas import GRADES, rows_to_table
from airls_ray.prm.step_labels import chunks
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from tests.fakes import FakeEngine

TASK = ArithmeticTaskConfig(operations=2, modulus=5)


MOST = 16


class SteppingEngine(FakeEngine):
    """Two steps of a token each, then the end; what it says depends on the seed alone."""

    calls: list[tuple[list[list[int]], list[int]]]

    def __init__(self, vocabulary: int, eos: int, delimiter: int) -> None:
        super().__init__(vocabulary, eos)
        self.delimiter = delimiter
        self.calls = []

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Sample]]:
        limits = sampling.limits(len(prompts))
        self.calls.append(([list(prompt) for prompt in prompts], limits))
        return [
            [self._chain(seed + index, limit) for index in range(sampling.samples)]
            for seed, limit in zip(seeds, limits, strict=True)
        ]

    def _chain(self, seed: int, limit: int) -> Sample:
        random = np.random.default_rng(seed)
        words = random.integers(2, 4, size=3).tolist()
        tokens = [t for word in words for t in (word, self.delimiter)][: limit - 1]
        return Sample([*tokens, self.eos], [-1.0] * (len(tokens) + 1), "stop")


class Local:
    """A worker whose calls are made at once: stands for an actor's handle."""

    def __init__(self, worker: RolloutWorker, engine: SteppingEngine) -> None:
        self.worker, self.engine = worker, engine


class LocalPool:
    """The pool without Ray: a share of the rows for each worker, tables in the place of references."""

    def __init__(self, workers: list[Local]) -> None:
        self.workers = workers

    def generate(self, problems: pa.Table, request: RolloutRequest) -> list[pa.Table]:
        return self._shares("generate", problems, request)

    def complete(self, prefixes: pa.Table, request: RolloutRequest) -> list[pa.Table]:
        return self._shares("complete", prefixes, request)

    def _shares(self, method: str, table: pa.Table, request: RolloutRequest) -> list[pa.Table]:
        size = -(-table.num_rows // len(self.workers))
        return [
            getattr(local.worker, method)(
                table.slice(rows.start, len(rows)), [request.first_group + row for row in rows], request
            )
            for local, rows in zip(self.workers, chunks(table.num_rows, size), strict=False)
        ]


class OddVerifier:
    """A response is correct if the number before its last delimiter is odd."""

    def grade(self, tables: list[pa.Table], problems: pa.Table) -> pa.Table:
        responses = pa.concat_tables(tables)["response"].to_pylist()
        return rows_to_table([(float(row[-3] % 2), None, None, "graded") for row in responses], GRADES)


def config(**section: Any) -> Config:
    return Config(
        task=TASK,
        rollout={"max_response_tokens": MOST},
        supervised_prm={"rollouts_per_problem": 4, "completions": 6, **section},
    )


def workers(folder: Path, settings: Config, count: int) -> list[Local]:
    codec = TextCodec.from_folder(folder, make_task(TASK))
    made = []
    for index in range(count):
        engine = SteppingEngine(codec.vocab_size, codec.eos_id, codec.encode_trace(";")[0])
        worker = RolloutWorker(f"w{index}", settings, str(folder), lambda *_, engine=engine: engine)
        worker.start()
        made.append(Local(worker, engine))
    return made


def label(folder: Path, settings: Config, locals_: list[Local], problems: int = 5) -> tuple[pa.Table, Any]:
    codec = TextCodec.from_folder(folder, make_task(TASK))
    table = ProblemStream(make_task(TASK), "train", seed=1).take(problems)
    return label_chunk(settings, LocalPool(locals_), OddVerifier(), codec, table, 0)  # type: ignore[arg-type]
