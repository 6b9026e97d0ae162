"""A run's plan: its actors and where they fit, their memory, the sizes of an iteration, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from airls_ray.config.schema import Config, Resources
from airls_ray.planning.memory import (
    GIB,
    LOGITS_ENTROPY,
    LOGITS_ENTROPY_GRADIENT,
    LOGITS_FORWARD,
    LOGITS_TRAIN,
    EngineMemory,
    Memory,
    engine_memory,
    inference_memory,
    learner_memory,
)
from airls_ray.planning.placement import ActorDemand, Placement, place
from airls_ray.planning.shapes import ModelShape, policy_shape, shape_of_path
from airls_ray.planning.sizes import plan_sizes, prm_head, prm_parameters
from airls_ray.planning.warnings import missing_settings
from airls_ray.prm.teacher import given_form


@dataclass(frozen=True)
class Plan:
    """What a run needs; memory is None where the model's sizes are not known (`unknown` says why)."""

    config: Config
    demands: tuple[ActorDemand, ...]
    placement: Placement
    sizes: Mapping[str, int | float]
    shape: ModelShape | None
    unknown: str | None
    memory: Mapping[str, Memory]
    """By actor, of one of them: on its GPU, or in its process."""
    engine: EngineMemory | None
    gpu_memory: int
    """Of one GPU, in bytes."""
    warnings: tuple[str, ...]


def make_plan(config: Config, *, gpus_per_node: int = 8, gpu_memory_gib: float = 80.0) -> Plan:
    """Work out what a run by `config` needs, without Ray, a GPU or a download.

    Args:
        config: of the run.
        gpus_per_node: GPUs of every node of the cluster.
        gpu_memory_gib: memory of one of them.

    Raises:
        ModelError: a local model folder is broken or too short in context.
    """
    config = _with_prm_form(config)
    gpu_memory = int(gpu_memory_gib * GIB)
    demands = actor_demands(config)
    placement = place(demands, gpus_per_node)
    found = policy_shape(config)
    shape, unknown = (None, found) if isinstance(found, str) else (found, None)
    prm = _prm_shape(config, found)
    memory: dict[str, Memory] = {}
    engine = None
    if shape is not None:
        memory = _memory(config, shape, None if isinstance(prm, str) else prm)
        on_gpu = config.rollout.resources.gpus > 0
        engine = engine_memory(
            shape,
            config.rollout.engine,
            dtype=config.model.dtype,
            context_tokens=config.model.context_tokens,
            gpu_memory=gpu_memory if on_gpu else None,
        )
    if unknown is None and config.uses_prm and isinstance(prm, str):
        unknown = prm
    if unknown is None and shape is not None and config.uses_reference:
        other = _reference_shape(config, shape)
        unknown = other if isinstance(other, str) else None
    warnings = [
        *placement.never,
        *over_memory(placement, memory, engine, gpu_memory),
        *missing_settings(config, shape),
    ]
    if engine is not None and engine.sequences < 1:
        warnings.append(
            "a rollout worker has no room for one sequence of model.context_tokens: its cache would have "
            f"{engine.cache / GIB:.1f} GiB; raise rollout.engine.tensor_parallel, or kv_cache_gib on a CPU"
        )
    return Plan(
        config, demands, placement, plan_sizes(config, shape, None if isinstance(prm, str) else prm),
        shape, unknown, memory, engine, gpu_memory, tuple(warnings),
    )  # fmt: skip


def actor_demands(config: Config) -> tuple[ActorDemand, ...]:
    """Return the actors of the training loop, as `actors/train/launch.py` starts them."""
    tensor_parallel = config.rollout.engine.tensor_parallel
    engine = config.rollout.resources
    asked = [
        # An engine's GPUs are of one node; Ray must be asked for all of them (a warning says if not).
        ActorDemand(
            "rollout worker",
            config.rollout.min_workers,
            engine.cpus,
            max(engine.gpus, tensor_parallel) if engine.gpus > 0 and tensor_parallel > 1 else engine.gpus,
            engine.custom,
        ),
        _demand("policy learner", config.policy.ranks, config.policy.resources),
    ]
    if config.uses_prm:
        learner = config.prm.learner
        count = learner.ranks if config.prm_learns else 1
        asked.append(_demand(_prm_name(config), count, learner.resources))
    if config.uses_reference:
        asked.append(_demand("reference server", 1, config.reference.resources))
    return (*asked, _demand("verifier", 1, config.verifier.resources))


