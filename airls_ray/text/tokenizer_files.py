"""Tokenizer folders in Hugging Face format, loaded (`airls_ray.text.make_tokenizer` makes one)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from airls_ray.errors import DataError, ModelError
from airls_ray.text.characters import whole_characters
from airls_ray.text.chat_template import ChatTemplate

_PROBE = "What is 1 + 2?\n\nIt is 3."


@dataclass(frozen=True)
class LoadedTokenizer:
    """A fast tokenizer and its special tokens.

    `backend` reads all text as text: that of a special token does not become the token.
    """

    backend: Tokenizer
    eos_ids: tuple[int, ...]
    """Tokens that end a response. The first is the one that a response of ours ends with: the end of
    sequence, with a chat template the end of the assistant's turn. The others are those of the model's
    `generation_config.json`, with which its authors end a response."""
    pad_id: int
    folder: str
    """Folder or hub name, for messages."""
    chat: ChatTemplate | None = None

    @property
    def eos_id(self) -> int:
        """Token that ends a response of ours."""
        return self.eos_ids[0]

    def encode(self, text: str, begin: bool = False) -> Encoding:
        """Return the encoding of a text alone, or (`begin`) of one that begins a sequence.

        For half of a surrogate pair, which a request may have, stands the replacement character.

        Raises:
            DataError: the vocabulary lacks some of the text; or the vocabulary itself, and no list of special
                tokens, makes the end of a response of some of it.
        """
        text = whole_characters(text)
        encoding = self._encode(text, begin)
        for end in self.eos_ids:
            piece = self.backend.id_to_token(end)
            if piece is not None and piece in text and end in self._encode(text, begin=False).ids:
                raise DataError(
                    f"the text {text[:80]!r} contains {piece!r}, which this tokenizer can only read as the "
                    "end of a response; take it out"
                )
        return encoding

    def _encode(self, text: str, begin: bool) -> Encoding:
        try:
            return self.backend.encode(text, add_special_tokens=begin)
        except Exception as error:  # the library raises no narrower class for a word that it lacks
            raise DataError(
                f"the tokenizer of {self.folder} cannot encode {text[:60]!r} ({error})"
            ) from error


def load_tokenizer(
    folder: Path | str, chat: bool, keywords: Mapping[str, Any] | None = None
) -> LoadedTokenizer:
    """Load the tokenizer of a folder or hub name; transformers is imported only where it must be.

    `keywords`: variables of the chat template (`model.chat_template_kwargs`), where `chat` is set.

    Raises:
        ModelError: it is missing or broken, is no fast tokenizer, has no end-of-sequence token, or has
            no chat template although `chat` is set.
    """
    path = Path(folder)
    if chat or not (path / "tokenizer.json").is_file():
        return _load_with_transformers(folder, chat, keywords or {})
    try:
        backend = Tokenizer.from_str((path / "tokenizer.json").read_text(encoding="utf-8"))
    except Exception as error:  # the library raises no narrower class for a file that it cannot read
        raise ModelError(f"cannot read the tokenizer {path / 'tokenizer.json'}: {error}") from error
    names = _special_names(path)
    eos = _token_id(backend, names.get("eos_token"))
    if eos is None:
        raise _no_eos(folder)
    pad = _token_id(backend, names.get("pad_token"))
    ends = _ends(backend, [eos, *_generation_ends(path)])
    return LoadedTokenizer(_plain(backend, ends), ends, eos if pad is None else pad, str(folder))


def require_same_tokens(
    policy: Path | str,
    prm: Path | str,
    what: str = "PRM",
    remedy: str = "take a PRM that was trained from this policy's model",
) -> None:
    """Refuse a PRM whose tokenizer numbers texts otherwise than the policy's: it would score other texts.

    Args:
        policy: folder or hub name.
        prm: of what reads its tokens.
        what: what that is, in words.
        remedy: what to do.

    Raises:
        ModelError: the vocabularies differ, or a folder has no tokenizer.
    """
    theirs, ours = (
        load_tokenizer(folder, chat=False).backend.get_vocab(with_added_tokens=True)
        for folder in (prm, policy)
    )
    if theirs == ours:
        return
    token = min(set(theirs.items()) ^ set(ours.items()))[0]
    raise ModelError(
        f"the {what} {prm} has another tokenizer than the policy {policy}: {token!r} is number "
        f"{theirs.get(token, 'none')} there and {ours.get(token, 'none')} here; {remedy}"
    )


def _load_with_transformers(folder: Path | str, chat: bool, keywords: Mapping[str, Any]) -> LoadedTokenizer:
    try:
        tokenizer = transformers_tokenizer(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"cannot load a tokenizer from {folder}: {reason[0]}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer in {folder} is not a fast one; save it with a tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise _no_eos(folder)
    if chat and not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer in {folder} has no chat template; set model.prompt_template to plain"
        )
    eos, control = int(tokenizer.eos_token_id), tokenizer.backend_tokenizer
    pad = eos if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    ends = _ends(control, [eos, *_generation_ends(folder)])
    plain = _plain(Tokenizer.from_str(control.to_str()), ends)
    if not chat:
        return LoadedTokenizer(plain, ends, pad, str(folder))
    template = ChatTemplate(tokenizer, plain, _special_texts(control, ends), keywords)
    turn_end = template.turn_end()
    if turn_end is not None:
        ends = tuple(dict.fromkeys((turn_end, *ends)))
    return LoadedTokenizer(plain, ends, pad, str(folder), template)


def transformers_tokenizer(folder: Path | str) -> Any:
    """Return the tokenizer of a folder or hub name as transformers has it; no code in the folder is run.

    Some folders name a class for which transformers puts a splitting of its own in the place of the file's:
    the byte-level tokenizers that DeepSeek distilled into Llama and Qwen3 are called Llama's, and would lose
    all blanks. Where a text does not come back and the file alone gives it, the file is taken.

    Raises:
        OSError, ValueError, KeyError, ImportError: there is none, or it is broken.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    if tokenizer.is_fast and not _text_comes_back(tokenizer.backend_tokenizer):
        try:
            by_file: Any = PreTrainedTokenizerFast.from_pretrained(str(folder))
        except (OSError, ValueError, KeyError):  # there is no such file
            return tokenizer
        if _text_comes_back(by_file.backend_tokenizer):
            return by_file
    return tokenizer


