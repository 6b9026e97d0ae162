"""Learners that take time and compute nothing, under the real pool, loop, recovery and data plane."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from simulated_workers import lasting

if TYPE_CHECKING:
    import pyarrow as pa

    from actors.rollout.rollout_pool import RolloutPool
    from actors.train.parts import Parts
    from actors.train.tracking import LoopState
    from airls_ray.config.schema import Config
    from airls_ray.weights import WeightBuffer

DEADLINE_SECONDS = 120.0
"""Of a call to a simulated process."""
ATTEMPTS = 10
"""How often a verifier or a reference server is asked that keeps dying."""


@dataclass(frozen=True)
class StageSeconds:
    """What every stage takes."""

    rollout: float = 4.0
    """A worker's share of an iteration."""
    grade: float = 0.2
    prm_update: float = 0.5
    prm_score: float = 0.2
    policy_update: float = 1.0

    @property
    def learning(self) -> float:
        """All that comes after the grades."""
        return self.prm_update + self.prm_score + self.policy_update

    def faster(self, factor: float) -> StageSeconds:
        """All divided by `factor`."""
        return StageSeconds(**{name: value / factor for name, value in vars(self).items()})

    @property
    def all(self) -> float:
        """One after the other."""
        return self.rollout + self.grade + self.learning


