"""What a critic replied, and how sure it was of a verdict in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any, Literal


@dataclass(frozen=True)
class Token:
    """A token of a reply."""

    text: str
    top: Sequence[tuple[str, float]]
    """Text and log-probability (nats) of the most probable tokens here, the sampled one among them."""


@dataclass(frozen=True)
class Reply:
    """A reply, or the part of it that the last request gave."""

    text: str
    """Where there are tokens, their texts joined."""
    tokens: Sequence[Token] = ()
    """Empty where the endpoint gives no log-probabilities."""


def reply_of(choice: Any) -> Reply:
    """Return what a choice of an answer of `/v1/chat/completions` says.

    A server that splits off the reasoning (vLLM's `reasoning_content` or `reasoning`) gives it first.
    """
    found = getattr(getattr(choice, "logprobs", None), "content", None) or []
    tokens = [
        Token(one.token, tuple((top.token, top.logprob) for top in one.top_logprobs or [])) for one in found
    ]
    if tokens:
        return Reply("".join(token.text for token in tokens), tokens)
    message = choice.message
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
    return Reply(thought + (message.content or ""))


def verdict_probability(
    reply: Reply, pattern: re.Pattern[str], unlisted: Literal["least", "none"] = "least"
) -> float | None:
    """Return P(Yes) / (P(Yes) + P(No)) at the token in which a verdict is said.

    Tokens count as Yes or No whatever their blanks, signs and capitals are.

    Args:
        reply: with tokens, or the verdict alone counts: 1.0 or 0.0.
        pattern: its first group is the verdict; its first match counts.
        unlisted: probability of that of the two which is not among the most probable tokens: as the `least`
            of these, or `none`.

    Returns:
        In [0, 1]; None: there is no verdict.
    """
    found = pattern.search(reply.text)
    if found is None:
        return None
    top = _top_at(reply, found.start(1))
    yes, no = (
        [exp(log_prob) for text, log_prob in top if re.sub(r"\W", "", text).casefold() == word]
        for word in ("yes", "no")
    )
    rest = min((exp(log_prob) for _, log_prob in top), default=0.0) if unlisted == "least" else 0.0
    said, other = sum(yes) if yes else rest, sum(no) if no else rest
    if (not yes and not no) or said + other == 0:
        return float(found[1].casefold() == "yes")
    return said / (said + other)


def _top_at(reply: Reply, position: int) -> Sequence[tuple[str, float]]:
    """Most probable tokens at the character `position`; none where they are not known."""
    end = 0
    for token in reply.tokens:
        end += len(token.text)
        if position < end:
            return token.top
    return ()
