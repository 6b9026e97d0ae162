"""Records of searches on arithmetic problems, of a policy that is right as often as it is told to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airls_ray.search.ledger import AXES
from airls_ray.tasks.base import Problem
from airls_ray.text.codec import TextCodec


def leaf(
    response: Sequence[int],
    ends: Sequence[int],
    texts: Sequence[str],
    outcome: float,
    score: float,
    **more: Any,
) -> dict[str, Any]:
    """A finished response."""
    return {
        "node": 1,
        "response": list(response),
        "step_ends": list(ends),
        "steps": list(texts),
        "step_truth": None,
        "scores": [score] * len(ends),
        "score": score,
        "log_score": 0.0,
        "log_prob": -1.0,
        "finish": "stop",
        "answer": "1",
        "outcome": outcome,
        **more,
    }


def text_leaf(text: str, outcome: float, score: float, **more: Any) -> dict[str, Any]:
    """One of a single step, whose tokens are characters."""
    return leaf(list(map(ord, text)), [len(text)], [text], outcome, score, **more)


def record(problem_id: str, leaves: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """The record of a search."""
    return {
        "algorithm": "best_of_n",
        "scorer": "prm",
        "budget": len(leaves),
        "seed": seed,
        "problem_id": problem_id,
        "prompt": "",
        "rule": "best",
        "answer": None,
        "outcome": 0.0,
        "oracle": 0.0,
        "chosen": None,
        "rounds": 1,
        "stopped_by": "",
        **{axis: 0 for axis in AXES if axis != "seconds"},
        "leaves": list(leaves),
        "nodes": None,
    }


def solution(problem: Problem, codec: TextCodec, wrong_at: int | None, score: float) -> dict[str, Any]:
    """The trace of a problem, or one whose results are wrong from step `wrong_at` on."""
    steps = [f"{step};" for step in problem.traces[0].split(";") if step]
    if wrong_at is not None:
        steps = [*steps[:wrong_at], *(f"{step[:-2]}{(int(step[-2]) + 1) % 10};" for step in steps[wrong_at:])]
    tokens = codec.encode_trace("".join(steps))
    size = (len(tokens) - 1) // len(steps)
    ends = [*range(size, size * len(steps), size), len(tokens)]
    assert codec.step_texts(tokens, ends) == steps
    return leaf(tokens, ends, steps, float(wrong_at is None), score)
