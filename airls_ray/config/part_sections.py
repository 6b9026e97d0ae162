"""Settings of what stands around the loop: warm start, graders, reference model and cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from airls_ray.config.base import StrictModel
from airls_ray.config.model_sections import Probability, Resources, SFTLearnerConfig, VerifierResources


class SFTConfig(StrictModel):
    """Warm start of the policy on correct traces, stopped at a target accuracy."""

    iterations: PositiveInt = 2000
    """Most optimiser updates."""
    problems_per_iteration: PositiveInt = 128
    """Problems (one trace each) of one optimiser update, over all ranks."""
    target_accuracy: Probability = 0.45
    """Stop when the sampled accuracy on held-out training problems reaches this; 1 never stops early."""
    evaluate_every: PositiveInt = 20
    """Optimiser updates between two checks of the accuracy."""
    evaluate_problems: PositiveInt = 256
    """Held-out training problems of one check, one sample each; of a file no more than one in ten."""
    detour_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the traces that leave the solution at a random step for right steps at random, so that the
    policy learns what a step gives, not only where solutions end. For tasks that make them (countdown)."""
    learner: SFTLearnerConfig = SFTLearnerConfig()
    """Optimiser, ranks and sharding of the warm start."""


class VerifierConfig(StrictModel):
    """Grading in child processes with hard deadlines."""

    processes: PositiveInt = 1
    """Child processes."""
    deadline_seconds: PositiveFloat = 5.0
    """Longest time for one response; then its process is killed and the outcome is 0."""
    resources: VerifierResources = VerifierResources()
    """Of the actor that owns the child processes."""


class ReferenceConfig(StrictModel):
    """The reference-model server: the policy as it was at the start, or another model."""

    path: str | None = None
    """Folder or hub name of the reference model, with the policy's tokenizer; null: the policy as it was at
    the start. G-OPD (arXiv 2602.12125) takes the teacher's own base model where that is at hand."""
    tokens_per_microbatch: PositiveInt = 32768
    """Token budget of one forward pass."""
    resources: Resources = Resources()
    """Of the server."""


class RayConfig(StrictModel):
    """Where the cluster is."""

    address: str | None = None
    """Ray address; null starts a cluster on this machine (or joins the job's own)."""
    object_store_gib: PositiveFloat = 1.0
    """Object store of a cluster that this command starts, in GiB."""
    dashboard: bool = False
    """Start the dashboard (on loopback) with a cluster that this command starts. It asks for the
    token that Ray then keeps in ~/.ray/auth_token."""
    worker_logs: bool = False
    """Repeat the actors' own output here (it is in Ray's log folder anyway)."""
    start_deadline_seconds: PositiveFloat = 300.0
    """Longest time for the actors to come up."""
    resources_deadline_seconds: PositiveFloat = 30.0
    """Longest wait for resources that exist but are taken (autoscaling clusters: raise it)."""
