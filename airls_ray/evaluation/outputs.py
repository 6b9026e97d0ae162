"""How good graded responses are: accuracy, pass@k, majority@k, lengths, by level and subject."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from airls_ray.console.formatting import Cell
from airls_ray.evaluation.ranking import best_of_k, confidence_interval
from airls_ray.evaluation.voting import vote_curve

GREEDY = -1
"""`index` of a greedy response."""
TAGS = ("level", "subject")
"""Fields of a problem's details by which figures are split."""


@dataclass(frozen=True)
class Graded:
    """The samples of one problem; the greedy response is not among them."""

    outcomes: np.ndarray
    """float64 [N], in [0, 1]."""
    answers: list[str | None]


def measure_outputs(outputs: pa.Table, problems: pa.Table, seed: int = 0) -> dict[str, Any]:
    """Summarise graded responses.

    A response is right where its outcome is above 1/2. `pass@k` is the unbiased estimate of Chen et al. 2021
    (arXiv 2107.03374), `majority@k` the mean over subsets of k samples of a problem; both for powers of two
    up to the fewest samples that a problem has (and that number itself). Intervals are 95 % by bootstrap
    over problems.

    Args:
        outputs: schema OUTPUTS.
        problems: schema PROBLEMS; those without a response count nowhere.
        seed: of bootstrap and subsets.

    Returns:
        `problems`, `responses`, `samples` (fewest of a problem), `greedy` (null without greedy responses),
        `pass` and `majority` (k to a figure), `tokens_mean`, `cut_share` (ended by their length; both null
        where unknown), `without_answer_share`, `status` (counts), `by` (tag, then value, to figures). A
        figure is `mean, low, high, problems`.
    """
    groups = _by_problem(outputs)
    greedy = {
        row["problem_id"]: float(row["outcome"] > 0.5)
        for row in outputs.select(["problem_id", "index", "outcome"]).to_pylist()
        if row["index"] == GREEDY
    }
    fewest = min((len(one.outcomes) for one in groups.values()), default=0)
    passes = _passes(groups, _sizes(fewest))
    seen = groups.keys() | greedy.keys()
    return {
        "problems": len(seen),
        "responses": outputs.num_rows,
        "samples": fewest,
        "greedy": _figure(list(greedy.values()), seed) if greedy else None,
        "pass": {str(k): _figure(values, seed) for k, values in passes.items()},
        "majority": {
            str(k): _figure(_votes(groups, k, seed), seed) for k in _sizes(fewest) if _any_answer(groups)
        },
        **_lengths(outputs),
        "without_answer_share": _share([answer is None for answer in outputs["answer"].to_pylist()]),
        "status": dict(Counter(outputs["status"].to_pylist())),
        "by": _by_tag(groups, greedy, passes, problems, seed),
    }


def output_rows(summary: Mapping[str, Any]) -> list[tuple[Cell, ...]]:
    """The summary as rows of a table: what, mean, interval, problems."""
    rows = [_row("greedy", summary["greedy"])] if summary["greedy"] else []
    rows += [_row(f"pass@{k}", figure) for k, figure in summary["pass"].items()]
    rows += [_row(f"majority@{k}", figure) for k, figure in summary["majority"].items() if k != "1"]
    for tag, values in summary["by"].items():
        rows += [_row(f"{tag} {value}", figure) for value, figure in values.items()]
    return rows


def _row(name: str, figure: Mapping[str, float]) -> tuple[Cell, ...]:
    interval = f"{figure['low']:.3f} to {figure['high']:.3f}"
    return name, f"{figure['mean']:.3f}", interval, int(figure["problems"])


def _by_problem(outputs: pa.Table) -> dict[str, Graded]:
    outcomes: dict[str, list[float]] = defaultdict(list)
    answers: dict[str, list[str | None]] = defaultdict(list)
    columns = (outputs[name].to_pylist() for name in ("problem_id", "index", "outcome", "answer"))
    for problem_id, index, outcome, answer in zip(*columns, strict=True):
        if index != GREEDY:
            outcomes[problem_id].append(float(outcome))
            answers[problem_id].append(answer)
    return {name: Graded(np.array(values), answers[name]) for name, values in outcomes.items()}


def _sizes(samples: int) -> list[int]:
    powers = [2**power for power in range(samples.bit_length()) if 2**power <= samples]
    return sorted({*powers, *([samples] if samples else [])})


def _passes(groups: Mapping[str, Graded], sizes: Sequence[int]) -> dict[int, list[float]]:
    right = {name: (one.outcomes > 0.5).astype(float)[None] for name, one in groups.items()}
    return {k: [float(best_of_k(one, one, k)[0]) for one in right.values()] for k in sizes}


def _votes(groups: Mapping[str, Graded], k: int, seed: int) -> list[float]:
    return [
        float(vote_curve([one.answers], (one.outcomes > 0.5)[None], None, k, seed=seed)[0])
        for one in groups.values()
    ]


def _any_answer(groups: Mapping[str, Graded]) -> bool:
    return any(answer is not None for one in groups.values() for answer in one.answers)


def _figure(values: Sequence[float], seed: int) -> dict[str, float]:
    low, high = confidence_interval(np.array(values), seed)
    return {"mean": float(np.mean(values)), "low": low, "high": high, "problems": len(values)}


def _lengths(outputs: pa.Table) -> dict[str, float | None]:
    tokens = [one for one in outputs["tokens"].to_pylist() if one is not None]
    finish = [one for one in outputs["finish"].to_pylist() if one is not None]
    return {
        "tokens_mean": float(np.mean(tokens)) if tokens else None,
        "cut_share": _share([one == "length" for one in finish]),
    }


def _share(values: Sequence[bool]) -> float | None:
    return float(np.mean(values)) if values else None


def _by_tag(
    groups: Mapping[str, Graded],
    greedy: Mapping[str, float],
    passes: Mapping[int, Sequence[float]],
    problems: pa.Table,
    seed: int,
) -> dict[str, dict[str, dict[str, float]]]:
    """pass@1 (the greedy accuracy where there are no samples) for every value of every tag."""
    first = dict(zip(groups, passes[1], strict=True)) if groups else dict(greedy)
    values: dict[str, dict[str, list[float]]] = {}
    for problem_id, text in zip(
        problems["problem_id"].to_pylist(), problems["details"].to_pylist(), strict=True
    ):
        details = json.loads(text or "{}")
        for tag in TAGS:
            if problem_id in first and details.get(tag) is not None:
                values.setdefault(tag, {}).setdefault(str(details[tag]), []).append(first[problem_id])
    return {
        tag: {value: _figure(found[value], seed) for value in sorted(found)} for tag, found in values.items()
    }
