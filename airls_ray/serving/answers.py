"""From a search that is over to the answer that a client gets."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airls_ray.config.search_section import VOTE, AnswerRule, VoteConfig
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.live import Read, Search, SearchProblem
from airls_ray.search.records import Leaf, choose
from airls_ray.search.tree import SearchState
from airls_ray.text.codec import TextCodec

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


def choose_answers(
    search: Search,
    problem: str,
    rule: AnswerRule,
    how: Aggregate,
    codec: TextCodec,
    canonical: Canonical,
    *,
    vote: VoteConfig = VOTE,
    count: int = 1,
    stops: Sequence[str] = (),
) -> list[Answer]:
    """Return the answers of a search that is over, the one that it gives first.

    A search that ended (by a limit) before any response was finished gives the best beginning of one.

    Args:
        search: the search.
        problem: the problem's text.
        rule: how to choose. Votes are over the answers that the task's grader reads; where it reads none in
            any response, over the texts of the last steps.
        how: aggregation of step scores into a response's score.
        codec: tokens to text.
        canonical: asked only for a vote.
        vote: settings of `rule`.
        count: most answers; a search that has fewer finished responses gives these. After a vote the next
            one is a response of the next answer; when all answers had their turn, the rest by score.
        stops: a response ends before the first of these texts.
    """
    state = search.state
    nodes = search.searcher.leaves(state)
    if not nodes:
        begun = max(state.last, key=lambda node: (state.log_score(node, how), -node), default=None)
        if begun is None:
            return [Answer((), "length", None, 0)]
        return [Answer(cut(pieces(state, begun, codec), stops), "length", state.value(begun, how), 0)]
    answers: Sequence[str | None] = [None] * len(nodes)
    if rule != "best":
        answers = _answers(search, nodes, problem, codec, canonical)
    weights = search.searcher.vote_weights(state)
    leaves = [
        Leaf(node, state.log_score(node, how), weights[node], state.log_prob(node), answer, 0.0)
        for node, answer in zip(nodes, answers, strict=True)
    ]
    return [
        Answer(
            cut(pieces(state, nodes[at], codec), stops),
            "stop" if state.nodes[nodes[at]].finish == "stop" else "length",
            state.value(nodes[at], how),
            len(nodes),
        )
        for at in in_order(leaves, rule, count, vote)
    ]


def reader(canonical: Canonical) -> Read:
    """Return what reads answers for a driver, whose searches may be of any problems."""

    def read(problems: Sequence[SearchProblem], responses: Sequence[Sequence[int]]) -> list[str | None]:
        rows: dict[str, list[int]] = {}
        for row, problem in enumerate(problems):
            rows.setdefault(problem.text, []).append(row)
        answers: list[str | None] = [None] * len(responses)
        for text, mine in rows.items():
            for row, answer in zip(mine, canonical(text, [responses[row] for row in mine]), strict=True):
                answers[row] = answer
        return answers

    return read


def in_order(leaves: Sequence[Leaf], rule: AnswerRule, count: int, vote: VoteConfig = VOTE) -> list[int]:
    """Return the positions of the first `count` leaves as `choose` would take them, one after the other.

    Where `rule` is a vote, an answer that was chosen has had its turn until all have had theirs.
    """
    order: list[int] = []
    left = list(range(len(leaves)))
    while left and len(order) < count:
        chosen = choose([leaves[at] for at in left], rule, vote)
        assert chosen is not None
        first = left[chosen]
        order.append(first)
        said = leaves[first].answer if rule != "best" else None
        left = [at for at in left if at != first and (said is None or leaves[at].answer != said)]
    if len(order) < count:  # all answers had their turn
        rest = [at for at in range(len(leaves)) if at not in order]
        order += sorted(rest, key=lambda at: (-leaves[at].log_score, at))[: count - len(order)]
    return order


def cut(texts: Sequence[str], stops: Sequence[str]) -> tuple[str, ...]:
    """Return the pieces of a text without what comes from the first of `stops` on."""
    whole = "".join(texts)
    end = min((whole.index(stop) for stop in stops if stop in whole), default=len(whole))
    kept, size = [], 0
    for text in texts:
        kept.append(text[: max(end - size, 0)])
        size += len(text)
    return tuple(text for text in kept if text)


def end_of(stops: Sequence[str], codec: TextCodec) -> Callable[[Sequence[int]], int | None]:
    """Return what finds the tokens of a response that hold the first whole one of `stops`."""

    def is_over(tokens: Sequence[int]) -> bool:
        text = codec.decode(tokens)
        return any(stop in text for stop in stops)

    def find(tokens: Sequence[int]) -> int | None:
        if not is_over(tokens):
            return None
        return bisect_left(range(len(tokens)), True, lo=1, key=lambda size: is_over(tokens[:size]))

    return find


def before(stops: Sequence[str], codec: TextCodec) -> Callable[[Sequence[int]], Sequence[int]]:
    """Return what gives the tokens of a response before the first of `stops`.

    Of a token in which the stop begins, what comes before it is written in tokens of its own.
    """

    def shorten(tokens: Sequence[int]) -> Sequence[int]:
        whole = codec.decode(tokens)
        text = "".join(cut([whole], stops))
        if text == whole:
            return tokens
        kept = (
            bisect_right(range(len(tokens)), len(text), key=lambda size: len(codec.decode(tokens[:size]))) - 1
        )
        while not text.startswith(codec.decode(tokens[:kept])):  # inside a character
            kept -= 1
        rest = text[len(codec.decode(tokens[:kept])) :]
        return [*tokens[:kept], *(codec.encode_trace(rest) if rest else ())]

    return shorten


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
    search: Search, nodes: Sequence[int], problem: str, codec: TextCodec, canonical: Canonical
) -> Sequence[str | None]:
    state = search.state
    read = canonical(problem, [search.given(node) for node in nodes])
    if any(answer is not None for answer in read):
        return read
    return [
        codec.step_texts(state.response(node), state.step_ends(node))[-1].strip() or None for node in nodes
    ]
