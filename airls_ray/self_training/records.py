"""From the records of a search to what is learned: right traces, counts of a threshold, labels of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from airls_ray.data.schemas import PRM_LABELS
from airls_ray.self_training.tree_values import tree_values
from airls_ray.text.codec import TextCodec

Record = Mapping[str, Any]
"""A row of `airls_ray.search.records.SEARCH_RECORDS`."""
_RIGHT = 0.5


def right_traces(records: Iterable[Record], threshold: float, most: int) -> dict[str, list[str]]:
    """Return for each problem its best different right responses, as texts; one without any is left out.

    Args:
        records: of one search.
        threshold: least score of a response by the search's scorer.
        most: traces of a problem, the highest scores first.
    """
    kept = {
        record["problem_id"]: [
            text_of(leaf)
            for leaf in _best([one for one in record["leaves"] if _is_right(one)], threshold, most)
        ]
        for record in records
    }
    return {problem: traces for problem, traces in kept.items() if traces}


def selected_counts(records: Iterable[Record], threshold: float, most: int) -> list[tuple[int, int]]:
    """Return of each problem how many different responses a threshold alone selects, and how many are right.

    Args:
        records: of one search.
        threshold: least score.
        most: responses of a problem, the highest scores first.
    """
    selected = [_best(record["leaves"], threshold, most) for record in records]
    return [(len(leaves), sum(map(_is_right, leaves))) for leaves in selected]


def text_of(leaf: Record) -> str:
    """The text of a response."""
    return "".join(leaf["steps"])


def _best(leaves: Sequence[Record], threshold: float, most: int) -> list[Record]:
    """Different responses that ended by themselves, by falling score; equal scores in their order."""
    different: dict[str, Record] = {}
    for leaf in sorted(leaves, key=lambda one: -float(one["score"])):
        if leaf["finish"] == "stop" and float(leaf["score"]) >= threshold:
            different.setdefault(text_of(leaf), leaf)
    return list(different.values())[:most]


def _is_right(leaf: Record) -> bool:
    return float(leaf["outcome"]) > _RIGHT


def value_labels(records: Iterable[Record], problems: pa.Table, codec: TextCodec) -> pa.Table:
    """Return the different responses of a search with the values of their steps as labels (`tree_values`).

    Problems without a right response are left out.

    Args:
        records: of one search.
        problems: schema PROBLEMS; those of the records.
        codec: of the policy.

    Returns:
        Schema PRM_LABELS, without log-probabilities.
    """
    columns = (problems[name].to_pylist() for name in ("problem_id", "prompt", "details"))
    asked = {problem: (prompt, details) for problem, prompt, details in zip(*columns, strict=True)}
    rows: list[dict[str, Any]] = []
    for record in records:
        prompt, details = asked[record["problem_id"]]
        leaves = list(
            {tuple(leaf["response"]): leaf for leaf in record["leaves"] if leaf["response"]}.values()
        )
        values = tree_values([_steps(leaf) for leaf in leaves], [_is_right(leaf) for leaf in leaves])
        rows += [
            {
                "problem_id": record["problem_id"],
                "prompt": codec.encode_problem(prompt, details),
                "response": leaf["response"],
                "step_ends": leaf["step_ends"],
                "labels": labels,
                "outcome": leaf["outcome"],
                "step_truth": leaf["step_truth"],
                "prompt_text": prompt,
                "step_texts": leaf["steps"],
            }
            for leaf, labels in zip(leaves, values or [], strict=values is not None)
        ]
    return pa.Table.from_pylist(rows, schema=PRM_LABELS)


def _steps(leaf: Record) -> list[tuple[int, ...]]:
    """The tokens of every step."""
    ends = leaf["step_ends"]
    return [tuple(leaf["response"][start:end]) for start, end in zip([0, *ends], ends, strict=False)]
