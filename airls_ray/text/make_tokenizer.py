"""Tokenizer folders in Hugging Face format, made for a task: of its own words, or learned from its texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from airls_ray.errors import DataError, ModelError
from airls_ray.tasks.base import Task

PAD, EOS = "<pad>", "<eos>"
_FEWEST = 258
"""The special tokens and one for each byte."""


def word_pattern(words: list[str]) -> str:
    """Return the regular expression that cuts text into `words`.

    Digits are joined if words join them, and other words are found as they are, the longest first. White
    space lies between words, unless words have some: then all of it is text.
    """
    names = sorted((word for word in words if len(word) > 1 and not word.isdigit()), key=len, reverse=True)
    digits = [] if all(len(word) == 1 for word in words) else [r"\d+"]
    rest = r"[^\d\s]" if digits else r"[^\s]"
    blank = [r"\s"] if _has_blanks(words) else []
    return "|".join([*map(re.escape, names), *digits, rest, *blank])


def _has_blanks(words: list[str]) -> bool:
    return any(character.isspace() for word in words for character in word)


def check_spelling(text: str, words: list[str]) -> None:
    """Check that the tokenizer of a vocabulary gives back a text as it was.

    Raises:
        DataError: it lacks a word, or white space of the text gets lost.
    """
    found = re.findall(word_pattern(words), text)
    lost = [word for word in found if word not in words]
    if lost:
        raise DataError(f"the text {text[:80]!r} contains {lost[0]!r}, which is no token of the vocabulary")
    if (written := "".join(found)) != text:
        raise DataError(
            f"the text {text[:80]!r} would become {written[:80]!r}, since the vocabulary has no white space: "
            "give it some (' '), or write the text without"
        )


def build_tokenizer(task: Task, folder: Path) -> None:
    """Save a tokenizer with the task's vocabulary; `AutoTokenizer.from_pretrained` loads it.

    Tokens 0 and 1 are `<pad>` and `<eos>`; white space is dropped unless it is in the vocabulary, and
    decoding adds none.

    Raises:
        ModelError: the task has no vocabulary of its own.
    """
    words = task.vocabulary()
    if words is None:
        raise ModelError(
            f"task {task.name!r} has no vocabulary of its own; set model.path to a trained model"
        )
    vocabulary = {word: token for token, word in enumerate([PAD, EOS, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    split = pre_tokenizers.Split(Regex(word_pattern(words)), "isolated")
    between = [] if _has_blanks(words) else [pre_tokenizers.WhitespaceSplit()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*between, split])
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(PAD, special=True), AddedToken(EOS, special=True)])
    _save(tokenizer, folder)


def train_tokenizer(texts: Iterable[str], size: int, folder: Path) -> None:
    """Save a byte-level BPE tokenizer of at most `size` tokens learned from `texts`: it encodes any text.

    Tokens 0 and 1 are `<pad>` and `<eos>`; then all 256 bytes, then what is frequent. Digits stand alone, as
    arithmetic needs them.

    Raises:
        ModelError: `size` has no room for the bytes.
    """
    if size < _FEWEST:
        raise ModelError(f"a vocabulary of {size} tokens has no room for all bytes: give at least {_FEWEST}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    _save(tokenizer, folder)


def _save(tokenizer: Tokenizer, folder: Path) -> None:
    special = {"pad_token": PAD, "eos_token": EOS}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **special,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
