"""3,000 tokens at 0.3 nats: the score of a response is exp(-900), and everything still ranks by the PRM."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from math import exp
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from airls_ray.config.schema import Config, PRMConfig
from airls_ray.config.search_section import AlgorithmName, SearchConfig
from airls_ray.data.schemas import GRADES, STEP_SCORES
from airls_ray.evaluation.rollouts import list_column
from airls_ray.evaluation.scorers import measure_scorers, search_curves
from airls_ray.evaluation.steps import aggregate_log_scores, log_scores, relative_weights
from airls_ray.learning.batches import part_table
from airls_ray.prm.scores import search_scores
from airls_ray.search.particles import ParticleFilter
from airls_ray.search.records import Leaf, choose, records_table
from airls_ray.search.registry import make_searcher, ready_searches
from airls_ray.search.scoring import Continuation, LogProbScorer
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import ROOT, Child, Expansion, Node, SearchState
from airls_ray.tensors import PackedColumn
from tests.tiny import make_rollouts

STEPS, STEP_TOKENS = 100, 30
GOOD, BAD = -0.1, -0.5
"""Nats a token of a step whose first token is even, and of the others: half of them each."""


def step_nats(first_token: int) -> float:
    return BAD if first_token % 2 else GOOD


def response_nats(state: SearchState, node: int) -> float:
    """Log phi of a response by hand: the sum over its tokens."""
    tokens = state.response(node)
    return sum(step_nats(tokens[at]) * min(STEP_TOKENS, len(tokens) - at)
               for at in range(0, len(tokens), STEP_TOKENS))  # fmt: skip


def answer(state: SearchState, expansion: Expansion) -> list[Child]:
    """Continuations of random steps; a response ends by itself after STEPS of them."""
    want, done = expansion.want, state.response(expansion.want.node)
    children = []
    for seed in range(expansion.seed, expansion.seed + want.count):
        rng = np.random.default_rng(seed)
        begun = len(done) % STEP_TOKENS
        steps = STEPS - len(done) // STEP_TOKENS if want.whole else 1
        tokens = rng.integers(1000, size=steps * STEP_TOKENS - begun).tolist()
        cut = want.max_tokens is not None and len(tokens) > want.max_tokens
        tokens = tokens[: want.max_tokens] if cut else tokens
        response = [*done, *tokens]
        ends = [end for end in range(STEP_TOKENS - begun, len(tokens) + 1, STEP_TOKENS)]
        ends = [len(tokens)] if cut else ends
        firsts = [response[(len(done) + end - 1) // STEP_TOKENS * STEP_TOKENS] for end in ends]
        over = len(response) == STEPS * STEP_TOKENS
        ahead = 0 if over else want.lookahead
        children.append(
            Child(
                tokens=tuple(tokens),
                log_prob=-0.3 * len(tokens),
                scores=tuple(exp(step_nats(first)) for first in firsts),
                finish="partial" if cut else "stop" if over else "step",
                step_ends=tuple(ends),
                ahead=(exp(GOOD),) * ahead,
                ahead_tokens=(STEP_TOKENS,) * ahead,
            )
        )
    return children


def searched(searcher: Searcher) -> SearchState:
    state = searcher.start(3, "token_mean")
    while asks := searcher.ask(state):
        for ask in asks:
            searcher.tell(state, ask.ticket, answer(state, ask))
    return state


@cache
def searched_by(name: AlgorithmName) -> tuple[Searcher, SearchState]:
    """An algorithm and where it ended; tests read the state and leave it as it is."""
    searcher = make_searcher(name, SearchConfig(), 8, "prod")
    return searcher, searched(searcher)


@pytest.mark.parametrize("name", ready_searches())
def test_every_algorithm_gives_the_response_that_the_prm_ranks_first(name: AlgorithmName) -> None:
    searcher, state = searched_by(name)
    leaves = searcher.leaves(state)
    nats = [response_nats(state, leaf) for leaf in leaves]
    assert min(len(state.response(leaf)) for leaf in leaves) == STEPS * STEP_TOKENS
    found = [state.log_score(leaf, "prod") for leaf in leaves]
    assert found == pytest.approx(nats)
    assert all(exp(BAD) - 1e-9 < state.value(leaf, "prod") < exp(GOOD) + 1e-9 for leaf in leaves)
    for rule in ("best", "weighted"):
        chosen = choose([Leaf(0, log, log, 0.0, str(at), 0.0) for at, log in enumerate(found)], rule)
        assert nats[chosen or 0] == max(nats)


@pytest.mark.parametrize("name", ["beam", "lookahead", "dvts", "early_rejection", "rebase", "ets", "mcts"])
def test_searches_that_share_out_by_scores_prefer_good_steps(name: AlgorithmName) -> None:
    """Half of the steps that are sampled are good; of those that are continued it must be more."""
    searcher, state = searched_by(name)
    firsts = [first for leaf in searcher.leaves(state) for first in state.response(leaf)[::STEP_TOKENS]]
    assert np.mean([first % 2 == 0 for first in firsts]) > 0.54


def test_particles_weigh_as_the_prm_ranks_and_none_is_at_a_clip() -> None:
    searcher = ParticleFilter(32, ess_threshold=0.0)  # without resampling all weights are comparable
    state = searched(searcher)
    weights = searcher.log_weights(state)
    nats = [response_nats(state, node) for node in weights]
    order = np.argsort(nats, kind="stable")
    assert (np.diff(np.array(list(weights.values()))[order]) > -1e-9).all()
    assert len(np.unique(np.round(list(weights.values()), 9))) == len(np.unique(np.round(nats, 6)))


def test_products_of_a_hundred_probabilities_weigh_as_they_rank() -> None:
    """A scalar head at 0.7 a step: 0.7 ** 100 is below the clip of the published code."""
    children = [Child((1,), -1.0, (p,) * STEPS, "stop") for p in (0.7, 0.71)]
    searcher = ParticleFilter(2)
    state = searcher.start(0)
    [ask] = searcher.ask(state)
    searcher.tell(state, ask.ticket, children)
    low, high = searcher.log_weights(state).values()
    assert high - low == pytest.approx(100 * np.log(0.71 / 0.7), rel=1e-6)


def rollouts_of(nats: np.ndarray) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Rollouts of 3,000 tokens with these nats for each step [rows, STEPS], as the policy's log-probability
    and as the PRM's; the rollout of the best sum in each group of four is right."""
    rows = len(nats)
    few = make_rollouts(rows // 4, 4)
    tokens = np.repeat(nats / STEP_TOKENS, STEP_TOKENS, axis=1).astype(np.float32)
    columns = {
        "response": [[2] * (STEPS * STEP_TOKENS)] * rows,
        "step_ends": [list(range(STEP_TOKENS, STEPS * STEP_TOKENS + 1, STEP_TOKENS))] * rows,
        "logprobs": tokens.tolist(),
    }
    table = few
    for name, values in columns.items():
        field = few.schema.field(name)
        table = table.set_column(few.schema.get_field_index(name), field, pa.array(values, field.type))
    best = nats.sum(1).reshape(-1, 4).argmax(1) + 4 * np.arange(rows // 4)
    grades = pa.table(
        {
            "outcome": np.isin(np.arange(rows), best).astype(np.float32),
            "answer": [str(row) for row in range(rows)],
            "step_truth": pa.nulls(rows, GRADES.field("step_truth").type),
        }
    )
    mean = np.exp(nats / STEP_TOKENS).astype(np.float32).tolist()
    scores = pa.table({"rewards": mean, "values": nats.tolist(), "scores": mean}).cast(STEP_SCORES)
    return table, grades, scores


def test_best_of_n_by_the_prm_and_by_the_log_probability_are_computed_alike() -> None:
    nats = -9.0 + np.random.default_rng(0).normal(size=(24, STEPS))
    rollouts, grades, scores = rollouts_of(nats)
    curves = search_curves(rollouts, grades, scores, Config()).curves
    assert curves["best_of_n"] == curves["policy_log_prob"]
    assert curves["best_of_n"][4] == curves["weighted"][4] == 1.0
    measured = measure_scorers(rollouts, grades, scores, PRMConfig())
    assert measured["prm/trace_auroc"] == pytest.approx(measured["policy_log_prob/trace_auroc"], abs=1e-3)
    assert measured["prm/score_spread"] > 1e-3


def test_the_control_scores_a_step_by_the_mean_over_its_tokens() -> None:
    item = Continuation((5, 6, 7), tuple(range(8)), (2, 8), (-1.0, -3.0), open_tokens=2, open_log_prob=-1.0)
    assert LogProbScorer().score([item])[0][0] == pytest.approx((exp(-2.0 / 4), exp(-3.0 / 6)))
    whole = replace(item, open_tokens=0, open_log_prob=0.0)
    assert LogProbScorer().score([whole])[0][0] == pytest.approx((exp(-1.0 / 2), exp(-3.0 / 6)))


@pytest.mark.parametrize("how", ["last", "min", "prod", "mean", "odds"])
def test_the_logarithm_of_an_aggregate_is_that_of_plain_numbers(how: str) -> None:
    scores, offsets = np.array([0.5, 0.25, 0.75, 0.9, 0.2]), np.array([0, 3, 5])
    odds = scores / (1 - scores)
    plain = {
        "last": [0.75, 0.2],
        "min": [0.25, 0.2],
        "prod": [0.5 * 0.25 * 0.75, 0.9 * 0.2],
        "mean": [0.5, 0.55],
        "odds": [o / (1 + o) for o in (odds[:3].prod(), odds[3:].prod())],
    }[how]
    found = aggregate_log_scores(log_scores(scores), offsets, how)  # type: ignore[arg-type]
    assert np.exp(found) == pytest.approx(plain)


@pytest.mark.parametrize("how", ["odds", "mean_odds"])
def test_sure_steps_count_by_their_logits_on_both_sides(how: Any) -> None:
    """From f = 17 on a sigmoid in float32 is 1: then 18, -60 and -60 would be above three of 1."""
    config = PRMConfig(parameterisation="scalar_head", search_score="sigmoid_f")
    logits = torch.tensor(
        [[20.0, -25, 1], [30, -20, -20], [1, 1, 1], [33, -33, 0.5], [-5, -5, 8], [18, -60, -60]]
    )
    tokens = torch.full((logits.numel(),), 4)
    scores = search_scores(logits.flatten(), torch.zeros(logits.numel()), tokens, config)
    column = part_table(torch.arange(6), {"scores": PackedColumn(scores, 3 * torch.arange(7))}, STEP_SCORES)[
        "scores"
    ]
    values, offsets = list_column(column)
    found = aggregate_log_scores(log_scores(values), offsets, how, tokens.numpy())
    totals = logits.double().clamp(-36, 36).numpy().sum(1) / (3 if how == "mean_odds" else 1)
    assert found == pytest.approx(-np.logaddexp(0.0, -totals), rel=0.02)
    assert found.argsort().tolist() == totals.argsort().tolist()


def test_a_record_tells_scores_near_one_apart() -> None:
    leaf = {"scores": [1 - 1e-12, 1 - 1e-9], "score": 1 - 1e-11}
    (row,) = records_table([{"leaves": [leaf], "nodes": [{"scores": leaf["scores"]}]}]).to_pylist()
    assert (row["leaves"][0]["scores"], row["leaves"][0]["score"]) == (leaf["scores"], leaf["score"])
    assert row["nodes"][0]["scores"] == leaf["scores"]


def test_scores_of_zero_and_one_have_finite_odds() -> None:
    logs = log_scores(np.array([0.0, 1.0, 0.75]))
    found = aggregate_log_scores(logs, np.array([0, 3]), "odds")
    assert np.exp(found) == pytest.approx(0.75)


def test_votes_are_weighed_relative_to_the_largest() -> None:
    weights = relative_weights(np.array([[-900.0, -901.0, -2000.0], [-np.inf, -np.inf, -np.inf]]))
    assert weights[0] == pytest.approx([1.0, exp(-1.0), 0.0])
    assert weights[1].tolist() == [0.0, 0.0, 0.0]


def test_a_mean_over_the_tokens_weighs_a_step_by_its_length() -> None:
    """Steps of one token of density 0.5 and of three of 0.25; `step_mean` weighs them alike."""
    for kind, wanted in (("token_mean", (1 * 0.5 + 3 * 1.0) / 4), ("step_mean", (0.5 + 1.0) / 2)):
        state = SearchState(0, kind=kind)  # type: ignore[arg-type]
        child = Child((1, 2, 3, 4), -1.0, (math.exp(-0.5), math.exp(-1.0)), "step", step_ends=(1, 4))
        state.nodes.append(Node.of(ROOT, child))
        assert state.log_value(1, "prod") == pytest.approx(-wanted)
