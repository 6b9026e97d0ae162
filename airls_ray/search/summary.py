"""From records to figures: accuracy with intervals, costs on every axis, curves over N from one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from airls_ray.config.search_section import ABSTAIN, VOTE, AbstainConfig, AnswerRule, VoteConfig
from airls_ray.console.formatting import Cell
from airls_ray.evaluation.abstention import is_sure, measure_abstention, vote_share
from airls_ray.evaluation.joint_votes import joint_values
from airls_ray.evaluation.steps import relative_weights
from airls_ray.evaluation.voting import best_of_n_values
from airls_ray.search.ledger import AXES
from airls_ray.search.records import Leaf, expected_outcome

Record = Mapping[str, Any]
_COSTS = tuple(axis for axis in AXES if axis != "seconds")
_DRAWS = 2000
_FLAT = 1e-4
"""Scores in [0, 1] that are nearer than this are equal to whatever shares out by them."""


def summarise(
    records: Sequence[Record],
    seed: int = 0,
    vote: VoteConfig = VOTE,
    abstain: AbstainConfig = ABSTAIN,
) -> list[dict[str, Any]]:
    """Return one row for each algorithm, scorer and budget, in the order of the records.

    A row has `accuracy`, `low` and `high` (95 % bootstrap interval over problems and seeds), `oracle` (some
    finished response is right), `unfinished` (share without any finished response), the mean cost of a
    problem on every axis of the ledger, and `rules`: accuracy of each answer rule on the same leaves (votes
    are weighed by scores there, also of a particle filter, whose own weights records do not keep).
    `abstention` has the accuracy of the most confident answers (`evaluation.abstention`) by `vote_share` and
    by `score` of the chosen response; `answered` is the share of problems that `abstain` answers, and
    `answered_accuracy` that of their answers (nan where there are none).
    """
    rows: list[dict[str, Any]] = []
    for key, group in _groups(records).items():
        outcomes = np.array([record["outcome"] for record in group])
        low, high = bootstrap_interval(outcomes, seed)
        rows.append(
            {
                "algorithm": key[0],
                "scorer": key[1],
                "budget": key[2],
                "problems": len(group),
                "accuracy": float(outcomes.mean()),
                "low": low,
                "high": high,
                "oracle": float(np.mean([record["oracle"] for record in group])),
                "unfinished": float(np.mean([record["chosen"] is None for record in group])),
                "rules": {rule: _accuracy_by(group, rule, vote) for rule in get_args(AnswerRule)},
                **_abstention(group, outcomes, abstain),
                **{axis: float(np.mean([record[axis] for record in group])) for axis in _COSTS},
            }
        )
    return rows


def _abstention(
    records: Sequence[Record], outcomes: NDArray[np.float64], abstain: AbstainConfig
) -> dict[str, Any]:
    """How sure each search is of its answer, and what that is worth."""
    share = np.array(
        [vote_share(record["answer"], [leaf["answer"] for leaf in record["leaves"]]) for record in records]
    )
    chosen = [None if record["chosen"] is None else record["leaves"][record["chosen"]] for record in records]
    score = np.array([-1.0 if one is None else one["score"] for one in chosen])
    given = is_sure(share, score, abstain.vote_share, abstain.score)
    return {
        "abstention": {
            "vote_share": measure_abstention(share, outcomes),
            "score": measure_abstention(score, outcomes),
        },
        "answered": float(given.mean()),
        "answered_accuracy": float(outcomes[given].mean()) if given.any() else nan,
    }


def _accuracy_by(records: Sequence[Record], rule: AnswerRule, vote: VoteConfig) -> float:
    return float(np.mean([expected_outcome(_leaves(record), rule, vote) for record in records]))


def _leaves(record: Record) -> list[Leaf]:
    return [
        Leaf(one["node"], one["log_score"], one["log_score"], one["log_prob"], one["answer"], one["outcome"])
        for one in record["leaves"]
    ]


def flat_share(records: Sequence[Record]) -> float:
    """Share of the searches whose finished responses differ and score the same, to `_FLAT`: nothing told them
    apart. Searches with fewer than two different ones do not count; nan where there are no others."""
    flat = []
    for record in records:
        leaves = record["leaves"]
        if len({tuple(leaf["response"]) for leaf in leaves}) > 1:
            scores = [leaf["score"] for leaf in leaves]
            flat.append(max(scores) - min(scores) < _FLAT)
    return float(np.mean(flat)) if flat else float("nan")


def bootstrap_interval(values: np.ndarray, seed: int = 0, draws: int = _DRAWS) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of the mean of `values` [n] drawn n times with replacement."""
    if not len(values):
        raise ValueError("an interval needs at least one value")
    picks = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def sample_curves(
    records: Sequence[Record], seed: int = 0, vote: VoteConfig = VOTE
) -> dict[str, dict[str, float]]:
    """Return accuracy by way of choosing and k for Best-of-N records of the largest budget.

    Unbiased for every power of two up to N from the same samples (`evaluation.voting`). Empty where there
    are no such records.
    """
    group = [record for record in records if record["algorithm"] == "best_of_n"]
    if not group:
        return {}
    budget = max(record["budget"] for record in group)
    leaves = [record["leaves"] for record in group if record["budget"] == budget]
    leaves = [one for one in leaves if len(one) == budget]
    if not leaves:
        return {}
    logs = np.array([[leaf["log_score"] for leaf in one] for one in leaves])
    right = np.array([[leaf["outcome"] > 0.5 for leaf in one] for one in leaves], dtype=float)
    answers = [[leaf["answer"] for leaf in one] for one in leaves]
    sizes = [2**k for k in range(budget.bit_length()) if 2**k <= budget]
    weights = relative_weights(logs)
    values = best_of_n_values(
        logs,
        right,
        answers,
        sizes,
        weights=weights,
        log_probs=np.array([[leaf["log_prob"] for leaf in one] for one in leaves]),
        seed=seed,
    )
    values |= joint_values(
        answers, right, weights, sizes, share=vote.share, weight=vote.reward_weight, seed=seed
    )
    return {way: {str(k): float(v.mean()) for k, v in curve.items()} for way, curve in values.items()}


def table_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[list[list[Cell]], list[str]]:
    """Return the rows and the columns of the table that a search prints."""
    columns = ["algorithm", "N", "accuracy (95 %)", "any right", "policy tokens", "PRM tokens", "MFLOP"]
    cells: list[list[Cell]] = [
        [
            row["algorithm"],
            row["budget"],
            f"{row['accuracy']:.3f} ({row['low']:.3f}-{row['high']:.3f})",
            f"{row['oracle']:.3f}",
            f"{row['policy_tokens']:,.0f}",
            f"{row['prm_tokens']:,.0f}",
            f"{row['flops'] / 1e6:,.0f}",
        ]
        for row in rows
    ]
    return cells, columns


def _groups(records: Sequence[Record]) -> dict[tuple[str, str, int], list[Record]]:
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record["algorithm"], record["scorer"], record["budget"]), []).append(record)
    return groups
