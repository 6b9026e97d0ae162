"""`airls-ray train-prm` with real engines: labels by vLLM, training by Ray Train, search with the PRM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForTokenClassification

from actors.cluster import cluster, processes
from actors.commands.train_prm import train_prm
from actors.learn.prm_learner import PRMServer
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.rollout_worker import RolloutRequest
from actors.rollout.workers import start_workers
from airls_ray.config.schema import Config, PRMConfig
from airls_ray.config.supervised_section import StepLossConfig
from airls_ray.console.progress import QuietProgress
from airls_ray.data.parts import merge_parts
from airls_ray.data.prm_labels import read_facts, read_labels
from airls_ray.data.schemas import PREFIXES, rows_to_table
from airls_ray.errors import DataError
from airls_ray.evaluation.labels import measure_step_scores
from airls_ray.prm.folder import read_prm_form
from airls_ray.prm.supervised import split_by_problem
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from tests.e2e.conftest import REPOSITORY, base_config, read_lines


@dataclass(frozen=True)
class Trained:
    """A PRM from labels: how, where, and what was said of it."""

    config: Config
    policy: Path
    folder: Path
    summary: dict[str, Any]


def prm_config(policy: Path, output: Path, **sections: Any) -> Config:
    learner = {"learning_rate": 3e-3, "ranks": 2, "zero_stage": 2, "tokens_per_microbatch": 256}
    return base_config(
        policy,
        output,
        prm={
            "parameterisation": "scalar_head",
            "search_aggregate": "min",
            "learner": {**learner, "resources": {"threads": 1}},
        },
        supervised_prm={
            "completions": 4,
            "problems": 48,
            "rollouts_per_problem": 4,
            "problems_per_call": 24,
            "epochs": 4,
            "rollouts_per_update": 32,
            "held_out": 0.25,
        },
        **sections,
    )


@pytest.fixture(scope="module")
def trained(one_sampler: None, policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    output = tmp_path_factory.mktemp("train_prm")
    config = prm_config(policy_folder, output)
    summary = train_prm(config, policy_folder, output / "out", QuietProgress())
    return Trained(config, policy_folder, output / "out", summary)


def test_it_learns_to_tell_good_steps_from_bad_ones(trained: Trained) -> None:
    start, end = trained.summary["curve"][0], trained.summary["curve"][-1]
    assert start["loss"] == pytest.approx(np.log(2.0), abs=1e-3)  # a new head says 1/2 to all
    assert end["loss"] < 0.9 * start["loss"]
    assert end["label_auroc"] > 0.75
    assert trained.summary["prm"]["step_auroc"] > 0.6  # the truth, which it never saw
    assert trained.summary["policy_log_prob"].keys() >= {"step_auroc", "trace_auroc_within"}


def test_the_labels_are_shares_and_their_cost_stands_beside_them(trained: Trained) -> None:
    table, facts = (
        read_labels(trained.folder / "labels.parquet"),
        read_facts(trained.folder / "labels.parquet"),
    )
    assert table.num_rows == 192
    shares = {value for row in table["labels"].to_pylist() for value in row[:-1]}
    assert len(shares) > 2
    assert shares <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert [row[-1] for row in table["labels"].to_pylist()] == table["outcome"].to_pylist()
    beside = json.loads((trained.folder / "labels.json").read_text())
    assert facts is not None
    assert beside["cost"] == facts.cost == trained.summary["labels"]["cost"]
    assert beside["cost"]["completions"] == 4 * beside["cost"]["distinct_prefixes"] > 0
    assert not (trained.folder / "labels_parts").exists()


def test_a_good_step_has_a_higher_label_where_the_task_knows_the_truth(trained: Trained) -> None:
    """Completions and labels belong to their own prefixes: a first step that is right is worth more."""
    rows = read_labels(trained.folder / "labels.parquet").to_pylist()
    first = [(row["labels"][0], row["step_truth"][0]) for row in rows if len(row["labels"]) > 1]
    right, wrong = (np.mean([label for label, truth in first if truth is kind]) for kind in (True, False))
    assert right > wrong + 0.15


def test_it_writes_a_line_per_update_and_its_summary(trained: Trained) -> None:
    lines = read_lines(trained.folder / "metrics.jsonl")
    assert [line["update"] for line in lines] == list(range(len(lines)))
    assert [line["epoch"] for line in lines if "prm/loss" in line] == [0, 1, 2, 3, 4]
    assert json.loads((trained.folder / "train_prm.json").read_text())["curve"] == [
        {name: None if value != value else value for name, value in point.items()}
        for point in trained.summary["curve"]
    ]
    assert {path.name for path in trained.folder.iterdir()} == {
        "labels.json", "labels.parquet", "metrics.jsonl", "prm", "train_prm.json",
    }  # fmt: skip


def test_the_prm_is_one_that_others_load_and_score_with(trained: Trained) -> None:
    """As `search` and a frozen PRM do: the form from the folder, scores of the steps from the server."""
    prm = trained.folder / "prm"
    assert AutoModelForTokenClassification.from_pretrained(prm).num_labels == 1
    config = trained.config.model_copy(update={"prm": read_prm_form(prm, PRMConfig())})
    assert (config.prm.parameterisation, config.prm.search_aggregate) == ("scalar_head", "min")
    table = read_labels(trained.folder / "labels.parquet")
    _, held_out = split_by_problem(table, config.supervised_prm.held_out, config.seed)
    server = PRMServer(config, str(trained.policy), str(prm))
    server.start()
    scores = np.concatenate(merge_parts([server.score([held_out])])["scores"].to_numpy())
    figures = measure_step_scores(held_out, scores, "min")
    assert figures["step_auroc"] == pytest.approx(trained.summary["prm"]["step_auroc"], abs=1e-3)


def test_labels_of_a_file_are_learned_without_sampling_by_a_loss_of_ones_own(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PRM is started from the first one; no rollout worker may start. The text of the loss travels to the
    ranks, its sums are in the metrics, and the folder says which code it was."""

    def no_workers(*_: Any) -> None:
        raise AssertionError("a rollout worker was started")

    monkeypatch.setattr("actors.commands.prm_labels.started_samplers", no_workers)
    loss = f"{REPOSITORY / 'examples' / 'own_step_labels.py'}:ranking"
    section = trained.config.supervised_prm
    changes = {
        "prm": trained.config.prm.model_copy(update={"path": str(trained.folder / "prm")}),
        "supervised_prm": section.model_copy(update={"step_loss": StepLossConfig(name=loss)}),
    }
    labels, out = trained.folder / "labels.parquet", tmp_path / "out"
    config = trained.config.model_copy(update=changes)
    summary = train_prm(config, trained.policy, out, QuietProgress(), labels)
    # It goes on where the first one ended.
    first, last = summary["curve"][0], trained.summary["curve"][-1]
    assert first["label_auroc"] == pytest.approx(last["label_auroc"], abs=1e-3)
    names = {"metrics.jsonl", "prm", "train_prm.json", "doors.json"}
    assert {path.name for path in out.iterdir()} == names
    assert all(0.0 < line["train_prm/good"] < 1.0 for line in read_lines(out / "metrics.jsonl")[1:])
    (kept,) = json.loads((out / "doors.json").read_text())
    assert (kept["kind"], kept["name"], kept["source"]) == ("step loss", loss, "file")
    with pytest.raises(DataError, match="nothing to learn"):
        pq.write_table(_without_labels(read_labels(labels)), tmp_path / "none.parquet")
        train_prm(config, trained.policy, tmp_path / "none", QuietProgress(), tmp_path / "none.parquet")


