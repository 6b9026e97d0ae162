"""Requests as OpenAI's clients send them. What a search cannot honour is refused by name, never ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, PositiveInt, ValidationError

from airls_ray.config.search_section import AnswerRule
from airls_ray.serving.errors import ApiError, bad_request

_IGNORED = {"metadata", "prompt_cache_key", "safety_identifier", "service_tier", "user"}
"""Fields that change no answer."""
_MOST_STOPS = 64

_FIXED: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
"""Fields of the interface that search does not have, and the values under which they mean nothing."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SearchOptions(_Part):
    """`search` of a request; what is not given is as the configuration says."""

    algorithm: str | None = None
    budget: PositiveInt | None = None
    answer: AnswerRule | None = None
    aggregate: Literal["last", "min", "prod", "mean"] | None = None
    max_policy_tokens: PositiveInt | None = None
    """Most tokens sampled from the policy: the round that crosses it is the last."""


class StreamOptions(_Part):
    """`stream_options` of a request."""

    include_usage: bool = False
    include_obfuscation: bool = False


Prompt = str | tuple[int, ...]
"""A text, or the tokens of a whole prompt."""


def _prompts(given: Any) -> tuple[Prompt, ...]:
    if isinstance(given, str):
        return (given,)
    if isinstance(given, list) and given:
        if all(isinstance(one, str) for one in given):
            return tuple(given)
        if _is_tokens(given):
            return (tuple(given),)
        if all(_is_tokens(one) for one in given):
            return tuple(tuple(one) for one in given)
    raise ValueError("give a text, a list of texts, the token ids of a prompt, or a list of such lists")


def _is_tokens(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(type(one) is int for one in given)


def _stops(given: Any) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(one, str) and one for one in texts):
        raise ValueError("give a text or a list of texts, none of them empty")
    if len(texts) > _MOST_STOPS:
        raise ValueError(f"give at most {_MOST_STOPS} texts")
    return tuple(texts)


class _Request(_Part):
    model: str | None = None
    """Null: the one that is served."""
    n: PositiveInt = 1
    """Answers: the search's best, its second best ..."""
    max_tokens: PositiveInt | None = None
    """Longest response."""
    stop: Annotated[tuple[str, ...], PlainValidator(_stops)] = ()
    """A response ends before the first of these texts."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    """0 and -1: all tokens."""
    min_p: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    search: SearchOptions = SearchOptions()

    @property
    def longest(self) -> int | None:
        """Cap on the response in tokens."""
        return self.max_tokens


class CompletionRequest(_Request):
    """Body of POST /v1/completions."""

    prompt: Annotated[tuple[Prompt, ...], PlainValidator(_prompts)]
    """Each is searched by itself."""


class TextPart(_Part):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class Message(_Part):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(_Request):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: PositiveInt | None = None

    @property
    def longest(self) -> int | None:
        """Cap on the response in tokens."""
        return self.max_completion_tokens or self.max_tokens


AnyRequest = TypeVar("AnyRequest", CompletionRequest, ChatRequest)


def parse(kind: type[AnyRequest], body: bytes) -> AnyRequest:
    """Return the request in `body`.

    Raises:
        ApiError: (400) it is no JSON object, or a field is missing, wrong, unknown or not supported.
    """
    try:
        given = _without_nulls(json.loads(body))
        json.dumps(given, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise bad_request("the body has half of a surrogate pair, which is no character") from error
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON ({type(error).__name__})") from error
    if not isinstance(given, dict):
        raise bad_request("the body must be a JSON object")
    fields: dict[str, Any] = given
    for name in [*fields]:
        if name in _IGNORED or _is_neutral(name, fields[name]):
            del fields[name]
        elif name in _FIXED and name not in kind.model_fields:
            raise bad_request(f"{name} is not supported: it means nothing to a search, leave it out", name)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _explain(error) from None


def _is_neutral(name: str, value: Any) -> bool:
    """Whether a field that is not supported has a value under which it means nothing."""
    return any(
        value == one and isinstance(value, bool) == isinstance(one, bool) for one in _FIXED.get(name, ())
    )


def _without_nulls(value: Any) -> Any:
    """Drop the nulls of objects: they mean the default."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _explain(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        reason = "there is no such field"
    return bad_request(f"{param[:100]}: {reason}", param[:100])
