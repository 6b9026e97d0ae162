"""Another's PRM in a search: token prefixes become texts, and only new steps' scores are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from airls_ray.errors import DataError
from airls_ray.evaluation.steps import ScoreKind
from airls_ray.prm.items import StepText
from airls_ray.search.scoring import Continuation, Scores
from airls_ray.text.character_codec import Codec


class ScoresTexts(Protocol):
    """The part of `airls_ray.prm.items.StepScorer` that a search needs."""

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        """Return for each item one score in [0, 1] for each of its steps."""
        ...


class TextSearchScorer:
    """Scores continuations by a PRM that reads texts; each costs its whole prefix again.

    The tokens of another tokenizer are another cut of the text, so no keys and values can be shared.
    """

    def __init__(self, prm: ScoresTexts, codec: Codec, kind: ScoreKind = "probability") -> None:
        """Score by `prm`, which reads texts; `codec`: of the search's tokens; `kind`: what its scores are."""
        self.kind = kind
        self._prm = prm
        self._codec = codec
        self.computed_tokens = 0
        """The policy's tokens of all texts that were scored."""
        self.prefix_tokens = 0
        """Those of them that are prefixes."""

    def score(self, items: Sequence[Continuation]) -> Scores:
        """See `search.scoring.StepScorer`. A text that the PRM cannot read scores 0: the others go on."""
        texts = [self._text(item) for item in items]
        try:
            found = self._prm.score(texts)
        except DataError:
            found = [self._alone(text) for text in texts]
        costs = [len(item.prefix) + len(item.tokens) for item in items]
        self.computed_tokens += sum(costs)
        self.prefix_tokens += sum(len(item.prefix) for item in items)
        return [
            tuple(scores[len(scores) - len(item.step_ends) :])
            for item, scores in zip(items, found, strict=True)
        ], costs

    def forget(self) -> None:
        """Nothing is kept."""

    def _text(self, item: Continuation) -> StepText:
        response = [*item.prefix[item.prompt_tokens :], *item.tokens]
        before = len(item.prefix) - item.prompt_tokens
        ends = [*item.prefix_ends, *(before + end for end in item.step_ends)]
        problem = item.text or self._codec.decode(item.prefix[: item.prompt_tokens])
        return StepText(problem, self._codec.step_texts(response, ends), finished=item.over)

    def _alone(self, text: StepText) -> list[float]:
        try:
            return self._prm.score([text])[0]
        except DataError:
            return [0.0] * len(text.steps)
