"""AIRL-S beside outcome-only GRPO at equal rollouts and supervised training on the same traces."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import comparison
import typer
from methods_table import counts_text

if TYPE_CHECKING:
    from actors.rollout.rollout_pool import RolloutPool
    from actors.verify.verifier_handle import VerifierHandle
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.weights import WeightBuffer

FOLDER = common.RUNS / "airls_vs_grpo"
SUPERVISED_RATES = (2.0e-4, 5.0e-4, 1.0e-3)
"""Learning rates of supervised training, from the policy learner's to the warm start's; the best is shown."""
SUPERVISED_WARMUP = 10
"""Updates over which its learning rate rises."""
GRPO_VARIANTS: dict[str, tuple[str, ...]] = {
    "grpo_rate_0.0001": ("policy.learning_rate=1.0e-4",),
    "grpo_rate_0.0002_one_update": ("policy.learning_rate=2.0e-4", "method.updates_per_iteration=1"),
}
"""GRPO's own settings; the best is shown. At AIRL-S's 2e-4, with as many updates, it fell from 0.51 to 0.31
in twenty iterations: with outcomes alone a large step rate needs the larger batch of one update."""


def main(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, ...")] = 3,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget earlier runs of this configuration.")
    ] = False,
) -> None:
    """Train all three from the same warm-started policies and compare them on the same test problems.

    Takes about an hour. Interrupted, the same command goes on: finished runs are read again. Runs lie under
    runs/benchmarks/airls_vs_grpo, named by the configuration, so that those of another one never mix in.
    """
    common.use_all_cores()
    from airls_ray.config import load_config
    from airls_ray.config.load import dump_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    demo = load_config(common.CONFIG)
    folder = FOLDER / common.digest(dump_config(demo))
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    bases = [str(common.warm_started_policy(_seeded(seed), progress)) for seed in range(seeds)]
    configs = [run_config(folder, seed, base) for seed, base in enumerate(bases)]
    airl: list[dict[str, Any]] = []
    grpo: dict[str, list[dict[str, Any]]] = {name: [] for name in GRPO_VARIANTS}
    for seed, base in enumerate(bases):
        airl.append(train(configs[seed], progress))
        for name, runs in grpo.items():
            runs.append(train(run_config(folder, seed, base, name), progress))
    supervised = train_supervised(configs, bases, folder / "supervised", progress)
    report(folder, demo, airl, grpo, supervised, progress)


def _seeded(seed: int) -> Config:
    from airls_ray.config import load_config

    return load_config(common.CONFIG, [f"seed={seed}"])


def run_config(folder: Path, seed: int, base: str, grpo: str | None = None) -> Config:
    """Return the demo with a seed, or a GRPO run at equal rollouts: the PRM's warm-up becomes training."""
    from airls_ray.config import load_config

    demo = load_config(common.CONFIG)
    overrides = [
        f"name={grpo or 'airl_s'}_seed_{seed}",
        f"seed={seed}",
        f"output={folder}",
        f"model.path={base}",
        "train.keep_checkpoints=1",
    ]
    if grpo is not None:
        overrides += [
            "method.name=grpo",
            "method.step_weight=0",
            *GRPO_VARIANTS[grpo],
            f"train.iterations={demo.prm.warmup_iterations + demo.train.iterations}",
        ]
    return load_config(common.CONFIG, overrides)


def train(config: Config, progress: Progress) -> dict[str, Any]:
    """Return the summary of a run: the one that is there, or of a run that is started or continued."""
    from airls_ray.runs.run_folder import RunFolder

    run = RunFolder(config.output / config.name)
    summary = run.read_summary()
    if summary:
        progress.say(f"{config.name}: finished before")
        return summary
    from actors.train.launch import run_training

    progress.say(f"{config.name}: {config.derived()['rollouts in all']:,} rollouts")
    return run_training(config, resume=run.config_file.exists())


