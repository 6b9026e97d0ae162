"""What a run leaves behind while it goes on: metrics, rollouts, checkpoints, a progress line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa

from actors.cluster import cluster, placement
from actors.cluster.cluster import resolve
from actors.cluster.monitoring import Monitor, NoMonitor
from actors.train.interrupts import StopSignals
from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.console.progress import Track
from airls_ray.data.parts import merge_parts
from airls_ray.errors import ProcessLost, RunError, UserError
from airls_ray.grading.reward_table import added_columns, failed_labels
from airls_ray.grading.worker import RAISED
from airls_ray.runs.best_metric import EVALUATION
from airls_ray.runs.checkpoints import checkpoint_iteration, iteration_name
from airls_ray.runs.diagnostics import RunWatch
from airls_ray.runs.early_stop import early_stop
from airls_ray.runs.mirror import Copies, NoCopies
from airls_ray.runs.run_control import RunControl
from airls_ray.runs.run_folder import RunFolder
from airls_ray.runs.trackers import Trackers

if TYPE_CHECKING:
    from actors.cluster.cluster import Refs
    from actors.train.parts import Parts

_ACCURACY = f"{EVALUATION}accuracy"


@dataclass(frozen=True)
class LoopState:
    """Where the loop stands; with the learners' states it is all that a resume needs."""

    iteration: int = 0
    """Iterations done, warm-up included."""
    version: int = 0
    """Policy version: one more at each weight sync."""
    position: int = 0
    """Problems drawn so far."""
    tokens: float = 0.0
    """Response tokens sampled so far."""
    seconds: float = 0.0
    """Seconds of the loop so far, over all sittings."""
    problem_sampler: dict[str, Any] | None = None
    """What a resume needs of the sampler of problems, as a checkpoint has it; None: nothing."""

    def advanced(self, version: int, position: int, tokens: float) -> LoopState:
        """The state after one more iteration."""
        return replace(
            self,
            iteration=self.iteration + 1,
            version=version,
            position=position,
            tokens=self.tokens + tokens,
            problem_sampler=None,
        )