def _memory(config: Config, shape: ModelShape, prm: ModelShape | None) -> dict[str, Memory]:
    dtype, context = config.model.dtype, config.model.context_tokens
    entropy = LOGITS_ENTROPY_GRADIENT if config.method.entropy_coefficient else LOGITS_ENTROPY
    memory = {
        "policy learner": learner_memory(
            shape, shape.parameters, config.policy, dtype=dtype, context_tokens=context,
            logit_bytes=entropy, on_gpu=config.policy.resources.gpus > 0,
        )
    }  # fmt: skip
    if config.uses_prm and prm is not None:
        learner, count = config.prm.learner, prm_parameters(config, prm)
        has_logits = config.prm.parameterisation == "log_prob"
        if config.prm_learns:
            memory["PRM learner"] = learner_memory(
                prm, count, learner, dtype=dtype, context_tokens=context,
                logit_bytes=LOGITS_TRAIN * has_logits, on_gpu=learner.resources.gpus > 0,
                head=prm_head(config, prm),
            )  # fmt: skip
        else:
            memory[_prm_name(config)] = inference_memory(
                prm, count, dtype=dtype, tokens=max(learner.tokens_per_microbatch, context),
                logit_bytes=LOGITS_FORWARD * has_logits,
            )  # fmt: skip
    if config.uses_reference:
        tokens = max(config.reference.tokens_per_microbatch, context)
        model = _reference_shape(config, shape)
        if not isinstance(model, str):
            memory["reference server"] = inference_memory(
                model, model.parameters, dtype=dtype, tokens=tokens, logit_bytes=LOGITS_FORWARD
            )
    return memory


def over_memory(
    placement: Placement, memory: Mapping[str, Memory], engine: EngineMemory | None, gpu_memory: int
) -> list[str]:
    """A sentence for each kind of GPU (by who shares it) whose actors need more than it has."""
    totals = {name: one.total for name, one in memory.items()}
    if engine is not None:
        totals["rollout worker"] = engine.total
    sentences: dict[tuple[str, ...], str] = {}
    for names in (tuple(sorted(gpu)) for node in placement.nodes for gpu in node.gpus if gpu):
        needed = sum(totals.get(name, 0) for name in names)
        if needed <= gpu_memory or names in sentences:
            continue
        first = max(names, key=lambda name: totals.get(name, 0))
        remedy = "give each a GPU of its own" if len(names) > 1 else _remedy(first, memory.get(first))
        sentences[names] = (
            f"the GPU of {' and '.join(names)} needs about {needed / GIB:.1f} GiB, and it has "
            f"{gpu_memory / GIB:.0f} GiB: {remedy}"
        )
    return list(sentences.values())


def _remedy(name: str, memory: Memory | None) -> str:
    """What to change, by what weighs most."""
    if memory is None:
        return "lower rollout.engine.gpu_memory_utilization"
    section = {"policy learner": "policy", "reference server": "reference"}.get(name, "prm.learner")
    if memory.optimizer and memory.states > memory.logits + memory.activations:
        return f"raise {section}.zero_stage or {section}.ranks, or set {section}.offload_optimizer"
    if memory.activations > memory.logits and memory.optimizer:
        return f"set {section}.gradient_checkpointing or lower {section}.tokens_per_microbatch"
    if memory.optimizer:
        return f"lower {section}.tokens_per_microbatch, or {section}.logit_chunk_mib (0 is no limit)"
    return f"lower {section}.tokens_per_microbatch"


def _prm_shape(config: Config, policy: ModelShape | str) -> ModelShape | str:
    """The PRM's shape: that of `prm.path`, else the policy's."""
    path = config.prm.path
    if path is None or not config.uses_prm:
        return policy
    return shape_of_path(path, config.model.context_tokens)


def _reference_shape(config: Config, policy: ModelShape) -> ModelShape | str:
    """The reference model's shape: that of `reference.path`, else the policy's."""
    path = config.reference.path
    return policy if path is None else shape_of_path(path, config.model.context_tokens)


def _with_prm_form(config: Config) -> Config:
    """A frozen PRM has the form that its folder says, not that of the configuration."""
    path = config.prm.path
    frozen = config.uses_prm and not config.prm_learns
    if not frozen or path is None or not Path(path).is_dir():
        return config
    return config.model_copy(update={"prm": given_form(path, config.prm)})


def _prm_name(config: Config) -> str:
    return "PRM learner" if config.prm_learns else "PRM"


def _demand(name: str, count: int, resources: Resources) -> ActorDemand:
    return ActorDemand(name, count, resources.cpus, resources.gpus, resources.custom)
