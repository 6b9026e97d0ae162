"""What `benchmarks/gpu.py` measures with, on a CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from airls_ray.data.schemas import ROLLOUTS
from airls_ray.errors import ConfigError
from airls_ray.models.load import load_policy_module

sys.path.insert(
    0, str(Path(__file__).resolve().parents[2] / "benchmarks")
)  # as for `python benchmarks/NAME.py`

import gpu_parts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    gpu_parts.write_model(gpu_parts.shape_named("tiny"), folder, CPU)
    return folder


def test_the_written_model_has_the_shape_that_was_named(folder: Path) -> None:
    module = load_policy_module(folder, "bfloat16")
    assert sum(one.numel() for one in module.parameters()) == gpu_parts.shape_named("tiny").parameters


def test_an_unknown_shape_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"--shape huge is unknown: take one of .*Qwen2.5-7B.*, tiny"):
        gpu_parts.shape_named("huge")


def test_rollouts_of_a_group_share_their_prompt_and_the_longest_is_as_long_as_asked() -> None:
    table = gpu_parts.random_rollouts(24, 96, 512)
    prompts = [tuple(prompt) for prompt in table["prompt"].to_pylist()]
    lengths = [len(response) for response in table["response"].to_pylist()]
    assert table.schema == ROLLOUTS
    assert len(set(prompts)) == len(set(prompts[::8])) == 3
    assert max(lengths) == 96 > 2 * float(np.median(lengths))  # a heavy tail
    assert gpu_parts.lengths_of(table).tolist() == [len(p) + n for p, n in zip(prompts, lengths, strict=True)]


def test_a_token_at_a_time_with_a_cache_gives_what_whole_rows_give(folder: Path) -> None:
    module = load_policy_module(folder).eval()
    table = gpu_parts.random_rollouts(8, 24, 512)
    prompts, responses = (table[name].to_pylist() for name in ("prompt", "response"))
    rows = [p + r for p, r in zip(prompts, responses, strict=True)]
    starts = [len(prompt) for prompt in prompts]
    with torch.no_grad():
        whole = gpu_parts.whole_rows(module, rows, starts, CPU)
        steps = gpu_parts.a_token_at_a_time(module, rows, starts, CPU)
    assert whole.numel() == sum(map(len, responses))
    torch.testing.assert_close(steps, whole, atol=2e-5, rtol=0)


def test_bfloat16_moves_log_probabilities_a_little_each_way(folder: Path) -> None:
    found = gpu_parts.differences(folder, gpu_parts.random_rollouts(8, 24, 512), CPU)
    assert set(found) == {"sampler_learner", "sampler_fp32", "learner_fp32"}
    assert all(1e-5 < mean <= largest < 0.05 for mean, largest in found.values())
