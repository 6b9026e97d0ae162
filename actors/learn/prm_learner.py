"""The PRM's actors: a rank of the PRM learner, and the server of a PRM that only scores.

Thin, as `actors/learn/learners.py`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.cluster.cluster import resolve
from actors.learn.learners import Learner, graded_rollouts, require_run_folder, with_logprobs
from airls_ray.config.method_doors import FilterConfig
from airls_ray.config.schema import Config
from airls_ray.data.parts import merge_parts
from airls_ray.data.schemas import TOKEN_LOGPROBS, TRACES
from airls_ray.errors import ModelError
from airls_ray.learning.engine import FrozenEngine, kernels, own_device
from airls_ray.learning.group_filter import count_kept_groups, rows_that_learn
from airls_ray.learning.replay import ReplayBuffer, ReplaySample
from airls_ray.models.load import load_prm_module
from airls_ray.models.lora import load_with_adapters
from airls_ray.prm.batch import PRMSource, build_prm_batch
from airls_ray.prm.folder import PromptForm, write_prm_form
from airls_ray.prm.scores import score_steps
from airls_ray.prm.shares import problem_shares
from airls_ray.prm.update import update_prm
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec


class PRMLearner(Learner):
    """One rank of the PRM learner, which is also the scorer."""

    def __init__(self, rank: int, config: Config, policy: str, prm: str) -> None:
        """`policy`: whose tokenizer is used; `prm`: folder or hub name to start from."""
        super().__init__(rank, config, config.prm.learner, policy)
        self._prm_folder = prm
        self._replay = ReplayBuffer(config.prm.replay_iterations)
        self._drawn: ReplaySample | None = None

    def _load(self, resumed: bool) -> Any:
        model, prm = self._config.model, self._config.prm
        return load_with_adapters(
            lambda folder: load_prm_module(
                folder,
                prm.parameterisation,
                model.dtype,
                prm.shaping,
                outcome_beta=prm.outcome_head,
                attention=model.attention,
                trust_remote_code=model.trust_remote_code,
                gradient_checkpointing=self._learner.gradient_checkpointing,
                logit_chunk_mib=self._learner.logit_chunk_mib,
            ),
            self._prm_folder,
            self._learner.lora,
            seed=derive_seed(self._config.seed, "lora", "prm"),
            resumed=resumed,
        )

    def _load_state(self, folder: Path) -> None:
        super()._load_state(folder)
        self._replay.load(folder / "replay")

    def save(self, model: str, state: str) -> None:
        """As the base class, with the PRM's form beside the model and the replay buffer in the state."""
        super().save(model, state)
        if self._rank == 0:
            write_prm_form(self._config.prm, Path(model), PromptForm.of(self._config))
            self._replay.save(Path(state) / "replay")

    def draw_replay(
        self, iteration: int, rollouts: Sequence[Any], grades: Sequence[Any]
    ) -> ReplaySample | None:
        """Draw old rollouts to go beside those of this iteration that the PRM learns from; every rank draws
        the same.

        Args:
            iteration: number of the iteration, warm-up included.
            rollouts: parts of ROLLOUTS.
            grades: GRADES, one part.

        Raises:
            DoorError: a row filter of the user's own failed.
        """
        seed = derive_seed(self._config.seed, "replay", iteration)
        fresh = count_kept_groups(graded_rollouts(rollouts, grades), self._filters)
        self._drawn = self._replay.sample(fresh, self._config.prm.replay_fraction, seed)
        return self._drawn

    @property
    def _filters(self) -> list[FilterConfig]:
        """What decides which rollouts the PRM learns from."""
        return [one for one in self._config.method.filters if one.prm]

    def update(
        self,
        problems: pa.Table,
        rollouts: Sequence[Any],
        grades: Sequence[Any],
        trace_parts: Sequence[Any],
        replay_parts: Sequence[Any],
        iteration: int,
        rollout_parts: Sequence[Any] = (),
    ) -> dict[str, float]:
        """Learn by the method's objective.

        Args:
            problems: PROBLEMS.
            rollouts: parts of ROLLOUTS.
            grades: GRADES, one part.
            trace_parts: log-probabilities of the traces under what the objective compares with (its `base`:
                the current policy, or the reference model), or none where no traces join.
            replay_parts: those of the rollouts and traces of `draw_replay`, or none.
            iteration: number of the iteration, warm-up included.
            rollout_parts: those of the rollouts, or none: the rollouts' own, of the policy that sampled.

        Raises:
            DoorError: an objective or a row filter of the user's own failed.
        """
        prm, objective = self._config.prm, self._config.method.prm_objective
        table = graded_rollouts(rollouts, grades)
        base = merge_parts(resolve(rollout_parts)) if rollout_parts else None
        traces, trace_base = TRACES.empty_table(), TOKEN_LOGPROBS.empty_table()
        if self._config.method.prm_objective.needs_traces:
            traces = self._traces(problems, iteration)
            trace_base = merge_parts(resolve(trace_parts))
        source = PRMSource(table, traces, trace_base, base)
        sources = [source.of_rows(rows_that_learn(table, self._filters))]
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
        warmup = iteration < prm.warmup_iterations
        updates = prm.warmup_updates_per_iteration if warmup else prm.updates_per_iteration
        shares = problem_shares(sources, min(prm.shares, updates))  # all that was sampled is learned from
        metrics = update_prm(
            self._engine,
            [build_prm_batch(share, prm, objective) for share in shares],
            prm,
            temperature=self._config.rollout.temperature,
            pad_id=self._codec.pad_id,
            updates=updates,
        )
        self._replay.add(iteration, sources[0].rollouts, traces)
        return metrics

    def score(
        self, rollouts: Sequence[Any], base_parts: Sequence[Any], current_parts: Sequence[Any] = ()
    ) -> pa.Table:
        """This rank's part of rewards, values and search scores; `base_parts`: reference log-probabilities
        that the rewards compare with, or none (the policy's own); `current_parts`: log-probabilities of the
        rollouts under the current policy, where an older one sampled them."""
        against_reference = self._config.method.prm_objective.against_reference
        return score_steps(
            self._engine,
            with_logprobs(pa.concat_tables(resolve(rollouts)), current_parts),
            merge_parts(resolve(base_parts)) if base_parts else None,
            self._config.prm,
            temperature=self._config.rollout.temperature,
            pad_id=self._codec.pad_id,
            log_odds_scale=self._config.prm.prime.beta if against_reference else 1.0,
        )


