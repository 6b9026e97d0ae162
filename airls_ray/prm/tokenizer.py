"""The tokenizer of a PRM folder, as its authors call it: through transformers, template included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airls_ray.errors import ModelError
from airls_ray.prm.items import first_tokens
from airls_ray.text.tokenizer_files import transformers_tokenizer

Message = Mapping[str, str]


class PRMTokenizer:
    """A fast tokenizer with what the encoders of this package ask of it."""

    def __init__(self, folder: Path | str) -> None:
        """Load the tokenizer of `folder`; no code in the folder is run.

        Raises:
            ModelError: there is none, it is broken, or it is no fast tokenizer.
        """
        self.folder = str(folder)
        try:
            tokenizer: Any = transformers_tokenizer(folder)
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(f"cannot load the tokenizer of {folder}: {reason}") from error
        if not tokenizer.is_fast:
            raise ModelError(f"the tokenizer of {folder} is not a fast one; save it with a tokenizer.json")
        self._tokenizer = tokenizer
        self.bos_id: int | None = tokenizer.bos_token_id
        """Token that begins a text, where the model has one."""
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        self.special = [token.content for token in added if token.special]
        """Texts of the special tokens."""

    @property
    def has_chat_template(self) -> bool:
        """Whether `render` works."""
        return bool(self._tokenizer.chat_template)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text` alone, special tokens included: of a separator or a rendered turn."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_plain(self, text: str) -> list[int]:
        """Return the tokens of a problem or step alone: the text of a special token in it stays text."""
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def encode_start(self, text: str) -> list[int]:
        """Return the tokens of a text that begins a sequence: with a begin of sequence, without an end."""
        ids = list(self._tokenizer(text)["input_ids"])
        while ids and ids[-1] == self._tokenizer.eos_token_id:  # some tokenizers close every text
            ids.pop()
        return ids

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """Return the tokens of `text` and the character at which each begins."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoded["input_ids"]), [start for start, _ in encoded["offset_mapping"]]

    def beginning(self, text: str, tokens: int) -> str | None:
        """Return the text of the first `tokens` tokens of `text`; see `items.first_tokens`."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return first_tokens(text, encoded["offset_mapping"], tokens, self.folder)

    def knows(self, text: str) -> bool:
        """Whether `text` is one token."""
        unknown = self._tokenizer.unk_token_id
        ids = self.encode(text)
        return len(ids) == 1 and ids[0] != unknown

    def one_id(self, text: str) -> int:
        """Return the token of `text`.

        Raises:
            ModelError: it is not one token: the folder is not of the form that it was taken for.
        """
        if not self.knows(text):
            raise ModelError(
                f"{text!r} is not one token of {self.folder}, so it is no PRM of this form: give "
                "another --form"
            )
        return self.encode(text)[0]

    def render(self, messages: Sequence[Message], generation_prompt: bool = False) -> str:
        """Return the text of a conversation by the model's chat template.

        Raises:
            ModelError: the tokenizer has no chat template, or it refuses this conversation.
        """
        if not self.has_chat_template:
            raise ModelError(f"the tokenizer of {self.folder} has no chat template, which this form needs")
        from jinja2 import TemplateError

        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=generation_prompt
            )
        except (TemplateError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"the chat template of {self.folder} refuses the steps: {reason}") from error
        return text
