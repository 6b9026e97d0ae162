"""Before, during and after training: test samples, accuracies, Best-of-N by the PRM; summary and report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.cluster import cluster
from actors.rollout.rollout_worker import RolloutRequest
from actors.train.tracking import LoopState, graded_table
from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress
from airls_ray.data.schemas import GRADES, ROLLOUTS, conform
from airls_ray.errors import DataError
from airls_ray.runs.best_metric import EVALUATION
from airls_ray.runs.early_stop import early_stop
from airls_ray.runs.run_folder import RunFolder
from airls_ray.seeding import derive_seed
from airls_ray.truncation import WHOLE, Truncation
from airls_ray.version import versions

if TYPE_CHECKING:
    from actors.cluster.cluster import Refs
    from actors.cluster.starting import Starting
    from actors.learn.groups import Scorer
    from actors.train.parts import Parts
    from actors.verify.verifier_handle import VerifierHandle


_SHOWN = 4
_MARKS = {True: " ✓", False: " ✗", None: ""}


@dataclass(frozen=True)
class Samples:
    """Test samples of one policy: references to rollouts and grades, and what they say of it."""

    name: str
    problems: pa.Table
    rollouts: Refs
    grades: Any
    accuracy: dict[str, float]


class Sampler(Protocol):
    """The rollout pool; in the asynchronous loop the stream that owns it."""

    def generate(self, problems: pa.Table, request: RolloutRequest) -> Refs:
        """References to the rollouts of all problems, in group order."""
        ...


class Drawn(NamedTuple):
    """Samples of some of the problems."""

    problems: pa.Table
    rollouts: Refs
    greedy: Refs


def draw(
    sampler: Sampler,
    problems: pa.Table,
    request: Callable[[int], RolloutRequest],
    size: int,
    *,
    greedy: bool,
) -> Iterator[Drawn]:
    """Sample `size` problems a call.

    Args:
        sampler: who samples.
        problems: PROBLEMS.
        request: how, by the number of a call's first problem.
        size: problems of a call.
        greedy: give each problem one greedy response, too.
    """
    for start in range(0, problems.num_rows, size):
        chunk, asked = problems.slice(start, size), request(start)
        rollouts = sampler.generate(chunk, asked)
        best = replace(asked, samples=1, temperature=0.0, truncation=WHOLE)
        alone = sampler.generate(chunk, best) if greedy else []
        yield Drawn(chunk, rollouts, alone)


def evaluate_now(parts: Parts, config: Config, sampler: Sampler) -> dict[str, float]:
    """Metrics of the policy that the workers hold and of the PRM as it is, on the run's held-out problems.

    The seeds depend on the problem and the sample alone, so that the same weights give the same samples, and
    no other draw depends on them.
    """
    asked, train, problems = config.train.evaluation, config.train, parts.held_out
    assert problems is not None
    temperature = config.rollout.temperature if asked.temperature is None else asked.temperature
    seed = derive_seed(config.seed, "evaluation")

    def request(start: int) -> RolloutRequest:
        return RolloutRequest(asked.samples, temperature, seed, (), start, Truncation.of(config.rollout))

    # As many rollouts a call as in an iteration, for which rollout.deadline_seconds is meant.
    size = max(1, train.problems_per_iteration * train.rollouts_per_problem // asked.samples)
    rollouts: Refs = []
    greedy: Refs = []
    for drawn in draw(sampler, problems, request, size, greedy=asked.greedy):
        rollouts += drawn.rollouts
        greedy += drawn.greedy
    grades = parts.verifier.grade(rollouts, problems)
    metrics: dict[str, float] = parts.verifier.call("evaluate", rollouts, grades, parts.prm.score(rollouts))
    if greedy:
        metrics[f"{EVALUATION}greedy"] = _mean_outcome(parts.verifier.grade(greedy, problems))
    return metrics


def evaluate_policy(
    parts: Parts,
    config: Config,
    problems: pa.Table,
    run: RunFolder,
    progress: Progress,
    *,
    name: str,
    resume: bool,
) -> Samples:
    """Sample the test problems with the policy that the workers hold; at a resume, read what was kept.

    What is gone then cannot be sampled again as it was: that is a warning of the run.
    """
    folder = run.path / "samples"
    kept = folder / f"{name}.parquet", folder / f"{name}_grades.parquet", folder / f"{name}.json"
    found = read_kept(*kept) if resume else None
    if found is None:
        if resume:
            sentence = (
                f"the samples of the {name} policy in {folder} are missing or broken, and the workers have "
                f"the checkpoint's policy by now: what the run says of the {name} policy is said of that one"
            )
            run.log_warning(0, "samples_gone", sentence)  # of no iteration, which a rebuild could drop
            progress.say(f"Warning: {sentence}")
        samples = sample_problems(
            parts.pool, parts.verifier, problems, config, progress, name, meanwhile=parts.starting
        )
        kept[2].unlink(missing_ok=True)  # written last, it says that the others are there
        tables = graded_table(samples.rollouts, samples.grades), cluster.resolve([samples.grades])[0]
        for path, table in zip(kept[:2], tables, strict=True):
            with files.replacing(path) as temporary:
                pq.write_table(table, temporary)
        files.write_text(kept[2], json.dumps(samples.accuracy) + "\n")
        found = read_kept(*kept)
        assert found is not None
    rollouts, grades, accuracy = found
    # The driver's own copies: those of the workers may go with their nodes before the run's end.
    return Samples(name, problems, [cluster.put(rollouts)], cluster.put(grades), accuracy)


def read_kept(
    rollouts: Path, grades: Path, accuracy: Path
) -> tuple[pa.Table, pa.Table, dict[str, float]] | None:
    """Return the samples that a run has left in these files; None where one is missing or broken."""
    try:
        known = files.read_json(accuracy, dict)
        tables = conform(pq.read_table(rollouts), ROLLOUTS), conform(pq.read_table(grades), GRADES)
    except (OSError, ValueError, pa.ArrowException, DataError):
        return None
    return None if known is None else (*tables, known)


def sample_problems(
    pool: Sampler,
    verifier: VerifierHandle,
    problems: pa.Table,
    config: Config,
    progress: Progress,
    name: str,
    meanwhile: Starting | None = None,
) -> Samples:
    """Draw `search.samples` samples and one greedy one for each problem, and grade them.

    `meanwhile`: learners that are coming up; one that fails is not found out only at the end.
    """
    rollouts: Refs = []
    greedy: Refs = []
    search = config.search

    def request(start: int) -> RolloutRequest:
        path, cut = ("search", start), Truncation.of(search)
        return RolloutRequest(search.samples, search.temperature, config.seed, path, start, cut)

    with progress.track(f"Sampling the {name} policy", problems.num_rows) as bar:
        for drawn in draw(pool, problems, request, search.problems_per_call, greedy=True):
            if not rollouts:
                show_rollouts(drawn.rollouts, drawn.problems, verifier, progress, name)
            rollouts += drawn.rollouts
            greedy += drawn.greedy
            bar.advance(drawn.problems.num_rows)
            if meanwhile is not None:
                meanwhile.poll()
    grades = verifier.grade(rollouts, problems)
    accuracy = {
        "sampled": _mean_outcome(grades),
        "greedy": _mean_outcome(verifier.grade(greedy, problems)),
    }
    return Samples(name, problems, rollouts, grades, accuracy)


def show_rollouts(
    rollouts: Refs, problems: pa.Table, verifier: VerifierHandle, progress: Progress, name: str
) -> None:
    """Print a few of the first rollouts, each step marked right or wrong where the task knows."""
    grades = verifier.grade(rollouts, problems)
    progress.say(f"Some rollouts of the {name} policy:")
    for example in verifier.call("examples", rollouts, grades, [], problems, name)[:_SHOWN]:
        steps = " ".join(step["text"].strip() + _MARKS[step["truth"]] for step in example["steps"])
        verdict = "right" if example["outcome"] > 0.5 else "wrong"
        progress.say(f"  {verdict}  {example['prompt'].strip()[:200]}  {steps[:400]}")


def _mean_outcome(grades: Any) -> float:
    return float(np.mean(cluster.resolve([grades])[0]["outcome"].to_numpy()))


def measure_samples(
    samples: Samples, prm: Scorer, verifier: VerifierHandle, run: RunFolder
) -> dict[str, Any]:
    """AUROCs, search curves and examples of one policy's samples under the PRM as it is now.

    The samples in the run folder get answers and scores, so that `airls-ray aggregate` can read them.
    """
    scores = prm.score(samples.rollouts)
    keep_scores(run.path / "samples" / f"{samples.name}.parquet", samples, scores)
    arguments = (samples.rollouts, samples.grades, scores)
    return {
        "scorers": verifier.call("measure", *arguments) | verifier.call("first_errors", *arguments),
        "search": verifier.call("search", *arguments),
        "examples": verifier.call("examples", *arguments, samples.problems, samples.name),
    }


def keep_scores(path: Path, samples: Samples, scores: Refs) -> None:
    """Add answer, log-probability and (where there is a PRM) step scores to the file of the samples."""
    kept, grades = pq.read_table(path), cluster.resolve([samples.grades])[0]
    columns = {
        "answer": grades["answer"],
        "log_prob": pa.array([sum(row) for row in kept["logprobs"].to_pylist()], pa.float64()),
    }
    if scores:
        columns["scores"] = pa.concat_tables(cluster.resolve(scores)).sort_by("row")["scores"]
    for name, column in columns.items():
        kept = kept.drop_columns([name] if name in kept.column_names else []).append_column(name, column)
    with files.replacing(path) as temporary:
        pq.write_table(kept, temporary)


def finish_run(
    parts: Parts,
    config: Config,
    run: RunFolder,
    state: LoopState,
    before: Samples,
    after: Samples,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Score both policies' samples with the trained PRM; write summary, examples and report."""
    from airls_ray.report import write_report

    measured = {s.name: measure_samples(s, parts.prm, parts.verifier, run) for s in (before, after)}
    trained = measured["trained"]["scorers"]
    summary: dict[str, Any] = {
        "name": config.name,
        "method": config.method.name,
        "task": config.task.name,
        "seed": config.seed,
        "accuracy": {"base": before.accuracy, "trained": after.accuracy},
        "search": by_size(measured["trained"]["search"].curves),
        "search_base": by_size(measured["base"]["search"].curves),
        "search_problems": after.problems.num_rows,
        "policy_log_prob": scorer_metrics("policy_log_prob", trained),
        "policy_log_prob_base": scorer_metrics("policy_log_prob", measured["base"]["scorers"]),
        "tokens": int(state.tokens),
        "iterations": state.iteration,
        "rollouts": rollouts_sampled(run.read_metrics(), config),
        "seconds": {**seconds, **_earlier_seconds(run.path)},
        "warnings": run.read_warnings(),
        "versions": versions(),
        "kernels": parts.kernels,
    }
    if stop := early_stop(config, run.read_metrics()):
        summary["stopped_early"] = stop.record()
    if config.uses_prm:
        summary["prm"] = scorer_metrics("prm", trained)
        summary["prm_base"] = scorer_metrics("prm", measured["base"]["scorers"])
    summary["seconds"]["total"] = sum(summary["seconds"].values())
    run.write_summary(summary)
    run.write_examples(measured["trained"]["examples"] + measured["base"]["examples"])
    write_report(run.path)
    return summary


def rollouts_sampled(lines: Sequence[Mapping[str, Any]], config: Config) -> int:
    """Rollouts of all iterations, from their metrics; those of groups that were replaced count, too."""
    train = config.train
    groups = sum(line.get("groups/sampled", train.problems_per_iteration) for line in lines)
    return int(groups) * train.rollouts_per_problem


def scorer_metrics(name: str, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of one scorer without its prefix."""
    return {
        key.removeprefix(f"{name}/"): value for key, value in metrics.items() if key.startswith(f"{name}/")
    }


def by_size(curves: dict[str, dict[int, float]]) -> dict[str, dict[str, float]]:
    """The curves with their sizes as JSON's keys."""
    return {way: {str(size): value for size, value in curve.items()} for way, curve in curves.items()}


def _earlier_seconds(run: Path) -> dict[str, float]:
    """Seconds of the installation and of the warm start, where they were recorded."""
    seconds: dict[str, float] = {}
    stamp = Path(".venv") / "install_seconds"
    if stamp.exists():
        seconds["install"] = float(stamp.read_text())
    warm_start = run / "sft" / "sft.json"
    if warm_start.exists():
        seconds["sft"] = float(json.loads(warm_start.read_text())["seconds"])
    return seconds
