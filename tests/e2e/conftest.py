"""What the end-to-end tests share: a cluster, a warm-started policy, runs with every part real."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.cluster import cluster
from actors.cluster.kept import kept_processes
from actors.commands import evaluate_outputs, prm_labels, unsolved
from actors.commands.samplers import Samplers, started_samplers
from actors.train.launch import run_training
from airls_ray.cli import main as cli
from airls_ray.config.load import dump_config
from airls_ray.config.schema import ArithmeticTaskConfig, Config, ModelConfig, RayConfig
from airls_ray.console.progress import Progress, QuietProgress
from airls_ray.data.problems import ProblemStream
from airls_ray.models.create import create_policy
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer, encode_traces

REPOSITORY = Path(__file__).parents[2]
TASK = {"name": "arithmetic", "operations": 2, "modulus": 5, "test_problems": 16}
CONTEXT = 32
TIMES = ("time/", "tokens_per_second/")


OF_ONE_RUN = ("test_training", "test_interruptions", "test_search", "test_methods")
"""Modules that read `airl_run`: one of the two processes of `make e2e` runs them, the other one the rest, so
that nothing slow is started twice."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in OF_ONE_RUN:
            item.add_marker("one_run")


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: its configuration, folder, summary and the lines of metrics.jsonl."""

    config: Config
    folder: Path
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    cluster.connect(RayConfig(object_store_gib=0.25))
    with kept_processes():  # engines of one run are the next one's, without their imports
        yield
    cluster.disconnect()


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that solves some problems and not others: a short plain PyTorch training on traces."""
    return make_policy(tmp_path_factory.mktemp("policy"), updates=100)


@pytest.fixture(scope="session")
def started_once(
    ray_cluster: None, policy_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Samplers]:
    """A rollout worker with the weights of `policy_folder` and a verifier, for all commands that sample."""
    nothing = {"cpus": 0.0, "threads": 1}  # it stays while others run, which need the whole small machine
    config = base_config(
        policy_folder,
        tmp_path_factory.mktemp("samplers"),
        rollout={"resources": nothing},
        verifier={"resources": nothing},
    )
    with started_samplers(config, str(policy_folder), QuietProgress()) as samplers:
        yield samplers


@pytest.fixture(scope="module")
def one_sampler(started_once: Samplers, policy_folder: Path) -> Iterator[None]:
    """Commands that would start a worker and a verifier with `policy_folder` get those that are there."""

    @contextmanager
    def already_started(config: Config, policy: str, progress: Progress) -> Iterator[Samplers]:
        assert Path(policy).resolve() == policy_folder.resolve()
        started_once.pool.forget_prefixes()
        yield started_once

    with pytest.MonkeyPatch.context() as patch:
        for command in (evaluate_outputs, prm_labels, unsolved):
            patch.setattr(command, "started_samplers", already_started)
        yield


@pytest.fixture(scope="session")
def airl_run(ray_cluster: None, policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """AIRL-S by log-probability: two policy ranks under ZeRO 2, a reference server, replay."""
    return train(airl_config(policy_folder, tmp_path_factory.mktemp("runs")))


def make_policy(folder: Path, *, task: dict[str, Any] | None = None, updates: int = 0) -> Path:
    """A new policy in `folder`, trained on traces for `updates` updates."""
    made = make_task(ArithmeticTaskConfig(**(task or TASK)))
    model = {"hidden_size": 64, "layers": 2, "heads": 2, "intermediate_size": 96, "context_tokens": CONTEXT}
    build_tokenizer(made, folder)
    codec = TextCodec.from_folder(folder, made)
    create_policy(ModelConfig(**model), codec, folder, seed=0)
    if updates:
        _imitate(folder, codec, ProblemStream(made, "train", seed=1), updates)
    return folder


def _imitate(folder: Path, codec: TextCodec, problems: ProblemStream, updates: int) -> None:
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(folder)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(updates):
        traces = encode_traces(problems.take(32), codec, CONTEXT)
        prompts, responses = (traces[name].to_pylist() for name in ("prompt", "response"))
        tokens = torch.tensor([a + b for a, b in zip(prompts, responses, strict=True)])
        labels = tokens.clone()
        labels[:, : len(prompts[0])] = -100
        policy(input_ids=tokens, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    policy.save_pretrained(folder)


def base_config(policy: Path, output: Path, /, **sections: Any) -> Config:
    """Every part small; `sections` replace or extend the sections of the same name."""
    threads = {"threads": 1}
    tree: dict[str, Any] = {
        "name": "run",
        "output": output,
        "task": TASK,
        "model": {"path": str(policy), "context_tokens": CONTEXT},
        "rollout": {
            "max_response_tokens": 16,
            "resources": threads,
            "engine": {"kv_cache_gib": 0.05, "max_sequences": 32},
        },
        "policy": {"learning_rate": 3e-4, "tokens_per_microbatch": 128, "resources": threads},
        "prm": {"warmup_iterations": 1, "learner": {"tokens_per_microbatch": 128, "resources": threads}},
        "reference": {"resources": threads},
        "train": {"problems_per_iteration": 4, "rollouts_per_problem": 4, "rollouts_every": 2},
        "search": {"problems": 4, "samples": 4, "problems_per_call": 3},
        "ray": {"object_store_gib": 0.25, "start_deadline_seconds": 1200},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section} if isinstance(section, dict) else section
    return Config.model_validate(tree)


def airl_config(policy: Path, output: Path) -> Config:
    """Six iterations, the first of them PRM warm-up, a checkpoint and an evaluation after every second."""
    return base_config(
        policy,
        output,
        method={"name": "airl_s", "kl_coefficient": 0.05, "updates_per_iteration": 2},
        policy={"ranks": 2, "zero_stage": 2},
        prm={"replay_iterations": 2},
        train={
            "iterations": 5,
            "checkpoint_every": 2,
            "evaluate_every": 2,
            "evaluation": {"problems": 3, "skip": 4, "samples": 2, "greedy": True},
        },
    )


def train(config: Config, *, resume: bool = False) -> TrainedRun:
    """Train in this process, by the session's cluster."""
    folder = config.output / config.name
    return TrainedRun(config, folder, run_training(config, resume), read_lines(folder / "metrics.jsonl"))


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file, all of which must be whole."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def figures(line: dict[str, Any]) -> dict[str, Any]:
    """What must be equal to the last bit: everything but times."""
    return {key: value for key, value in line.items() if not key.startswith(TIMES)}


def write_config(config: Config, folder: Path) -> Path:
    """`config` as a YAML file for the command line."""
    file = folder / "experiment.yaml"
    dump_config(config, file)
    return file


def command(*arguments: Any) -> list[str]:
    """The command line as a user types it."""
    return [sys.executable, "-m", "airls_ray.cli.main", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without a cluster to join."""
    return {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | variables


def airls(*arguments: Any, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run `airls-ray` to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def assert_refused(arguments: Sequence[Any], *parts: str) -> None:
    """The command must end with code 2 and one line on standard error that contains all `parts`."""
    stderr = io.StringIO()
    with redirect_stderr(stderr):
        assert cli.run([str(one) for one in arguments]) == cli.EXIT_USER_ERROR, stderr.getvalue()
    lines = stderr.getvalue().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in lines[0]
