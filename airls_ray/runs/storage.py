"""Object stores and other file systems behind a URL: the only module that adapts `pyarrow.fs` and fsspec.

Every call has a deadline and fails with one sentence. URLs may carry credentials (`s3://key:secret@bucket`),
so no text that leaves this module shows user info or query.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from airls_ray.errors import ConfigError, RunError
from airls_ray.files import TEMPORARY

if TYPE_CHECKING:
    from airls_ray.config.schema import Config

_T = TypeVar("_T")
_PROBE_SECONDS = 60.0
_SHORTEST_SECRET = 4


class Storage:
    """A folder behind a URL; names in it are relative, with `/`."""

    def __init__(self, filesystem: Any, root: str, url: str, shown: str, deadline_seconds: float) -> None:
        """`filesystem`: a `pyarrow.fs.FileSystem`; `root`: the folder in it; `url`: as configured, to know
        what is secret; `shown`: the folder in messages."""
        self.shown = shown
        self._url = url
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._deadline = deadline_seconds

    def below(self, name: str) -> Storage:
        """Return the folder `name` of this one."""
        shown = f"{self.shown.rstrip('/')}/{name}"
        return Storage(self._filesystem, self._path(name), self._url, shown, self._deadline)

    def local_path(self) -> Path | None:
        """Where the folder is on this machine; None if it is elsewhere."""
        return Path(self._root or "/") if self._filesystem.type_name == "local" else None

    def check(self) -> None:
        """Write and delete a small file.

        Raises:
            ConfigError: the storage cannot be reached or written.
        """
        try:
            self._call("be written", self._probe, _PROBE_SECONDS)
        except RunError as error:
            raise ConfigError(f"train.storage: {error}; correct the URL or the rights") from None

    def upload(self, local: Path, name: str) -> None:
        """Copy a local file to `name`; a reader may see a part of it before this returns.

        Raises:
            RunError: it failed or took longer than the deadline (as in all other methods).
        """
        self._call(f"take {local.name}", lambda: self._copy_in(local, name))

    def replace(self, local: Path, name: str) -> None:
        """Copy a local file to `name` by a temporary name, so that a reader sees the old or the new."""
        self._call(f"take {local.name}", lambda: self._swap(name, lambda part: self._copy_in(local, part)))

    def write_text(self, name: str, text: str) -> None:
        """Write a small text file as `replace` does."""
        self._call(f"take {name}", lambda: self._swap(name, lambda part: self._write(part, text.encode())))

    def read_text(self, name: str) -> str | None:
        """Return a small text file, or None if there is none."""
        return self._call(f"give {name}", lambda: self._read(name))

    def download(self, name: str, local: Path) -> None:
        """Copy `name` to a local file, whose folder is made."""
        local.parent.mkdir(parents=True, exist_ok=True)
        self._call(f"give {name}", lambda: self._copy_out(name, local))

    def files(self, name: str = "") -> list[str]:
        """Return all files below `name`, relative to this folder; none where there is no such folder."""
        return self._call("be listed", lambda: self._list(name, recursive=True, folders=False))

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders right in `name`."""
        found = self._call("be listed", lambda: self._list(name, recursive=False, folders=True))
        return [one.rpartition("/")[2] for one in found]

    def delete(self, name: str) -> None:
        """Delete a folder with all that is in it, if there is one."""
        self._call(f"delete {name}", lambda: self._delete(name))

    # --------------------------------------------------------------------- what runs under a deadline
    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _probe(self) -> None:
        name = f"{TEMPORARY}probe"
        self._write(name, b"probe")
        self._delete(name)

    def _make_parent(self, name: str) -> None:
        self._filesystem.create_dir(self._path(name).rpartition("/")[0], recursive=True)

    def _copy_in(self, local: Path, name: str) -> None:
        from pyarrow import fs

        self._make_parent(name)
        fs.copy_files(
            str(local), self._path(name),
            source_filesystem=fs.LocalFileSystem(), destination_filesystem=self._filesystem,
        )  # fmt: skip

    def _copy_out(self, name: str, local: Path) -> None:
        from pyarrow import fs

        fs.copy_files(
            self._path(name), str(local),
            source_filesystem=self._filesystem, destination_filesystem=fs.LocalFileSystem(),
        )  # fmt: skip

    def _write(self, name: str, data: bytes) -> None:
        self._make_parent(name)
        with self._filesystem.open_output_stream(self._path(name)) as stream:
            stream.write(data)

    def _swap(self, name: str, write: Callable[[str], None]) -> None:
        folder, slash, last = name.rpartition("/")
        temporary = f"{folder}{slash}{TEMPORARY}{last}"
        write(temporary)
        self._filesystem.move(self._path(temporary), self._path(name))

    def _read(self, name: str) -> str | None:
        if not self._filesystem.get_file_info(self._path(name)).is_file:
            return None
        with self._filesystem.open_input_stream(self._path(name)) as stream:
            return bytes(stream.read()).decode("utf-8")

    def _list(self, name: str, *, recursive: bool, folders: bool) -> list[str]:
        from pyarrow import fs

        kind = fs.FileType.Directory if folders else fs.FileType.File
        selector = fs.FileSelector(self._path(name), allow_not_found=True, recursive=recursive)
        found = [info.path for info in self._filesystem.get_file_info(selector) if info.type == kind]
        skip = len(self._root.strip("/"))
        return sorted(path.strip("/")[skip:].strip("/") for path in found)

    def _delete(self, name: str) -> None:
        from pyarrow import fs

        kind = self._filesystem.get_file_info(self._path(name)).type
        if kind == fs.FileType.File:
            self._filesystem.delete_file(self._path(name))
        elif kind == fs.FileType.Directory:
            self._filesystem.delete_dir(self._path(name))

    def _call(self, what: str, work: Callable[[], _T], seconds: float | None = None) -> _T:
        return _within(
            min(seconds or self._deadline, self._deadline), f"{self.shown} could not {what}", self._url, work
        )


