"""Replies in OpenAI's form: whole, or as events whose chunks are the steps of the answer."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from airls_ray.search.live import Search
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
    """Of the first choice."""
    scores: list[float | None]
    """Of all choices that differ."""
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
    search: SearchReport | list[SearchReport] | None = None
    """One where there is one prompt, else one for each."""


@dataclass(frozen=True)
class Found:
    """What has come of a prompt."""

    job: Job
    search: Search
    answers: Sequence[Answer]
    """At least one, at most `n`."""

    def all_choices(self) -> list[Answer]:
        """Return `n` answers, the last one again where the search found fewer."""
        return [*self.answers, *[self.answers[-1]] * (self.job.count - len(self.answers))]


class Replies:
    """All that is sent about the answers to one request."""

    def __init__(self, chat: bool, model: str, scorer: str, found: Sequence[Found]) -> None:
        """`chat`: the form; `found`: by prompt. With several prompts each has `n` choices, since clients tell
        by position whose they are."""
        self._chat = chat
        several = len(found) > 1
        self._answers = [
            answer for one in found for answer in (one.all_choices() if several else one.answers)
        ]
        self._fields = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        prompt = sum(len(one.job.prompt) for one in found)
        sampled = sum(one.search.ledger.policy_tokens for one in found)
        self._usage = Usage(prompt_tokens=prompt, completion_tokens=sampled, total_tokens=prompt + sampled)
        reports = [_report(one, scorer) for one in found]
        self._report = reports[0] if len(reports) == 1 else reports

    def whole(self) -> dict[str, Any]:
        """The reply as one body."""
        name = "chat.completion" if self._chat else "text_completion"
        choices = [self._choice(number, answer) for number, answer in enumerate(self._answers)]
        reply = Reply(**self._fields, object=name, choices=choices, usage=self._usage, search=self._report)
        return reply.model_dump()

    def _choice(self, index: int, answer: Answer) -> TextChoice | ChatChoice | ChatPiece:
        text = "".join(answer.pieces)
        if self._chat:
            return ChatChoice(index=index, message=ReplyMessage(content=text), finish_reason=answer.finish)
        return TextChoice(index=index, text=text, finish_reason=answer.finish)

    def events(self, include_usage: bool) -> Iterator[str]:
        """The reply as server-sent events: the steps of each answer and the reason of its end.

        The last of these has `search`. With `include_usage` an event without choices has the usage, and
        those before it have a null there.
        """
        null = {"usage": None} if include_usage else {}
        for number, answer in enumerate(self._answers):
            if self._chat:
                delta = {"role": "assistant", "content": ""}
                yield self._event([ChatPiece(index=number, delta=delta)], **null)
            for text in answer.pieces:
                yield self._event([self._piece(number, text, None)], **null)
            more = {"search": self._report} if number == len(self._answers) - 1 else {}
            yield self._event([self._piece(number, "", answer.finish)], **null, **more)
        if include_usage:
            yield self._event([], usage=self._usage)
        yield "data: [DONE]\n\n"

    def _piece(self, index: int, text: str, finish: str | None) -> TextChoice | ChatPiece:
        if self._chat:
            return ChatPiece(index=index, delta={"content": text} if text else {}, finish_reason=finish)
        return TextChoice(index=index, text=text, finish_reason=finish)

    def _event(self, choices: list[Any], **more: Any) -> str:
        name = "chat.completion.chunk" if self._chat else "text_completion"
        reply = Reply(**self._fields, object=name, choices=choices, **more)
        body = reply.model_dump(exclude={"usage", "search"} - more.keys())
        return f"data: {json.dumps(body)}\n\n"


def _report(found: Found, scorer: str) -> SearchReport:
    job, search, answers = found.job, found.search, found.answers
    return SearchReport(
        algorithm=job.algorithm,
        budget=job.budget,
        answer=job.rule_of(search),
        aggregate=job.aggregate,
        scorer=scorer,
        seed=job.seed,
        score=answers[0].score,
        scores=[answer.score for answer in answers],
        finished_responses=answers[0].finished,
        rounds=search.state.rounds,
        stopped_by=search.stopped_by,
        ledger=search.ledger.figures(),
    )