def _without_labels(table: pa.Table) -> pa.Table:
    place = table.column_names.index("labels")
    empty = [[None] * len(row) for row in table["labels"].to_pylist()]
    return table.set_column(place, table.schema.field(place), pa.array(empty, table.schema.field(place).type))


# ------------------------------------------------------------------------------- continuations
@dataclass(frozen=True)
class Sampler:
    """A started pool, the tokens of a few prompts and the longest response."""

    pool: RolloutPool
    prompts: list[list[int]]
    most: int

    def complete(
        self, rows: list[tuple[str, list[int], list[int]]], *, temperature: float = 0.0
    ) -> list[dict[str, Any]]:
        request = RolloutRequest(1, temperature, 0, ("test",))
        (table,) = cluster.resolve(self.pool.complete(rows_to_table(rows, PREFIXES), request))
        return table.to_pylist()


@pytest.fixture(scope="module")
def sampler(
    ray_cluster: None, policy_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sampler]:
    config = prm_config(policy_folder, tmp_path_factory.mktemp("sampler"))
    engine = config.rollout.engine.model_copy(update={"max_sequences": 256})
    config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"engine": engine})})
    codec = TextCodec.from_folder(policy_folder, make_task(config.task))
    prompts = [codec.encode_prompt(text) for text in ("1+2*3=", "4-3+2=", "2*2*2=")]
    (worker,) = start_workers(config, str(policy_folder))
    cluster.fetch(worker.start.remote(), 120, "starting")
    yield Sampler(RolloutPool([worker], 60), prompts, config.rollout.max_response_tokens)
    processes.kill(worker)


def test_a_continuation_is_what_the_policy_would_have_said(sampler: Sampler) -> None:
    """Greedy: the rest of a response follows from its beginning."""
    numbered = [(f"p{number}", prompt) for number, prompt in enumerate(sampler.prompts)]
    whole = [row["response"] for row in sampler.complete([(name, prompt, []) for name, prompt in numbered])]
    assert all(1 < len(response) < sampler.most for response in whole)
    prefixes = [
        (name, prompt, response[:cut])
        for (name, prompt), response in zip(numbered, whole, strict=True)
        for cut in (1, len(response) // 2)
    ]
    done = sampler.complete([*prefixes, ("full", sampler.prompts[0], [3] * sampler.most)])
    assert [row["prefix"] for row in done] == list(range(6))  # the last one leaves no room
    for row in done:
        assert row["response"] == whole[row["prefix"] // 2]
        assert row["tokens"] == len(row["response"]) - len(prefixes[row["prefix"]][2])


def test_prefix_and_continuation_together_keep_the_limit(sampler: Sampler) -> None:
    (row,) = sampler.complete([("p", sampler.prompts[0], [3] * (sampler.most - 1))])
    assert (len(row["response"]), row["tokens"]) == (sampler.most, 1)


def test_more_prefixes_than_the_engine_takes_in_a_step_are_all_continued(sampler: Sampler) -> None:
    """vLLM would cut a prefix in two, and then fail to turn back a seeded generator on a CPU."""
    prefixes = [(f"p{number}", sampler.prompts[0], [3] * (sampler.most - 2)) for number in range(400)]
    done = sampler.complete(prefixes, temperature=1.0)
    assert [row["prefix"] for row in done] == list(range(400))
