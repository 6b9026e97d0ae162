"""From a search that is over to the answer that a client gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airls_ray.config.search_section import AnswerRule
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.driver import Search
from airls_ray.search.records import Leaf, choose
from airls_ray.search.tree import SearchState
from airls_ray.text import TextCodec

Canonical = Callable[[str, Sequence[Sequence[int]]], Sequence[str | None]]
"""The answers that the task's grader reads in responses: problem's text, responses."""


@dataclass(frozen=True)
class Answer:
    """What is chosen among the finished responses."""

    pieces: tuple[str, ...]
    """Text of each step; together they are the text of the response."""
    finish: str
    """`stop`, or `length` where the response was cut off."""
    score: float | None
    """Null where nothing was sampled."""
    finished: int
    """Finished responses among which it was chosen."""


def choose_answer(
    search: Search, problem: str, rule: AnswerRule, how: Aggregate, codec: TextCodec, canonical: Canonical
) -> Answer:
    """Return the answer of a search that is over.

    A search that ended (by a limit) before any response was finished gives the best beginning of one.

    Args:
        search: the search.
        problem: the problem's text.
        rule: how to choose. Votes are over the answers that the task's grader reads; where it reads none in
            any response, over the texts of the last steps.
        how: aggregation of step scores into a response's score.
        codec: tokens to text.
        canonical: asked only for a vote.
    """
    state = search.state
    nodes = search.searcher.leaves(state)
    if not nodes:
        begun = max(state.last, key=lambda node: (state.log_score(node, how), -node), default=None)
        if begun is None:
            return Answer((), "length", None, 0)
        return Answer(pieces(state, begun, codec), "length", state.value(begun, how), 0)
    answers: Sequence[str | None] = [None] * len(nodes)
    if rule != "best":
        answers = _answers(state, nodes, problem, codec, canonical)
    weights = search.searcher.vote_weights(state)
    leaves = [
        Leaf(node, state.log_score(node, how), weights[node], state.log_prob(node), answer, 0.0)
        for node, answer in zip(nodes, answers, strict=True)
    ]
    chosen = choose(leaves, rule)
    assert chosen is not None
    node = nodes[chosen]
    finish = "stop" if state.nodes[node].finish == "stop" else "length"
    return Answer(pieces(state, node, codec), finish, state.value(node, how), len(nodes))


def pieces(state: SearchState, node: int, codec: TextCodec) -> tuple[str, ...]:
    """Return the text of a response in pieces that end where steps end (and never inside a character)."""
    response = state.response(node)
    text = codec.decode(response)
    found = [0]
    for end in state.step_ends(node)[:-1]:
        before = codec.decode(response[:end])
        if text.startswith(before) and len(before) > found[-1]:
            found.append(len(before))
    ends = [*found[1:], len(text)]
    return tuple(text[start:end] for start, end in zip(found, ends, strict=True) if end > start)


def _answers(
    state: SearchState, nodes: Sequence[int], problem: str, codec: TextCodec, canonical: Canonical
) -> Sequence[str | None]:
    responses = [state.response(node) for node in nodes]
    read = canonical(problem, responses)
    if any(answer is not None for answer in read):
        return read
    return [
        codec.step_texts(response, state.step_ends(node))[-1].strip() or None
        for node, response in zip(nodes, responses, strict=True)
    ]
