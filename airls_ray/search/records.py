"""What is kept of a search: a row a problem, with every finished response, its score and its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from airls_ray.config.search_section import VOTE, AnswerRule, VoteConfig
from airls_ray.evaluation.joint_votes import best_shares, hybrid_shares, reward_frequency_shares
from airls_ray.evaluation.ranking import tied_ranks
from airls_ray.evaluation.steps import Aggregate, relative_weights
from airls_ray.evaluation.voting import vote_shares
from airls_ray.search.ledger import AXES
from airls_ray.search.live import Search
from airls_ray.search.searcher import Searcher

_LEAF = pa.struct(
    [
        ("node", pa.int32()),
        ("response", pa.list_(pa.int32())),
        ("step_ends", pa.list_(pa.int32())),
        ("steps", pa.list_(pa.string())),
        ("step_truth", pa.list_(pa.bool_())),
        ("scores", pa.list_(pa.float64())),
        ("score", pa.float64()),
        ("log_score", pa.float64()),
        ("log_prob", pa.float32()),
        ("finish", pa.string()),
        ("answer", pa.string()),
        ("outcome", pa.float32()),
    ]
)
_NODE = pa.struct(
    [
        ("parent", pa.int32()),
        ("tokens", pa.list_(pa.int32())),
        ("log_prob", pa.float32()),
        ("scores", pa.list_(pa.float64())),
        ("finish", pa.string()),
    ]
)
_COSTS = tuple(axis for axis in AXES if axis != "seconds")
"""Seconds differ from run to run; a record does not."""

SEARCH_RECORDS = pa.schema(
    [
        ("algorithm", pa.string()),
        ("scorer", pa.string()),
        ("budget", pa.int32()),
        ("seed", pa.int64()),
        ("problem_id", pa.string()),
        ("prompt", pa.string()),
        ("rule", pa.string()),
        ("answer", pa.string()),
        ("outcome", pa.float32()),
        ("oracle", pa.float32()),
        ("chosen", pa.int32()),
        ("rounds", pa.int32()),
        ("stopped_by", pa.string()),
        *((axis, pa.float64() if axis == "flops" else pa.int64()) for axis in _COSTS),
        ("leaves", pa.list_(_LEAF)),
        ("nodes", pa.list_(_NODE)),
    ],
    metadata={b"airls_ray.schema": b"search_records", b"airls_ray.version": b"1"},
)
"""`budget`: the width N. `rule`: how `answer` was chosen; `chosen` is its row in `leaves` (null: no response
was finished, and the outcome is 0); where several leaves tie, `outcome` is the mean of theirs. `oracle`: the
best outcome of any finished response. `stopped_by`: axis of the ledger whose limit ended the search. `nodes`
is null unless asked for. Of a leaf, `steps` are the texts of its steps and `step_truth` what the task says of
them (null: it does not know). Leaves are compared, and their votes weighed, by `log_score`; `score` in [0, 1]
is the same but for densities, of which it is the mean over tokens."""


@dataclass(frozen=True)
class Verdict:
    """What the task says of a finished response."""

    answer: str | None
    outcome: float
    steps: Sequence[str]
    """Texts of the steps."""
    step_truth: Sequence[bool] | None = None
    """Whether each step is right; None: the task does not know."""


@dataclass(frozen=True)
class Leaf:
    """A finished response and its verdict."""

    node: int
    log_score: float
    log_weight: float
    """In a weighted vote."""
    log_prob: float
    answer: str | None
    outcome: float


@dataclass(frozen=True)
class Run:
    """What a record's problem was searched with."""

    algorithm: str
    scorer: str
    budget: int
    seed: int
    rule: AnswerRule
    vote: VoteConfig = VOTE


def choose(leaves: Sequence[Leaf], rule: AnswerRule, vote: VoteConfig = VOTE) -> int | None:
    """Return the index of the leaf whose answer is given, or None where there is none.

    `best`: the highest score; `majority`, `weighted`: see `evaluation.voting.vote`; `hybrid`,
    `reward_frequency`: see `evaluation.joint_votes`. Without any valid answer a vote falls back to the
    highest score (and is wrong all the same). Ties: the oldest leaf.
    """
    return int(np.flatnonzero(chances(leaves, rule, vote))[0]) if leaves else None


