"""Storage behind URLs: the same on a local folder and through fsspec, with errors of one sentence."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from airls_ray.errors import ConfigError, RunError
from airls_ray.runs import storage as module
from airls_ray.runs.storage import Storage, open_storage, shown_url


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    url = f"memory://{uuid.uuid4().hex}/base" if request.param == "memory" else (tmp_path / "store").as_uri()
    return open_storage(url, 10.0).below("run")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    file = tmp_path / "file.bin"
    file.write_bytes(bytes(range(256)) * 100)
    return file


def test_files_come_back_as_they_were(storage: Storage, local: Path, tmp_path: Path) -> None:
    storage.upload(local, "a/b/file.bin")
    storage.replace(local, "c.bin")
    for name in ("a/b/file.bin", "c.bin"):
        storage.download(name, tmp_path / "back" / name)
        assert (tmp_path / "back" / name).read_bytes() == local.read_bytes()


def test_a_replaced_text_is_the_new_one_and_leaves_no_temporary_file(storage: Storage) -> None:
    for text in ("one", "two"):
        storage.write_text("checkpoints/latest", text)
    assert storage.read_text("checkpoints/latest") == "two"
    assert storage.files() == ["checkpoints/latest"]


def test_what_is_not_there_is_none_or_nothing(storage: Storage) -> None:
    assert storage.read_text("none") is None
    assert storage.files() == []
    assert storage.folders("none") == []
    storage.delete("none")


def test_listing_and_deleting_a_folder(storage: Storage, local: Path) -> None:
    for name in ("x/one", "x/deep/two", "y/three", "top"):
        storage.upload(local, name)
    assert storage.files() == ["top", "x/deep/two", "x/one", "y/three"]
    assert storage.files("x") == ["x/deep/two", "x/one"]
    assert storage.folders("") == ["x", "y"]
    storage.delete("x")
    assert storage.files() == ["top", "y/three"]


def test_the_check_leaves_nothing_behind(storage: Storage) -> None:
    storage.check()
    assert storage.files() == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://bucket/x", "Protocol not known: nosuch"),
        ("relative/path", "empty scheme"),
        ("az://container/x", "adlfs"),
    ],
)
def test_a_url_that_nothing_knows_is_one_sentence(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.storage .*{said}.*give a URL such as s3://"):
        open_storage(url, 10.0)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"train\.storage: file://.*could not be written \(.*correct the URL"
    ):
        open_storage((tmp_path / "file").as_uri(), 10.0).below("run").check()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://KEY:SECRET@bucket/path", "s3://bucket/path"),
        ("s3://KEY:sec/ret?x@bucket/path?region=a#b", "s3://bucket/path"),
        ("https://host/path?sig=SECRET", "https://host/path"),
        ("file:///mnt/a@b/c", "file:///mnt/a@b/c"),
        ("/mnt/x", "/mnt/x"),
        ("KEY:SECRET@bucket", "bucket"),
    ],
)
def test_shown_urls_have_no_user_and_no_query(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_errors_of_other_libraries_lose_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "s3://KEYID:se%2Fcret@bucket/path?token=TOKEN1"

    def fails(given: str) -> Any:
        raise ValueError(f"cannot sign {given} with KEYID and se/cret and TOKEN1\nmore")

    monkeypatch.setattr(module, "_resolve", fails)
    with pytest.raises(ConfigError) as caught:
        open_storage(url, 10.0)
    assert "cannot sign s3://bucket/path with *** and *** and ***" in str(caught.value)


def test_a_call_that_hangs_ends_at_its_deadline(
    storage: Storage, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    storage._deadline = 0.05
    monkeypatch.setattr(storage, "_copy_in", lambda *_: over.wait(10))
    with pytest.raises(RunError, match=r"could not take file\.bin within 0\.05 s"):
        storage.upload(local, "x")
    over.set()
