"""The learner actors: what all learners share, a rank of the policy learner, the reference server.

Thin: they receive tables, call the pure learning steps of `airls_ray.learning` on a DeepSpeed engine
and hand back metrics or tables. Every rank is called with the same arguments, in the same order.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.cluster import cluster
from actors.cluster.cluster import resolve
from actors.learn.deepspeed_engine import DeepSpeedEngine, close_distributed, free_port, init_distributed
from airls_ray.adapter_sync import sends_adapter
from airls_ray.config.door_section import open_names
from airls_ray.config.schema import Config, LearnerConfig
from airls_ray.data.parts import merge_parts
from airls_ray.errors import RunError
from airls_ray.grading.learned_outcomes import with_outcomes
from airls_ray.learning.advantages import assign_credit
from airls_ray.learning.engine import FrozenEngine, kernels, own_device
from airls_ray.learning.passes import token_logprobs
from airls_ray.learning.policy import PolicyUpdate
from airls_ray.learning.policy_reader import PolicyReader
from airls_ray.learning.replay import ReplaySample
from airls_ray.learning.save import save_trained
from airls_ray.models.load import load_policy_module
from airls_ray.models.lora import adapter_file_weights, adapter_settings, load_with_adapters
from airls_ray.models.saved_names import as_saved
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, encode_traces
from airls_ray.weights import WeightBuffer, pack_weights


class Learner(ABC):
    """What both learners share: rendezvous, the engine's life, export and checkpoints."""

    def __init__(self, rank: int, config: Config, learner: LearnerConfig, policy: str) -> None:
        self._rank = rank
        self._config = config
        self._learner = learner
        self._policy_folder = policy
        self._version = 0
        self._engine: DeepSpeedEngine
        self._codec: TextCodec

    def __repr__(self) -> str:
        """Name in Ray's dashboard."""
        return f"{type(self).__name__}(rank={self._rank})"

    def rendezvous(self) -> tuple[str, int]:
        """Rank 0: the address and port at which all ranks meet."""
        return cluster.node_address(), free_port()

    def start(self, meeting: tuple[str, int], state: str | None, version: int, run: str) -> float:
        """Join the other ranks where rank 0 said, load the model and, at a resume, the state; returns
        seconds.

        Raises:
            DoorError: what the method names does not open on this machine.
            RunError: the folder `run`, where checkpoints go, is not there on this machine.
        """
        start = time.perf_counter()
        require_run_folder(run)
        for _, named in open_names(self._config.method):
            named.open()
        deadline = self._config.train.deadline_seconds
        init_distributed(self._rank, self._learner.ranks, *meeting, deadline)
        task = make_task(self._config.task)
        self._codec = TextCodec.for_model(self._config.model, self._policy_folder, task)
        self._engine = DeepSpeedEngine(lambda: self._load(resumed=state is not None), self._learner)
        self._version = version
        if state is not None:
            self._load_state(Path(state))
        return time.perf_counter() - start

    def kernels(self) -> dict[str, str]:
        """Attention and layout of this learner's model."""
        return kernels(self._engine, self._learner.layout)

    def release(self) -> None:
        """Leave the other ranks and drop the engine: another learner takes over this process."""
        vars(self).pop("_engine", None)
        close_distributed()

    @abstractmethod
    def _load(self, resumed: bool) -> Any:
        """The module that this learner trains; at a resume its folder is that of the checkpoint."""

    def _load_state(self, folder: Path) -> None:
        self._engine.load_state(folder)

    def save(self, model: str, state: str) -> None:
        """Write the model in Hugging Face format, its adapter beside it, and this rank's state."""
        save_trained(self._engine, self._policy_folder, Path(model))
        folder = Path(state)
        folder.mkdir(parents=True, exist_ok=True)
        self._engine.save_state(folder)

    def _token_logprobs(self, table: pa.Table) -> pa.Table:
        return token_logprobs(
            self._engine,
            table,
            temperature=self._config.rollout.temperature,
            tokens_per_microbatch=self._learner.tokens_per_microbatch,
            pad_id=self._codec.pad_id,
            layout=self._learner.layout,
        )

    def _traces(self, problems: pa.Table, iteration: int) -> pa.Table:
        return iteration_traces(problems, self._codec, self._config, iteration)


