"""Text as its characters, for searches over an endpoint whose tokenizer nobody has.

A search works on integers (`airls_ray.search.tree`). Where the policy's tokens are known these are tokens,
and a prefix stays what the policy sampled. Where they are not, they are the code points of the text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Protocol

from airls_ray.errors import DataError
from airls_ray.text.characters import whole_characters
from airls_ray.text.messages import Message
from airls_ray.text.steps import StepRule, cut

END = 0x110000
"""The end of a response: one above the last code point."""


class Codec(Protocol):
    """What a search over an endpoint asks of text and integers; `TextCodec` fulfils it, too."""

    eos_id: int
    """What ends a response."""
    eos_ids: tuple[int, ...]
    """All that do."""

    @property
    def open_thought(self) -> str:
        """The tag of a thought that prompts end in; empty: in none."""
        ...

    def encode_prompt(self, prompt: str, history: Sequence[Message] = ()) -> list[int]:
        """Return a problem, behind the turns before it, as the policy sees it."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text, without what ends a response."""
        ...

    def step_ends(self, response: Sequence[int]) -> list[int]:
        """Return the exclusive end of every step; the last one is `len(response)`."""
        ...

    def step_texts(self, response: Sequence[int], step_ends: Sequence[int]) -> list[str]:
        """Return the text of every step, its delimiter included."""
        ...

    def is_blank(self, tokens: Sequence[int]) -> bool:
        """Whether there is no text in them."""
        ...


class CharacterCodec:
    """Code points in place of tokens."""

    eos_id = END
    eos_ids: tuple[int, ...] = (END,)
    open_thought = ""

    def __init__(self, wrap: Callable[[str], str], rule: StepRule) -> None:
        """Cut steps by `rule`; `wrap` makes a problem the prompt."""
        self._wrap = wrap
        self._rule = rule

    def encode_prompt(self, prompt: str, history: Sequence[Message] = ()) -> list[int]:
        """See `Codec.encode_prompt`.

        Raises:
            DataError: there are turns before it, which only a chat template writes.
        """
        if history:
            raise DataError("prompts of several messages need the policy's tokenizer and its chat template")
        return self.encode(self._wrap(prompt))

    def encode(self, text: str) -> list[int]:
        """Return the code points of a text."""
        return [ord(character) for character in whole_characters(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Codec.decode`."""
        return "".join(chr(token) for token in tokens if token != END)

    def step_ends(self, response: Sequence[int]) -> list[int]:
        """See `Codec.step_ends`: as `TextCodec.step_ends`, every character a token."""
        text = self.decode(response)
        ends = cut(text, self._rule)
        if not len(response):
            return []
        last = bisect_left(ends, len(text))  # an end at the end of the text is that of the response
        if ends[:last] and not text[ends[last - 1] :].strip():
            last -= 1
        return [*ends[:last], len(response)]

    def step_texts(self, response: Sequence[int], step_ends: Sequence[int]) -> list[str]:
        """See `Codec.step_texts`."""
        starts = [0, *step_ends][:-1]
        return [self.decode(response[start:end]) for start, end in zip(starts, step_ends, strict=True)]

    def is_blank(self, tokens: Sequence[int]) -> bool:
        """See `Codec.is_blank`."""
        return not self.decode(tokens).strip()
