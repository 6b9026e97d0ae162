"""The learner actors: a rank of the policy learner, a rank of the PRM learner, the reference server.

Thin: they receive tables, call the pure learning steps of `airls_ray.learning` on a DeepSpeed engine
and hand back metrics or tables. Every rank is called with the same arguments, in the same order.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors import cluster
from actors.cluster import resolve
from actors.deepspeed_engine import DeepSpeedEngine, free_port, init_distributed
from airls_ray.config.schema import Config, LearnerConfig
from airls_ray.learning.advantages import assign_credit
from airls_ray.learning.batches import merge_parts, token_logprobs
from airls_ray.learning.discriminator import score_steps, update_prm
from airls_ray.learning.engine import FrozenEngine
from airls_ray.learning.policy import update_policy
from airls_ray.learning.prm_batch import PRMSource, build_prm_batch
from airls_ray.learning.prm_folder import write_prm_form
from airls_ray.learning.replay import ReplayBuffer, ReplaySample
from airls_ray.models.load import load_policy_module, load_prm_module, save_hf
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text import TextCodec, encode_traces
from airls_ray.weights import WeightBuffer, pack_weights


class _Learner(ABC):
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

    def start(self, address: str, port: int, state: str | None, version: int) -> float:
        """Join the other ranks, load the model and, at a resume, the state; returns seconds."""
        start = time.perf_counter()
        init_distributed(self._rank, self._learner.ranks, address, port, self._config.train.deadline_seconds)
        task = make_task(self._config.task)
        self._codec = TextCodec.from_folder(self._policy_folder, task, self._config.model.prompt_template)
        self._engine = DeepSpeedEngine(self._load, self._learner)
        self._version = version
        if state is not None:
            self._load_state(Path(state))
        return time.perf_counter() - start

    @abstractmethod
    def _load(self) -> Any:
        """The module that this learner trains."""

    def _load_state(self, folder: Path) -> None:
        self._engine.load_state(folder)

    def _save_model(self, folder: Path) -> None:
        weights = dict(self._engine.named_weights())  # collective under ZeRO-3: every rank takes part
        if self._rank == 0:
            save_hf(self._engine.module, weights, self._policy_folder, folder)

    def save(self, model: str, state: str) -> None:
        """Write the model in Hugging Face format and this rank's state."""
        self._save_model(Path(model))
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
        seed = derive_seed(self._config.seed, "traces", iteration)
        return encode_traces(problems, self._codec, self._config.model.context_tokens, seed)


class PolicyLearner(_Learner):
    """One rank of the policy learner."""

    def __init__(self, rank: int, config: Config, policy: str) -> None:
        """`policy`: folder or hub name to load."""
        super().__init__(rank, config, config.policy, policy)

    def _load(self) -> Any:
        model = self._config.model
        return load_policy_module(
            self._policy_folder,
            model.dtype,
            trust_remote_code=model.trust_remote_code,
            gradient_checkpointing=self._learner.gradient_checkpointing,
        )

    def trace_log_probs(self, problems: pa.Table, iteration: int) -> pa.Table:
        """This rank's part of the traces' log-probabilities under the current policy."""
        return self._token_logprobs(self._traces(problems, iteration))

    def replay_log_probs(self, samples: Sequence[Any]) -> tuple[pa.Table, pa.Table] | None:
        """The same for replayed rollouts and their traces."""
        sample: ReplaySample | None = resolve(samples)[0]
        if sample is None:
            return None
        return self._token_logprobs(sample.rollouts), self._token_logprobs(sample.traces)

    def update(
        self,
        rollouts: Sequence[Any],
        grades: Sequence[Any],
        scores: Sequence[Any],
        reference: Sequence[Any],
        version: int,
    ) -> dict[str, float]:
        """Assign credit and make the iteration's optimiser updates; the weights are then `version`."""
        table = _graded(rollouts, grades)
        scored = merge_parts(resolve(scores)) if scores else None
        advantages = assign_credit(table, resolve(grades)[0], scored, self._config.method)
        metrics = update_policy(
            self._engine,
            table,
            advantages,
            merge_parts(resolve(reference)) if reference else None,
            self._config.method,
            self._learner,
            temperature=self._config.rollout.temperature,
            max_response_tokens=self._config.rollout.max_response_tokens,
            pad_id=self._codec.pad_id,
        )
        self._version = version
        return metrics

    def export_weights(self) -> WeightBuffer | None:
        """All weights in one buffer (rank 0), under names that vLLM loads."""
        weights = self._engine.named_weights()
        if self._rank == 0:
            return pack_weights(weights, self._version)
        for _ in weights:  # take part in the gathering
            pass
        return None

    def open_nccl(self, workers: Sequence[Any], ranks_per_engine: int) -> None:
        """Open the NCCL transfer to all engines (rank 0 sends)."""
        from actors.nccl_transfer import open_sender

        self._sender = open_sender(
            self._engine, workers, ranks_per_engine, cluster.node_address(), free_port(),
            self._config.train.deadline_seconds,
        )  # fmt: skip

    def send_nccl(self) -> None:
        """Broadcast the current weights to all engines."""
        self._sender.send(self._version, self._config.train.deadline_seconds)


