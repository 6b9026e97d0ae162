"""`make install` by uv: it is told what pip is configured with; where it fails, pip takes over."""

from __future__ import annotations

import importlib.util
import subprocess
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "requirements" / "install.py"
PIP_CONFIG = """\
:env:.find-links='/wheels'
global.cert='/etc/ca.crt'
global.extra-index-url='\\nhttps://a.example/simple\\nhttps://b.example/simple'
global.find-links='/elsewhere'
global.index-url='https://global.example/simple'
install.index-url='https://install.example/simple'
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with an environment of its own and the pip configuration above."""
    spec = importlib.util.spec_from_file_location("install_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path)
    monkeypatch.setattr(module, "run", lambda command: subprocess.CompletedProcess(command, 0, PIP_CONFIG))
    return module


def test_uv_gets_the_indexes_and_folders_of_pip(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    environment = install.installer_environment()
    assert environment["UV_DEFAULT_INDEX"] == "https://install.example/simple"
    assert environment["UV_INDEX"] == "https://a.example/simple https://b.example/simple"
    command = install.uv("torch")
    options = list(pairwise(command))
    assert [value for name, value in options if name == "--find-links"] == ["/wheels"]
    assert command[-1] == "torch"
    assert not [word for word in command if "example" in word]  # a password of theirs is not for `ps`


def test_a_certificate_of_pip_is_that_of_uv_unless_one_is_set(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert install.installer_environment()["SSL_CERT_FILE"] == "/etc/ca.crt"
    monkeypatch.setenv("SSL_CERT_FILE", "/mine.crt")
    assert install.installer_environment()["SSL_CERT_FILE"] == "/mine.crt"


def test_the_next_installer_takes_over_where_one_fails(install: ModuleType, tmp_path: Path) -> None:
    done = tmp_path / "done"
    install.install_by("packages", ["false"], ["touch", str(done)])
    assert done.exists()


def test_the_last_installer_s_words_are_told(install: ModuleType) -> None:
    failing = ["sh", "-c", "echo 'ERROR: no torch for this Python'; exit 1"]
    with pytest.raises(install.InstallError, match=r"could not install packages: ERROR: no torch for this"):
        install.install_by("packages", ["false"], failing)


def test_a_network_that_is_away_is_told_as_that(install: ModuleType) -> None:
    failing = ["sh", "-c", "echo 'NewConnectionError: to the index'; exit 1"]
    with pytest.raises(install.InstallError, match="the package index cannot be reached"):
        install.install_by("packages", failing)


def test_pip_alone_installs_where_it_has_no_uv(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "pip", lambda *pins: ["false"])
    assert install.by_uv(["torch"]) == []
