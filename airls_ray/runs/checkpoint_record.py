"""`checkpoint.json`: what a checkpoint is, written last into its folder, so that it also says "complete".

It holds the format version, the iteration and its metrics, the size of every file, fingerprints of what the
run was started from (base model, given PRM, problem files) and a digest of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airls_ray import files
from airls_ray.errors import RunError

FORMAT = 1
"""Version of a checkpoint's files; one more when an older program could not go on from them."""
RECORD = "checkpoint.json"

Inputs = dict[str, dict[str, Any]]
"""Configuration field to the fingerprint of what it names."""

_SHAPE = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")
_EDGE_BYTES = 2**20
_REMEDY = "delete that checkpoint to resume from the one before"


@dataclass(frozen=True)
class CheckpointRecord:
    """The content of `checkpoint.json`."""

    iteration: int
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """Of that iteration."""
    inputs: Inputs = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of every file, by its path in the checkpoint."""


def write_record(folder: Path, iteration: int, metrics: Mapping[str, float | None], inputs: Inputs) -> None:
    """Write `checkpoint.json` for the files that lie in `folder`."""
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / RECORD
    }
    content: dict[str, Any] = {
        "format": FORMAT, "iteration": iteration, "metrics": dict(metrics), "inputs": inputs, "files": sizes,
    }  # fmt: skip
    content["digest"] = _digest(content)
    (folder / RECORD).write_text(files.to_json(content, indent=1) + "\n", encoding="utf-8")


def parse_record(text: str, where: str) -> CheckpointRecord:
    """Return the record in `text`; `where` names it in errors.

    Raises:
        RunError: it is broken, was changed, or is of another format version.
    """
    broken = RunError(f"{where} is broken or was changed: {_REMEDY}")
    try:
        content = json.loads(text)
    except ValueError:
        raise broken from None
    if not isinstance(content, dict) or "format" not in content:
        raise broken
    if content["format"] != FORMAT:
        raise RunError(
            f"{where} is of checkpoint format {content['format']}, and this version of airls-ray reads "
            f"format {FORMAT}: resume with the version that wrote it"
        )
    if content.pop("digest", None) != _digest(content):
        raise broken
    return CheckpointRecord(
        content["iteration"], content["metrics"], content["inputs"], sizes=content["files"]
    )


def read_record(folder: Path) -> CheckpointRecord | None:
    """Return a checkpoint's record; None where there is none (made before records were).

    Raises:
        RunError: as `parse_record`.
    """
    path = folder / RECORD
    return parse_record(path.read_text(encoding="utf-8"), str(path)) if path.exists() else None


def check_files(folder: Path, record: CheckpointRecord) -> None:
    """Compare the files of a checkpoint with the sizes in its record.

    Raises:
        RunError: one is missing or has another size.
    """
    for name, size in record.sizes.items():
        path = folder / name
        if not path.is_file():
            raise RunError(f"{path} is missing, and {RECORD} lists it: {_REMEDY}")
        if path.stat().st_size != size:
            raise RunError(f"{path} has {path.stat().st_size} bytes where {RECORD} says {size}: {_REMEDY}")


def fingerprints(paths: Mapping[str, str | Path | Iterable[Path] | None]) -> Inputs:
    """Return the fingerprint of what each configuration field names; hub names and absent paths have none."""
    found: Inputs = {}
    for name, value in paths.items():
        if value is None:
            continue
        several = [Path(value)] if isinstance(value, str | Path) else [Path(one) for one in value]
        if len(several) == 1 and several[0].is_dir():
            found[name] = _of_model(several[0])
        elif several and all(path.is_file() for path in several):
            found[name] = {"content": _sha256(path.read_bytes() for path in several)}
    return found


def check_inputs(record: CheckpointRecord, now: Inputs, checkpoint: str) -> set[str]:
    """Compare what the run was started from with what the configuration names now; return what is the same.

    Raises:
        RunError: a field names another model, other weights or another file content.
    """
    both = record.inputs.keys() & now.keys()
    for name in sorted(both):
        before, here = record.inputs[name], now[name]
        remedy = f"set {name} to what the run began with, or start a run of another name"
        shapes = before.get("shape", {}), here.get("shape", {})
        differing = [key for key in _SHAPE if shapes[0].get(key) != shapes[1].get(key)]
        if differing:
            what = ", ".join(f"{key} {shapes[1].get(key)} (was {shapes[0].get(key)})" for key in differing)
            raise RunError(f"{checkpoint} is of another model than {name} names now: {what}; {remedy}")
        for part, said in (("tokenizer", "another vocabulary"), ("weights", "other weights")):
            if before.get(part) != here.get(part):
                raise RunError(f"{checkpoint} was begun from {said} than {name} names now: {remedy}")
        if before.get("content") != here.get("content"):
            raise RunError(f"the content of {name} is no longer what {checkpoint} was made with: {remedy}")
    return set(both)


def _of_model(folder: Path) -> dict[str, Any]:
    """Shape, vocabulary and weights; of large weights the sizes and both ends of each file.

    A safetensors file begins with its header, and training changes its last tensor as any other.
    """
    config = folder / "config.json"
    content = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "shape": {key: content[key] for key in _SHAPE if key in content},
        "tokenizer": _sha256(
            (folder / name).read_bytes() for name in _TOKENIZER if (folder / name).is_file()
        ),
        "weights": _sha256(_ends(path) for path in weights),
    }


def _ends(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_EDGE_BYTES)
        file.seek(max(size - _EDGE_BYTES, 0))
        return f"{path.name} {size} ".encode() + head + file.read()


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