class PolicyLearner(Learner):
    """One rank of the policy learner."""

    def __init__(self, rank: int, config: Config, policy: str) -> None:
        """`policy`: folder or hub name to load."""
        super().__init__(rank, config, config.policy, policy)

    def _load(self, resumed: bool) -> Any:
        model = self._config.model
        return load_with_adapters(
            lambda folder: load_policy_module(
                folder,
                model.dtype,
                attention=model.attention,
                trust_remote_code=model.trust_remote_code,
                gradient_checkpointing=self._learner.gradient_checkpointing,
                logit_chunk_mib=self._learner.logit_chunk_mib,
            ),
            self._policy_folder,
            self._learner.lora,
            seed=derive_seed(self._config.seed, "lora", "policy"),
            resumed=resumed,
        )

    def trace_log_probs(self, problems: pa.Table, iteration: int) -> pa.Table:
        """This rank's part of the traces' log-probabilities under the current policy."""
        return self._token_logprobs(self._traces(problems, iteration))

    def rollout_log_probs(self, rollouts: Sequence[Any]) -> pa.Table:
        """The same for rollouts."""
        return self._token_logprobs(pa.concat_tables(resolve(rollouts)))

    def replay_log_probs(self, samples: Sequence[Any]) -> tuple[pa.Table, pa.Table] | None:
        """The same for replayed rollouts and their traces."""
        return replay_logprobs(samples, self._token_logprobs)

    def update(
        self,
        problems: pa.Table,
        rollouts: Sequence[Any],
        grades: Sequence[Any],
        scores: Sequence[Any],
        reference: Sequence[Any],
        version: int,
    ) -> dict[str, float]:
        """Assign credit and make the iteration's optimiser updates; the weights are then `version`."""
        table = graded_rollouts(rollouts, grades)
        scored = merge_parts(resolve(scores)) if scores else None
        temperature = self._config.rollout.temperature
        context = self._config.model.context_tokens
        reader = PolicyReader(self._engine, self._learner, self._codec, temperature, context)
        longest = self._config.rollout.max_response_tokens
        update = PolicyUpdate(
            self._engine,
            table,
            self._config.method,
            self._learner,
            temperature=temperature,
            pad_id=self._codec.pad_id,
            scores=scored,
        )
        advantages = assign_credit(
            table,
            resolve(grades)[0],
            scored,
            self._config.method,
            max_response_tokens=longest,
            alone=reader.mean_logprobs_alone(self._config.method, table),
            gains=partial(reader.answer_gains, table, problems),
            learns=update.learns,
        )
        compared = merge_parts(resolve(reference)) if reference else None
        metrics = update.learn(advantages, compared, max_response_tokens=longest)
        self._version = version
        return metrics

    def export_weights(self) -> WeightBuffer | None:
        """All weights, or an adapter's alone, in one buffer (rank 0), under names that vLLM loads."""
        adapter = sends_adapter(self._config)
        weights = self._engine.adapter_weights() if adapter else self._engine.named_weights()
        if self._rank == 0 and adapter:
            settings = adapter_settings(self._engine.module)
            return pack_weights(adapter_file_weights(weights), self._version, settings)
        if self._rank == 0:
            return pack_weights(as_saved(self._engine.module.model, weights), self._version)
        for _ in weights:  # take part in the gathering
            pass
        return None

    def open_nccl(self, workers: Sequence[Any], ranks_per_engine: int) -> None:
        """Open the NCCL transfer to all engines (rank 0 sends)."""
        from actors.weights.nccl_transfer import open_sender

        self._sender = open_sender(
            self._engine, workers, ranks_per_engine, cluster.node_address(), free_port(),
            self._config.train.deadline_seconds,
        )  # fmt: skip

    def send_nccl(self) -> None:
        """Broadcast the current weights to all engines."""
        self._sender.send(self._version, self._config.train.deadline_seconds)


