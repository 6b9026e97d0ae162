"""Fast checks of a model folder: nothing is loaded, so that a mistake shows in milliseconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airls_ray.errors import ModelError


@dataclass(frozen=True)
class ModelInfo:
    """What the files of a model folder say; of a hub name only the path is known."""

    path: str
    is_folder: bool
    model_type: str | None = None
    architecture: str | None = None
    vocab_size: int | None = None
    context_tokens: int | None = None
    eos_token: str | None = None
    tie_embeddings: bool | None = None


def check_model_folder(
    path: Path | str,
    *,
    context_tokens: int | None = None,
    vocab_size: int | None = None,
    vocab_of: str = "the policy",
) -> ModelInfo:
    """Check that `path` is a complete model folder in Hugging Face format.

    Args:
        path: folder, or a hub name (`owner/name` that is no local path), which is not checked here:
            loading it gives its own error.
        context_tokens: tokens of prompt and response that the model must take.
        vocab_size: size that the model must have, that of `vocab_of`.
        vocab_of: whose vocabulary `vocab_size` is, for the message.

    Raises:
        ModelError: one sentence that names what is missing or does not fit, and where.
    """
    folder = Path(path)
    if not folder.is_dir():
        if folder.exists():
            raise ModelError(f"{path} is a file, not a model folder: give the folder that holds config.json")
        if looks_like_hub_name(str(path)):
            return ModelInfo(path=str(path), is_folder=False)
        raise ModelError(f"there is no model folder {path}: give an existing folder or a hub name owner/name")
    config = _read_json(folder / "config.json", "a model folder in Hugging Face format needs it")
    _check_weights(folder)
    # A model that also reads images has a configuration for each of its parts.
    text = config.get("text_config")
    sizes = text if isinstance(text, dict) else config
    info = ModelInfo(
        path=str(path),
        is_folder=True,
        model_type=config.get("model_type"),
        architecture=(config.get("architectures") or [None])[0],
        vocab_size=sizes.get("vocab_size"),
        context_tokens=sizes.get("max_position_embeddings"),
        eos_token=_eos_token(folder),
        tie_embeddings=config.get("tie_word_embeddings"),
    )
    _check_fit(info, context_tokens, vocab_size, vocab_of)
    return info


def looks_like_hub_name(name: str) -> bool:
    """Whether `name` can be `owner/name` of the hub rather than a mistyped path.

    A name whose first part is a folder here (`runs/demo`) is taken as a path.
    """
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~")) and not Path(parts[0]).exists()


def _check_fit(info: ModelInfo, context_tokens: int | None, vocab_size: int | None, vocab_of: str) -> None:
    if info.model_type is None:
        raise ModelError(f"{info.path}/config.json has no model_type: it is not a Hugging Face model")
    if (
        context_tokens is not None
        and info.context_tokens is not None
        and info.context_tokens < context_tokens
    ):
        raise ModelError(
            f"{info.path} takes {info.context_tokens} tokens (max_position_embeddings), but "
            f"model.context_tokens is {context_tokens}: lower it or take another model"
        )
    if None not in (vocab_size, info.vocab_size) and info.vocab_size != vocab_size:
        raise ModelError(
            f"{info.path} has a vocabulary of {info.vocab_size} tokens and {vocab_of} one of {vocab_size}: "
            "both must come from the same tokenizer"
        )


def _read_json(file: Path, why: str) -> dict[str, Any]:
    if not file.is_file():
        raise ModelError(f"{file} is missing: {why}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{file} cannot be read ({error}): save the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds no JSON object: save the model again")
    return content


def _check_weights(folder: Path) -> None:
    """Weights as safetensors, one file or an index with all its shards, none cut short.

    As transformers does: where there is one file, an index beside it is of older weights and not read.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():
        shards = sorted(set(_read_json(index, "it lists the shards").get("weight_map", {}).values()))
    else:
        shards = ["model.safetensors"]
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing or not shards:
        has_pickle = any(folder.glob("*.bin"))
        hint = "convert its .bin files to safetensors" if has_pickle else "copy the whole folder"
        raise ModelError(f"{folder} lacks weights ({', '.join(missing) or 'an empty index'}): {hint}")
    for name in shards:
        _check_safetensors(folder / name)


def _check_safetensors(file: Path) -> None:
    """Compare the size that the header promises with the file's: finds interrupted copies."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        header_size = int.from_bytes(stream.read(8), "little")
        if size < 8 or header_size > size - 8:
            raise ModelError(f"{file} is cut short or no safetensors file: copy it again")
        try:
            header = json.loads(stream.read(header_size))
        except ValueError as error:
            raise ModelError(f"{file} has a broken header: copy it again") from error
    end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    if 8 + header_size + end != size:
        raise ModelError(
            f"{file} has {size} bytes where its header promises {8 + header_size + end}: copy it again"
        )


def _eos_token(folder: Path) -> str:
    """The tokenizer's end-of-sequence token: without it no response ever ends."""
    file = folder / "tokenizer_config.json"
    settings = _read_json(file, "the tokenizer must lie beside the model")
    token = settings.get("eos_token")
    special = folder / "special_tokens_map.json"
    if token is None and special.is_file():
        token = _read_json(special, "").get("eos_token")
    if isinstance(token, dict):
        token = token.get("content")
    if not isinstance(token, str) or not token:
        raise ModelError(
            f"the tokenizer of {folder} has no end-of-sequence token: set eos_token in {file.name}"
        )
    return token