# ------------------------------------------------------------------------------------- supervised
def train_supervised(
    configs: list[Config], bases: list[str], folder: Path, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Continue supervised training on the traces that the AIRL-S runs saw; results by learning rate and seed.

    One pass, one update per iteration of the loop, from a fresh optimiser as in the loop.
    """
    from airls_ray import files

    wanted = {
        (rate, seed): folder / f"seed_{seed}_rate_{rate:g}.json"
        for rate in SUPERVISED_RATES
        for seed in range(len(configs))
    }
    missing = [key for key, path in wanted.items() if not path.exists()]
    if missing:
        with evaluator(configs[0], bases[0], progress) as (pool, verifier):
            for rate, seed in missing:
                name = f"supervised, seed {seed}, learning rate {rate:g}"
                weights = supervised_weights(configs[seed], bases[seed], rate, progress, name)
                result = evaluate(weights, configs[seed], pool, verifier, progress)
                wanted[rate, seed].parent.mkdir(parents=True, exist_ok=True)
                files.write_text(wanted[rate, seed], files.to_json(result, indent=2) + "\n")
    return {
        f"{rate:g}": [files.read_json(wanted[rate, seed], dict) or {} for seed in range(len(configs))]
        for rate in SUPERVISED_RATES
    }


def supervised_weights(config: Config, base: str, rate: float, progress: Progress, name: str) -> WeightBuffer:
    """Train on the traces of the AIRL-S run's problems, in its order; returns the weights, version 1."""
    from airls_ray.data.problems import ProblemStream
    from airls_ray.learning.engine import TorchEngine
    from airls_ray.learning.supervised import update_on_traces
    from airls_ray.models.load import load_policy_module
    from airls_ray.seeding import derive_seed
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec, encode_traces
    from airls_ray.weights import pack_weights

    changes = {"learning_rate": rate, "lr_warmup_updates": SUPERVISED_WARMUP}
    learner = config.policy.model_copy(update=changes)
    engine = TorchEngine(load_policy_module(base, config.model.dtype), learner)
    task = make_task(config.task)
    codec = TextCodec.from_folder(base, task)
    stream = ProblemStream(task, "train", derive_seed(config.seed, "problems"))
    iterations = config.prm.warmup_iterations + config.train.iterations
    with progress.track(name, iterations) as bar:
        for iteration in range(iterations):
            problems = stream.take(config.train.problems_per_iteration)
            drawn = derive_seed(config.seed, "traces", iteration)
            traces = encode_traces(problems, codec, config.model.context_tokens, drawn)
            bar.advance(1, loss=update_on_traces(engine, traces, learner, pad_id=codec.pad_id)["sft/loss"])
    return pack_weights(engine.named_weights(), version=1)


@contextmanager
def evaluator(config: Config, base: str, progress: Progress) -> Iterator[tuple[RolloutPool, VerifierHandle]]:
    """A rollout pool and a verifier, without learners."""
    from actors.cluster.starting import wait_for_start
    from actors.rollout.rollout_pool import RolloutPool
    from actors.rollout.workers import start_workers
    from actors.train.start import connected, start_verifier
    from actors.verify.verifier_handle import VerifierHandle

    with connected(config, keep=True):
        workers = start_workers(config, base)
        verifier = start_verifier(config, base)
        starting = {"rollout worker": [worker.start.remote() for worker in workers]}
        starting["verifier"] = [verifier.start.remote()]
        wait_for_start(starting, config.ray.start_deadline_seconds, progress)
        handle = VerifierHandle(verifier, config.train.deadline_seconds)
        yield RolloutPool(workers, config.rollout.deadline_seconds), handle
        handle.close()


def evaluate(
    weights: WeightBuffer, config: Config, pool: RolloutPool, verifier: VerifierHandle, progress: Progress
) -> dict[str, Any]:
    """Accuracies and search curves on the run's test problems, with the run's sampling seeds."""
    from actors.cluster import cluster
    from actors.train.evaluate import by_size, sample_problems
    from actors.train.tracking import graded_table
    from airls_ray.data.problems import ProblemStream
    from airls_ray.tasks import make_task

    pool.update_weights(cluster.put(weights))
    problems = ProblemStream(make_task(config.task), "test", config.seed).take(config.search.problems)
    samples = sample_problems(pool, verifier, problems, config, progress, "supervised")
    search = verifier.call("search", samples.rollouts, samples.grades, [])
    table = graded_table(samples.rollouts, samples.grades)
    return {
        "accuracy": samples.accuracy,
        "search": by_size(search.curves),
        "right_of_16": counts_text(table["group"].to_pylist(), table["outcome"].to_pylist()),
    }


# ----------------------------------------------------------------------------------------- report
def report(
    folder: Path,
    demo: Config,
    airl: list[dict[str, Any]],
    grpo_runs: dict[str, list[dict[str, Any]]],
    supervised: dict[str, list[dict[str, Any]]],
    progress: Progress,
) -> None:
    """Print the tables, draw the picture and write both results."""
    by_rate = {key: [run["accuracy"]["sampled"] for run in runs] for key, runs in supervised.items()}
    by_variant = {
        key: [run["accuracy"]["trained"]["sampled"] for run in runs] for key, runs in grpo_runs.items()
    }
    rate, variant = comparison.best_variant(by_rate), comparison.best_variant(by_variant)
    grpo = grpo_runs[variant]
    table = comparison.accuracies(airl, grpo, supervised[rate])
    names = {"airl_s": "airl_s", "grpo": variant}
    curves = {key: outcome_curves(folder, name, len(airl)) for key, name in names.items()}
    last = {key: comparison.last_outcomes(runs) for key, runs in curves.items()}
    prm = comparison.prm_figures(airl)
    checks = comparison.targets(table, prm)
    sides = ("base", "airl_s", "grpo", "supervised")
    progress.table(
        f"Accuracy on test problems: mean (lowest-highest of {len(airl)} seeds)",
        [
            (name, *(_cell(entry.get(side)) for side in sides))
            for name, entry in (*table.items(), ("fresh problems, last 10 iterations", last))
        ],
        ("", "base", "AIRL-S", variant, f"supervised (rate {rate})"),
    )
    progress.table(
        "AUROC against the truth",
        [(name, *(_cell(value) for value in entry.values())) for name, entry in prm.items()],
        ("scorer", "steps", "traces"),
    )
    progress.table(
        "Targets, means over the seeds",
        [(c["name"], c["target"], f"{c['reached']:.3f}", "met" if c["met"] else "MISSED") for c in checks],
        ("", "target", "reached", ""),
    )
    figures = {
        "accuracy": table,
        "outcome_of_last_10_iterations": last,
        "differences": {
            side: comparison.differences(table["sampled"]["airl_s"], table["sampled"][side])
            for side in ("base", "grpo", "supervised")
        },
        "prm": prm,
        "targets": checks,
        "grpo_by_variant": {key: comparison.over_seeds(values) for key, values in by_variant.items()},
        "grpo": variant,
        "supervised_by_learning_rate": {
            key: comparison.over_seeds(values) for key, values in by_rate.items()
        },
        "supervised_learning_rate": float(rate),
        "rollouts_per_run": {"airl_s": airl[0]["rollouts"], "grpo": grpo[0]["rollouts"]},
        "traces_per_run": demo.train.problems_per_iteration
        * (demo.prm.warmup_iterations + demo.train.iterations),
        "test_problems": demo.search.problems,
        "samples_per_problem": demo.search.samples,
        "seconds": {
            name: comparison.over_seeds([run["seconds"]["train"] for run in runs])
            for name, runs in (("airl_s", airl), ("grpo", grpo))
        },
    }
    path = common.write_result("airls_vs_grpo", figures)
    comparison.draw(path.with_suffix(".png"), curves, table, demo.prm.warmup_iterations)
    progress.say(f"written to {path} and {path.with_suffix('.png').name}")


def outcome_curves(folder: Path, name: str, seeds: int) -> list[comparison.Curve]:
    """Mean outcome by iteration, one curve a seed."""
    from airls_ray.runs.run_folder import RunFolder

    runs = [RunFolder(folder / f"{name}_seed_{seed}") for seed in range(seeds)]
    return [{line["iteration"]: line["outcome/mean"] for line in run.read_metrics()} for run in runs]


def _cell(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else f"{entry['mean']:.3f} ({entry['min']:.3f}-{entry['max']:.3f})"


if __name__ == "__main__":
    common.run(main)