def _text_comes_back(backend: Tokenizer) -> bool:
    try:
        ids = backend.encode(_PROBE, add_special_tokens=False).ids
    except Exception:  # the library raises no narrower class for a word that it lacks
        return False
    return bool(backend.decode(ids, skip_special_tokens=False) == _PROBE)


def _special_texts(backend: Tokenizer, ends: Sequence[int]) -> list[str]:
    """Return the texts that `backend` turns into special tokens, or into tokens that end a response."""
    added = backend.get_added_tokens_decoder()
    return [token.content for number, token in added.items() if token.special or number in ends]


def _plain(backend: Tokenizer, ends: Sequence[int]) -> Tokenizer:
    """Let `backend` read the text of special tokens, and of what ends a response, as text."""
    added = backend.get_added_tokens_decoder()
    backend.add_special_tokens([AddedToken(added[end].content, special=True) for end in ends if end in added])
    backend.encode_special_tokens = True
    backend.no_padding()
    backend.no_truncation()
    return backend


def _ends(backend: Tokenizer, ends: Sequence[int]) -> tuple[int, ...]:
    """Return each end once: the tokenizer's own, and of the model's those that are no words of its language.

    A model that was saved without a generation configuration of its own has the default of its class there,
    which may be any token of another vocabulary.
    """
    added = backend.get_added_tokens_decoder()
    return tuple(dict.fromkeys([ends[0], *(end for end in ends[1:] if end in added)]))


def generation_file(folder: Path | str) -> Path | None:
    """Return the generation configuration of a model folder or hub name, None where there is none."""
    if Path(folder).is_dir():
        file = Path(folder) / "generation_config.json"
        return file if file.is_file() else None
    from transformers.utils import cached_file

    found = cached_file(
        str(folder),
        "generation_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def _generation_ends(folder: Path | str) -> list[int]:
    """Return `eos_token_id` of the generation configuration, which may hold one, several or none."""
    file = generation_file(folder)
    if file is None:
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is not JSON; restore it from the model") from error
    found = content.get("eos_token_id") if isinstance(content, dict) else None
    ends = found if isinstance(found, list) else [found]
    return [end for end in ends if isinstance(end, int) and not isinstance(end, bool)]


def _special_names(path: Path) -> dict[str, Any]:
    """Return `eos_token` and `pad_token` from the two files that may hold them."""
    names: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if (path / file).is_file():
            try:
                content = json.loads((path / file).read_text(encoding="utf-8"))
            except ValueError as error:
                raise ModelError(f"{path / file} is not JSON; restore it from the model") from error
            names.update({key: content[key] for key in ("eos_token", "pad_token") if content.get(key)})
    return names


def _token_id(backend: Tokenizer, token: str | dict[str, Any] | None) -> int | None:
    text = token.get("content") if isinstance(token, dict) else token
    found = backend.token_to_id(text) if text else None
    return None if found is None else int(found)


def _no_eos(folder: Path | str) -> ModelError:
    return ModelError(
        f"the tokenizer in {folder} has no end-of-sequence token, so responses could not end; "
        "set eos_token in its tokenizer_config.json"
    )
