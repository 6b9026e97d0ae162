"""From the text of a request to the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airls_ray.errors import DataError
from airls_ray.serving.errors import bad_request
from airls_ray.serving.requests import ChatRequest, CompletionRequest, Message, Prompt
from airls_ray.text.codec import TextCodec


class PromptEncoder:
    """Prompts as the policy saw them in training: by the configuration's template."""

    def __init__(self, codec: TextCodec, chat: Any | None = None) -> None:
        """`chat`: tokenizer with a chat template, where `model.prompt_template` is chat."""
        self._codec = codec
        self._chat = chat

    def encode(self, request: CompletionRequest | ChatRequest) -> list[tuple[str, tuple[int, ...]]]:
        """Return the problem's text and the tokens of each prompt. Tokens that are given stay as they are.

        Raises:
            ApiError: (400) the text cannot be written in the model's tokens, or is empty, a token is none of
                the model's, or the conversation needs a chat template that there is not.
        """
        if isinstance(request, ChatRequest):
            problem, tokens = request.messages[-1].text, self._conversation(request.messages)
            return [(problem, _filled(tokens, "messages"))]
        return [self._prompt(prompt) for prompt in request.prompt]

    def _prompt(self, prompt: Prompt) -> tuple[str, tuple[int, ...]]:
        if isinstance(prompt, str):
            return prompt, _filled(self._text(prompt, "prompt"), "prompt")
        size = self._codec.vocab_size
        strange = [token for token in prompt if not 0 <= token < size]
        if strange:
            raise bad_request(f"{strange[0]} is no token of the model, which has 0 to {size - 1}", "prompt")
        return self._codec.decode(prompt), prompt

    def _conversation(self, messages: Sequence[Message]) -> list[int]:
        if messages[-1].role != "user":
            raise bad_request("the last message must be the user's", "messages")
        if len(messages) == 1:
            return self._text(messages[0].text, "messages")
        if self._chat is None:
            raise bad_request(
                "this model is served without a chat template (model.prompt_template=plain): send one user "
                "message, without a system message or earlier turns",
                "messages",
            )
        from jinja2.exceptions import TemplateError

        turns = [{"role": one.role, "content": one.text} for one in messages]
        try:
            ids = self._chat.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        except (TemplateError, TypeError) as error:  # a template that adds None to a text, say
            raise bad_request(
                f"the model's chat template refuses these messages: {error}", "messages"
            ) from error
        except DataError as error:
            raise bad_request(str(error), "messages") from error
        return [int(token) for token in ids]

    def _text(self, text: str, param: str) -> list[int]:
        try:
            return self._codec.encode_prompt(text)
        except DataError as error:
            raise bad_request(str(error), param) from error


def _filled(tokens: Sequence[int], param: str) -> tuple[int, ...]:
    if not tokens:
        raise bad_request("the prompt is empty", param)
    return tuple(tokens)
