"""One rank of the training of a PRM on labels or stored rollouts: what Ray Train runs in each worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.train
import torch

from actors.learn.deepspeed_engine import DeepSpeedEngine
from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.data.prm_labels import read_labels
from airls_ray.data.rollout_files import lacking_logprobs, read_stored
from airls_ray.learning.engine import FrozenEngine, own_device
from airls_ray.learning.save import save_trained
from airls_ray.models.load import load_policy_module, load_prm_module
from airls_ray.models.lora import load_with_adapters
from airls_ray.prm.folder import write_prm_form
from airls_ray.prm.offline import offline_training
from airls_ray.prm.offline_method import OfflineMethod, logprobs_under
from airls_ray.prm.supervised import split_by_problem
from airls_ray.prm.training import LabelTraining, PRMTraining, run_epochs
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec


def train_prm_rank(job: dict[str, Any]) -> None:
    """One rank, run by Ray Train: all epochs; rank 0 writes the metrics and the PRM."""
    torch.set_num_threads(job["threads"])
    config: Config = job["config"]
    folder, metrics = Path(job["folder"]), Path(job["metrics"])
    engine = DeepSpeedEngine(
        lambda: load_with_adapters(
            lambda source: load_prm_module(
                source,
                config.prm.parameterisation,
                config.model.dtype,
                config.prm.shaping,
                outcome_beta=config.prm.outcome_head,
                attention=config.model.attention,
                trust_remote_code=config.model.trust_remote_code,
                gradient_checkpointing=config.prm.learner.gradient_checkpointing,
                logit_chunk_mib=config.prm.learner.logit_chunk_mib,
                head=config.prm.head,
                text_head=bool(config.supervised_prm.text_loss),
            ),
            job["source"],
            config.prm.learner.lora,
            seed=derive_seed(config.seed, "lora", "prm"),
            resumed=False,
        ),
        config.prm.learner,
    )
    codec = TextCodec.for_model(config.model, job["policy"], make_task(config.task))
    training = _training(engine, config, job, codec.pad_id)
    for line, closes_epoch in run_epochs(training, config.supervised_prm.epochs):
        if closes_epoch:
            ray.train.report(line)
        if engine.rank == 0:
            files.append(metrics, files.to_json(line).encode() + b"\n")
    save_trained(engine, job["policy"], folder)
    if engine.rank == 0:
        write_prm_form(config.prm, folder, job["prompt"])


def _training(engine: DeepSpeedEngine, config: Config, job: dict[str, Any], pad_id: int) -> PRMTraining:
    """What the job's files teach: labels alone, or stored rollouts by a method."""
    labels = None if job["labels"] is None else read_labels(Path(job["labels"]))
    if "method" in job:
        method: OfflineMethod = job["method"]
        stored = read_stored(Path(job["rollouts"]), Path(job["traces"]))
        if method.needs_trace_logprobs and lacking_logprobs(stored.traces):
            stored = replace(stored, traces=_under_policy(stored.traces, config, job["policy"], pad_id))
        return offline_training(engine, config, method, stored, labels, pad_id)
    learn, held_out = split_by_problem(labels, config.supervised_prm.held_out, config.seed)
    return LabelTraining(engine, config, learn, held_out, pad_id)


def _under_policy(traces: pa.Table, config: Config, policy: str, pad_id: int) -> pa.Table:
    """The traces with the policy's log-probabilities; every rank computes them once, before it learns."""
    module = load_policy_module(
        policy,
        config.model.dtype,
        attention=config.model.attention,
        trust_remote_code=config.model.trust_remote_code,
    )
    return logprobs_under(FrozenEngine(module, own_device()), traces, config, pad_id)
