r"""Steps to tokens: one class for each published form, with the positions at which scores are read.

Separators and markers are appended as ids, each between texts that are tokenised on their own: joined
to the text before, a separator can become another token (".\n" is one in many vocabularies), and the
scores shift (ProcessBench PR #12: 4 points of F1). No form was run on its real weights: the formats are
those of the models' cards and of their authors' evaluation code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from airls_ray.errors import ModelError
from airls_ray.prm.items import StepText, refuse_marker, refuse_special
from airls_ray.prm.tokenizer import PRMTokenizer

SYSTEM_PROMPT = r"Please reason step by step, and put your final answer within \boxed{}."
"""What the cards of Qwen's math models put before every problem."""

PromptTemplate = Literal["plain", "chat"]


@dataclass(frozen=True)
class Encoded:
    """Tokens of one item."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    """For each step the index in `ids` whose hidden state gives its score."""


class Encoder(Protocol):
    """One form of input."""

    def __call__(self, item: StepText) -> Encoded:
        """Encode an item that has at least one step."""
        ...

    def beginning(self, step: str, tokens: int) -> str | None:
        """Return the first tokens of what is read of a step, as text; see `StepScorer.cut_last_step`.

        What this form takes off a step is no token: else a step cut before it would pass for a beginning.
        """
        ...


class SeparatedSteps:
    """TRL's PRMTrainer: prompt, then each step and the separator's ids; read at each separator's last id.

    Source: `PRMTrainer.tokenize_row` (trl 0.2x): a begin of sequence where the tokenizer has one, prompt
    and steps without special tokens. A step that already ends in the separator does not get it twice.
    TRL does not keep the separator that it trained with; its default is a line feed.
    """

    def __init__(
        self, tokenizer: PRMTokenizer, separator: str = "\n", prompt_template: PromptTemplate = "plain"
    ) -> None:
        """`prompt_template`: `chat` wraps the problem by the chat template, which TRL itself does not.

        Raises:
            ModelError: the separator is no text for this tokenizer.
        """
        self._tokenizer = tokenizer
        self._separator = separator
        self._separator_ids = tokenizer.encode(separator)
        self._template = prompt_template
        if not self._separator_ids:
            raise ModelError(f"the separator {separator!r} has no tokens in {tokenizer.folder}: give another")

    def __call__(self, item: StepText) -> Encoded:
        ids = self._prompt(item)
        positions = []
        for step in item.steps:
            text = step.removesuffix(self._separator)
            ids += [*self._tokenizer.encode_plain(text), *self._separator_ids]
            positions.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(positions))

    def beginning(self, step: str, tokens: int) -> str | None:
        """See `Encoder.beginning`."""
        return self._tokenizer.beginning(step.removesuffix(self._separator), tokens)

    def _prompt(self, item: StepText) -> list[int]:
        if self._template == "chat":
            refuse_special(item, self._tokenizer.special, [item.problem])
            message = {"role": "user", "content": item.problem}
            return self._tokenizer.encode(self._tokenizer.render([message], generation_prompt=True))
        begin = [] if self._tokenizer.bos_id is None else [self._tokenizer.bos_id]
        return [*begin, *self._tokenizer.encode_plain(item.problem)]


class MarkedChat:
    """Qwen2.5-Math-PRM: the solution is the assistant's turn, a marker token ends each step.

    Source: the card of Qwen/Qwen2.5-Math-PRM-7B: system prompt, problem, then the steps, each followed by
    `<extra_0>`; read at the markers. What the template puts behind the last marker is left out: attention is
    causal. Steps are stripped.
    """

    def __init__(
        self, tokenizer: PRMTokenizer, marker: str = "<extra_0>", system: str = SYSTEM_PROMPT
    ) -> None:
        """Raise a ModelError if the marker is not one token."""
        self._tokenizer = tokenizer
        self._marker = marker
        self._marker_id = tokenizer.one_id(marker)
        self._system = system

    def __call__(self, item: StepText) -> Encoded:
        refuse_marker(item, self._marker, [item.problem, *item.steps])
        refuse_special(item, self._tokenizer.special, [item.problem, *item.steps])
        solution = "".join(step.strip() + self._marker for step in item.steps)
        text = self._tokenizer.render(
            [
                {"role": "system", "content": self._system},
                {"role": "user", "content": item.problem},
                {"role": "assistant", "content": solution},
            ]
        )
        pieces = text.split(self._marker)[:-1]
        if len(pieces) != len(item.steps):
            raise ModelError(
                f"the chat template of {self._tokenizer.folder} does not keep the {self._marker!r} of the "
                "steps: take the tokenizer that was published with this PRM"
            )
        ids: list[int] = []
        positions = []
        for piece in pieces:  # the first holds all that comes before the first step, too
            ids += [*self._tokenizer.encode(piece), self._marker_id]
            positions.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(positions))

    def beginning(self, step: str, tokens: int) -> str | None:
        """See `Encoder.beginning`."""
        return self._tokenizer.beginning(step.strip(), tokens)


class MarkedText:
    """Math-Shepherd: plain text, a marker behind each step, line feeds between; read at the markers.

    Source: the card of peiyi9979/math-shepherd-mistral-7b-prm (arXiv 2312.08935). It was trained on steps
    that begin with "Step 1: ", "Step 2: " and so on; they are not added here. The marker's token is that of
    a word of its own (in SentencePiece vocabularies with the space before it). Steps are stripped.
    """

    def __init__(self, tokenizer: PRMTokenizer, marker: str = "ки") -> None:
        """Raise a ModelError if the marker is not one token."""
        self._tokenizer = tokenizer
        self._marker = marker
        self._marker_id = tokenizer.one_id(marker)

    def __call__(self, item: StepText) -> Encoded:
        refuse_marker(item, self._marker, item.steps)
        refuse_special(item, self._tokenizer.special, [item.problem, *item.steps])
        first, *others = [step.strip() for step in item.steps]
        ids = [*self._tokenizer.encode_start(f"{item.problem} {first}"), self._marker_id]
        positions = [len(ids) - 1]
        for step in others:
            ids += [*self._behind_marker("\n" + step), self._marker_id]
            positions.append(len(ids) - 1)
        return Encoded(tuple(ids), tuple(positions))

    def beginning(self, step: str, tokens: int) -> str | None:
        """See `Encoder.beginning`."""
        return self._tokenizer.beginning(step.strip(), tokens)

    def _behind_marker(self, text: str) -> list[int]:
        """Tokens of `text` behind the marker: alone, SentencePiece vocabularies put a space before it."""
        ids = self._tokenizer.encode(self._marker + text)
        if ids[0] != self._marker_id:
            raise ModelError(
                f"the tokenizer of {self._tokenizer.folder} joins {self._marker!r} with what follows, so it "
                "is no PRM of this form: give another --form"
            )
        return ids[1:]


class Conversation:
    """RLHFlow: each step is a user's turn, the assistant answers `+`; read where that answer is predicted.

    Source: `math-rm/prm_evaluate.py` of RLHFlow/RLHF-Reward-Modeling and its README: the first turn is the
    problem, a space and the first step; every answer before is `+`, whatever the score was. The whole
    conversation is one sequence: attention is causal, so it gives what one sequence a step would. Steps are
    stripped.
    """

    def __init__(self, tokenizer: PRMTokenizer) -> None:
        """Raise a ModelError if there is no chat template."""
        self._tokenizer = tokenizer
        self._plus_id = tokenizer.one_id("+")
        tokenizer.render([{"role": "user", "content": "1"}], generation_prompt=True)

    def __call__(self, item: StepText) -> Encoded:
        refuse_special(item, self._tokenizer.special, [item.problem, *item.steps])
        messages: list[dict[str, str]] = []
        answers = []  # the character at which each answer begins
        for number, step in enumerate(item.steps):
            text = step.strip() if number else f"{item.problem} {step.strip()}"
            messages.append({"role": "user", "content": text})
            answers.append(self._tokenizer.render(messages, generation_prompt=True))
            messages.append({"role": "assistant", "content": "+"})
        whole = self._tokenizer.render(messages)
        ids, starts = self._tokenizer.encode_with_starts(whole)
        place = {start: index for index, start in enumerate(starts)}
        positions = []
        for before in answers:
            index = place.get(len(before)) if whole.startswith(before) else None
            if not index or ids[index] != self._plus_id:
                raise ModelError(
                    f"the chat template of {self._tokenizer.folder} does not give '+' as a token of its own "
                    "behind each step: take the tokenizer that was published with this PRM"
                )
            positions.append(index - 1)
        return Encoded(tuple(ids), tuple(positions))

    def beginning(self, step: str, tokens: int) -> str | None:
        """See `Encoder.beginning`."""
        return self._tokenizer.beginning(step.strip(), tokens)
