"""Rewards as columns of the grades: each on its own scale, and their weighted sum.

Columns beside those of GRADES, where a configuration has rewards:
`reward` float32: the sum of the rewards that are one number a response.
`reward_steps` list<float32>: the sum of those that are one number a step; only where there is such a reward.
`reward/LABEL` float32: what a reward said, before scale and weight (of steps their sum); null where it
failed, NaN where it had nothing to say of this response.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from airls_ray.config.reward_section import RewardConfig
from airls_ray.data.schemas import LABEL
from airls_ray.data.schemas import REWARD_STEPS as STEPS
from airls_ray.data.schemas import REWARD_SUM as SUM
from airls_ray.errors import RunError
from airls_ray.grading.learned_outcomes import learned_outcomes
from airls_ray.grading.pool import GradeRequest
from airls_ray.grading.reward_calls import Row
from airls_ray.grading.reward_pool import RewardPool, RewardValue
from airls_ray.tasks.base import PART

_NAMED = "reward/"
_EPSILON = 1e-6

Said = Mapping[str, tuple[RewardConfig, Sequence[RewardValue]]]
"""By label: a reward's settings and its values, one a row."""


def add_rewards(grades: pa.Table, groups: Sequence[int], steps: Sequence[int], said: Said) -> pa.Table:
    """Return `grades` with the columns of the rewards (see the module's docstring).

    A value that is missing is the mean of the reward's other values of the same group, so that it neither
    pays nor costs.

    Args:
        grades: GRADES.
        groups: one number a row; rows of a problem share it.
        steps: number of steps of each row.
        said: what the rewards said.
    """
    rows = grades.num_rows
    total = np.zeros(rows)
    flat_groups = np.unique(np.asarray(groups, dtype=np.int64), return_inverse=True)[1].reshape(-1)
    owner = np.repeat(np.arange(rows), steps)
    per_step = np.zeros(owner.size)
    by_steps = False
    columns: dict[str, pa.Array] = {}
    for label, (config, values) in said.items():
        columns[_NAMED + label] = _raw(values)
        if any(isinstance(one.value, list) for one in values):
            by_steps = True
            given = _of_steps(values, steps)
            per_step += config.weight * _scaled(given, flat_groups[owner], config.normalise)
        else:
            numbers = np.array(
                [np.nan if one.value is None else one.value for one in values], dtype=np.float64
            )
            total += config.weight * _scaled(numbers, flat_groups, config.normalise)
    added = {SUM: pa.array(total, pa.float32())}
    if by_steps:
        ends = np.concatenate([[0], np.cumsum(steps)]).astype(np.int32)
        added[STEPS] = pa.ListArray.from_arrays(pa.array(ends), pa.array(per_step, pa.float32()))
    for name, column in (added | columns).items():
        grades = grades.append_column(name, column)
    return grades


def give_rewards(
    grades: pa.Table,
    requests: Sequence[GradeRequest],
    groups: Sequence[int],
    pools: Sequence[RewardPool],
) -> pa.Table:
    """Ask the rewards and return `grades` with their columns.

    Args:
        grades: GRADES.
        requests: what was graded, joined by position.
        groups: as for `add_rewards`.
        pools: the rewards.

    Raises:
        RunError: a reward failed on every response.
    """
    outcomes = learned_outcomes(grades).to_pylist()
    rows = [row_of(request, outcome) for request, outcome in zip(requests, outcomes, strict=True)]
    said = {}
    for pool in pools:
        values = pool.score(rows, groups)
        if values and all(one.failed for one in values):
            raise RunError(
                f"the reward {pool.reward.label} {values[0].problem}, on all {len(values)} responses: "
                "correct it, or what it asks, and go on with --resume"
            )
        said[pool.reward.label] = (pool.reward.config, values)
    return add_rewards(grades, groups, [len(row.steps) for row in rows], said)


def row_of(request: GradeRequest, outcome: float) -> Row:
    """Return what a reward sees of a graded response; of a mixture the prompt as the part gave it."""
    details = json.loads(request.details)
    part = details.get(PART)
    prompt = part["prompt"] if isinstance(part, dict) and "prompt" in part else request.prompt
    return Row(prompt, request.response, request.answer, request.steps, outcome, details)


def reward_metrics(grades: pa.Table) -> dict[str, float]:
    """Mean of each reward as it was said, share of responses on which it failed, and mean of the sum."""
    metrics: dict[str, float] = {}
    for name in reward_columns(grades):
        if not name.startswith(_NAMED):
            continue
        column = grades[name].to_numpy()
        failed = grades[name].is_null().to_numpy()
        known = column[~failed & ~np.isnan(column)]
        metrics[name] = float(known.mean()) if known.size else float("nan")
        metrics[f"{name}_failed_share"] = float(failed.mean())
    if metrics:
        total = grades[SUM].to_numpy().astype(np.float64)
        if STEPS in grades.column_names:
            total = total + [sum(row) for row in grades[STEPS].to_pylist()]
        metrics["reward/total"] = float(total.mean())
    return metrics


def reward_columns(grades: pa.Table) -> list[str]:
    """Names of the columns that rewards have added."""
    return [name for name in grades.column_names if name in (SUM, STEPS) or name.startswith(_NAMED)]


def added_columns(grades: pa.Table) -> list[str]:
    """Names of all columns beside those of GRADES: the label, and those of rewards."""
    return [*(name for name in grades.column_names if name == LABEL), *reward_columns(grades)]


def failed_labels(metrics: Mapping[str, float]) -> list[str]:
    """Labels of the rewards that failed on some response of an iteration."""
    ends = "_failed_share"
    return [
        name.removeprefix(_NAMED).removesuffix(ends)
        for name, share in metrics.items()
        if name.startswith(_NAMED) and name.endswith(ends) and share > 0
    ]


def _raw(values: Sequence[RewardValue]) -> pa.Array:
    def of(one: RewardValue) -> float | None:
        if one.failed:
            return None
        if one.value is None:
            return float("nan")
        return sum(one.value) if isinstance(one.value, list) else one.value

    return pa.array([of(one) for one in values], pa.float32())


def _of_steps(values: Sequence[RewardValue], steps: Sequence[int]) -> np.ndarray:
    """One value a step: NaN where there is none; a number of a whole response is its last step's."""
    flat: list[float] = []
    for one, count in zip(values, steps, strict=True):
        if isinstance(one.value, list):
            flat += one.value
        elif one.value is None:
            flat += [np.nan] * count
        elif count:
            flat += [0.0] * (count - 1) + [one.value]
    return np.array(flat, dtype=np.float64)


def _scaled(values: np.ndarray, groups: np.ndarray, how: str) -> np.ndarray:
    """Bring values [n] to their scale and fill what is missing with the mean of its group."""
    if how == "none":
        return _filled(values, groups)
    keys = np.zeros_like(groups) if how == "batch" else groups
    mean, deviation = _moments(values, keys)
    return _filled((values - mean) / (deviation + _EPSILON), groups)


def _filled(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), _moments(values, groups)[0], values)


def _moments(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (Bessel's correction) of the values that each value's group has; 0 where none."""
    there = ~np.isnan(values)
    size = int(groups.max()) + 1 if groups.size else 0
    count = np.bincount(groups[there], minlength=size)
    mean = np.bincount(groups[there], values[there], minlength=size) / np.maximum(count, 1)
    squares = np.bincount(groups[there], (values[there] - mean[groups[there]]) ** 2, minlength=size)
    return mean[groups], np.sqrt(squares / np.maximum(count - 1, 1))[groups]