def expected_outcome(leaves: Sequence[Leaf], rule: AnswerRule, vote: VoteConfig = VOTE) -> float:
    """Return the mean outcome of the leaves that the rule may choose: equal scores or votes share the choice.

    So the figures do not depend on the order of the leaves, where `choose` takes the oldest.
    """
    outcomes = np.array([leaf.outcome for leaf in leaves])
    return float(chances(leaves, rule, vote) @ outcomes) if leaves else 0.0


def chances(leaves: Sequence[Leaf], rule: AnswerRule, vote: VoteConfig) -> NDArray[np.float64]:
    """Return the chance of each leaf, at least one, to be chosen: float64 [leaves], with sum 1."""
    answers = [leaf.answer for leaf in leaves]
    scores = np.array([leaf.log_score for leaf in leaves])
    ranks = tied_ranks(scores)
    if rule == "hybrid":
        return hybrid_shares(answers, ranks, vote.share)
    shares = np.zeros(len(leaves))
    if rule == "reward_frequency":
        shares = reward_frequency_shares(answers, relative_weights(scores), vote.reward_weight)
    elif rule != "best":
        weights = relative_weights(np.array([leaf.log_weight for leaf in leaves])).tolist()
        shares = vote_shares(answers, weights if rule == "weighted" else None)
    return shares if shares.any() else best_shares(ranks)


def make_record(
    search: Search,
    searcher: Searcher,
    run: Run,
    how: Aggregate,
    verdicts: Sequence[Verdict],
    prompt: str = "",
    keep_nodes: bool = False,
) -> dict[str, Any]:
    """Return the record of a search that is over, as a row of SEARCH_RECORDS.

    Args:
        search: the search.
        searcher: its algorithm.
        run: what goes into the record's first columns.
        how: aggregation of step scores into a leaf's score.
        verdicts: of each of the searcher's leaves.
        prompt: text of the problem.
        keep_nodes: whether to keep the tree.
    """
    state = search.state
    nodes = searcher.leaves(state)
    weights = searcher.vote_weights(state)
    leaves = [
        Leaf(
            node,
            state.log_score(node, how),
            weights[node],
            state.log_prob(node),
            verdict.answer,
            verdict.outcome,
        )
        for node, verdict in zip(nodes, verdicts, strict=True)
    ]
    rule = searcher.answer_rule(state) or run.rule
    chosen = choose(leaves, rule, run.vote)
    return {
        "algorithm": run.algorithm,
        "scorer": run.scorer,
        "budget": run.budget,
        "seed": run.seed,
        "problem_id": search.problem.problem_id,
        "prompt": prompt,
        "rule": rule,
        "answer": None if chosen is None else leaves[chosen].answer,
        "outcome": expected_outcome(leaves, rule, run.vote),
        "oracle": max((leaf.outcome for leaf in leaves), default=0.0),
        "chosen": chosen,
        "rounds": state.rounds,
        "stopped_by": search.stopped_by,
        **{axis: getattr(search.ledger, axis) for axis in _COSTS},
        "leaves": [
            {
                "node": leaf.node,
                "response": state.response(leaf.node),
                "step_ends": state.step_ends(leaf.node),
                "steps": list(verdict.steps),
                "step_truth": None if verdict.step_truth is None else list(verdict.step_truth),
                "scores": state.step_scores(leaf.node),
                "score": state.value(leaf.node, how),
                "log_score": leaf.log_score,
                "log_prob": leaf.log_prob,
                "finish": state.nodes[leaf.node].finish,
                "answer": leaf.answer,
                "outcome": leaf.outcome,
            }
            for leaf, verdict in zip(leaves, verdicts, strict=True)
        ],
        "nodes": [_node(one) for one in state.nodes] if keep_nodes else None,
    }


def _node(node: Any) -> Mapping[str, Any]:
    return {
        "parent": node.parent,
        "tokens": list(node.tokens),
        "log_prob": node.log_prob,
        "scores": list(node.scores),
        "finish": node.finish,
    }


def records_table(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return records as a table of SEARCH_RECORDS, in their order."""
    return pa.Table.from_pylist(list(records), schema=SEARCH_RECORDS)
