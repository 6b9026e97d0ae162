"""A critic behind `/v1/chat/completions` that says what a test wants, token by token."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

from airls_ray.config.door_section import ScorerConfig
from airls_ray.critics.reply import Reply, Token
from airls_ray.search.own_scorer import OwnScorer, open_own

Says = Callable[[dict[str, Any], int], str]
"""What is said to a request by its choice of that number."""


def verdict_token(text: str, yes: float, no: float) -> Token:
    """A token where Yes and No have these probabilities; 0: not among the listed ones."""
    top = [(f" {word}", log(share)) for word, share in (("Yes", yes), ("No", no)) if share]
    return Token(text, (*top, (" Perhaps", log(0.001))))


def reply(*parts: str | Token) -> Reply:
    """A reply of words, each a token, and given tokens."""
    tokens: list[Token] = []
    for part in parts:
        if isinstance(part, Token):
            tokens.append(part)
        else:
            tokens += [Token(word, ((word, -0.1),)) for word in re.findall(r"\s*\S+|\s+$", part)]
    return Reply("".join(token.text for token in tokens), tokens)


@dataclass
class FakeCritic:
    """Gives what `says` returns: a text, or `reply` with tokens; None: it refuses."""

    says: Callable[[dict[str, Any], int], str | Reply | None]
    models: Sequence[str] = ("judge",)
    context: int = 0
    most_choices: int = 100
    asked: list[dict[str, Any]] = field(default_factory=list)
    status: int = 400
    """Of a refusal."""
    lock: Any = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        with self.lock:
            self.asked.append(body)
        choices = []
        for index in range(min(body["n"], self.most_choices)):
            said = self.says(body, index)
            if said is None:
                return {"error": {"message": "no room"}, "status": self.status}
            choices.append(_choice(index, said))
        return {"id": "1", "object": "chat.completion", "created": 1, "model": "judge", "choices": choices}


def _choice(index: int, said: str | Reply) -> dict[str, Any]:
    found = Reply(said) if isinstance(said, str) else said
    content = [
        {
            "token": token.text,
            "logprob": -0.1,
            "top_logprobs": [{"token": text, "logprob": share} for text, share in token.top],
        }
        for token in found.tokens
    ]
    return {
        "index": index,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": found.text},
        "logprobs": {"content": content} if content else None,
    }


def scorer(name: str, url: str, **options: Any) -> OwnScorer:
    """The scorer of that name behind the door, as a configuration opens it."""
    return open_own(ScorerConfig(name=name, options={"endpoint": url, **options}))


def steps_of(body: Mapping[str, Any]) -> int:
    """Number of steps that the user's turn of ThinkPRM's form has."""
    return len(re.findall(r"^Step \d+:", body["messages"][0]["content"], re.MULTILINE))
