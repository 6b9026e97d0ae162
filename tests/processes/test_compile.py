"""Compiled layers: the same numbers and the same names."""

from __future__ import annotations

import shutil
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from airls_ray.config.schema import LoraConfig
from airls_ray.errors import ConfigError
from airls_ray.models.load import load_policy_module
from airls_ray.models.lora import load_with_adapters
from airls_ray.models.modules import PolicyModule
from tests.tiny import make_policy_folder

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")


def policy(folder: Path) -> PolicyModule:
    return load_policy_module(str(make_policy_folder(folder)), "float32")


def logprobs(module: PolicyModule, width: int) -> Tensor:
    ids = torch.randint(0, 12, (3, width), generator=torch.Generator().manual_seed(1))
    before = torch.arange(3 * width).view(3, width)[:, :-1].flatten()
    result, _ = module(ids, torch.empty(0), before, ids[:, 1:].flatten(), torch.ones_like(ids))
    return result


@needs_compiler
def test_compiled_layers_give_the_same_log_probabilities_and_gradients(tmp_path: Path) -> None:
    plain, compiled = policy(tmp_path / "plain"), policy(tmp_path / "compiled")
    compiled.compile_layers()
    for width in (9, 14):
        one, other = logprobs(plain, width), logprobs(compiled, width)
        one.sum().backward(), other.sum().backward()
        torch.testing.assert_close(one, other)
    for ours, theirs in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


@needs_compiler
def test_compiling_keeps_the_names_of_the_weights(tmp_path: Path) -> None:
    module = policy(tmp_path)
    names = [name for name, _ in module.hf_parameters()]
    module.compile_layers()
    assert [name for name, _ in module.hf_parameters()] == names


@needs_compiler
def test_adapters_in_compiled_layers_have_the_same_gradients_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphs are the compiler's; the kernels, half a minute of g++, are those of the test above."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    folder = make_policy_folder(tmp_path)
    plain, compiled = (with_adapters(folder) for _ in range(2))
    names = [name for name, _ in compiled.hf_parameters()]
    compiled.compile_layers()
    for module in (plain, compiled):
        logprobs(module, 9).sum().backward()
    assert [name for name, _ in compiled.hf_parameters()] == names
    for (_, ours), (_, theirs) in zip(
        plain.trainable_parameters(), compiled.trainable_parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


def with_adapters(folder: Path) -> PolicyModule:
    """A policy whose adapters are off their start, where half of their gradients are zero."""
    lora = LoraConfig(rank=3, alpha=5.0, target_modules=["q_proj", "down_proj"])
    module = load_with_adapters(load_policy_module, str(folder), lora, seed=7, resumed=False)
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, parameter in module.trainable_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.1)
    return module


def test_compiling_without_a_compiler_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler.*install g\+\+"):
        policy(tmp_path).compile_layers()
