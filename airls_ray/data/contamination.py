"""Which test problems are in the training data: equal texts, and word n-grams that both have."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_WORD = re.compile(r"\w+")
_MOST_TRAIN_ROWS = 3
"""Training rows that the report names for a test row: those that share most."""


@dataclass(frozen=True)
class Text:
    """A problem's text and where it comes from, such as `test.jsonl, row 3`."""

    where: str
    text: str


@dataclass(frozen=True)
class Match:
    """A test text and a training text that are equal (share 1) or share n-grams."""

    test: str
    train: str
    equal: bool
    shared: int
    """Different n-grams of the test text that the training text has, too."""
    share: float
    """The same as a share of all n-grams of the test text, in (0, 1]."""
    example: str
    """The first n-gram in common; of equal texts, their beginning."""


@dataclass(frozen=True)
class Contamination:
    """What `find_contamination` found; rows of the test set are counted once."""

    train: int
    test: int
    ngram: int
    too_short: int
    """Test texts with fewer than `ngram` words, for which only equality could be asked."""
    equal: int
    """Test texts that are in the training data word for word."""
    overlapping: int
    """Others that share at least one n-gram with a training text."""
    half: int
    """Those of them that share at least half of their n-grams with one training text."""
    matches: list[Match]

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


def normalised(text: str) -> str:
    """Return `text` with case, white space and forms of the same character (NFKC) made equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def find_contamination(train: Sequence[Text], test: Sequence[Text], ngram: int = 13) -> Contamination:
    """Compare every test text with every training text.

    Args:
        train: training texts.
        test: test texts; the index in memory is of their n-grams.
        ngram: words that must be the same in a row; 13 as in GPT-3 (arXiv 2005.14165, appendix C). Words are
            runs of letters and digits, so that punctuation and LaTeX signs do not count.

    Returns:
        Counts, and for each test text the training texts that share most with it, in the order of the test.
    """
    grams = [list(dict.fromkeys(_ngrams(one.text, ngram))) for one in test]
    by_gram: dict[str, list[int]] = defaultdict(list)
    by_text: dict[str, list[int]] = defaultdict(list)
    for row, (one, own) in enumerate(zip(test, grams, strict=True)):
        by_text[normalised(one.text)].append(row)
        for gram in own:
            by_gram[gram].append(row)
    found: dict[int, list[Match]] = defaultdict(list)
    for other in train:
        equal = set(by_text.get(normalised(other.text), ()))
        for row in equal:
            size = len(grams[row])
            found[row].append(Match(test[row].where, other.where, True, size, 1.0, other.text[:80]))
        shared = Counter(
            row
            for gram in set(_ngrams(other.text, ngram))
            for row in by_gram.get(gram, ())
            if row not in equal
        )
        for row, count in shared.items():
            found[row].append(_overlap(test[row], other, count, grams[row], ngram))
    return _summary(train, test, ngram, grams, found)


def _overlap(test: Text, train: Text, count: int, grams: Sequence[str], ngram: int) -> Match:
    have = set(_ngrams(train.text, ngram))
    example = next(gram for gram in grams if gram in have)
    return Match(test.where, train.where, False, count, count / len(grams), example)


def _summary(
    train: Sequence[Text],
    test: Sequence[Text],
    ngram: int,
    grams: Sequence[Sequence[str]],
    found: dict[int, list[Match]],
) -> Contamination:
    best = {
        row: sorted(found[row], key=lambda one: (-one.equal, -one.share))[:_MOST_TRAIN_ROWS]
        for row in sorted(found)
    }
    overlapping = [matches[0] for matches in best.values() if not matches[0].equal]
    return Contamination(
        train=len(train),
        test=len(test),
        ngram=ngram,
        too_short=sum(not own for own in grams),
        equal=len(best) - len(overlapping),
        overlapping=len(overlapping),
        half=sum(match.share >= 0.5 for match in overlapping),
        matches=[match for matches in best.values() for match in matches],
    )


def _ngrams(text: str, ngram: int) -> Iterator[str]:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return (" ".join(words[at : at + ngram]) for at in range(len(words) - ngram + 1))
