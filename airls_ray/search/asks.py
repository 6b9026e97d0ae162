"""What is asked of sampler and scorer for a wish of an algorithm, and what their answers become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import fsum
from typing import Any

import pyarrow as pa

from airls_ray.data.schemas import EXPANSIONS
from airls_ray.search.ledger import Ledger
from airls_ray.search.live import Ask, DriverSettings, Sampled
from airls_ray.search.scoring import Continuation
from airls_ray.search.tree import Child, Finish


def expansions_of(asks: Sequence[Ask]) -> pa.Table:
    """Return the table of schema EXPANSIONS that asks for all of them, in order."""
    columns: dict[str, list[Any]] = {name: [] for name in EXPANSIONS.names}
    for ask in asks:
        want, problem = ask.expansion.want, ask.search.problem
        temperature = ask.search.temperature if want.temperature is None else want.temperature
        values = (
            problem.problem_id,
            problem.prompt,
            ask.response,
            want.count,
            want.whole,
            want.max_tokens,
            want.lookahead,
            temperature,
            ask.expansion.seed,
            ask.search.truncation.top_p,
            ask.search.truncation.top_k,
            ask.search.truncation.min_p,
        )
        for name, value in zip(EXPANSIONS.names, values, strict=True):
            columns[name].append(value)
    return pa.table(columns, schema=EXPANSIONS)


def sampled(asks: Sequence[Ask], found: pa.Table, is_blank: Callable[[Sequence[int]], bool]) -> list[Sampled]:
    """Return the continuations of each ask (schema CONTINUATIONS), with what a scorer is asked about them."""
    rows: list[list[dict[str, Any]]] = [[] for _ in asks]
    for row in found.to_pylist():
        rows[row["expansion"]].append(_ended(asks[row["expansion"]], row))
    return [
        Sampled(ask, own, [_item(ask, row, is_blank) for row in own])
        for ask, own in zip(asks, rows, strict=True)
    ]


def _ended(ask: Ask, row: dict[str, Any]) -> dict[str, Any]:
    """A continuation without what is behind the end that its search sets; all that was sampled is paid."""
    end_of, before, own = ask.search.end_of, len(ask.response), len(row["tokens"])
    end = None if end_of is None else end_of((*ask.response, *row["tokens"], *row["ahead"]))
    if end is None:
        return row
    kept = max(end - before, 1)
    if kept > own:  # it is reached in what was looked ahead
        return {**row, **_cut(row, kept - own, "ahead", "ahead_logprobs", "ahead_ends")}
    cut = _cut(row, kept, "tokens", "logprobs", "step_ends")
    return {**row, **cut, "finish": "stop", "ahead": [], "ahead_logprobs": [], "ahead_ends": []}


def _cut(row: dict[str, Any], kept: int, tokens: str, log_probs: str, ends: str) -> dict[str, Any]:
    """The fields of these names without what is behind the first `kept` tokens, where the last step ends."""
    inner = [one for one in row[ends] if one < kept]
    return {tokens: row[tokens][:kept], log_probs: row[log_probs][:kept], ends: [*inner, kept]}


def _item(ask: Ask, row: dict[str, Any], is_blank: Callable[[Sequence[int]], bool]) -> Continuation:
    """What the scorer is asked about a continuation."""
    state, node = ask.search.state, ask.expansion.want.node
    tokens = row["tokens"]
    closes = bool(node) and state.nodes[node].finish == "step" and is_blank(tokens)
    goes_on = closes or state.nodes[node].finish == "partial"
    open_tokens, open_log_prob = state.last_step(node) if goes_on else (0, 0.0)
    ends = [len(tokens)] if closes else row["step_ends"]
    ahead = [len(tokens) + end for end in row["ahead_ends"]]
    return Continuation(
        prefix=ask.prefix,
        tokens=(*tokens, *row["ahead"]),
        step_ends=(*ends, *ahead),
        log_probs=(*_sums(row["logprobs"], ends), *_sums(row["ahead_logprobs"], row["ahead_ends"])),
        open_tokens=open_tokens,
        open_log_prob=open_log_prob,
        keep=len(tokens) if row["finish"] in ("step", "partial") else 0,
        problem=ask.search.problem.number,
        text=ask.search.problem.text,
        prompt_tokens=len(ask.search.problem.prompt),
        prefix_ends=ask.ends[:-1] if goes_on else ask.ends,
        over=row["finish"] in ("stop", "length"),
        closes=closes,
    )


def _sums(log_probs: Sequence[float], ends: Sequence[int]) -> list[float]:
    """Of the tokens of each step."""
    return [fsum(log_probs[start:end]) for start, end in pairwise([0, *ends])]


def child_of(row: dict[str, Any], item: Continuation, scores: tuple[float, ...], max_steps: int) -> Child:
    """The continuation as the searcher is told of it."""
    if len(scores) != len(item.step_ends):
        raise ValueError(f"a scorer gave {len(scores)} scores for {len(item.step_ends)} steps")
    finish: Finish = row["finish"]
    steps = len(item.step_ends) - len(row["ahead_ends"])
    ahead, ahead_tokens = scores[steps:], item.step_tokens[steps:]
    if finish == "step" and len(item.prefix_ends) + steps >= max_steps:
        finish, ahead, ahead_tokens = "length", (), ()  # nothing follows a response that is over
    return Child(
        tokens=tuple(row["tokens"]),
        log_prob=fsum(item.log_probs[:steps]),
        scores=scores[:steps],
        finish=finish,
        closes=item.closes,
        step_ends=item.step_ends[:steps],
        step_log_probs=item.log_probs[:steps],
        ahead=ahead,
        ahead_tokens=ahead_tokens,
    )


def pay(ledger: Ledger, row: dict[str, Any], item: Continuation, cost: int, settings: DriverSettings) -> None:
    """Book one continuation, and every step looked ahead behind it; its own prefix is its expansion's."""
    looked = len(row["ahead_ends"])
    ledger.generations += 1 + looked
    behind = len(item.prefix) + len(row["tokens"])
    ledger.prefill_tokens += sum(behind + start for start in (0, *row["ahead_ends"])[:looked])
    ledger.policy_tokens += row["sampled"]
    ledger.prm_tokens += cost
    ledger.flops += 2.0 * (settings.policy_parameters * row["sampled"] + settings.scorer_parameters * cost)