class PRMServer:
    """A given PRM or teacher that only scores: no optimiser, no process group."""

    def __init__(self, config: Config, policy: str, prm: str) -> None:
        """`policy`: whose tokenizer is used; `prm`: folder of the PRM."""
        self._config = config
        self._policy_folder = policy
        self._prm_folder = prm

    def start(self, run: str | None = None) -> float:
        """Load the model; returns seconds.

        Raises:
            RunError: the folder `run`, where checkpoints go, is not there on this machine.
        """
        start = time.perf_counter()
        if run is not None:
            require_run_folder(run)
        model, prm = self._config.model, self._config.prm
        if prm.search_score == "reference_ratio":
            raise ModelError(
                f"the given PRM {self._prm_folder} scores by its ratio to a reference model, which is not "
                "loaded: set search_score to exp_f and search_aggregate to prod in its prm.json"
            )
        task = make_task(self._config.task)
        self._codec = TextCodec.for_model(model, self._policy_folder, task)
        module = load_prm_module(
            self._prm_folder,
            prm.parameterisation,
            model.dtype,
            prm.shaping,
            outcome_beta=prm.outcome_head,
            attention=model.attention,
            trust_remote_code=model.trust_remote_code,
        )
        self._engine = FrozenEngine(module, own_device())
        return time.perf_counter() - start

    def kernels(self) -> dict[str, str]:
        """Attention and layout of the model."""
        return kernels(self._engine, self._config.prm.learner.layout)

    def save(self, model: str, state: str) -> None:
        """Copy the PRM's folder to `model`, so that a checkpoint holds all that search needs.

        A teacher may be a hub name and is no PRM of a search: it stays where it is.
        """
        if self._config.prm.is_teacher:
            return
        shutil.copytree(self._prm_folder, model, dirs_exist_ok=True)

    def score(
        self,
        rollouts: Sequence[Any],
        base_parts: Sequence[Any] = (),
        current_parts: Sequence[Any] = (),
    ) -> pa.Table:
        """Rewards, values and search scores of every step, one part.

        `base_parts`: reference log-probabilities where the rewards are made of them
        (`PRMConfig.reads_reference`); `current_parts`: as in `PRMLearner.score`.
        """
        table = with_logprobs(pa.concat_tables(resolve(rollouts)), current_parts)
        base = merge_parts(resolve(base_parts)) if base_parts else None
        return score_steps(
            self._engine, table, base, self._config.prm,
            temperature=self._config.rollout.temperature, pad_id=self._codec.pad_id,
        )  # fmt: skip
