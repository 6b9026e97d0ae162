"""Scores with cached prefixes: equal to a plain pass, at the cost of the new tokens."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from airls_ray.config.schema import PRMConfig
from airls_ray.models.load import load_prm_module
from airls_ray.prm.prefix_scores import PrefixScorer, _batches
from airls_ray.search.scoring import Continuation

PROMPT = (5, 6, 7)
STEPS = ((2, 3, 4), (8, 9), (10, 2, 11, 1))
LOG_PROBS = (-1.5, -0.7, -2.0)
TEMPERATURE = 0.7


def scorer(folder: Path, cache_tokens: int = 10_000, **fields: object) -> PrefixScorer:
    config = PRMConfig.model_validate(fields)
    module = load_prm_module(folder, config.parameterisation)
    if config.parameterisation == "scalar_head":
        torch.manual_seed(0)
        torch.nn.init.normal_(module.model.score.weight)
    return PrefixScorer(
        module,
        config,
        temperature=TEMPERATURE,
        device=torch.device("cpu"),
        cache_tokens=cache_tokens,
        tokens_per_microbatch=64,
    )


def step_by_step(one: PrefixScorer) -> tuple[list[float], list[int]]:
    """Scores and costs of STEPS, one call for each."""
    prefix, scores, costs = PROMPT, [], []
    for step, log_prob in zip(STEPS, LOG_PROBS, strict=True):
        found, cost = one.score([Continuation(prefix, step, (len(step),), (log_prob,), keep=len(step))])
        prefix = (*prefix, *step)
        scores += found[0]
        costs += cost
    return scores, costs


def plain_token_values(one: PrefixScorer) -> torch.Tensor:
    """Log phi of the response tokens from one plain pass of the causal model."""
    tokens = torch.tensor([[*PROMPT, *(token for step in STEPS for token in step)]])
    logits = one._module.model(input_ids=tokens).logits[0].double() / TEMPERATURE
    log_phi = torch.log_softmax(logits, -1)[:-1].gather(1, tokens[0, 1:, None]).squeeze(1)
    return log_phi[len(PROMPT) - 1 :].detach()


def test_log_prob_scores_equal_a_plain_pass(folder: Path) -> None:
    one = scorer(folder)
    values = plain_token_values(one)
    expected = [part.mean().exp().item() for part in values.split([len(step) for step in STEPS])]
    assert step_by_step(one)[0] == pytest.approx(expected, rel=1e-5)


def test_logits_in_chunks_give_the_same_scores(folder: Path) -> None:
    one, chunked = scorer(folder), scorer(folder)
    chunked._module._most_tokens = 2
    assert step_by_step(chunked)[0] == pytest.approx(step_by_step(one)[0], rel=1e-5)


def test_mean_reduction_and_product_with_the_policy(folder: Path) -> None:
    one = scorer(folder, log_prob="mean", search_score="product")
    parts = plain_token_values(one).split([len(step) for step in STEPS])
    expected = [
        ((part.mean() + log_prob / len(part)) / 2).exp().item()
        for part, log_prob in zip(parts, LOG_PROBS, strict=True)
    ]
    assert step_by_step(one)[0] == pytest.approx(expected, rel=1e-5)


def test_scalar_head_is_read_at_the_last_token_of_a_step(folder: Path) -> None:
    one = scorer(folder, parameterisation="scalar_head")
    tokens = torch.tensor([[*PROMPT, *(token for step in STEPS for token in step)]])
    f = one._module.model(input_ids=tokens).logits[0, :, 0].detach()
    ends = [len(PROMPT) + sum(len(step) for step in STEPS[: at + 1]) - 1 for at in range(3)]
    assert step_by_step(one)[0] == pytest.approx(torch.sigmoid(f[ends]).tolist(), rel=1e-5)


def test_a_child_costs_its_tokens_and_one_more(folder: Path) -> None:
    _, costs = step_by_step(scorer(folder))
    assert costs == [len(PROMPT) + len(STEPS[0]), len(STEPS[1]) + 1, len(STEPS[2]) + 1]


def test_without_a_cache_every_prefix_is_computed_again(folder: Path) -> None:
    scores, costs = step_by_step(scorer(folder, cache_tokens=0))
    assert costs == [6, 8, 12]
    assert scores == pytest.approx(step_by_step(scorer(folder))[0], rel=1e-5)


def test_a_dropped_prefix_is_computed_again(folder: Path) -> None:
    one = scorer(folder, cache_tokens=7)
    scores, costs = step_by_step(one)
    assert costs[1] == len(STEPS[1]) + 1
    assert scores == pytest.approx(step_by_step(scorer(folder))[0], rel=1e-5)


def held_tokens(one: PrefixScorer) -> float:
    """Of all memory that the kept prefixes hold, however they hold it."""
    pieces, memory = list(one._pieces.values()), {}
    each = 0
    while pieces:
        piece = pieces.pop()
        storage = piece.states.untyped_storage()
        memory[storage.data_ptr()] = storage.nbytes()
        each = piece.states[:, :, :, 0].numel() * piece.states.element_size()
        pieces += [] if piece.before is None else [piece.before]
    return sum(memory.values()) / max(each, 1)


@pytest.mark.parametrize("limit", [0, 12, 40, 1000])
def test_what_is_held_is_within_the_limit(folder: Path, limit: int) -> None:
    """A chain, whose dropped beginnings its end goes on from, and a batch of which one row is kept."""
    one, prefix = scorer(folder, cache_tokens=limit), PROMPT
    for _ in range(6):
        one.score([Continuation(prefix, (2, 3, 4, 8), (4,), (-1.0,), keep=4)])
        prefix = (*prefix, 2, 3, 4, 8)
        assert held_tokens(one) <= limit
    batch = [Continuation(PROMPT, (2, 3, at + 2), (3,), (-1.0,), keep=3 * (at == 0)) for at in range(8)]
    one.score(batch)
    assert held_tokens(one) == one._held <= limit
    if limit == 1000:  # each piece of the chain but the first has the last token before it once more
        assert held_tokens(one) == len(PROMPT) + 6 * 4 + 5 + len(PROMPT) + 3


def test_a_chain_in_use_outlives_an_older_one(folder: Path) -> None:
    one, (first, second, _) = scorer(folder, cache_tokens=14), STEPS
    one.score([Continuation((9, 9, 9), first, (3,), (-1.0,), keep=3)])
    one.score([Continuation(PROMPT, first, (3,), (-1.0,), keep=3)])
    one.score([Continuation((*PROMPT, *first), second, (2,), (-1.0,), keep=2)])
    assert list(one._pieces) == [(*PROMPT, *first), (*PROMPT, *first, *second)]


def test_whole_response_at_once_equals_step_by_step(folder: Path) -> None:
    one = scorer(folder)
    response = tuple(token for step in STEPS for token in step)
    found, _ = one.score([Continuation(PROMPT, response, (3, 5, 9), LOG_PROBS)])
    assert found[0] == pytest.approx(step_by_step(scorer(folder))[0], rel=1e-5)


@pytest.mark.parametrize("form", ["log_prob", "scalar_head"])
def test_a_step_in_two_parts_scores_as_in_one(folder: Path, form: str) -> None:
    one = scorer(folder, parameterisation=form, search_score="product")
    first, rest = STEPS[0][:2], STEPS[0][2:]
    one.score([Continuation(PROMPT, first, (2,), (-0.5,), keep=2)])
    found, _ = one.score(
        [Continuation((*PROMPT, *first), rest, (1,), (-1.0,), open_tokens=2, open_log_prob=-0.5)]
    )
    assert found[0][0] == pytest.approx(
        step_by_step(scorer(folder, parameterisation=form, search_score="product"))[0][0], rel=1e-5
    )


def test_scores_do_not_depend_on_the_batch(folder: Path) -> None:
    items = [
        Continuation((*PROMPT, *STEPS[0]), STEPS[1], (2,), (-1.0,)),
        Continuation((9, 9, 9, 9, 2), (3, 4, 5, 6, 7), (2, 5), (-1.0, -2.0)),
        Continuation((4,), (8,), (1,), (-1.0,)),
    ]
    together, _ = scorer(folder).score(items)
    alone = [scorer(folder).score([item])[0][0] for item in items]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_siblings_share_their_cached_prefix(folder: Path) -> None:
    one = scorer(folder)
    one.score([Continuation(PROMPT, STEPS[0], (3,), (-1.0,), keep=3)])
    prefix = (*PROMPT, *STEPS[0])
    siblings = [Continuation(prefix, tail, (2,), (-1.0,)) for tail in ((8, 9), (9, 8), (2, 2))]
    found, costs = one.score(siblings)
    assert costs == [3, 3, 3]
    fresh, _ = scorer(folder, cache_tokens=0).score(siblings)
    assert [s[0] for s in found] == pytest.approx([s[0] for s in fresh], rel=1e-5)


def test_tokens_looked_ahead_are_not_part_of_the_kept_prefix(folder: Path) -> None:
    one = scorer(folder)
    ahead = Continuation(PROMPT, (*STEPS[0], *STEPS[1]), (3, 5), (-1.0, -1.0), keep=3)
    one.score([ahead])
    found, costs = one.score([Continuation((*PROMPT, *STEPS[0]), STEPS[1], (2,), (-0.7,))])
    assert costs == [3]
    assert found[0][0] == pytest.approx(step_by_step(scorer(folder))[0][1], rel=1e-5)


def test_equal_siblings_are_computed_once(folder: Path) -> None:
    one = scorer(folder)
    items = [Continuation(PROMPT, STEPS[at], (len(STEPS[at]),), (-1.0,)) for at in (0, 1, 0, 1, 0)]
    found, costs = one.score(items)
    alone, _ = scorer(folder).score(items[:2])
    assert costs == [6, 5, 0, 0, 0]
    assert one.computed_tokens == 11
    for at, other in enumerate((0, 1, 0, 1, 0)):
        assert found[at] == pytest.approx(alone[other], rel=1e-5)


def kept(*tokens: int) -> Continuation:
    return Continuation(PROMPT, tokens, (len(tokens),), (-1.0,), keep=len(tokens))


def child(*tokens: int) -> Continuation:
    return Continuation((*PROMPT, *tokens), (9,), (1,), (-1.0,))


def test_the_prefix_that_was_used_longest_ago_is_dropped_first(folder: Path) -> None:
    """Three prefixes of five tokens in a cache of two: the second one goes, for the first was used again."""
    one = scorer(folder, cache_tokens=10)
    one.score([kept(2, 3)])
    one.score([kept(4, 5)])
    assert one.score([child(2, 3)])[1] == [2]
    one.score([kept(6, 7)])
    assert one.score([child(2, 3)])[1] == [2]
    assert one.score([child(4, 5)])[1] == [6]


def test_no_more_tokens_are_cached_than_are_allowed(folder: Path) -> None:
    one = scorer(folder, cache_tokens=9)
    for tokens in ((2, 3), (4, 5), (6, 7)):
        one.score([kept(*tokens)])
    assert [one.score([child(*tokens)])[1] for tokens in ((2, 3), (4, 5), (6, 7))] == [[6], [6], [2]]


def test_no_batch_is_above_the_budget_with_its_padding() -> None:
    """Rows of 3 tokens and 4 cached ones: two of them fit into 20, and a row of 30 stands alone."""
    short, long = SimpleNamespace(cached=4, fed=(0,) * 3), SimpleNamespace(cached=10, fed=(0,) * 20)
    rows: list[Any] = [*[short] * 5, long]
    assert _batches(range(6), rows, 20) == [[0, 1], [2, 3], [4], [5]]
