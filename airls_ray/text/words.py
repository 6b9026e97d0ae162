"""The words of a task as tokens, in Python: faster than calls into the library for short texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airls_ray.errors import DataError, ModelError
from airls_ray.tasks.base import Task
from airls_ray.text.make_tokenizer import word_pattern


class Words:
    """A word-level vocabulary in Python."""

    def __init__(self, vocabulary: dict[str, int], task: Task, where: str) -> None:
        """Take the words of `task`; `where` names the tokenizer's folder in errors.

        Raises:
            ModelError: the vocabulary lacks one.
        """
        words = task.vocabulary() or []
        missing = [word for word in words if word not in vocabulary]
        if missing:
            raise ModelError(
                f"the tokenizer in {where} lacks {len(missing)} tokens of task {task.name!r}, the first is "
                f"{missing[0]!r}; use a model that was made for this task's settings"
            )
        self._name = task.name
        self._ids = {word: vocabulary[word] for word in words}
        self._pieces = {token: word for word, token in self._ids.items()}
        self._split = re.compile(word_pattern(words)).findall

    def require(self, delimiter: str) -> int:
        """Return the token of the step delimiter.

        Raises:
            ModelError: it is no word.
        """
        if delimiter not in self._ids:
            raise ModelError(
                f"steps of task {self._name!r} end with {delimiter!r}, which is no word of its "
                "vocabulary: add it, or set the task's step_delimiter to a word that is"
            )
        return self._ids[delimiter]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises:
            DataError: it has something else than words.
        """
        ids = self._ids
        try:
            return [ids[word] for word in self._split(text)]
        except KeyError as error:
            raise DataError(
                f"the text {text[:80]!r} contains {error.args[0]!r}, which is no token"
            ) from error

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        piece = self._pieces.get  # special tokens, and rows that pad a model's vocabulary, have no text
        return "".join([piece(token, "") for token in tokens])
