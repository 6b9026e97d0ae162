"""What a PRM is asked as text: a problem and the steps of a solution, a score in [0, 1] for each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from airls_ray.errors import DataError


@dataclass(frozen=True)
class StepText:
    """A problem and a solution, whole or begun, in steps."""

    problem: str
    """Text of the problem, without a template."""
    steps: Sequence[str]
    """Text of each step; none is blank."""
    finished: bool = True
    """Whether the last step ends the solution. Only this project's PRMs ask: they read the score of a
    last step at the end of sequence."""
    cut: bool = False
    """Whether the last step is only its beginning, so that it does not get what ends a step."""
    where: str = "the solution"
    """Where it comes from, for messages: a file and a row."""


class TooLongError(DataError):
    """Problem and steps have more tokens than the PRM takes."""


def refuse_long(item: StepText, tokens: int, limit: int | None, folder: object) -> None:
    """Raise where `tokens` of an item are more than the PRM of `folder` takes (None: any number).

    Raises:
        TooLongError: one sentence with the item's place.
    """
    if limit is not None and tokens > limit:
        raise TooLongError(
            f"{item.where}: problem and steps have {tokens} tokens, but {folder} takes {limit}; shorten "
            "them, or leave out such solutions (evaluate-prm --skip-long)"
        )


def fits(encode: Callable[[StepText], object], item: StepText) -> bool:
    """Return whether `encode`, which calls `refuse_long`, takes the item."""
    try:
        encode(item)
    except TooLongError:
        return False
    return True


class StepScorer(Protocol):
    """Whatever scores the steps of solutions."""

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        """Return for each item one score in [0, 1] for each of its steps, in order.

        The result does not depend on the order of the items, nor (up to rounding) on the other items.

        Raises:
            DataError: an item does not fit the model: a blank step, a marker in a text, too many tokens.
        """
        ...

    def fits(self, item: StepText) -> bool:
        """Return whether the PRM takes so many tokens.

        Raises:
            DataError: as `score`, for other reasons.
        """
        ...

    def cut_last_step(self, item: StepText, tokens: int) -> StepText | None:
        """Return the item up to the first `tokens` tokens of its last step, not finished.

        Counted are the tokens of this PRM's tokenizer in what it reads of the step's text, encoded alone.

        Args:
            item: at least one step.
            tokens: at least 1.

        Returns:
            None where the step is not longer, or begins with so many blank tokens: nothing could be scored.

        Raises:
            DataError: the tokenizer does not say which characters its tokens stand for.
        """
        ...


def first_tokens(text: str, offsets: Sequence[tuple[int, int]], tokens: int, folder: str) -> str | None:
    """Return the characters of the first `tokens` tokens of `text`, or None: see `StepScorer.cut_last_step`.

    A character of which these tokens hold some bytes only is left out: it is no text yet.

    Args:
        text: what was encoded.
        offsets: for each token its first character and the one behind its last.
        tokens: at least 1.
        folder: names the tokenizer in messages.

    Raises:
        DataError: no token has a character.
    """
    if offsets and not any(start < end for start, end in offsets):
        raise DataError(
            f"the tokenizer of {folder} does not say which characters its tokens stand for, so no step can "
            "be cut after some of them: leave out --partial-tokens"
        )
    if len(offsets) <= tokens:
        return None
    # Tokens that share a character all have its offsets, so the next token's start comes before the end.
    beginning = text[: min(offsets[tokens - 1][1], offsets[tokens][0])]
    return beginning if beginning.strip() else None


def with_beginning(item: StepText, text: str | None) -> StepText | None:
    """Return the item with `text` as its last step, not finished; None for None."""
    if text is None:
        return None
    return replace(item, steps=(*item.steps[:-1], text), finished=False, cut=True)


def refuse_blank_steps(item: StepText) -> None:
    """Raise a DataError if a step has no text: nothing could be scored, and no score is made up."""
    for number, step in enumerate(item.steps, 1):
        if not step.strip():
            raise DataError(f"{item.where}: step {number} is blank; remove it or join it to another step")


def refuse_special(item: StepText, special: Sequence[str], texts: Sequence[str]) -> None:
    """Raise a DataError if one of the item's `texts` contains the text of a special token of the PRM.

    For forms that put texts among special tokens before all is encoded: there the two look the same.
    """
    for text in texts:
        found = next((token for token in special if token in text), None)
        if found is not None:
            raise DataError(
                f"{item.where}: {text.strip()[:60]!r} contains {found!r}, which this PRM would take for its "
                "special token and not for text; take it out of the text"
            )


def refuse_marker(item: StepText, marker: str, texts: Sequence[str]) -> None:
    """Raise a DataError if one of the item's `texts` contains the marker that the PRM reads scores at."""
    for text in texts:
        if marker in text:
            raise DataError(
                f"{item.where}: {text.strip()[:60]!r} contains {marker!r}, the marker at which this PRM is "
                "read; take it out of the text"
            )
