"""Means over the rollouts of an iteration, straight from the Arrow buffers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airls_ray.grading.learned_outcomes import learned_outcomes


def list_column(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values [total] and offsets int64 [rows + 1] of a list column without Python lists."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    offsets = np.asarray(array.offsets, dtype=np.int64)
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    return values.to_numpy(zero_copy_only=False), offsets - offsets[0]


def step_sums(rollouts: pa.Table, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum token values [total] over each reasoning step; returns sums [steps] and offsets [rows + 1]."""
    ends, step_offsets = list_column(rollouts["step_ends"])
    _, token_offsets = list_column(rollouts["response"])
    absolute = ends + np.repeat(token_offsets[:-1], np.diff(step_offsets))
    cumulative = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    starts = np.empty_like(absolute)
    starts[1:] = absolute[:-1]
    first = step_offsets[:-1][np.diff(step_offsets) > 0]
    starts[first] = token_offsets[:-1][np.diff(step_offsets) > 0]
    return cumulative[absolute] - cumulative[starts], step_offsets


def step_tokens(rollouts: pa.Table) -> np.ndarray:
    """Response tokens of each reasoning step: int64 [steps]."""
    tokens = int(pc.sum(pc.list_value_length(rollouts["response"])).as_py() or 0)
    return step_sums(rollouts, np.ones(tokens))[0].astype(np.int64)


def summarise_rollouts(rollouts: pa.Table, grades: pa.Table) -> dict[str, float]:
    """Outcome, length, truncation, sampler entropy estimate, shares of groups without variance and of those
    with a right rollout.

    `grade/REASON_share`: responses that were graded, and those with an outcome of 0 for a reason of the
    grader (`timeout`, `crashed`, `raised`) or of the task (`unparsable`, `wrong_answer`, ...);
    `grade/no_answer_share`: graded ones that are wrong for want of an answer.
    """
    outcomes = grades["outcome"].to_numpy()
    groups = rollouts["group"].to_numpy()
    lengths = pc.list_value_length(rollouts["response"]).to_numpy()
    steps = pc.list_value_length(rollouts["step_ends"]).to_numpy()
    logprobs, _ = list_column(rollouts["logprobs"])
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, outcomes) / counts
    spread = np.bincount(inverse, (outcomes - mean[inverse]) ** 2)
    finish = rollouts["finish"].cast(pa.string()).to_numpy(zero_copy_only=False)
    status = grades["status"].cast(pa.string()).to_pylist()
    reasons = Counter(status)
    unanswered = grades["answer"].is_null().to_numpy() & (outcomes == 0.0)
    no_answer = unanswered & np.array([reason == "graded" for reason in status])
    return {
        **{f"grade/{reason}_share": count / len(status) for reason, count in sorted(reasons.items())},
        "grade/no_answer_share": float(no_answer.mean()),
        "outcome/mean": float(outcomes.mean()),
        "groups/constant_share": float((spread < 1e-12).mean()),
        "groups/solved_share": float((np.bincount(inverse, outcomes > 0.5) > 0).mean()),
        "rollout/response_tokens_mean": float(lengths.mean()),
        "rollout/response_tokens": float(lengths.sum()),
        "rollout/steps_mean": float(steps.mean()),
        "rollout/truncated_share": float((finish == "length").mean()),
        "rollout/log_prob_mean": float(logprobs.mean()),
    }


def outcomes_by_group(rollouts: pa.Table, grades: pa.Table) -> list[tuple[str, list[float]]]:
    """Return problem and outcomes (those that are learned from) of each group, in the order of the groups.

    Args:
        rollouts: ROLLOUTS.
        grades: GRADES, joined by position.
    """
    found: dict[int, tuple[str, list[float]]] = {}
    columns = (rollouts["group"], rollouts["problem_id"], learned_outcomes(grades))
    for group, name, outcome in zip(*(one.to_pylist() for one in columns), strict=True):
        found.setdefault(group, (name, []))[1].append(outcome)
    return [found[group] for group in sorted(found)]


def outcomes_by_part(rollouts: pa.Table, grades: pa.Table, labels: Sequence[str]) -> dict[str, float]:
    """Return `outcome/LABEL` and `share/LABEL` (of the rollouts) for each part of a mixture that occurs.

    Of another task, whose only label is empty, nothing.

    Args:
        rollouts: ROLLOUTS; a mixture's problem identifiers begin with the label and `/`.
        grades: GRADES, joined by position.
        labels: of the parts.
    """
    named = rollouts["problem_id"].to_pylist()
    outcomes = grades["outcome"].to_numpy()
    found: dict[str, float] = {}
    for label in labels:
        rows = np.array([bool(label) and one.startswith(f"{label}/") for one in named], dtype=bool)
        if rows.any():
            found |= {f"outcome/{label}": float(outcomes[rows].mean()), f"share/{label}": float(rows.mean())}
    return found