class Stopwatch:
    """Seconds of every stage of an iteration."""

    def __init__(self, on_stage: Callable[[str], None] | None = None) -> None:
        """Start; `on_stage` is told the name of every stage that begins."""
        self._start = time.perf_counter()
        self._on_stage = on_stage
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to `stage`."""
        if self._on_stage is not None:
            self._on_stage(stage)
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def metrics(self) -> dict[str, float]:
        """`time/<stage>` for every stage and `time/iteration` for all of it."""
        return {f"time/{stage}": s for stage, s in self.seconds.items()} | {"time/iteration": self.total()}


class Shown:
    """The progress display of the loop, which can also be set back."""

    def __init__(self, bar: Track, iteration: int) -> None:
        """`iteration`: what the display shows now."""
        self._bar, self._iteration = bar, iteration

    def go_to(self, iteration: int, **fields: Any) -> None:
        """Show that so many iterations are done."""
        if iteration != self._iteration:
            self._bar.advance(iteration - self._iteration, **fields)
            self._iteration = iteration


class Tracker:
    """Writes an iteration's results and checkpoints when they are due."""

    def __init__(
        self,
        run: RunFolder,
        config: Config,
        bar: Shown,
        say: Callable[[str], None] | None = None,
        control: RunControl | None = None,
        monitor: Monitor | None = None,
        rebuilds: int = 0,
        copies: Copies | None = None,
        stop: StopSignals | None = None,
        trackers: Trackers | None = None,
    ) -> None:
        """Begin to follow a run.

        Args:
            run: where everything is written.
            config: of the run.
            bar: the progress display of the loop.
            say: prints a warning (none are printed without).
            control: the run's status, if it has one.
            monitor: shows the metrics on Ray's Prometheus endpoint (none are shown without).
            rebuilds: times that the learners were built again before.
            copies: where checkpoints are copied to.
            stop: says when the run is to end early.
            trackers: programs of others that are told the metrics.
        """
        self._control = control
        self._monitor = monitor or NoMonitor()
        self._rebuilds = rebuilds
        self._run = run
        self._copies: Copies = copies or NoCopies()
        self._say = say
        earlier = run.read_metrics()
        self._watch = RunWatch(earlier)
        self._config = config
        self._measured = [self._of_best(line) for line in earlier]
        self._bar = bar
        self._last = config.iterations
        self._stop = stop or StopSignals()
        self._trackers = trackers or Trackers((), lambda _: None)
        self._whole: tuple[LoopState, Parts] | None = None
        self._draining: frozenset[str] = frozenset()

    @contextmanager
    def whole(self, state: LoopState, parts: Parts) -> Iterator[None]:
        """The learners are in `state` until the block learns; an interrupt or the run's end before that saves
        it. Where a process is lost, the run goes on from the last checkpoint."""
        self._whole = (state, parts)
        self._stop.learning = False
        try:
            yield
        except KeyboardInterrupt:
            if not self._stop.learning:
                self._save_and_stop(state, parts)
            raise
        except UserError as error:
            if not (self._stop.learning or isinstance(error, ProcessLost)):
                self._keep_if_possible(state, parts)
            raise

    def _save_and_stop(self, state: LoopState, parts: Parts) -> NoReturn:
        """End the run with what can be saved: whoever stops it wants no learner rebuilt for that."""
        self._keep_if_possible(state, parts)
        raise KeyboardInterrupt

    def _keep_if_possible(self, state: LoopState, parts: Parts) -> None:
        """As `_keep`, where the run ends in any case."""
        try:
            self._keep(state, parts)
        except RunError as error:
            if self._say is not None:
                self._say(f"Iteration {state.iteration} could not be saved: {error}")

    def _keep(self, state: LoopState, parts: Parts) -> None:
        """Write a checkpoint of a state that has none yet."""
        latest = self._run.latest_checkpoint()
        if state.iteration and (latest is None or checkpoint_iteration(latest) != state.iteration):
            self.checkpoint(state, parts)

    def record(
        self,
        state: LoopState,
        metrics: dict[str, float],
        *,
        phase: str,
        rollouts: Refs,
        grades: Any,
        parts: Parts,
        scores: Refs | None = None,
    ) -> LoopState:
        """Log one iteration; returns the state with its seconds added."""
        tokens = metrics.pop("rollout/response_tokens")
        metrics["tokens_per_second/rollout"] = tokens / metrics["time/rollout"]
        metrics["policy/version"] = float(state.version)
        metrics["learners/rebuilds"] = float(self._rebuilds)
        metrics |= self._copies.metrics() | self._trackers.counts()
        self._check_sync(metrics)
        state = replace(state, seconds=state.seconds + metrics["time/iteration"])
        self._run.log_metrics(state.iteration, metrics, phase=phase)
        self._monitor.record(state.iteration, metrics, phase)
        self._trackers.metrics(state.iteration, metrics)
        self._measured.append(self._of_best({"iteration": state.iteration, **metrics}))
        self._say_if_stopped()
        for finding in self._watch.see({"phase": phase, **metrics}):
            self._run.log_warning(state.iteration, finding.kind, finding.sentence)
            if self._say is not None:
                self._say(f"Warning at iteration {state.iteration}: {finding.sentence}")
        failed = failed_labels(metrics)
        if failed or metrics.get(f"grade/{RAISED}_share"):
            kind = "reward_failed" if failed else "grader_raised"
            for text in parts.verifier.call("complaints"):
                self._run.log_warning(state.iteration, kind, text)
                if self._say is not None:
                    self._say(f"Warning at iteration {state.iteration}: {text}")
        last = self.over(state)
        if state.iteration % self._config.train.rollouts_every == 0 or state.iteration == 1 or last:
            self._run.write_rollouts(state.iteration, graded_table(rollouts, grades, scores))
        if state.iteration % self._config.train.checkpoint_every == 0 or last:
            self.checkpoint(state, parts)
        self._bar.go_to(state.iteration, **_shown(state.iteration, metrics, phase))
        if self._control is not None:
            self._control.say(
                iteration=state.iteration,
                outcome=metrics["outcome/mean"],
                tokens_per_second=metrics["tokens_per_second/rollout"],
                workers=parts.pool.fleet.counts(),
            )
        if self._stop.asked:
            self._save_and_stop(state, parts)
        return state

    def over(self, state: LoopState) -> bool:
        """Whether this was the last iteration: of all, or by `train.patience`."""
        return state.iteration >= self._last or early_stop(self._config, self._measured) is not None

    def _of_best(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """What `early_stop` reads of a line, as metrics.jsonl has it."""
        metric = self._config.train.best_metric
        return {"iteration": line["iteration"], metric: files.finite(line.get(metric))}

    def _say_if_stopped(self) -> None:
        stop = early_stop(self._config, self._measured)
        if stop is not None and self._say is not None:
            self._say(stop.sentence)

    def stage(self, name: str) -> None:
        """A stage of the iteration begins."""
        self._stop.stage(name)
        if not self._stop.learning and self._whole is not None and self._more_drains():
            self._keep(*self._whole)
        self._monitor.stage(name)
        if self._control is not None:
            self._control.say(phase=name)

    def _more_drains(self) -> bool:
        """Whether a node is about to go that was not before: what is on it may be lost in a minute."""
        draining = placement.nodes().draining if cluster.is_connected() else frozenset()
        more = draining - self._draining
        self._draining = draining
        if more and self._say is not None:
            self._say(f"A node is drained ({', '.join(sorted(more))[:100]}), so a checkpoint is due")
        return bool(more)

    def _check_sync(self, metrics: dict[str, float]) -> None:
        """The engine's log-probabilities and the learner's own must agree after every sync."""
        difference = metrics.get("sync/logprob_difference_mean")
        train, tolerance = self._config.train, self._config.sync_tolerance
        fresh = train.max_staleness == 0  # older weights are what an asynchronous run samples with
        # NaN is not within it either.
        if difference is not None and fresh and train.sync_check and not difference <= tolerance:
            raise RunError(
                f"the engine's log-probabilities differ from the learner's by {difference:.2g} nats, more "
                f"than train.sync_tolerance ({tolerance:g}): the engines sample with other "
                "weights or another formula than the learner trains; check the weight transfer, or set "
                "train.sync_check=false"
            )

    def checkpoint(self, state: LoopState, parts: Parts) -> None:
        """Write models in Hugging Face format and the states that a resume needs."""
        with self._run.checkpoint_folder(state.iteration) as folder:
            folder = folder.resolve()
            parts.policy.save(str(folder / "policy"), str(folder / "state" / "policy"))
            parts.prm.save(str(folder / "prm"), str(folder / "state" / "prm"))
            fields = asdict(replace(state, problem_sampler=parts.problems.saved(state.iteration)))
            if fields["problem_sampler"] is None:  # as earlier versions wrote and read it
                del fields["problem_sampler"]
            (folder / "state" / "loop.json").write_text(json.dumps(fields) + "\n")
        self._copies.checkpoint(self._run.checkpoints_folder / iteration_name(state.iteration))


def read_state(checkpoint: Path) -> LoopState:
    """The loop's state in a checkpoint.

    Raises:
        RunError: the file is missing or broken.
    """
    path = checkpoint / "state" / "loop.json"
    try:
        return LoopState(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{path} is missing or broken, so the run cannot be resumed from {checkpoint.name}: delete that "
            "checkpoint to resume from the one before"
        ) from error


def graded_table(rollouts: Refs, grades: Any, scores: Refs | None = None) -> pa.Table:
    """Rollouts with their outcomes filled in, and labels and rewards beside them, as they are saved.

    With `scores` (references to STEP_SCORES, none without a PRM) also answers, step truths and the scores,
    for the report.
    """
    tables = resolve([*rollouts, grades])
    table, graded = pa.concat_tables(tables[:-1]), tables[-1]
    column = table.schema.get_field_index("outcome")
    table = table.set_column(column, table.schema.field(column), graded["outcome"])
    for name in added_columns(graded):
        table = table.append_column(name, graded[name])
    if scores is not None:
        for name in ("answer", "step_truth", "status"):
            table = table.append_column(name, graded[name])
        if scores:
            table = table.append_column("scores", merge_parts(resolve(scores))["scores"])
    return table


def _shown(iteration: int, metrics: dict[str, float], phase: str) -> dict[str, Any]:
    """What the progress line shows; the accuracy stays there, so it says of which iteration it is."""
    shown: dict[str, Any] = {"outcome": f"{metrics['outcome/mean']:.2f}"}
    if _ACCURACY in metrics:
        shown["held-out accuracy"] = f"{metrics[_ACCURACY]:.3f} at {iteration}"
    if "prm/step_auroc" in metrics:
        shown["PRM step AUROC"] = f"{metrics['prm/step_auroc']:.3f}"
    shown["tokens/s"] = f"{metrics['tokens_per_second/rollout']:.0f}"
    shown["phase"] = phase
    return shown
