"""`train-prm --rollouts` on real ranks: no sampling, two DeepSpeed ranks, a PRM that chooses better."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from actors.commands.train_prm_offline import StoredFiles, train_prm_offline
from airls_ray.config.schema import Config
from airls_ray.console.progress import QuietProgress
from airls_ray.data.problems import ProblemStream, table_to_problems, take_distinct
from airls_ray.prm.folder import read_prm_form
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from tests.e2e.conftest import base_config, read_lines

PROBLEMS, EPOCHS = 128, 6
FILES = {"metrics.jsonl", "prm", "rollouts.parquet", "traces.parquet", "train_prm.json"}


def offline_config(policy: Path, output: Path, method: str, **prm: Any) -> Config:
    learner = {"learning_rate": 3e-3, "ranks": 2, "zero_stage": 2, "tokens_per_microbatch": 512}
    return base_config(
        policy,
        output,
        method=method,
        prm={"search_aggregate": "min", "learner": {**learner, "resources": {"threads": 1}}, **prm},
        supervised_prm={
            "epochs": EPOCHS, "rollouts_per_update": 32, "held_out": 0.25, "labels": "outcome",
        },
    )  # fmt: skip


def write_files(folder: Path, config: Config, codec: TextCodec, *, logprobs: bool) -> StoredFiles:
    """Rollouts as text: the trace of a problem, its first step alone, its last step twice, a wrong result."""
    random, stream = Random(0), ProblemStream(make_task(config.task), "train", 0)
    rollouts, traces = [], []
    for problem in table_to_problems(take_distinct(stream, PROBLEMS)):
        (trace,) = problem.traces
        first, last, _ = trace.split(";")
        at = random.choice([at for at, sign in enumerate(trace) if sign == "="]) + 1
        wrong = f"{trace[:at]}{(int(trace[at]) + random.randrange(1, 5)) % 5}{trace[at + 1 :]}"
        for sample, response in enumerate((trace, f"{first};", f"{trace}{last};", wrong)):
            row = {"prompt": problem.prompt, "problem_id": problem.problem_id, "response": response}
            row |= {"correct": not sample, "answer": response.rstrip(";")[-1]}
            if logprobs:
                row["logprobs"] = [-0.5] * len(codec.encode_trace(response))
            rollouts.append(row)
        traces.append({"problem_id": problem.problem_id, "trace": trace})
    for name, rows in (("rollouts", rollouts), ("traces", traces)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return StoredFiles([folder / "rollouts.jsonl"], folder / "traces.jsonl")


# What is learned without log-probabilities, and by which method: tests/unit/test_prm_offline.py.
@pytest.mark.parametrize(
    ("method", "prm", "logprobs", "more"),
    [
        ("airl_s", {"parameterisation": "log_prob"}, True, set()),
        ("orm", {"search_aggregate": "last"}, False, {"labels.parquet", "labels.json"}),
    ],
    ids=["airl_s by f - log pi", "orm"],
)
def test_a_prm_of_stored_rollouts_chooses_better_than_chance(
    ray_cluster: None,
    policy_folder: Path,
    tmp_path: Path,
    method: str,
    prm: dict[str, Any],
    logprobs: bool,
    more: set[str],
) -> None:
    config = offline_config(policy_folder, tmp_path, method, **prm)
    codec = TextCodec.from_folder(policy_folder, make_task(config.task))
    stored, output = write_files(tmp_path, config, codec, logprobs=logprobs), tmp_path / "out"
    summary = train_prm_offline(config, policy_folder, output, stored, QuietProgress())
    assert {path.name for path in output.iterdir()} == FILES | more
    assert (summary["held_out_problems"], summary["rollouts"], summary["traces"]) == (32, 384, 96)
    assert summary["controls"]["mean"] == 0.25
    assert summary["controls"]["oracle"] == 1.0
    assert ("policy_log_prob" in summary["controls"]) is logprobs
    assert summary["prm"]["best_of_n_low"] > 0.3
    assert summary["prm"]["trace_auroc"] > 0.7
    lines = read_lines(output / "metrics.jsonl")
    assert [line["update"] for line in lines] == list(range(1 + EPOCHS * 12))
    assert [line["epoch"] for line in lines if "prm/best_of_n" in line] == list(range(EPOCHS + 1))
    form = read_prm_form(output / "prm", config.prm)
    assert form.parameterisation == config.prm.parameterisation
