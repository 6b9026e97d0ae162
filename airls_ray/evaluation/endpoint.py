"""Responses from an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from airls_ray.data.stored_outputs import Response
from airls_ray.errors import ConfigError, RunError
from airls_ray.evaluation.outputs import GREEDY
from airls_ray.seeding import derive_seed
from airls_ray.tasks.base import Task, WrapsPrompts
from airls_ray.text.characters import whole_characters
from airls_ray.text.messages import Message, conversation, history_of
from airls_ray.truncation import WHOLE, Truncation

KEY = "OPENAI_API_KEY"
_AT_ONCE = 8
_RETRIES = 3


@dataclass(frozen=True)
class Asked:
    """How each problem is sampled."""

    samples: int
    temperature: float
    max_tokens: int
    seed: int
    truncation: Truncation = WHOLE
    """Of the samples; the greedy response has none."""


class Refusal(RunError):
    """The endpoint does not take this request (HTTP 400), such as a prompt that is too long for the model."""


class Connection:
    """A model behind an address; the key comes from the environment (`OPENAI_API_KEY`) alone."""

    def __init__(self, url: str, model: str | None, deadline_seconds: float) -> None:
        """Make a client; nothing is asked yet.

        Args:
            url: such as `http://127.0.0.1:8000/v1`.
            model: name at the endpoint; None: the one that it serves.
            deadline_seconds: of one call.

        Raises:
            ConfigError: the `openai` package is missing, or the address holds a user name or a password.
        """
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                f"the address of an endpoint at {parts.hostname} holds a user name or a password, which "
                f"messages would show: leave them out, and put the key into {KEY}"
            )
        try:
            import openai
        except ImportError as error:
            raise ConfigError("an endpoint needs the package openai: pip install openai") from error
        self._error, self._bad_request = openai.OpenAIError, openai.BadRequestError
        self._url, self._model = url, model
        self._client = openai.OpenAI(
            base_url=url,
            api_key=os.environ.get(KEY) or "none",
            timeout=deadline_seconds,
            max_retries=_RETRIES,
        )

    def __str__(self) -> str:
        """As messages name it."""
        return f"the endpoint {self._url}"

    def model(self) -> str:
        """Return the name of the model, which the endpoint is asked for where none was given.

        Raises:
            ConfigError: it serves none, or several.
            RunError: as of `choices`.
        """
        if self._model is None:
            served = [one.id for one in self._call(lambda: self._client.models.list()).data]
            if len(served) != 1:
                raise ConfigError(
                    f"{self} serves {len(served)} models ({', '.join(served[:5])}): say which (model=)"
                )
            self._model = served[0]
        return self._model

    def choices(self, create: Callable[[Any, str], Any]) -> list[Any]:
        """Return the choices of the answer to `create(client, model)`.

        Raises:
            Refusal: the endpoint refuses.
            RunError: it cannot be reached, or answers without a choice.
        """
        model = self.model()
        answer = self._call(lambda: create(self._client, model))
        if not answer.choices:
            raise RunError(f"{self} answered without a choice: is {model!r} a model of this kind?")
        return list(answer.choices)

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._error as error:
            kind = Refusal if isinstance(error, self._bad_request) else RunError
            model = "" if self._model is None else f", the model {self._model!r}"
            raise kind(
                f"{self} did not answer ({' '.join(str(error).split())[:200]}): check its "
                f"address{model} and the key in {KEY}"
            ) from error


class Endpoint:
    """A chat model behind an address."""

    def __init__(
        self,
        url: str,
        model: str,
        deadline_seconds: float,
        task: Task | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a client; nothing is asked yet.

        Args:
            url: see `Connection`.
            model: name at the endpoint.
            deadline_seconds: of one call.
            task: puts its words around the problems, where it has some.
            chat_template_kwargs: variables of the model's chat template, which vLLM and SGLang take; empty:
                none are sent.

        Raises:
            ConfigError: the `openai` package is missing.
        """
        self._wrapper = task if isinstance(task, WrapsPrompts) else None
        self._connection = Connection(url, model, deadline_seconds)
        self._extra = {"chat_template_kwargs": dict(chat_template_kwargs)} if chat_template_kwargs else {}

    def responses(self, problems: pa.Table, first: int, asked: Asked) -> list[Response]:
        """One greedy response and `asked.samples` samples of each problem (PROBLEMS), in order.

        Raises:
            RunError: the endpoint cannot be reached, refuses, or answers without text.
        """
        prompts, details = problems["prompt"].to_pylist(), problems["details"].to_pylist()
        turns = [self._turns(*one) for one in zip(prompts, details, strict=True)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(lambda row: self._of_problem(row, turns[row], first, asked), range(len(turns)))
            return [response for one in found for response in one]

    def _turns(self, prompt: str, details: str) -> list[Message]:
        system, user = ("", prompt) if self._wrapper is None else self._wrapper.wrap(prompt)
        return conversation(system, user, history_of(details))

    def _of_problem(self, row: int, turns: list[Message], first: int, asked: Asked) -> list[Response]:
        seed = derive_seed(asked.seed, "endpoint", first + row)
        greedy = self._ask(turns, 1, replace(asked, temperature=0.0, seed=seed, truncation=WHOLE))
        sampled: list[Any] = []
        while len(sampled) < asked.samples:  # some servers give one choice whatever `n` is
            wanted = asked.samples - len(sampled)
            sampled += self._ask(turns, wanted, replace(asked, seed=seed + len(sampled)))
        return [
            Response(row, index, whole_characters(choice.message.content or ""), None, choice.finish_reason)
            for index, choice in ((GREEDY, greedy[0]), *enumerate(sampled[: asked.samples]))
        ]

    def _ask(self, turns: list[Message], n: int, how: Asked) -> Sequence[Any]:
        messages: Any = turns
        given = dict(how.truncation.given())
        named: Any = {"top_p": given.pop("top_p")} if "top_p" in given else {}  # the others are vLLM's
        return self._connection.choices(
            lambda client, model: client.chat.completions.create(
                model=model,
                messages=messages,
                n=n,
                temperature=how.temperature,
                max_tokens=how.max_tokens,
                seed=how.seed,
                extra_body={**self._extra, **given} or None,
                **named,
            )
        )
