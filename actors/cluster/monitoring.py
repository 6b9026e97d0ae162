"""The adapter to Ray's metrics: what a run shows on the Prometheus endpoint of every node.

A name here appears there as `ray_<name>` (a counter as `ray_<name>_total`), tagged with the run. What is set
is a copy of what the run computes anyway: it costs microseconds and changes nothing of the run.

Ray forgets a gauge that nobody sets again within two of its report intervals (20 s), and an iteration may
take minutes. So a thread sets all gauges again every few seconds until the monitor is closed.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping
from typing import Any, Literal, SupportsFloat

PREFIX = "airls_ray_"
Phase = Literal["warmup", "train"]
PHASES: tuple[Phase, ...] = ("warmup", "train")

KEYS = {
    "outcome/mean": "Mean outcome of the iteration's rollouts, 0 to 1.",
    "evaluation/accuracy": "Mean outcome on the held-out problems of the evaluation, 0 to 1.",
    "groups/constant_share": "Share of the groups whose outcomes are all equal.",
    "rollout/response_tokens_mean": "Mean length of a response, tokens.",
    "rollout/steps_mean": "Mean steps of a response.",
    "rollout/truncated_share": "Share of the rollouts that were cut at the longest response.",
    "rollout/log_prob_mean": "Mean log-probability of a sampled token, nats.",
    "tokens_per_second/rollout": "Response tokens sampled per second of the rollout stage.",
    "policy/version": "Policy version: one more at each weight sync.",
    "policy/entropy": "Entropy of the policy per token, nats.",
    "policy/loss": "Loss of the policy update.",
    "policy/gradient_norm": "Norm of the policy's gradient before clipping.",
    "policy/skipped_updates": "Updates of the policy that were skipped, without a finite gradient.",
    "policy/approx_kl": "Estimated KL divergence of the update, nats per token.",
    "policy/clip_share": "Share of the tokens whose probability ratio was clipped.",
    "policy/reference_kl": "KL divergence from the reference model, nats per token.",
    "prm/loss": "Loss of the PRM update.",
    "prm/expert_accuracy": "Share of the expert's steps that the PRM takes for the expert's.",
    "prm/policy_accuracy": "Share of the policy's steps that the PRM takes for the policy's.",
    "prm/entropy": "Entropy of the PRM's decisions, nats.",
    "prm/gradient_norm": "Norm of the PRM's gradient before clipping.",
    "prm/skipped_updates": "Updates of the PRM that were skipped, without a finite gradient.",
    "prm/output_abs_mean": "Mean size of the PRM's raw output.",
    "prm/reward_mean": "Mean step reward.",
    "prm/score_mean": "Mean step score, 0 to 1.",
    "prm/step_auroc": "AUROC of the PRM's step scores against the truth of the steps.",
    "prm/trace_auroc": "AUROC of the PRM's trace scores against the outcomes.",
    "prm/length_correlation": "Correlation of trace score and length.",
    "prm/step_auroc_within": "The same among the steps of one problem, mean over problems.",
    "prm/trace_auroc_within": "The same among the rollouts of one problem, mean over problems.",
    "policy_log_prob/step_auroc": "Step AUROC of the policy's log-probability (the control).",
    "policy_log_prob/trace_auroc": "Trace AUROC of the policy's log-probability (the control).",
    "sync/logprob_difference_mean": "Mean difference of sampler and learner after a sync, nats.",
    "sync/logprob_difference_max": "Largest difference of sampler and learner after a sync, nats.",
    "time/iteration": "Seconds of an iteration.",
    "pool/waiting": "Groups that wait for a rollout worker.",
    "learners/rebuilds": "Times that the learners were built again after one of them died.",
    "staleness/max": "Policy updates between the sampling of the oldest rollout and its learning.",
    "staleness/mean": "The same, mean over the rollouts.",
}
"""Keys of `metrics.jsonl` with a description. A key that is not here is a gauge by the same rule, too."""

_OWN = {
    "iteration": "Iterations done, PRM warm-up included.",
    "phase": "1 for the phase of the run now (warmup or train), else 0.",
    "stage": "1 for the stage of the iteration that runs now, else 0.",
    "stage_seconds": "Seconds of a stage in the last iteration.",
    "rollout_workers": "Rollout workers by state (starting, ready, draining).",
    "rollout_worker_deaths": "Rollout workers that died.",
    "groups_requeued": "Groups that went to another worker because theirs died or left.",
    "groups_dropped": "Groups that failed too often and were given up.",
}
_COUNTERS = ("rollout_worker_deaths", "groups_requeued", "groups_dropped")
_POOL_COUNTERS = {
    "pool/deaths": "rollout_worker_deaths",
    "pool/requeued": "groups_requeued",
    "pool/dropped": "groups_dropped",
}
"""Keys that count what happened in an iteration."""
_WORKER_STATES = {"pool/workers": "ready", "pool/starting": "starting", "pool/draining": "draining"}
_STAGE_TIME = re.compile(r"time/(?!iteration$)(\w+)")


def metric_name(key: str) -> str:
    """The metric of a key of `metrics.jsonl`: "outcome/mean" gives "airls_ray_outcome_mean".

    `time/<stage>` is not among them: it is `airls_ray_stage_seconds` with the stage as its tag.
    """
    return PREFIX + re.sub(r"\W", "_", key)


def exported_names() -> set[str]:
    """Names of all described metrics as Prometheus sees them."""
    own = {f"ray_{PREFIX}{name}" + "_total" * (name in _COUNTERS) for name in _OWN}
    return own | {f"ray_{metric_name(key)}" for key in KEYS}


class Monitor:
    """The metrics of one run, until `close`. Lives in the driver; all numbers of a run come from there."""

    def __init__(self, run: str, refresh_seconds: float = 5.0) -> None:
        """`run`: the tag of all its metrics; `refresh_seconds`: time between two settings of every gauge."""
        self._run = run
        self._refresh_seconds = refresh_seconds
        self._metrics: dict[str, Any] = {}
        self._values: dict[tuple[str, ...], tuple[Any, float, dict[str, str]]] = {}
        self._stage: str | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._refresher: threading.Thread | None = None

    def close(self) -> None:
        """Let the gauges go: Ray drops them within two report intervals."""
        self._closed.set()
        if self._refresher is not None:
            self._refresher.join()

    def record(self, iteration: int, metrics: Mapping[str, SupportsFloat | None], phase: str) -> None:
        """Show an iteration's metrics by the keys of `metrics.jsonl`; None and NaN show nothing."""
        self._set("iteration", iteration)
        for name in PHASES:
            self._set("phase", name == phase, phase=name)
        for key, value in metrics.items():
            stage = _STAGE_TIME.fullmatch(key)
            if stage is not None:
                self._set("stage_seconds", value, stage=stage[1])
            elif key in _POOL_COUNTERS and value is not None:
                self._count(_POOL_COUNTERS[key], int(float(value)))
            elif key in _WORKER_STATES:
                self._set("rollout_workers", value, state=_WORKER_STATES[key])
            else:
                self._set(metric_name(key).removeprefix(PREFIX), value, KEYS.get(key, key))

    def stage(self, name: str) -> None:
        """Say which stage of the iteration runs from now on."""
        if self._stage is not None:
            self._set("stage", 0, stage=self._stage)
        self._stage = name
        self._set("stage", 1, stage=name)

    def _set(
        self, name: str, value: SupportsFloat | None, description: str | None = None, **tags: str
    ) -> None:
        key = (name, *tags.values())
        with self._lock:
            if value is None or not math.isfinite(float(value)):
                self._values.pop(key, None)
                return
            metric = self._metric(name, description or _OWN[name], tags)
            self._values[key] = (metric, float(value), tags)
            metric.set(float(value), tags)
            if self._refresher is None:
                self._refresher = threading.Thread(target=self._refresh, name="monitor", daemon=True)
                self._refresher.start()

    def _refresh(self) -> None:
        while not self._closed.wait(self._refresh_seconds):
            with self._lock:
                for metric, value, tags in self._values.values():
                    metric.set(value, tags)

    def _count(self, name: str, count: int, **tags: str) -> None:
        if count > 0:  # Ray refuses to add nothing
            with self._lock:
                self._metric(name, _OWN[name], tags).inc(count, tags)

    def _metric(self, name: str, description: str, tags: Mapping[str, str]) -> Any:
        """Make a metric at its first use (with the lock held)."""
        from ray.util.metrics import Counter, Gauge

        metric = self._metrics.get(name)
        if metric is None:
            kind = Counter if name in _COUNTERS else Gauge
            metric = kind(PREFIX + name, description=description, tag_keys=("run", *tags))
            metric.set_default_tags({"run": self._run})
            self._metrics[name] = metric
        return metric


class NoMonitor(Monitor):
    """Shows nothing: the default where nothing looks."""

    def __init__(self) -> None:
        super().__init__("")

    def _set(
        self, name: str, value: SupportsFloat | None, description: str | None = None, **tags: str
    ) -> None:
        pass

    def _count(self, name: str, count: int, **tags: str) -> None:
        pass
