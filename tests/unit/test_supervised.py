"""Supervised learning on traces: its loss, its sampler, its held-out problems and when it checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from actors.commands.sft import prepare_model
from actors.learn.ray_train import follow
from actors.learn.sft_rank import _share, held_out_problems, training_traces
from airls_ray.config.schema import Config, LearnerConfig
from airls_ray.errors import DataError, RunError
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.supervised import sample_responses, update_on_traces, updates_until_check
from airls_ray.models.load import load_policy_module
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from tests.tiny import make_traces, policy_module

SMALL: dict[str, Any] = {"task": {"name": "arithmetic", "operations": 2, "modulus": 5}}


def test_the_loss_is_the_mean_over_response_tokens(folder: Path) -> None:
    module = policy_module(folder)
    losses = []
    for row in make_traces(4).to_pylist():
        tokens = torch.tensor([row["prompt"] + row["response"]])
        log_softmax = module.model(tokens).logits[0].log_softmax(-1).detach()
        start = len(row["prompt"])
        losses += [
            -float(log_softmax[start - 1 + place, token]) for place, token in enumerate(row["response"])
        ]
    config = LearnerConfig(tokens_per_microbatch=20)
    metrics = update_on_traces(TorchEngine(module, config), make_traces(4), config, pad_id=0)
    assert metrics["sft/loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_updates_learn_the_traces_by_heart(folder: Path) -> None:
    config = LearnerConfig(learning_rate=1e-2)
    engine = TorchEngine(policy_module(folder), config)
    for _ in range(36):
        metrics = update_on_traces(engine, make_traces(4), config, pad_id=0)
    assert metrics["sft/loss"] < 0.1
    traces = make_traces(4)
    samples = sample(engine.module, traces["prompt"].to_pylist(), temperature=0.01)
    # Responses without an end of sequence go on; their beginning is the trace.
    for response, trace in zip(samples, traces["response"].to_pylist(), strict=True):
        until = trace.index(1) + 1 if 1 in trace else len(trace)
        assert response[:until] == trace[:until]


def sample(module: Any, prompts: list[list[int]], **changes: Any) -> list[list[int]]:
    options = {
        "temperature": 1.0,
        "max_response_tokens": 8,
        "eos_ids": [1],
        "pad_id": 0,
        "seed": 3,
        **changes,
    }
    return sample_responses(module, prompts, **options)


def test_samples_end_at_any_end_of_a_response_or_at_the_limit(folder: Path) -> None:
    responses = sample(policy_module(folder), [[3, 4]] * 64, eos_ids=[1, 5])
    assert all(not {1, 5} & {*response[:-1]} for response in responses)
    assert all(response[-1] in (1, 5) or len(response) == 8 for response in responses)
    assert {1, 5} <= {response[-1] for response in responses if len(response) < 8}


def test_samples_follow_the_models_distribution_whatever_the_padding(folder: Path) -> None:
    module = policy_module(folder)
    with torch.no_grad():  # far from uniform, so that a wrong position shows
        module.model.lm_head.weight.mul_(30.0)
    prompt = [3, 4]
    expected = (module.model(torch.tensor([prompt])).logits[0, -1] / 2.0).softmax(-1)
    prompts = [prompt] * 4000 + [[5, 6, 7, 8, 9]]  # the long one pads the others on the left
    responses = sample(module, prompts, temperature=2.0, max_response_tokens=1, rows_at_once=5000)
    counts = torch.bincount(torch.tensor([r[0] for r in responses[:4000]]), minlength=12) / 4000
    assert float((counts - expected).abs().max()) < 0.03


def test_sampling_depends_on_its_seed_only_and_leaves_training_mode(folder: Path) -> None:
    module = policy_module(folder)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = sample(module, [[3, 4]] * 8)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(1)
    assert sample(module, [[3, 4]] * 8) == first
    assert sample(module, [[3, 4]] * 8, seed=4) != first
    assert module.training


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([], 20),  # nothing known
        ([(20, 0.0)], 20),  # far off and flat
        ([(20, 0.0), (40, 0.02)], 20),  # far off and slow
        ([(20, 0.1), (40, 0.19)], 20),  # 0.26 left at 0.0045 an update takes 57
        ([(20, 0.0), (40, 0.20)], 10),  # 0.25 left
        ([(20, 0.05), (40, 0.30)], 6),  # 0.15 left at 0.0125 an update takes 12
        ([(20, 0.40), (40, 0.36)], 5),  # near and not rising
        ([(20, 0.1), (40, 0.44)], 2),  # about to arrive
    ],
)
def test_checks_come_sooner_as_the_target_comes_near(curve: list[tuple[int, float]], expected: int) -> None:
    assert updates_until_check(curve, target=0.45, every=20) == expected


def test_held_out_problems_are_never_learned_from(tmp_path: Path) -> None:
    small = {"task": {"name": "arithmetic", "operations": 1, "modulus": 5}}
    config = Config(**small, sft={"evaluate_problems": 20, "problems_per_iteration": 50})
    prepare_model(config, tmp_path)
    codec = TextCodec.from_folder(tmp_path, make_task(config.task))
    held_out = held_out_problems(config, codec)
    stream = training_traces(config, codec, held_out)
    seen = set()
    for _ in range(5):
        table = next(stream)
        assert table.num_rows == 50
        seen |= set(table["problem_id"].to_pylist())
    assert seen
    assert not seen & set(held_out["problem_id"].to_pylist())


def file_config(folder: Path, traces: list[str], held_out: int = 64) -> Config:
    for name, count in (("train", 40), ("test", 2)):
        rows = [{"prompt": f"{name} {n}", "answer": "1", "traces": traces} for n in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"train_file": folder / "train.jsonl", "test_file": folder / "test.jsonl"}
    return Config(task={"name": "file", **files}, model={"path": "x"}, sft={"evaluate_problems": held_out})


@pytest.mark.parametrize(("asked", "held"), [(64, 4), (40, 4), (39, 4), (5, 4), (4, 4), (3, 3)])
def test_of_a_small_file_no_more_than_a_tenth_is_held_out(tmp_path: Path, asked: int, held: int) -> None:
    """Also where the file has as many problems as are asked for: else hardly any would be learned from."""
    held_out = held_out_problems(file_config(tmp_path, ["t"], asked), None)  # type: ignore[arg-type]
    assert held_out.num_rows == len(set(held_out["problem_id"].to_pylist())) == held


def test_problems_without_traces_are_an_error(tmp_path: Path) -> None:
    config = file_config(tmp_path, [])
    with pytest.raises(DataError, match="no training problem has a trace"):
        next(training_traces(config, None, held_out_problems(config, None)))  # type: ignore[arg-type]


def test_every_rank_samples_as_many_problems() -> None:
    problems = pa.table({"problem_id": list("abcdefg")})
    shares = [_share(problems, rank, 3)["problem_id"].to_pylist() for rank in range(3)]
    assert shares == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert [_share(problems.slice(0, 1), rank, 2)["problem_id"].to_pylist() for rank in range(2)] == [
        ["a"]
    ] * 2


def test_a_new_model_depends_on_the_seed(tmp_path: Path) -> None:
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        source = prepare_model(Config(**SMALL, seed=seed), tmp_path / str(number))
        weights.append(load_policy_module(source).model.lm_head.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_driver_shows_every_whole_line(tmp_path: Path) -> None:
    file, shown = tmp_path / "metrics.jsonl", []
    pieces = iter(['{"loss": 3.0}\n{"l', 'oss": 2.0}\n', '{"loss": 1.0, "accuracy": 0.5}\n'])

    def is_running() -> bool:
        piece = next(pieces)
        with file.open("a") as opened:
            opened.write(piece)
        return "accuracy" not in piece

    follow(file, is_running, shown.append, 60.0, "warm start")
    assert shown == [{"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0, "accuracy": 0.5}]


def test_a_training_that_stalls_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the warm start made no update within"):
        follow(tmp_path / "metrics.jsonl", lambda: True, [].append, 0.2, "warm start")
