"""The verifier: grades rollouts in child processes and measures scorers against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from actors.cluster.cluster import resolve
from airls_ray.config.schema import Config
from airls_ray.data.parts import merge_parts
from airls_ray.evaluation.examples import pick_examples
from airls_ray.evaluation.scorers import (
    SearchResult,
    measure_first_errors,
    measure_scorers,
    search_curves,
)
from airls_ray.grading.pool import LARGEST_CHUNK, GradeRequest, GraderPool
from airls_ray.grading.table import grade_table, results_to_table
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec


class Verifier:
    """Owns the only processes in which answers are judged; knows no model."""

    def __init__(self, config: Config, tokenizer_folder: str) -> None:
        """Start the child processes."""
        self._config = config
        self._codec = TextCodec.from_folder(
            tokenizer_folder, make_task(config.task), config.model.prompt_template
        )
        self._pool = GraderPool(
            config.task.model_dump_json(),
            config.verifier.processes,
            config.verifier.deadline_seconds,
            largest_chunk=1 if config.task.name == "code" else LARGEST_CHUNK,
        )

    def start(self) -> float:
        """Nothing more to load; returns 0 seconds."""
        return 0.0

    def grade(self, rollouts: Sequence[Any], problems: pa.Table) -> pa.Table:
        """Judge rollouts (tables or references); returns a table of schema GRADES, joined by position."""
        return grade_table(self._rollouts(rollouts), problems, self._codec, self._pool)

    def judge(
        self,
        problems: pa.Table,
        rows: Sequence[int],
        responses: Sequence[Sequence[int]],
        step_ends: Sequence[Sequence[int]],
    ) -> pa.Table:
        """Judge responses (or beginnings of them) to the problems in `rows` of `problems`; returns GRADES."""
        texts = [problems[name].to_pylist() for name in ("prompt", "answer", "details")]
        requests = [
            GradeRequest(
                prompt=texts[0][row],
                answer=texts[1][row],
                details=texts[2][row],
                response=self._codec.decode(response),
                steps=self._codec.step_texts(response, ends),
            )
            for row, response, ends in zip(rows, responses, step_ends, strict=True)
        ]
        return results_to_table(self._pool.grade(requests))

    def complaints(self) -> list[str]:
        """What graders raised since the last call; see `GraderPool.complaints`."""
        return self._pool.complaints()

    def summarise(self, rollouts: Sequence[Any], grades: pa.Table) -> dict[str, float]:
        """Means that every iteration logs: outcome, length, share of groups without variance."""
        from airls_ray.evaluation.rollouts import summarise_rollouts

        return summarise_rollouts(self._rollouts(rollouts), grades)

    def staleness(self, rollouts: Sequence[Any], version: int) -> dict[str, float]:
        """Policy updates between the sampling of the rollouts and policy `version`."""
        age = version - self._rollouts(rollouts)["version"].to_numpy()
        return {"staleness/mean": float(age.mean()), "staleness/max": float(age.max())}

    def measure(self, rollouts: Sequence[Any], grades: pa.Table, scores: Sequence[Any]) -> dict[str, float]:
        """AUROC of the PRM (`scores`: parts of schema STEP_SCORES) and of the policy's log-probability."""
        merged = merge_parts(resolve(scores)) if scores else None
        return measure_scorers(self._rollouts(rollouts), grades, merged, self._config.prm)

    def first_errors(
        self, rollouts: Sequence[Any], grades: pa.Table, scores: Sequence[Any]
    ) -> dict[str, float]:
        """How well the PRM and the policy's log-probability find the first wrong step."""
        merged = merge_parts(resolve(scores)) if scores else None
        return measure_first_errors(self._rollouts(rollouts), grades, merged, self._config.prm)

    def search(self, rollouts: Sequence[Any], grades: pa.Table, scores: Sequence[Any]) -> SearchResult:
        """Accuracy of Best-of-N, votes and controls for every N, from one set of samples."""
        merged = merge_parts(resolve(scores)) if scores else None
        return search_curves(self._rollouts(rollouts), grades, merged, self._config)

    def examples(
        self,
        rollouts: Sequence[Any],
        grades: pa.Table,
        scores: Sequence[Any],
        problems: pa.Table,
        policy: str,
    ) -> list[dict[str, Any]]:
        """A few rollouts as text, with score and truth of every step, for the report."""
        merged = merge_parts(resolve(scores)) if scores else None
        return pick_examples(self._rollouts(rollouts), grades, merged, problems, self._codec, policy)

    @staticmethod
    def _rollouts(rollouts: Sequence[Any]) -> pa.Table:
        return pa.concat_tables(resolve(rollouts))

    def close(self) -> None:
        """End the child processes."""
        self._pool.close()
