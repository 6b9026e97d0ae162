"""Fixtures of several unit tests."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch computes in one thread, so that a sum does not depend on how it is shared out."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def files_parsed_once() -> Iterator[None]:
    """Configurations that are read again and again are parsed once: that is most of the time of a reading."""
    from airls_ray.config import load

    with pytest.MonkeyPatch.context() as patch:
        parsed = cache(load._load_yaml)
        patch.setattr(load, "_load_yaml", lambda text: deepcopy(parsed(text)))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small policy with random weights."""
    from tests.tiny import make_policy_folder  # which needs torch

    return make_policy_folder(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def own_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of this project's arithmetic, from which the PRMs of `own_folder` start."""
    from airls_ray.config import Config
    from airls_ray.config.schema import ModelConfig
    from airls_ray.models.create import create_policy
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec, build_tokenizer

    task, policy = make_task(Config().task), tmp_path_factory.mktemp("own") / "policy"
    build_tokenizer(task, policy)
    sizes = ModelConfig(hidden_size=32, layers=2, heads=1, intermediate_size=32, context_tokens=64)
    create_policy(sizes, TextCodec.from_folder(policy, task), policy, seed=1)
    return policy


@pytest.fixture
def own_folder(tmp_path: Path, own_policy: Path) -> Callable[..., tuple[Path, dict[str, int]]]:
    """Return a function that writes a PRM of this project and gives its folder and its words' tokens."""

    # Most tests here do without torch.
    import torch

    from airls_ray.config import Config
    from airls_ray.config.schema import PRMConfig
    from airls_ray.models.load import save_hf
    from airls_ray.prm.folder import write_prm_form
    from airls_ray.tasks import make_task
    from tests.tiny import prm_module

    def make(**form: Any) -> tuple[Path, dict[str, int]]:
        task, config = make_task(Config().task), PRMConfig(**form)
        folder = tmp_path / "prm"
        module = prm_module(own_policy, config.parameterisation, config.shaping)
        if config.parameterisation == "scalar_head":
            torch.manual_seed(0)
            torch.nn.init.normal_(module.model.score.weight)
        else:
            with torch.no_grad():  # probabilities that differ enough to compare
                module.model.lm_head.weight.mul_(20)
        save_hf(module, None, own_policy, folder)
        write_prm_form(config, folder)
        words = ["<pad>", "<eos>", *(task.vocabulary() or [])]
        return folder, {word: token for token, word in enumerate(words)}

    return make


@pytest.fixture
def fake(monkeypatch):
    """Return a function that puts a fake module with the given attributes in the place of a real one."""

    def put(name: str, **attributes: Any) -> None:
        module = types.ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.fixture
def any_folder(monkeypatch):
    """Folders of models need not exist (tests of the command line)."""
    from actors.train import launch_checks
    from airls_ray.models import check
    from airls_ray.prm import forms

    shown = types.ModuleType("actors.commands.demo")
    vars(shown)["show_summary"] = lambda summary, progress: None
    monkeypatch.setitem(sys.modules, "actors.commands.demo", shown)
    monkeypatch.setattr(launch_checks, "base_policy", lambda config: "policy")
    monkeypatch.setattr(check, "check_model_folder", lambda *_, **__: None)
    monkeypatch.setattr(forms, "check_model_folder", lambda *_, **__: None)
    monkeypatch.setattr(forms, "check_search_models", lambda *_: None)
