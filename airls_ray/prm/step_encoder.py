"""Problem and steps as text to the tokens that this project's PRMs learn from and are read at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airls_ray.errors import DataError
from airls_ray.prm.folder import PromptForm
from airls_ray.prm.items import StepText, first_tokens, refuse_blank_steps, refuse_long, with_beginning
from airls_ray.search.scoring import Continuation
from airls_ray.text.tokenizer_files import LoadedTokenizer, load_tokenizer

_KNOWN_TEXTS = 4096
"""Texts whose tokens are kept: solutions of a problem begin alike."""
_LINE_FEED = "\n"


class StepEncoder:
    """Encodes the problem as its form says, and the steps one by one: a step has the same tokens anywhere,
    but that the first begins with a space where the tokenizer puts one before a text.

    A step without what ends steps (`PromptForm.step_end`) gets it, so that it reads as a policy's; steps of
    rollouts bring theirs, like `TextCodec.step_texts` gives them. Training on files and scoring of texts
    share this class, so that a PRM is read as it was trained.
    """

    def __init__(
        self, tokenizer: LoadedTokenizer, form: PromptForm, folder: Path | str, limit: int | None = None
    ) -> None:
        """`folder` names the model in messages; `limit`: the most tokens that it takes (None: any number)."""
        self._tokenizer = tokenizer
        self._form = form
        self._folder = folder
        self._limit = limit
        self._known: dict[tuple[str, bool], list[int]] = {}
        self._before = _tokens_before(tokenizer)

    @classmethod
    def from_folder(cls, folder: Path | str, form: PromptForm, limit: int | None = None) -> StepEncoder:
        """Load the tokenizer of a model folder or hub name.

        Raises:
            ModelError: it is missing or broken, or has no chat template although the form asks for one.
        """
        chat = form.template == "chat"
        return cls(load_tokenizer(folder, chat, form.chat_template_kwargs), form, folder, limit)

    def encode(self, item: StepText) -> Continuation:
        """Return the tokens of the problem (`prefix`) and of the steps, with the end of each step.

        The end of a sequence belongs to the last step where the item is finished, as in rollouts.

        Raises:
            DataError: a step is blank, a text cannot be written in tokens, or there are too many of them.
        """
        refuse_blank_steps(item)
        prompt = self._prompt(item)
        tokens: list[int] = []
        ends = []
        for number, step in enumerate(self.texts(item), 1):
            ids = self._ids(item, step, special=False) if number == 1 else self._later_ids(item, step)
            if not ids:
                raise DataError(f"{item.where}: step {number} has no tokens for the PRM {self._folder}")
            tokens += ids
            ends.append(len(tokens))
        if item.finished:
            tokens.append(self._tokenizer.eos_id)
            ends[-1] += 1
        if not prompt:
            raise DataError(f"{item.where}: the problem has no tokens for the PRM {self._folder}")
        refuse_long(item, len(prompt) + len(tokens), self._limit, self._folder)
        return Continuation(tuple(prompt), tuple(tokens), tuple(ends), (0.0,) * len(ends))

    def texts(self, item: StepText) -> list[str]:
        """Return the steps as they are read."""
        ended = [self._form.end_step(step) for step in item.steps]
        if item.finished or item.cut:
            ended[-1] = item.steps[-1]
        return ended

    def cut_last_step(self, item: StepText, tokens: int) -> StepText | None:
        """See `StepScorer.cut_last_step`; neither an end of sequence nor what ends a step is counted."""
        step = item.steps[-1]
        offsets = self._encoding(item, step, special=False).offsets
        return with_beginning(item, first_tokens(step, offsets, tokens, str(self._folder)))

    def _prompt(self, item: StepText) -> list[int]:
        system, user = self._form.system, self._form.wrap(item.problem)
        if self._tokenizer.chat is not None:
            messages = [{"role": "system", "content": system}] if system else []
            return self._conversation(item, [*messages, {"role": "user", "content": user}])
        ids = list(self._ids(item, f"{system}\n\n{user}" if system else user, special=True))
        while ids and ids[-1] in self._tokenizer.eos_ids:  # some tokenizers close every text
            ids.pop()
        return ids

    def _conversation(self, item: StepText, messages: list[dict[str, str]]) -> list[int]:
        from jinja2 import TemplateError

        assert self._tokenizer.chat is not None
        try:
            return self._tokenizer.chat.apply_chat_template(messages)
        except TemplateError as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{item.where}: the chat template refuses the problem ({reason})") from error

    def _later_ids(self, item: StepText, step: str) -> list[int]:
        """Tokens of a step behind others, as in rollouts: without a space before it."""
        size = len(self._before)
        ids = self._ids(item, _LINE_FEED + step, special=False) if size else []
        return ids[size:] if size and ids[:size] == self._before else self._ids(item, step, special=False)

    def _ids(self, item: StepText, text: str, special: bool) -> list[int]:
        if (text, special) not in self._known:
            if len(self._known) >= _KNOWN_TEXTS:
                self._known.clear()
            self._known[text, special] = self._encoding(item, text, special).ids
        return self._known[text, special]

    def _encoding(self, item: StepText, text: str, special: bool) -> Any:
        try:
            return self._tokenizer.encode(text, begin=special)
        except DataError as error:
            raise DataError(f"{item.where}: {error}") from error


def _tokens_before(tokenizer: LoadedTokenizer) -> list[int]:
    """Return the tokens of a line feed for a tokenizer that puts a space before a text, as SentencePiece's
    do; for others nothing."""
    try:
        line_feed, letter, both = (tokenizer.encode(text).ids for text in (_LINE_FEED, "a", f"{_LINE_FEED}a"))
    except DataError:  # a vocabulary of words
        return []
    return [] if both == line_feed + letter or both[: len(line_feed)] != line_feed else line_feed