def open_storage(url: str, deadline_seconds: float) -> Storage:
    """Return the folder behind `url`; nothing is read or written yet.

    Raises:
        ConfigError: the URL is wrong, or nothing that is installed knows its scheme.
    """
    try:
        filesystem, root = _within(_PROBE_SECONDS, "it could not be opened", url, lambda: _resolve(url))
    except RunError as error:
        raise ConfigError(
            f"train.storage {shown_url(url)}: {error}; give a URL such as s3://bucket/path, gs://bucket/path "
            "or file:///folder (other schemes need fsspec and its package for them)"
        ) from None
    return Storage(filesystem, root, url, shown_url(url), deadline_seconds)


def shown_url(url: str) -> str:
    """Return `url` without user info, query and fragment.

    A secret may hold any sign, so all before the last `@` goes, even if that takes a part of the path.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url.rpartition("@")[2].partition("?")[0]
    if scheme != "file":
        rest = rest.rpartition("@")[2]
    return f"{scheme}://{rest.partition('?')[0].partition('#')[0]}"


def without_credentials(config: Config) -> Config:
    """Return the configuration as it may be written to a file."""
    url = config.train.storage
    if url is None or shown_url(url) == url:
        return config
    train = config.train.model_copy(update={"storage": shown_url(url)})
    return config.model_copy(update={"train": train})


def _resolve(url: str) -> tuple[Any, str]:
    """Ask pyarrow first, then fsspec."""
    from pyarrow import ArrowInvalid, fs

    try:
        return fs.FileSystem.from_uri(url)
    except ArrowInvalid as error:
        if "Unrecognized filesystem type" not in str(error):
            raise
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise RunError("pyarrow does not know its scheme, and fsspec is not installed") from None
    filesystem, root = url_to_fs(url)
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), root


def _within(seconds: float, failed: str, url: str, work: Callable[[], _T]) -> _T:
    """Do `work` in a thread, since neither library takes a deadline; one that hangs is left behind."""
    done: list[_T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # the packages behind fsspec raise classes of their own
            errors.append(error)

    thread = threading.Thread(target=run, name="storage", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise RunError(f"{failed} ({_clean(errors[0], url)})") from None
    if not done:
        raise RunError(f"{failed} within {seconds:g} s")
    return done[0]


def _clean(error: Exception, url: str) -> str:
    """The first line of an error without the credentials of `url`."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    rest, shown = url.partition("://")[2], shown_url(url)
    user, query = rest.rpartition("@")[0], rest.partition("?")[2]
    text = text.replace(url, shown)
    secrets = [user, *user.split(":"), query, *(part.partition("=")[2] for part in query.split("&"))]
    for secret in sorted({*secrets, *map(unquote, secrets)}, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text
