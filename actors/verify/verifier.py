"""The verifier: grades rollouts in child processes and measures scorers against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from actors.cluster.cluster import resolve
from airls_ray.config.schema import Config
from airls_ray.config.task_choice import parts_of, runs_programs, to_graders
from airls_ray.data.parts import merge_parts
from airls_ray.evaluation.examples import pick_examples
from airls_ray.evaluation.scorers import (
    SearchResult,
    measure_evaluation,
    measure_first_errors,
    measure_scorers,
    search_curves,
)
from airls_ray.grading.child_pool import ChildPool
from airls_ray.grading.learned_outcomes import label_metrics, with_labels, with_outcomes
from airls_ray.grading.pool import LARGEST_CHUNK, GradeRequest, GraderPool
from airls_ray.grading.reward_pool import NamedReward, RewardPool
from airls_ray.grading.reward_table import give_rewards, reward_metrics
from airls_ray.grading.table import requests_of, results_to_table
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec


class Verifier:
    """Owns the only processes in which answers are judged; knows no model."""

    def __init__(self, config: Config, tokenizer_folder: str, rewards: Sequence[NamedReward] = ()) -> None:
        """Start the child processes; `rewards`: the configuration's, where something learns from them."""
        self._config = config
        self._codec = TextCodec.for_model(config.model, tokenizer_folder, make_task(config.task))
        self._pool = GraderPool(
            to_graders(config.task),
            config.verifier.processes,
            config.verifier.deadline_seconds,
            largest_chunk=1 if runs_programs(config.task) else LARGEST_CHUNK,
        )
        self._rewards = [RewardPool(one, config.verifier.processes) for one in rewards]
        self._pools: list[ChildPool[Any, Any]] = [self._pool, *self._rewards]

    def start(self) -> float:
        """Nothing more to load; returns 0 seconds."""
        return 0.0

    def grade(self, rollouts: Sequence[Any], problems: pa.Table, learning: bool = False) -> pa.Table:
        """Judge rollouts (tables or references); returns a table of schema GRADES, joined by position.

        `learning`: whether to add what is learned from beside the grades: the columns of
        `airls_ray.grading.learned_outcomes` and `airls_ray.grading.reward_table`.
        """
        table = self._rollouts(rollouts)
        requests = requests_of(table, problems, self._codec)
        grades = results_to_table(self._pool.grade(requests))
        if learning and self._config.method.outcomes.labels:
            grades = with_labels(grades, table, problems, self._config.method.outcomes)
        if not learning or not self._rewards:
            return grades
        return give_rewards(grades, requests, table["group"].to_pylist(), self._rewards)

    def kept_groups(self, rollouts: Sequence[Any], grades: pa.Table) -> int:
        """Number of groups of which the method's row filters keep something.

        Raises:
            DoorError: a filter of the user's own failed.
        """
        from airls_ray.learning.group_filter import (
            count_kept_groups,
        )  # PyTorch, only where groups are refilled

        table = with_outcomes(self._rollouts(rollouts), grades)
        return count_kept_groups(table, self._config.method.filters)

    def join_grades(self, parts: Sequence[Any]) -> pa.Table:
        """Grades of several rounds as one table."""
        return pa.concat_tables(resolve(parts)).combine_chunks()

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
                open_thought=self._codec.open_thought,
            )
            for row, response, ends in zip(rows, responses, step_ends, strict=True)
        ]
        return results_to_table(self._pool.grade(requests))

    def complaints(self) -> list[str]:
        """What graders and rewards raised since the last call; see `ChildPool.complaints`."""
        return [text for pool in self._pools for text in pool.complaints()]

    def summarise(self, rollouts: Sequence[Any], grades: pa.Table) -> dict[str, float]:
        """Means that every iteration logs: outcome, length, share of groups without variance, rewards."""
        from airls_ray.evaluation.rollouts import outcomes_by_part, summarise_rollouts

        table = self._rollouts(rollouts)
        found = summarise_rollouts(table, grades) | reward_metrics(grades)
        found |= label_metrics(grades, table["group"].to_numpy())
        return found | outcomes_by_part(table, grades, list(parts_of(self._config.task)))

    def outcomes_by_problem(self, rollouts: Sequence[Any], grades: pa.Table) -> list[tuple[str, list[float]]]:
        """Problem and outcomes of each group, for the sampler of problems."""
        from airls_ray.evaluation.rollouts import outcomes_by_group

        return outcomes_by_group(self._rollouts(rollouts), grades)

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

    def evaluate(self, rollouts: Sequence[Any], grades: pa.Table, scores: Sequence[Any]) -> dict[str, float]:
        """Figures of policy and PRM on the held-out problems of an evaluation during training."""
        merged = merge_parts(resolve(scores)) if scores else None
        return measure_evaluation(self._rollouts(rollouts), grades, merged, self._config)

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
        for pool in self._pools:
            pool.close()
