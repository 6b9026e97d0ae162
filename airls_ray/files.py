"""Files that are written whole or not at all, and a full disk told from other failures."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from airls_ray.errors import DataError, RunError
from airls_ray.text.characters import whole_characters

TEMPORARY = ".unfinished-"
"""Prefix of what is being written; a leftover with it belongs to a writer that was killed."""

_T = TypeVar("_T")

_FULL = (errno.ENOSPC, errno.EDQUOT)
# torch.save reports a full disk as a RuntimeError of its zip writer, without errno or reason.
_TORCH_WRITER = ("inline_container", "PytorchStreamWriter")
_PATH_FAULTS = {
    errno.EEXIST: "a file is where a folder must be",
    errno.ENOTDIR: "a file is where a folder must be",
    errno.EISDIR: "a folder is where a file must be",
    errno.ENOENT: "there is no such file or folder",
    errno.EACCES: "it may not be read or written",
    errno.EROFS: "its disk is read-only",
}
"""What the system says of a path that cannot be opened or made."""
_TORCH_FREE_BYTES = 64 * 2**20


class FullDisk:
    """Context: a full disk inside becomes a `RunError` of one sentence; other errors pass."""

    def __init__(self, folder: Path, what: str, remedy: str) -> None:
        """`what` could not be written below `folder`; `remedy` says what to do."""
        self._folder, self._what, self._remedy = folder, what, remedy

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Judge the error, if there is one."""
        if error is not None and is_disk_full(error, self._folder):
            raise RunError(
                f"the disk of {self._folder} is full, {self._what} could not be written: {self._remedy}"
            ) from error


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Whether `error`, or what it was raised from, means that the disk of `folder` has no space left.

    Looks through Ray's task errors (`cause`), safetensors (text only) and torch.save (neither errno nor
    reason: then the free space decides).
    """
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        if getattr(seen, "errno", None) in _FULL or "No space left on device" in text:
            return True
        if any(name in text for name in _TORCH_WRITER):
            return shutil.disk_usage(folder).free < _TORCH_FREE_BYTES
        cause = getattr(seen, "cause", None)
        seen = cause if isinstance(cause, BaseException) else seen.__cause__
    return False


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a sibling of `path` to write; on success it takes `path`'s place, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(TEMPORARY + path.name)
    remove(temporary)
    try:
        yield temporary
        _sync(temporary)
        if path.is_dir():  # a folder cannot be replaced in one step
            aside = _move_aside(path)
            os.replace(temporary, path)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, all of it or nothing; half a character becomes the replacement character."""
    with replacing(path) as temporary:
        temporary.write_text(whole_characters(text), encoding="utf-8")


def read_unpacked(path: Path) -> bytes:
    """Return the content of a file, unpacked where its name ends in .gz.

    Raises:
        OSError: it cannot be read or unpacked.
    """
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error) as error:
        raise OSError(f"not a whole gzip file ({error})") from error


def append(path: Path, data: bytes) -> None:
    """Append `data`, all of it or nothing."""
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            written = 0
            while written < len(data):
                written += file.write(data[written:])
        except OSError:
            file.truncate(size)
            raise


def remove(path: Path) -> None:
    """Delete a file or a folder, if there is one. A folder is renamed first, so that none is ever half."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(_move_aside(path), ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _move_aside(folder: Path) -> Path:
    aside = folder.with_name(f"{TEMPORARY}removed-{folder.name.removeprefix(TEMPORARY)}")
    shutil.rmtree(aside, ignore_errors=True)
    return folder.rename(aside)


def fault_of_path(error: OSError) -> str | None:
    """Return "PATH: what is wrong with it", or None where no path of the user's is at fault."""
    fault = _PATH_FAULTS.get(error.errno or 0)
    return None if fault is None or error.filename is None else f"{error.filename}: {fault}"


def check_target(target: Path, overwrite: bool) -> None:
    """Make the folder of `target`, before anything slow is done.

    Raises:
        DataError: `target` is there and may not be replaced, or cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {target}: {fault_of_path(error) or error.strerror}") from error
    if not os.access(target.parent, os.W_OK):
        raise DataError(f"cannot write {target}: its folder may not be written")
    if target.is_dir():
        raise DataError(f"{target} is a folder: give the name of a file to write")
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists: give another name, or --overwrite to replace it")


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left unfinished in `folder`."""
    for path in folder.glob(TEMPORARY + "*"):
        remove(path)


def finite(value: Any) -> float | None:
    """Return a scalar (Python, NumPy or torch) as a float, None if it is None, NaN or infinite."""
    number = None if value is None else float(value)
    return number if number is not None and math.isfinite(number) else None


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that any parser reads and UTF-8 holds: NaN and infinity become null, NumPy scalars numbers,
    paths text, halves of surrogate pairs the replacement character."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def read_json(path: Path, kind: type[_T]) -> _T | None:
    """Return the content of a JSON file, or None if there is no such file.

    Raises:
        DataError: the file is no JSON, or not of the `kind` (dict or list) that it should be.
    """
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no valid JSON ({error}): delete it or write it again") from error
    if not isinstance(value, kind):
        raise DataError(f"{path} must hold a JSON {kind.__name__}, but holds a {type(value).__name__}")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {whole_characters(str(key)): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, str | Path):
        return whole_characters(str(value))
    if value is None or isinstance(value, bool | int):
        return value
    if hasattr(value, "item"):  # NumPy and torch scalars
        return _plain(value.item())
    return finite(value)


def _sync(path: Path) -> None:
    """Force `path` to disk: a power cut cannot empty it later, and a network disk reports its errors now."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _sync_folder(path: Path) -> None:
    """Force the names in `path` to disk, so that after a power cut no pointer is newer than what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network storage has no such call for folders
            raise
    finally:
        os.close(descriptor)
