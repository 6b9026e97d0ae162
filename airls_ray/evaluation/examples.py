"""A few rollouts as text, for people: each step with its score beside its truth."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from airls_ray.text.codec import TextCodec


def pick_examples(
    rollouts: pa.Table,
    grades: pa.Table,
    scores: pa.Table | None,
    problems: pa.Table,
    codec: TextCodec,
    policy: str,
    count: int = 8,
) -> list[dict[str, Any]]:
    """Return up to `count` rollouts of different problems, right and wrong ones in turn."""
    prompts = dict(zip(problems["problem_id"].to_pylist(), problems["prompt"].to_pylist(), strict=True))
    answers = dict(zip(problems["problem_id"].to_pylist(), problems["answer"].to_pylist(), strict=True))
    outcomes = grades["outcome"].to_pylist()
    seen: set[str] = set()
    sides: dict[bool, list[int]] = {True: [], False: []}
    for row, problem_id in enumerate(rollouts["problem_id"].to_pylist()):
        side = sides[outcomes[row] > 0.5]
        if problem_id not in seen and len(side) < count:
            seen.add(problem_id)
            side.append(row)
    wrong, right = sides[False], sides[True]
    half = count // 2
    rows = wrong[: count - min(half, len(right))] + right[: count - min(count - half, len(wrong))]
    return [_example(row, rollouts, grades, scores, prompts, answers, codec, policy) for row in rows]


def _example(
    row: int,
    rollouts: pa.Table,
    grades: pa.Table,
    scores: pa.Table | None,
    prompts: dict[str, str],
    answers: dict[str, str],
    codec: TextCodec,
    policy: str,
) -> dict[str, Any]:
    problem_id = rollouts["problem_id"][row].as_py()
    texts = codec.step_texts(rollouts["response"][row].as_py(), rollouts["step_ends"][row].as_py())
    truth = grades["step_truth"][row].as_py() or [None] * len(texts)
    values = scores["scores"][row].as_py() if scores is not None else [None] * len(texts)
    return {
        "prompt": prompts[problem_id],
        "answer": answers[problem_id],
        "outcome": grades["outcome"][row].as_py(),
        "policy": policy,
        "steps": [
            {"text": text, "score": value, "truth": right}
            for text, value, right in zip(texts, values, truth, strict=True)
        ],
    }
