"""Text to tokens and back, and where reasoning steps end. Imports no torch; transformers for chat only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, models
from tokenizers.decoders import DecodeStream

from airls_ray.data.schemas import TRACES
from airls_ray.errors import DataError
from airls_ray.seeding import derive_seed
from airls_ray.tasks.answers import open_thought
from airls_ray.tasks.base import Task, WrapsPrompts
from airls_ray.text.make_tokenizer import build_tokenizer
from airls_ray.text.messages import Message, conversation, history_of, needs_template, own_system
from airls_ray.text.steps import piece_ends, rule_of
from airls_ray.text.tokenizer_files import LoadedTokenizer, load_tokenizer
from airls_ray.text.words import Words

if TYPE_CHECKING:
    from airls_ray.config.model_sections import ModelConfig

__all__ = ["TextCodec", "build_tokenizer", "encode_traces"]


class TextCodec:
    """One view of text and tokens for policy, PRM and verifier, on top of a fast tokenizer.

    Tokenizers made by `build_tokenizer` are run in Python: for texts of some tens of tokens that is
    several times faster than calls into the library.
    """

    def __init__(self, loaded: LoadedTokenizer, task: Task, where: str) -> None:
        """Wrap `loaded`; `where` names its folder in errors."""
        self._loaded = loaded
        self._backend: Tokenizer = loaded.backend
        self._chat = loaded.chat
        self._rule = rule_of(task)
        self._wrapper = task if isinstance(task, WrapsPrompts) else None
        self.eos_id: int = loaded.eos_id
        """Token that ends a response of ours: under a chat template the end of the assistant's turn."""
        self.eos_ids: tuple[int, ...] = loaded.eos_ids
        """All tokens that end a response, `eos_id` first; none of them is text."""
        self.pad_id: int = loaded.pad_id
        """Token of padding (the end of sequence where the tokenizer has none)."""
        self._silent = frozenset((*self.eos_ids, self.pad_id))
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(vocabulary.values()) + 1
        """Number of token ids, special ones included."""
        self._words: Words | None = None
        if isinstance(self._backend.model, models.WordLevel) and task.vocabulary() is not None:
            self._words = Words(vocabulary, task, where)
        self._delimiter_id: int | None = None
        if self._words is not None and self._rule.name == "delimiter":
            self._delimiter_id = self._words.require(task.step_delimiter)

    @classmethod
    def for_model(cls, model: ModelConfig, folder: Path | str, task: Task) -> TextCodec:
        """Load the tokenizer of a model folder (or hub name) as a configuration's section `model` says.

        Raises:
            ModelError: as of `from_folder`.
        """
        return cls.from_folder(folder, task, model.prompt_template, model.chat_template_kwargs)

    @classmethod
    def from_folder(
        cls,
        folder: Path | str,
        task: Task,
        template: Literal["plain", "chat"] = "plain",
        keywords: Mapping[str, Any] | None = None,
    ) -> TextCodec:
        """Load the tokenizer of a model folder (or hub name).

        `keywords`: variables of the chat template.

        Raises:
            ModelError: there is none, it has no end-of-sequence token or no chat template where one is
                asked for, or it lacks tokens of a built-in task.
        """
        return cls(load_tokenizer(folder, template == "chat", keywords), task, str(folder))

    @property
    def has_template(self) -> bool:
        """Whether a chat template writes the prompts."""
        return self._chat is not None

    @cached_property
    def open_thought(self) -> str:
        """The tag of a thought that prompts end in, as those of R1-like templates do; empty: in none.

        A response goes on with the thought, and who reads its text alone must be told.
        """
        try:
            prompt = self.encode_prompt("a question")
        except DataError:  # a vocabulary without these words, a template that wants other turns
            return ""
        return open_thought(self.decode(prompt))

    def encode_problem(self, prompt: str, details: str | Mapping[str, Any] | None) -> list[int]:
        """Return the tokens of a problem: of its prompt behind the turns that its `details` hold."""
        return self.encode_prompt(prompt, history_of(details))

    def encode_prompt(self, prompt: str, history: Sequence[Message] = ()) -> list[int]:
        """Return the tokens of a prompt, template and begin-of-sequence included where the model has one.

        Special tokens are those of the template: their texts in `prompt` stay text, here and in traces.

        Args:
            prompt: the user's last message, into which the task's words go.
            history: turns before it; a system message at their beginning takes the place of the task's.

        Raises:
            DataError: the text cannot be written in the tokenizer's tokens, the template refuses it, or
                there is none and more than a system message comes before the prompt.
        """
        if self._words is not None:
            if history:
                raise DataError(
                    "this model knows the words of its task alone: leave out system message and earlier turns"
                )
            return self._words.encode(prompt)
        if needs_template(history) and self._chat is None:
            raise DataError(
                "the prompt has earlier turns, which only a chat template can write: set "
                "model.prompt_template=chat"
            )
        system, user = ("", prompt) if self._wrapper is None else self._wrapper.wrap(prompt)
        if self._chat is not None:
            return self._conversation(conversation(system, user, history))
        if own_system(history):
            system = history[0]["content"]
        tokens: list[int] = self._loaded.encode(f"{system}\n\n{user}" if system else user, begin=True).ids
        while tokens and tokens[-1] in self.eos_ids:  # some tokenizers close every text
            tokens.pop()
        return tokens

    def _conversation(self, messages: Sequence[Message]) -> list[int]:
        from jinja2 import TemplateError

        assert self._chat is not None
        try:
            return self._chat.apply_chat_template(messages)
        except (TemplateError, TypeError) as error:  # a template that adds None to a text, say
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"the model's chat template refuses this prompt ({reason})") from error

    def encode_trace(self, trace: str) -> list[int]:
        """Return the tokens of a trace with the end of a response appended.

        Raises:
            DataError: the text cannot be written in the tokenizer's tokens.
        """
        if self._words is not None:
            return [*self._words.encode(trace), self.eos_id]
        return [*self._loaded.encode(trace).ids, self.eos_id]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens` without padding and what ends a response."""
        if self._words is not None:
            return self._words.decode(tokens)
        kept = [int(token) for token in tokens if token not in self._silent]
        return str(self._backend.decode(kept, skip_special_tokens=False))

    def step_ends(self, response: Sequence[int]) -> list[int]:
        """Return the exclusive end, in tokens, of every step; the last one is `len(response)`.

        By the task's rule (`airls_ray.text.steps`); a token that completes a delimiter ends a step, and
        by the other rules one belongs to the step in which it begins. End of
        sequence, padding and blank text after the end of a step belong to the step before: no step is empty.

        Raises:
            DoorError: a rule of the user's own raises, or gives what are no positions.
        """
        if self._delimiter_id is not None:
            delimiter = self._delimiter_id
            ends = [position for position, token in enumerate(response, 1) if token == delimiter]
        else:
            ends = piece_ends(self._pieces(response), self._rule)
        tail = response[ends[-1] if ends else 0 :]
        if not len(tail):
            return ends
        if ends and all(token in self._silent for token in tail):
            ends[-1] = len(response)
        else:
            ends.append(len(response))
        return ends

    def step_stop_ids(self) -> list[int]:
        """Tokens whose text surely ends a step: a sampler that stops at them stops at most step ends.

        A delimiter that is split over tokens is found by `step_ends` alone; so is every end by a rule that
        must see what follows (`StepRule.stops`: no token does).
        """
        if self._delimiter_id is not None:
            return [self._delimiter_id]
        if not self._rule.stops:
            return []
        ids = sorted(self._backend.get_vocab(with_added_tokens=True).values())
        texts = (
            self._backend.decode([token]) if self._words is None else self.decode([token]) for token in ids
        )
        return [token for token, text in zip(ids, texts, strict=True) if self._rule.surely_ends(text)]

    def is_blank(self, tokens: Sequence[int]) -> bool:
        """Whether `tokens` have no text of their own: an end of sequence, padding, blanks."""
        return not self.decode(tokens).strip()

    def step_texts(self, response: Sequence[int], step_ends: Sequence[int]) -> list[str]:
        """Return the text of every step, its delimiter included."""
        starts = [0, *step_ends][:-1]
        return [self._text_between(response, *step) for step in zip(starts, step_ends, strict=True)]

    def _text_between(self, response: Sequence[int], start: int, end: int) -> str:
        if start and self._takes_first_space:
            before, both = self.decode(response[start - 1 : start]), self.decode(response[start - 1 : end])
            if both.startswith(before):
                return both[len(before) :]
        return self.decode(response[start:end])

    @cached_property
    def _takes_first_space(self) -> bool:
        """Whether decoding takes a space away before a text, as SentencePiece's decoders do."""
        if self._words is not None:
            return False
        try:
            ids = self._loaded.encode("a b").ids
        except DataError:  # a vocabulary of words
            return False
        return self.decode(ids) != "".join(self.decode([token]) for token in ids)

    def _pieces(self, response: Sequence[int]) -> list[str]:
        """Return what each token adds to the text: a character of several tokens comes with its last."""
        if self._words is not None:
            return [self._words.decode([token]) for token in response]
        stream, pieces = DecodeStream(skip_special_tokens=False), []
        for token in response:
            piece = None
            if token not in self._silent:
                try:
                    piece = stream.step(self._backend, int(token))
                except Exception as error:  # the library raises no narrower class
                    if "Invalid prefix" not in str(error):
                        raise
                    # Where bytes make no character, some decoders change text that the stream gave before.
                    stream = DecodeStream(skip_special_tokens=False)
                    piece = stream.step(self._backend, int(token))
            pieces.append(piece or "")
        return pieces


def encode_traces(
    problems: pa.Table, codec: TextCodec, context_tokens: int, seed: int | None = None
) -> pa.Table:
    """Return a table of schema TRACES, one trace of each problem of `problems` that has any.

    The first trace is taken, or with `seed` one drawn by seed and problem. `group` is the problem's row.

    Raises:
        DataError: prompt and trace together are longer than `context_tokens`.
    """
    columns: dict[str, list[Any]] = {name: [] for name in TRACES.names}
    names = ("problem_id", "prompt", "details", "traces")
    for group, row in enumerate(zip(*(problems[name].to_pylist() for name in names), strict=True)):
        problem_id, prompt, details, traces = row
        if not traces:
            continue
        draw = 0 if seed is None else Random(derive_seed(seed, problem_id)).randrange(len(traces))
        tokens, response = codec.encode_problem(prompt, details), codec.encode_trace(traces[draw])
        if len(tokens) + len(response) > context_tokens:
            raise DataError(
                f"problem {problem_id!r}: prompt and trace have {len(tokens) + len(response)} tokens, but "
                f"model.context_tokens is {context_tokens}; shorten the trace or raise the limit"
            )
        values = (problem_id, group, tokens, response, codec.step_ends(response))
        for name, value in zip(TRACES.names, values, strict=True):
            columns[name].append(value)
    arrays = [_column(columns[field.name], field.type) for field in TRACES]
    return pa.Table.from_arrays(arrays, schema=TRACES)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    flat = np.fromiter((item for value in values for item in value), np.int32, int(offsets[-1]))
    return pa.ListArray.from_arrays(offsets, flat, type=kind)