class ReferenceServer:
    """The reference model: the policy as it was at the start, or another model, never trained."""

    def __init__(self, config: Config, folder: str, policy: str) -> None:
        """`folder`: folder or hub name of the model; `policy`: whose tokenizer is used."""
        self._config = config
        self._folder = folder
        self._policy_folder = policy

    def start(self) -> float:
        """Load the model; returns seconds."""
        start = time.perf_counter()
        task = make_task(self._config.task)
        self._codec = TextCodec.for_model(self._config.model, self._policy_folder, task)
        model = self._config.model
        module = load_policy_module(
            self._folder,
            model.dtype,
            attention=model.attention,
            trust_remote_code=model.trust_remote_code,
        )
        self._engine = FrozenEngine(module, own_device())
        return time.perf_counter() - start

    def kernels(self) -> dict[str, str]:
        """Attention and layout of the model."""
        return kernels(self._engine, "auto")

    def log_probs(self, rollouts: Sequence[Any]) -> pa.Table:
        """Log-probabilities of all rollouts under the reference model, one part."""
        return self._token_logprobs(pa.concat_tables(resolve(rollouts)))

    def trace_log_probs(self, problems: pa.Table, iteration: int) -> pa.Table:
        """The same for the traces that the PRM learns from in an iteration."""
        return self._token_logprobs(iteration_traces(problems, self._codec, self._config, iteration))

    def replay_log_probs(self, samples: Sequence[Any]) -> tuple[pa.Table, pa.Table] | None:
        """The same for replayed rollouts and their traces."""
        return replay_logprobs(samples, self._token_logprobs)

    def _token_logprobs(self, table: pa.Table) -> pa.Table:
        return token_logprobs(
            self._engine,
            table,
            temperature=self._config.rollout.temperature,
            tokens_per_microbatch=self._config.reference.tokens_per_microbatch,
            pad_id=self._codec.pad_id,
        )


def require_run_folder(run: str) -> None:
    """Refuse a machine that does not see the driver's run folder: what is saved here would stay here.

    Raises:
        RunError: it does not.
    """
    if not (Path(run) / "config.yaml").is_file():
        raise RunError(
            f"the learner on {cluster.node_address()} does not see the run folder {run}, so that its part of "
            "a checkpoint would be lost: set output to a folder on storage that all nodes share"
        )


def graded_rollouts(rollouts: Sequence[Any], grades: Sequence[Any]) -> pa.Table:
    """Rollouts as one table, with the outcomes filled in that are learned from."""
    return with_outcomes(pa.concat_tables(resolve(rollouts)), resolve(grades)[0])


def iteration_traces(problems: pa.Table, codec: TextCodec, config: Config, iteration: int) -> pa.Table:
    """The traces of an iteration's problems, the same in every actor."""
    seed = derive_seed(config.seed, "traces", iteration)
    return encode_traces(problems, codec, config.model.context_tokens, seed)


def with_logprobs(rollouts: pa.Table, parts: Sequence[Any]) -> pa.Table:
    """Rollouts with the log-probabilities of `parts` (TOKEN_LOGPROBS of all ranks), or as they are."""
    if not parts:
        return rollouts
    index = rollouts.schema.get_field_index("logprobs")
    column = merge_parts(resolve(parts))["logprobs"]
    return rollouts.set_column(index, rollouts.schema.field(index), column)


def replay_logprobs(
    samples: Sequence[Any], logprobs: Callable[[pa.Table], pa.Table]
) -> tuple[pa.Table, pa.Table] | None:
    """Log-probabilities of a replay sample's rollouts and traces; None where nothing was drawn."""
    sample: ReplaySample | None = resolve(samples)[0]
    return None if sample is None else (logprobs(sample.rollouts), logprobs(sample.traces))
