"""Settings of the rollout workers, their engines and what a failure costs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from airls_ray.config.base import StrictModel
from airls_ray.config.model_sections import Probability, Resources, TopK, TopP


class EngineConfig(StrictModel):
    """One vLLM engine."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the engine; `auto` takes the model's on a GPU, and float32 on a CPU."""
    tensor_parallel: PositiveInt = 1
    """GPUs of one engine."""
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)] = 0.85
    """Share of a GPU's memory for weights and cache."""
    kv_cache_gib: PositiveFloat = 0.5
    """Cache of an engine on CPU, in GiB."""
    max_sequences: PositiveInt = 256
    """Most sequences that are decoded at once."""
    enforce_eager: bool = True
    """Skip graph capture and compilation of the model (seconds at start against speed later)."""
    prefix_caching: bool = True
    """Share the cache of equal prefixes (the rollouts of a group share their prompt)."""
    weight_transfer: Literal["object_store", "nccl"] = "object_store"
    """How new weights reach the engine: `nccl` needs GPUs on both sides, `object_store` works anywhere."""
    lora: Literal["merged", "adapter"] = "merged"
    """What a policy that learns by LoRA (`policy.lora.rank`) sends: all weights, merged, or its `adapter`
    alone. That is far fewer bytes, and the engine then computes with it beside the weights of its start. On a
    CPU this made the sampling of a tiny model two to three times as slow."""
    metrics: bool = False
    """Show vLLM's own metrics on Ray's Prometheus endpoint, beside those of the run."""


class RolloutConfig(StrictModel):
    """Rollout workers and how they sample."""

    min_workers: PositiveInt = 1
    """Workers that a run needs: it starts with them and waits while there are fewer."""
    max_workers: PositiveInt = 1
    """Workers that a run asks for and takes as nodes come; `airls-ray scale` sets another number between."""
    interruptible: bool = False
    """Take new weights in the middle of sampling (the asynchronous loop): samples under way go on with them,
    and every token keeps the version that sampled it. Each token then costs the engine a step of its own
    call."""
    shares_per_worker: PositiveInt = 1
    """Parts into which a worker's share of an iteration is cut: with more of them a worker that joins or is
    faster takes over work, and one that dies loses less; with fewer the engine has larger batches."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature; the learner's log-probabilities use the same."""
    top_p: TopP = 1.0
    """Sample among the most probable tokens that together have this probability; 1: among all. With any of
    these three the learners still see the policy as a whole: a bias (docs/methods.md)."""
    top_k: TopK = 0
    """Sample among so many of the most probable tokens; 0 (or -1): among all."""
    min_p: Probability = 0.0
    """Sample among tokens that have at least this share of the probability of the most probable one; 0: among
    all."""
    max_response_tokens: PositiveInt = 64
    """Longest response, end of sequence included."""
    deadline_seconds: PositiveFloat = 600.0
    """Longest time for one worker's share of an iteration."""
    engine: EngineConfig = EngineConfig()
    """The vLLM engine of each worker."""
    resources: Resources = Resources()
    """Per worker."""


class FailureConfig(StrictModel):
    """What happens when a process dies, hangs or fails. Every call has a deadline of its own."""

    attempts: PositiveInt = 3
    """Times that a group is tried before it is dropped. The second time its whole share goes to another
    worker; after that each group is tried alone, so that one that kills its worker takes no other with it."""
    backoff_seconds: NonNegativeFloat = 1.0
    """Wait before a group is tried again, and before a worker that died is replaced; doubles each time."""
    smallest_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Least share of an iteration's groups that is trained on; below it the run ends."""
    dropped: Literal["replace", "shrink"] = "replace"
    """A dropped group's problem makes room for the next problem, or the iteration is smaller."""
    probe_seconds: PositiveFloat = 10.0
    """Seconds between two probes of an idle worker."""
    probe_attempts: PositiveInt = 3
    """Probes without an answer after which a worker counts as dead."""
    worker_failures: PositiveInt = 5
    """Times that workers may die in a row, with no share finished between, before the run ends. Those that
    die within one wait (`backoff_seconds`), such as all of a node, count once."""
    rebuilds: NonNegativeInt = 3
    """Times in a row that learners, PRM and reference server are rebuilt after one of them died; the
    iteration is then repeated from the last state. 0: the run ends, and --resume goes on."""
