"""One rank of the supervised training of a PRM: what Ray Train runs in each of its workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.train
import torch

from actors.deepspeed_engine import DeepSpeedEngine, adopt_process_group
from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.data.prm_labels import read_labels
from airls_ray.learning.prm_folder import write_prm_form
from airls_ray.learning.prm_supervised import (
    LabelledSequences,
    measure_labels,
    plan_updates,
    split_by_problem,
    update_on_labels,
)
from airls_ray.learning.save import save_trained
from airls_ray.models.load import load_prm_module
from airls_ray.models.lora import load_with_adapters
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text import TextCodec


def train_prm_rank(job: dict[str, Any]) -> None:
    """One rank, run by Ray Train: all epochs over the labels; rank 0 writes the metrics and the PRM."""
    torch.set_num_threads(job["threads"])
    config: Config = job["config"]
    folder, metrics = Path(job["folder"]), Path(job["metrics"])
    adopt_process_group()
    engine = DeepSpeedEngine(
        lambda: load_with_adapters(
            lambda source: load_prm_module(
                source,
                config.prm.parameterisation,
                config.model.dtype,
                config.prm.shaping,
                trust_remote_code=config.model.trust_remote_code,
                gradient_checkpointing=config.prm.learner.gradient_checkpointing,
            ),
            job["source"],
            config.prm.learner.lora,
            seed=derive_seed(config.seed, "lora", "prm"),
            resumed=False,
        ),
        config.prm.learner,
    )
    codec = TextCodec.from_folder(job["policy"], make_task(config.task), config.model.prompt_template)
    _train(engine, config, read_labels(Path(job["labels"])), codec.pad_id, metrics)
    save_trained(engine, job["policy"], folder)
    if engine.rank == 0:
        write_prm_form(config.prm, folder)


def _train(engine: DeepSpeedEngine, config: Config, labels: pa.Table, pad_id: int, metrics: Path) -> None:
    """The loop of all ranks; a line for the start (update 0) and one for every update."""
    section = config.supervised_prm
    learn, held_out = split_by_problem(labels, section.held_out, config.seed)
    batch = LabelledSequences.of(learn)

    def write(line: dict[str, Any]) -> None:
        if engine.rank == 0:
            files.append(metrics, files.to_json(line).encode() + b"\n")

    def measure() -> dict[str, float]:
        return measure_labels(engine, held_out, config.prm, pad_id=pad_id) if held_out.num_rows else {}

    write({"update": 0, "epoch": 0, **measure()})
    update = 0
    for epoch in range(1, section.epochs + 1):
        seed = derive_seed(config.seed, "train_prm epoch", epoch)
        updates = plan_updates(batch.rows_with_labels, section.rollouts_per_update, seed)
        for number, rows in enumerate(updates, 1):
            update += 1
            line: dict[str, Any] = {"update": update, "epoch": epoch}
            line |= update_on_labels(engine, batch, rows, config.prm, pad_id=pad_id)
            if number == len(updates):
                line |= measure()
                ray.train.report(line)
            write(line)
