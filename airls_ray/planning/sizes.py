"""The sizes of a run: what an iteration, an update, a weight sync and a checkpoint come to."""

from __future__ import annotations

from airls_ray.config.schema import Config, LearnerConfig
from airls_ray.planning.memory import BYTES, GIB
from airls_ray.planning.shapes import ModelShape

_STATE_BYTES = 12  # per parameter in a checkpoint's state: fp32 masters (or weights) and two moments


def plan_sizes(config: Config, shape: ModelShape | None, prm: ModelShape | None) -> dict[str, int | float]:
    """Return what an iteration, an update, a sync and a checkpoint come to; tokens are upper limits.

    Tokens count prompt and response, `model.context_tokens` each. A PRM batch holds the iteration's
    rollouts, one trace a problem where the objective has a reference side, and what the replay adds to be
    `replay_fraction` of it.
    """
    train, method = config.train, config.method
    rollouts = train.problems_per_iteration * train.rollouts_per_problem
    tokens = rollouts * config.model.context_tokens
    per_update = tokens // method.updates_per_iteration
    updates = method.updates_per_iteration * method.epochs * train.iterations
    sizes: dict[str, int | float] = {
        **config.derived(),
        "most tokens per iteration (with prompts)": tokens,
        "most tokens per policy update": per_update,
        "policy micro-batches per update and rank": _ceil(
            per_update, config.policy.ranks * config.policy.tokens_per_microbatch
        ),
        "policy updates in all": updates,
    }
    if config.uses_prm:
        sizes["PRM sequences per iteration (at most)"] = prm_sequences(config)
    if config.prm_learns:
        warm = config.warmup_iterations * config.prm.warmup_updates_per_iteration
        sizes["PRM updates in all"] = warm + train.iterations * config.prm.updates_per_iteration
    if shape is not None:
        width = BYTES[config.model.dtype]
        sizes["parameters of the policy"] = shape.parameters
        sizes["GiB per weight sync"] = shape.parameters * width / GIB
        saved = _saved(shape, shape.parameters, config.policy, width)
        if prm is not None and config.prm_learns:
            learner, head = config.prm.learner, prm_head(config, prm)
            saved += _saved(prm, prm_parameters(config, prm), learner, width, head)
        sizes["GiB per checkpoint"] = saved / GIB
        # The new one is written before the oldest goes.
        sizes["GiB of checkpoints at most"] = (
            saved * (config.train.keep_checkpoints + config.train.keep_best + 1) / GIB
        )
    return sizes


def prm_sequences(config: Config) -> int:
    """Sequences that the PRM reads in an iteration, at most."""
    train, prm = config.train, config.prm
    fresh = train.problems_per_iteration * train.rollouts_per_problem
    if config.method.prm_objective.needs_traces:
        fresh += train.problems_per_iteration
    if config.prm_learns and prm.replay_iterations:
        fresh = round(fresh / (1.0 - prm.replay_fraction))
    return fresh


def prm_parameters(config: Config, shape: ModelShape) -> int:
    """Parameters of the PRM: a scalar head in place of the output layer, or a causal language model."""
    if config.prm.parameterisation == "log_prob":
        return shape.parameters
    return shape.head_parameters(config.prm.head_outputs)


def prm_head(config: Config, shape: ModelShape) -> int:
    """Parameters of the PRM's scalar head, 0 where it has none."""
    if config.prm.parameterisation == "log_prob":
        return 0
    return config.prm.head_outputs * (shape.hidden + 1)


def _saved(shape: ModelShape, parameters: int, learner: LearnerConfig, width: int, head: int = 0) -> int:
    """Bytes of a learner's part of a checkpoint: model, adapter where there is one, states of what learns."""
    if not learner.lora.rank:
        return parameters * (width + _STATE_BYTES)
    learns = shape.adapter_parameters(learner.lora.rank, learner.lora.target_modules) + head
    return parameters * width + learns * (width + _STATE_BYTES)


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)
