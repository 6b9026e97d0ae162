"""Replies in OpenAI's form: whole, or as events whose chunks are the steps of the answer."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel

from airls_ray.search.driver import Search
from airls_ray.serving.answers import Answer
from airls_ray.serving.service import Job


class Usage(BaseModel):
    """Tokens: those of the prompt, and all that the search sampled from the policy."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class SearchReport(BaseModel):
    """What the search was, and what it cost on every axis (`airls_ray.search.ledger.Ledger`)."""

    algorithm: str
    budget: int
    answer: str
    aggregate: str
    scorer: str
    seed: int
    score: float | None
    finished_responses: int
    rounds: int
    stopped_by: str | None
    ledger: dict[str, float]


class TextChoice(BaseModel):
    """The answer to a completion, or a piece of it."""

    index: int = 0
    text: str
    logprobs: None = None
    finish_reason: str | None = None


class ReplyMessage(BaseModel):
    """A chat answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """The answer to a chat."""

    index: int = 0
    message: ReplyMessage
    logprobs: None = None
    finish_reason: str | None = None


class ChatPiece(BaseModel):
    """A piece of it: `delta` holds some of role and content."""

    index: int = 0
    delta: dict[str, str]
    logprobs: None = None
    finish_reason: str | None = None


class Reply(BaseModel):
    """Body of a reply, or of one event."""

    id: str
    object: str
    created: int
    model: str
    choices: list[TextChoice | ChatChoice | ChatPiece]
    usage: Usage | None = None
    search: SearchReport | None = None


class Replies:
    """All that is sent about one answer."""

    def __init__(self, chat: bool, model: str, scorer: str, job: Job, search: Search, answer: Answer) -> None:
        """`chat`: the form."""
        self._chat = chat
        self._answer = answer
        self._fields = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        sampled = search.ledger.policy_tokens
        prompt = len(job.prompt)
        self._usage = Usage(prompt_tokens=prompt, completion_tokens=sampled, total_tokens=prompt + sampled)
        self._report = SearchReport(
            algorithm=job.algorithm,
            budget=job.budget,
            answer=job.rule,
            aggregate=job.aggregate,
            scorer=scorer,
            seed=job.seed,
            score=answer.score,
            finished_responses=answer.finished,
            rounds=search.state.rounds,
            stopped_by=search.stopped_by,
            ledger=search.ledger.figures(),
        )

    def whole(self) -> dict[str, Any]:
        """The reply as one body."""
        text, finish = "".join(self._answer.pieces), self._answer.finish
        choice: TextChoice | ChatChoice = TextChoice(text=text, finish_reason=finish)
        if self._chat:
            choice = ChatChoice(message=ReplyMessage(content=text), finish_reason=finish)
        name = "chat.completion" if self._chat else "text_completion"
        reply = Reply(**self._fields, object=name, choices=[choice], usage=self._usage, search=self._report)
        return reply.model_dump()

    def events(self, include_usage: bool) -> Iterator[str]:
        """The reply as server-sent events: the steps, the reason of the end (with `search`), the usage."""
        if self._chat:
            yield self._event([ChatPiece(delta={"role": "assistant", "content": ""})])
        for text in self._answer.pieces:
            yield self._event([ChatPiece(delta={"content": text}) if self._chat else TextChoice(text=text)])
        finish = self._answer.finish
        last = (
            ChatPiece(delta={}, finish_reason=finish)
            if self._chat
            else TextChoice(text="", finish_reason=finish)
        )
        yield self._event([last], search=self._report)
        if include_usage:
            yield self._event([], usage=self._usage)
        yield "data: [DONE]\n\n"

    def _event(self, choices: list[Any], **more: Any) -> str:
        name = "chat.completion.chunk" if self._chat else "text_completion"
        reply = Reply(**self._fields, object=name, choices=choices, **more)
        body = reply.model_dump(exclude={"usage", "search"} - more.keys())
        return f"data: {json.dumps(body)}\n\n"
