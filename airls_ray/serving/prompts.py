"""From the text of a request to the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from airls_ray.errors import DataError
from airls_ray.serving.errors import bad_request
from airls_ray.serving.requests import ChatRequest, CompletionRequest, Message, Prompt
from airls_ray.text.codec import TextCodec
from airls_ray.text.messages import needs_template


class PromptEncoder:
    """Prompts as the policy saw them in training: by the configuration's template and the task's words, which
    stand around the last message; a system message of the request goes before the task's."""

    def __init__(self, codec: TextCodec) -> None:
        """`codec`: of the configuration."""
        self._codec = codec

    def encode(self, request: CompletionRequest | ChatRequest) -> list[tuple[str, tuple[int, ...]]]:
        """Return the problem's text and the tokens of each prompt. Tokens that are given stay as they are.

        Raises:
            ApiError: (400) the text cannot be written in the model's tokens, or is empty, a token is none of
                the model's, or the conversation needs a chat template that there is not, or is refused by it.
        """
        if isinstance(request, ChatRequest):
            *history, last = request.messages
            if last.role != "user":
                raise bad_request("the last message must be the user's", "messages")
            return [(last.text, _filled(self._text(last.text, "messages", history), "messages"))]
        return [self._prompt(prompt) for prompt in request.prompt]

    def _prompt(self, prompt: Prompt) -> tuple[str, tuple[int, ...]]:
        if isinstance(prompt, str):
            return prompt, _filled(self._text(prompt, "prompt"), "prompt")
        size = self._codec.vocab_size
        strange = [token for token in prompt if not 0 <= token < size]
        if strange:
            raise bad_request(f"{strange[0]} is no token of the model, which has 0 to {size - 1}", "prompt")
        return self._codec.decode(prompt), prompt

    def _text(self, text: str, param: str, history: Sequence[Message] = ()) -> list[int]:
        turns = [{"role": one.role, "content": one.text} for one in history]
        if needs_template(turns) and not self._codec.has_template:
            raise bad_request(
                "this model is served without a chat template (model.prompt_template=plain): send one user "
                "message, without earlier turns",
                param,
            )
        try:
            return self._codec.encode_prompt(text, turns)
        except DataError as error:
            raise bad_request(str(error), param) from error


def _filled(tokens: Sequence[int], param: str) -> tuple[int, ...]:
    if not tokens:
        raise bad_request("the prompt is empty", param)
    return tuple(tokens)
