"""Tiny models and tables for the tests of models and learning."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from airls_ray.config.schema import ModelConfig
from airls_ray.data.schemas import ROLLOUTS, TRACES, conform
from airls_ray.models.create import create_policy
from airls_ray.models.load import load_policy_module, load_prm_module
from airls_ray.text.make_tokenizer import train_tokenizer
from airls_ray.text.tokenizer_files import load_tokenizer


@dataclass
class Ids:
    """Stands for the tokenizer: the ids that a new model needs."""

    eos_id: int = 1
    pad_id: int = 0
    vocab_size: int = 12


def make_policy_folder(folder: Path, *, seed: int = 0, tie: bool = False, dtype: str = "float32") -> Path:
    """Write a two-layer policy with a stub of a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    config = ModelConfig(
        hidden_size=32,
        layers=2,
        heads=2,
        intermediate_size=48,
        context_tokens=64,
        tie_embeddings=tie,
        dtype=dtype,
    )
    create_policy(config, Ids(), folder, seed)
    return folder


def policy_module(folder: Path) -> Any:
    """The policy of a folder that stays as it is, to be trained: a copy, for reading takes far longer."""
    return deepcopy(_read_policy(folder))


def prm_module(folder: Path, parameterisation: Any, shaping: bool = False) -> Any:
    """The same for a PRM, as `load_prm_module` gives it."""
    return deepcopy(_read_prm(folder, parameterisation, shaping))


@cache
def _read_policy(folder: Path) -> Any:
    return load_policy_module(folder)


@cache
def _read_prm(folder: Path, parameterisation: Any, shaping: bool) -> Any:
    return load_prm_module(folder, parameterisation, shaping=shaping)


def make_text_policy(folder: Path, *, context_tokens: int = 512) -> Path:
    """Write a two-layer policy with random weights that reads any text, a token a byte."""
    train_tokenizer([], 258, folder)
    loaded = load_tokenizer(folder, chat=False)
    config = ModelConfig(
        hidden_size=32, layers=2, heads=1, intermediate_size=48, context_tokens=context_tokens
    )
    create_policy(config, Ids(loaded.eos_id, loaded.pad_id, 258), folder, seed=0)
    return folder


@cache
def make_rollouts(groups: int, size: int, *, seed: int = 0, vocab: int = 12, steps: int = 2) -> pa.Table:
    """ROLLOUTS with random tokens, `steps` steps each, alternating outcomes, log-probabilities of -1."""
    rng = np.random.default_rng(seed)
    rows = []
    for group in range(groups):
        prompt = rng.integers(2, vocab, rng.integers(1, 5)).astype(np.int32)
        for index in range(size):
            length = int(rng.integers(steps, 9))
            ends = [*np.sort(rng.choice(np.arange(1, length), steps - 1, replace=False)).tolist(), length]
            rows.append(
                {
                    "problem_id": f"p{group}",
                    "group": group,
                    "index": index,
                    "prompt": prompt,
                    "response": rng.integers(1, vocab, length).astype(np.int32),
                    "logprobs": np.full(length, -1.0, np.float32),
                    "version": 0,
                    "step_ends": np.array(ends, np.int32),
                    "finish": "stop",
                    "outcome": float((group + index) % 2),
                    "worker": "w",
                    "seconds": 0.0,
                    "token_versions": None,
                }
            )
    columns = {field.name: [row[field.name] for row in rows] for field in ROLLOUTS}
    return pa.table(
        {
            name: pa.array(values, pa.string()).dictionary_encode().cast(ROLLOUTS.field(name).type)
            if name == "finish"
            else pa.array(values, ROLLOUTS.field(name).type)
            for name, values in columns.items()
        }
    ).cast(ROLLOUTS)


@cache
def make_traces(groups: int, *, seed: int = 100) -> pa.Table:
    """TRACES for the problems of `make_rollouts`, one each."""
    rollouts = make_rollouts(groups, 1, seed=seed)
    return conform(rollouts, TRACES)
