"""A model's chat template, in which only the template's own special tokens are special.

What a user writes stays text: `<|im_end|>` in a question ends no turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from airls_ray.errors import DataError
from airls_ray.text.characters import whole_characters

Message = Mapping[str, str]

_PRIVATE = range(0xE000, 0xF8FF)
"""Code points that mean nothing of themselves."""
_SAID = "what the assistant said"


class ChatTemplate:
    """The tokenizer of transformers with its template, and a copy of it that knows no special tokens."""

    def __init__(
        self,
        tokenizer: Any,
        plain: Tokenizer,
        special: Sequence[str],
        keywords: Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: of transformers, with a chat template.
            plain: the same, but it reads the texts of special tokens as text.
            special: these texts.
            keywords: variables of the template (`model.chat_template_kwargs`), given to it every time.
        """
        self._tokenizer = tokenizer
        self._keywords = dict(keywords or {})
        self._control: Tokenizer = tokenizer.backend_tokenizer
        self._control.no_padding()
        self._control.no_truncation()
        self._plain = plain
        longest_first = sorted(special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def apply_chat_template(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, return_dict: bool = False
    ) -> list[int]:
        """Return the tokens of a conversation, as the method of transformers with this name does.

        Messages with the text of a special token are rendered with private characters in its place. The
        rendered text is cut there, and each such text is encoded without special tokens.

        Raises:
            TemplateError: (of jinja2) the template refuses these messages.
            DataError: a message has all private characters of Unicode, so that none is left for this.
        """
        shielded, hidden = self._shield(messages)
        text = self.render(shielded, add_generation_prompt)
        ids: list[int] = []
        pieces = re.split(f"([{''.join(hidden)}])", text) if hidden else [text]
        for piece in filter(None, pieces):
            backend = self._plain if piece in hidden else self._control
            ids += backend.encode(hidden.get(piece, piece), add_special_tokens=False).ids
        return ids

    def render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """Return the text of a conversation; its special tokens and those of the template look the same."""
        text: str = self._tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **self._keywords,
        )
        return text

    def turn_end(self) -> int | None:
        """Return the first special token that the template puts behind what the assistant says, if any."""
        from jinja2 import TemplateError

        messages = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": _SAID}]
        try:
            text = self.render(messages, add_generation_prompt=False)
        except (TemplateError, TypeError, ValueError):  # one that takes no answers, such as that of a PRM
            return None
        found = self._special.search(text, text.rfind(_SAID) + len(_SAID)) if _SAID in text else None
        return None if found is None else self._control.token_to_id(found.group())

    def _shield(self, messages: Sequence[Message]) -> tuple[list[dict[str, str]], dict[str, str]]:
        """Return the messages with private characters for the texts of special tokens, and which is which."""
        whole = [{**message, "content": whole_characters(message["content"])} for message in messages]
        contents = [message["content"] for message in whole]
        texts = dict.fromkeys(match.group() for one in contents for match in self._special.finditer(one))
        if not texts:
            return whole, {}
        used = set().union(*contents)
        free = [chr(code) for code in _PRIVATE if chr(code) not in used]
        if len(free) < len(texts):
            raise DataError("a message uses all private characters of Unicode: take some of them out")
        signs = dict(zip(texts, free, strict=False))
        shielded = [
            {**message, "content": self._special.sub(lambda match: signs[match.group()], message["content"])}
            for message in whole
        ]
        return shielded, {sign: text for text, sign in signs.items()}