class PRMLearner(_Learner):
    """One rank of the PRM learner, which is also the scorer."""

    def __init__(self, rank: int, config: Config, policy: str, prm: str) -> None:
        """`policy`: whose tokenizer is used; `prm`: folder or hub name to start from."""
        super().__init__(rank, config, config.prm.learner, policy)
        self._prm_folder = prm
        self._replay = ReplayBuffer(config.prm.replay_iterations)
        self._drawn: ReplaySample | None = None

    def _load(self) -> Any:
        model, prm = self._config.model, self._config.prm
        return load_prm_module(
            self._prm_folder,
            prm.parameterisation,
            model.dtype,
            prm.shaping,
            trust_remote_code=model.trust_remote_code,
            gradient_checkpointing=self._learner.gradient_checkpointing,
        )

    def _load_state(self, folder: Path) -> None:
        super()._load_state(folder)
        self._replay.load(folder / "replay")

    def save(self, model: str, state: str) -> None:
        """As the base class, with the PRM's form beside the model and the replay buffer in the state."""
        super().save(model, state)
        if self._rank == 0:
            write_prm_form(self._config.prm, Path(model))
            self._replay.save(Path(state) / "replay")

    def draw_replay(self, iteration: int, groups: int) -> ReplaySample | None:
        """Draw old rollouts for this iteration's batch; every rank draws the same."""
        seed = derive_seed(self._config.seed, "replay", iteration)
        self._drawn = self._replay.sample(groups, self._config.prm.replay_fraction, seed)
        return self._drawn

    def update(
        self,
        problems: pa.Table,
        rollouts: Sequence[Any],
        grades: Sequence[Any],
        trace_parts: Sequence[Any],
        replay_parts: Sequence[Any],
        iteration: int,
    ) -> dict[str, float]:
        """Learn to tell traces from rollouts; the parts are log-probabilities under the current policy."""
        table = _graded(rollouts, grades)
        traces = self._traces(problems, iteration)
        sources = [PRMSource(table, traces, merge_parts(resolve(trace_parts)))]
        replayed = [part for part in resolve(replay_parts) if part is not None]
        if replayed and self._drawn is not None:
            sources.append(
                PRMSource(
                    self._drawn.rollouts,
                    self._drawn.traces,
                    merge_parts([traces for _, traces in replayed]),
                    merge_parts([rollouts for rollouts, _ in replayed]),
                )
            )
        prm = self._config.prm
        warmup = iteration < prm.warmup_iterations
        metrics = update_prm(
            self._engine,
            build_prm_batch(sources, prm),
            prm,
            temperature=self._config.rollout.temperature,
            pad_id=self._codec.pad_id,
            updates=prm.warmup_updates_per_iteration if warmup else prm.updates_per_iteration,
        )
        self._replay.add(iteration, table, traces)
        return metrics

    def score(self, rollouts: Sequence[Any]) -> pa.Table:
        """This rank's part of the rewards, values and search scores of every step."""
        table = pa.concat_tables(resolve(rollouts))
        return score_steps(
            self._engine, table, None, self._config.prm,
            temperature=self._config.rollout.temperature, pad_id=self._codec.pad_id,
        )  # fmt: skip


class PRMServer:
    """A trained PRM that only scores (search): no optimiser, no process group."""

    def __init__(self, config: Config, policy: str, prm: str) -> None:
        """`policy`: whose tokenizer is used; `prm`: folder of the PRM."""
        self._config = config
        self._policy_folder = policy
        self._prm_folder = prm

    def start(self) -> float:
        """Load the model; returns seconds."""
        start = time.perf_counter()
        model, prm = self._config.model, self._config.prm
        task = make_task(self._config.task)
        self._codec = TextCodec.from_folder(self._policy_folder, task, model.prompt_template)
        module = load_prm_module(self._prm_folder, prm.parameterisation, model.dtype, prm.shaping)
        self._engine = FrozenEngine(module)
        return time.perf_counter() - start

    def score(self, rollouts: Sequence[Any]) -> pa.Table:
        """Rewards, values and search scores of every step, one part."""
        return score_steps(
            self._engine, pa.concat_tables(resolve(rollouts)), None, self._config.prm,
            temperature=self._config.rollout.temperature, pad_id=self._codec.pad_id,
        )  # fmt: skip


class ReferenceServer:
    """The reference model: the policy as it was at the start, never trained."""

    def __init__(self, config: Config, folder: str) -> None:
        """`folder`: policy folder or hub name."""
        self._config = config
        self._folder = folder

    def start(self) -> float:
        """Load the model; returns seconds."""
        start = time.perf_counter()
        task = make_task(self._config.task)
        self._codec = TextCodec.from_folder(self._folder, task, self._config.model.prompt_template)
        self._engine = FrozenEngine(load_policy_module(self._folder, self._config.model.dtype))
        return time.perf_counter() - start

    def log_probs(self, rollouts: Sequence[Any]) -> pa.Table:
        """Log-probabilities of all rollouts under the reference model, one part."""
        return token_logprobs(
            self._engine,
            pa.concat_tables(resolve(rollouts)),
            temperature=self._config.rollout.temperature,
            tokens_per_microbatch=self._config.reference.tokens_per_microbatch,
            pad_id=self._codec.pad_id,
        )


def _graded(rollouts: Sequence[Any], grades: Sequence[Any]) -> pa.Table:
    """Rollouts as one table with their outcomes filled in."""
    table = pa.concat_tables(resolve(rollouts))
    index = table.schema.get_field_index("outcome")
    return table.set_column(index, table.schema.field(index), resolve(grades)[0]["outcome"])