# ----------------------------------------------------------------------------------- learners
class SimulatedLearner:
    """Policy or PRM: waits, and keeps a digest of all that it was taught, in order.

    Two runs that taught the same in the same order end with the same digest, whatever happened in between.
    """

    def __init__(self, seconds: StageSeconds, weight_bytes: int = 0) -> None:
        """`weight_bytes`: size of the exported weights."""
        self._seconds, self._weight_bytes = seconds, weight_bytes
        self._digest = ""
        self._version = 0

    def start(self, state: str | None) -> float:
        """Read the state of a checkpoint."""
        if state is not None:
            self._digest = json.loads((Path(state) / "simulated.json").read_text())["digest"]
        return 0.0

    def _learn(self, rollouts: Sequence[Any]) -> dict[str, float]:
        import pyarrow as pa

        from actors.cluster.cluster import resolve

        table = pa.concat_tables(resolve(rollouts))
        seen = hashlib.blake2b(self._digest.encode(), digest_size=8)
        for name in ("problem_id", "group", "index", "response"):
            seen.update(json.dumps(table[name].to_pylist()).encode())
        self._digest = seen.hexdigest()
        return {"learner/digest": float(int(self._digest[:12], 16))}

    def trace_log_probs(self, problems: pa.Table, iteration: int) -> None:
        """Nothing."""

    def rollout_log_probs(self, rollouts: Sequence[Any]) -> None:
        """Nothing."""

    def update(self, *arguments: Any) -> dict[str, float]:
        """Learn, of the PRM or of the policy: both take problems and rollouts first."""
        prm = len(arguments) == 7
        with lasting(self._seconds.prm_update if prm else self._seconds.policy_update):
            found = self._learn(arguments[1])
        if prm:
            return {f"prm/{name}": value for name, value in found.items()}
        self._version = arguments[-1]
        return {f"policy/{name}": value for name, value in found.items()}

    def score(self, rollouts: Sequence[Any], *_: Any) -> pa.Table:
        """Wait; every step scores a half."""
        import pyarrow as pa

        from actors.cluster.cluster import resolve

        time.sleep(self._seconds.prm_score)
        counts = map(len, pa.concat_tables(resolve(rollouts))["step_ends"].to_pylist())
        halves = [[0.5] * count for count in counts]
        return pa.table({"row": range(len(halves)), "rewards": halves, "values": halves, "scores": halves})

    def export_weights(self) -> WeightBuffer:
        """Zeros."""
        import torch

        from airls_ray.weights import pack_weights

        return pack_weights([("w", torch.zeros(max(self._weight_bytes // 4, 1)))], self._version)

    def save(self, model: str, state: str) -> None:
        """Write the digest."""
        for folder in (model, state):
            Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(state) / "simulated.json").write_text(json.dumps({"digest": self._digest}))


class SimulatedReference:
    """The reference server."""

    def start(self) -> float:
        """Nothing to load."""
        return 0.0

    def log_probs(self, rollouts: Sequence[Any]) -> None:
        """Read the rollouts."""
        from actors.cluster.cluster import resolve

        resolve(rollouts)


class SimulatedVerifier:
    """Grades by the tokens."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: of a call of `grade`."""
        self._seconds = seconds

    def grade(self, rollouts: Sequence[Any], problems: pa.Table) -> pa.Table:
        """Outcome 1 where the sum of the tokens is even."""
        import pyarrow as pa

        from actors.cluster.cluster import resolve
        from airls_ray.data.schemas import GRADES

        with lasting(self._seconds):
            responses = pa.concat_tables(resolve(rollouts))["response"].to_pylist()
            columns: dict[str, list[Any]] = {name: [None] * len(responses) for name in GRADES.names}
            columns["outcome"] = [float(sum(tokens) % 2 == 0) for tokens in responses]
            return pa.table({field.name: pa.array(columns[field.name], field.type) for field in GRADES})

    def outcomes_by_problem(self, rollouts: Sequence[Any], grades: pa.Table) -> list[tuple[str, list[float]]]:
        """As the verifier's."""
        import pyarrow as pa

        from actors.cluster.cluster import resolve
        from airls_ray.evaluation.rollouts import outcomes_by_group

        return outcomes_by_group(pa.concat_tables(resolve(rollouts)), grades)

    def summarise(self, rollouts: Sequence[Any], grades: pa.Table) -> dict[str, float]:
        """What the loop needs."""
        from actors.cluster.cluster import resolve

        tokens = sum(len(table["response"].combine_chunks().flatten()) for table in resolve(rollouts))
        return {"rollout/response_tokens": float(tokens), "outcome/mean": float(np.mean(grades["outcome"]))}

    def measure(self, *arguments: Any) -> dict[str, float]:
        """Nothing."""
        return {}

    def evaluate(self, rollouts: Sequence[Any], grades: pa.Table, scores: Sequence[Any]) -> dict[str, float]:
        """Accuracy, which weights sampled, and a digest of the samples."""
        import pyarrow as pa

        from actors.cluster.cluster import resolve

        table = pa.concat_tables(resolve(rollouts))
        seen = hashlib.blake2b(digest_size=6)
        for name in ("problem_id", "group", "index", "response"):
            seen.update(json.dumps(table[name].to_pylist()).encode())
        versions = table["version"].to_pylist()
        return {
            "evaluation/accuracy": float(np.mean(grades["outcome"])),
            "evaluation/oldest": float(min(versions)),
            "evaluation/newest": float(max(versions)),
            "evaluation/digest": float(int(seen.hexdigest(), 16)),
        }

    def staleness(self, rollouts: Sequence[Any], version: int) -> dict[str, float]:
        """As the verifier's."""
        from actors.cluster.cluster import resolve

        ages = [version - one for table in resolve(rollouts) for one in table["version"].to_pylist()]
        return {"staleness/mean": float(np.mean(ages)), "staleness/max": float(max(ages))}

    def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class SimulatedRun:
    """Makes the parts of a loop, and rebuilds its learners."""

    config: Config
    seconds: StageSeconds
    weight_bytes: int = 0
    reference: bool = False
    """Whether a reference server takes part."""

    def parts(self, pool: RolloutPool, state: LoopState, checkpoint: Path | None = None) -> Parts:
        """All parts, with new processes; the learners go on from a checkpoint where there is one."""
        from actors.learn.groups import NoPRM, NoReference, PolicyGroup, ReferenceGroup
        from actors.train.parts import Parts
        from actors.train.start import evaluation_problems, training_problems
        from actors.train.weight_sync import WeightSync
        from actors.verify.verifier_handle import VerifierHandle

        def verifier() -> Any:
            return self._actor(SimulatedVerifier, self.seconds.grade)

        def reference() -> Any:
            return self._actor(SimulatedReference)

        policy = PolicyGroup("policy learner", [], DEADLINE_SECONDS)
        parts = Parts(
            problems=training_problems(self.config, state, None),
            pool=pool,
            verifier=VerifierHandle(verifier(), DEADLINE_SECONDS, verifier, ATTEMPTS),
            reference=ReferenceGroup(reference, DEADLINE_SECONDS, ATTEMPTS)
            if self.reference
            else NoReference(),
            prm=NoPRM(),
            policy=policy,
            sync=WeightSync(policy, pool),
            held_out=evaluation_problems(self.config),
        )
        return self._with_learners(parts, checkpoint)

    def rebuild(self, parts: Parts, state: LoopState, checkpoint: Path | None, times: int) -> Parts:
        """See `actors.train.recovery.Rebuild`."""
        from actors.cluster import processes
        from actors.train.start import training_problems

        for actor in parts.learners:
            processes.kill(actor)
        new = self._with_learners(parts, checkpoint)
        new.sync.push(state.version)
        return replace(new, problems=training_problems(self.config, state, None))

    def _with_learners(self, parts: Parts, checkpoint: Path | None) -> Parts:
        from actors.cluster import cluster
        from actors.learn.groups import PolicyGroup, PRMGroup
        from actors.train.weight_sync import WeightSync

        state = None if checkpoint is None else checkpoint.resolve() / "state"
        made = {
            name: self._actor(SimulatedLearner, self.seconds, self.weight_bytes) for name in ("policy", "prm")
        }
        cluster.fetch(
            [one.start.remote(None if state is None else str(state / name)) for name, one in made.items()],
            DEADLINE_SECONDS, "starting simulated learners",
        )  # fmt: skip
        policy = PolicyGroup("policy learner", [made["policy"]], DEADLINE_SECONDS)
        prm = PRMGroup([made["prm"]], policy, traces=True, replay=False, deadline_seconds=DEADLINE_SECONDS)
        return replace(
            parts, prm=prm, policy=policy, sync=WeightSync(policy, parts.pool), learners=tuple(made.values())
        )

    def _actor(self, kind: type, *arguments: Any) -> Any:
        from actors.cluster import processes
        from airls_ray.config.schema import Resources

        return processes.start_actor(kind, "", Resources(cpus=0.01, threads=1), *arguments, keep=True)


def simulated_config(folder: Path, workers: int, iterations: int, **train: Any) -> Config:
    """A configuration of the loop for simulated parts: `groups` of 8 rollouts for every worker."""
    from airls_ray.config import load_config

    settings = {
        "iterations": iterations,
        "problems_per_iteration": 4 * workers,
        "rollouts_per_problem": 8,
        "checkpoint_every": 1000,
        "rollouts_every": 1000,
        "sync_check": False,
        **train,
    }
    return load_config(
        None,
        [
            "name=simulated",
            f"output={folder}",
            "method.importance_cap=2",
            "prm.warmup_iterations=0",
            "task.operations=3",
            *(f"train.{name}={value}" for name, value in settings.items()),
        ],
    )


def tokenizer_folder(folder: Path, config: Config) -> Path:
    """A folder with the task's tokenizer, which is all that a simulated worker reads."""
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import build_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer(make_task(config.task), folder)
    return folder


def run_loop(
    simulated: SimulatedRun, pool: RolloutPool, folder: Path, loop: Callable[..., Any]
) -> list[dict[str, Any]]:
    """Run a loop to its end with recovery, from the last checkpoint if the folder has one; returns the
    metrics of all iterations."""
    from actors.train.recovery import Recovery
    from actors.train.tracking import LoopState, Shown, Tracker, read_state
    from airls_ray.console.progress import QuietProgress
    from airls_ray.runs.run_control import RunControl
    from airls_ray.runs.run_folder import RunFolder

    config, progress = simulated.config, QuietProgress()
    run = RunFolder(folder)
    with run.locked():
        checkpoint = run.latest_checkpoint()
        state = read_state(checkpoint) if checkpoint else LoopState()
        resume = (folder / "config.yaml").exists()
        run.create(config, resume=resume)
        run.use(checkpoint)
        if resume:
            run.rewind(state.iteration)
        control = RunControl(folder, config.iterations)
        parts = simulated.parts(pool, state, checkpoint)
        if state.version:
            parts.sync.push(state.version)
        recovery = Recovery(parts, state, config, run, control, simulated.rebuild, progress)

        def learn(parts: Parts, state: LoopState) -> LoopState:
            with progress.track("", config.iterations) as bar:
                done: LoopState = loop(
                    parts, config, state, Tracker(run, config, Shown(bar, 0), None, control)
                )
            return done

        recovery.work(learn)
        recovery.parts.verifier.close()
        recovery.parts.reference.close()
        from actors.cluster import processes

        for actor in recovery.parts.learners:
            processes.end(actor)
        return run.read_metrics()


def memory_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
