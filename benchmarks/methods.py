"""All methods from the same base policy at equal rollouts, with their PRMs and ablations."""

from __future__ import annotations

import json
import time
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import airls_vs_grpo
import common
import method_rates
import methods_table
import typer
from method_variants import (
    ABLATIONS,
    METHODS,
    PRM_CONFIGS,
    PUZZLES,
    SMALL_PRM,
    Variant,
    config_path,
    overrides_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.runs.run_folder import RunFolder

FOLDER = common.RUNS / "methods"
RECORDS = common.RESULTS / "methods_runs.jsonl"
"""A line a finished run, committed: the benchmark goes on from it on any machine."""
TASKS = ("arithmetic", "countdown")
SEEDS = 3
ITERATIONS = {"arithmetic": 60, "countdown": 40, **dict.fromkeys(PUZZLES, 40)}
"""Of every run, PRM warm-up included: 15,360 and 20,480 rollouts, and 10,240 of the puzzles."""
_SAMPLING = ("problems", "samples", "temperature", "top_p", "top_k", "min_p", "problems_per_call")
_NO_LORA = {
    "rank": 0,
    "alpha": 32.0,
    "dropout": 0.0,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
_LEARNERS = ("policy", "prm.learner", "sft.learner")
_NEWER = (
    ("rollout", "shares_per_worker", 1),
    ("rollout", "interruptible", False),
    ("train", "max_staleness", 0),
    ("method", "sequence_mask", 0.0),
    ("rollout.engine", "metrics", False),
    *((learner, "offload_optimizer", False) for learner in _LEARNERS),
    *((learner, "lora", _NO_LORA) for learner in _LEARNERS),
    *((learner, "logit_chunk_mib", 512) for learner in _LEARNERS),
    *((learner, "optimizer", "adamw") for learner in _LEARNERS),
    ("policy", "lr_decay_updates", 0),
    ("policy", "compile", False),
    ("prm.learner", "lr_decay_updates", 0),
    ("prm.learner", "compile", False),
    ("sft.learner", "lr_decay_updates", 0),
    ("sft.learner", "compile", False),
    ("sft", "detour_share", 0.0),
    ("prm", "discriminator", "airl"),
    ("model", "vocabulary", 0),
    ("train", "keep_best", 0),
    ("train", "best_metric", "outcome/mean"),
    ("train", "storage", None),
    ("train", "storage_deadline_seconds", 600.0),
    ("task", "train_numbers", []),
    ("task", "hold_out_files", []),
    ("model", "attention", "auto"),
    ("method", "step_scale", "none"),
    ("method", "kl_estimator", "k3"),
    ("prm", "score_by", "updated"),
    ("train", "grace_seconds", 60.0),
    ("train", "trackers", []),
    ("train", "problem_sampler", {"name": "in_order", "label": "", "options": {}, "window": None}),
    ("task", "reward", []),
    ("train", "evaluate_every", 0),
    ("train", "patience", 0),
    (
        "train",
        "evaluation",
        {"problems": 100, "skip": 0, "samples": 4, "temperature": None, "greedy": False},
    ),
    ("model", "chat_template_kwargs", {}),
    *((section, "top_p", 1.0) for section in ("rollout", "search")),
    *((section, "top_k", 0) for section in ("rollout", "search")),
    *((section, "min_p", 0.0) for section in ("rollout", "search")),
    ("method", "policy_loss", "clipped"),
    ("method", "step_transforms", []),
    ("method", "outcome_terms", []),
    ("method", "row_filters", []),
    ("prm", "distillation_scale", 1.0),
    ("method", "outcomes", "graded"),
    ("train", "refill_rounds", 0),
    ("reference", "path", None),
    ("method", "separate_rewards", False),
    ("method", "pass_at_k", 4),
    ("prm", "head", "linear"),
    ("prm", "shares", 1),
    ("prm", "outcome_head", None),
    ("rollout.engine", "lora", "merged"),
)
"""Section, field and default of settings that are younger than the first records."""
SUPERVISED = Variant("sft", "supervised on the same traces")
SUPERVISED_RATE = 2.0e-4
"""The best of three in `airls_vs_grpo.py`."""


def main(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, ...")] = SEEDS,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Only this task (may be repeated); the puzzles of reasoning-gym, too."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this variant (may be repeated).")] = None,
    ablations: Annotated[bool, typer.Option(help="Run the ablations, too (first task only).")] = True,
    iterations: Annotated[
        int | None,
        typer.Option(min=4, help="Iterations of every run, PRM warm-up included; by default 60 and 40."),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Start no further run after this many minutes.")] = 1e9,
) -> None:
    """Train every method from the same base policy and compare accuracies and PRMs.

    Many hours on two cores; interrupted, the same command goes on from `methods_runs.jsonl`. Methods first,
    seed by seed, then the ablations. The table is written after every run.
    """
    common.use_all_cores()
    from actors.train.start import connected
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    until = time.monotonic() + 60 * minutes
    tasks = task or list(TASKS)
    wanted = [(name, seed, one) for seed in range(seeds) for name in tasks for one in (SUPERVISED, *METHODS)]
    if ablations:
        wanted += [(tasks[0], seed, one) for seed in range(seeds) for one in ABLATIONS]
    if only:
        wanted = [(name, seed, one) for name, seed, one in wanted if one.name in only]
    records = read_records()
    configs = {(name, seed, one.name): run_config(name, seed, one, iterations) for name, seed, one in wanted}
    missing = [key for key in wanted if key_of(configs[key[0], key[1], key[2].name]) not in records]
    progress.say(f"{len(wanted)} runs, of which {len(missing)} are missing")
    if missing:
        with connected(load_config(config_path(tasks[0])), keep=True):
            for number, (name, seed, one) in enumerate(missing):
                if time.monotonic() > until:
                    progress.say(f"{len(missing) - number} runs are left for another time")
                    break
                progress.say(f"Run {number + 1} of {len(missing)}: {one.label} on {name}, seed {seed}")
                record = run(name, seed, one, configs[name, seed, one.name], progress)
                append_record(record)
                methods_table.write(current_records(seeds, iterations), iterations, progress, show=False)
    methods_table.write(current_records(seeds, iterations), iterations, progress, show=True)


def read_records() -> dict[str, dict[str, Any]]:
    """Finished runs by key."""
    lines = RECORDS.read_text().splitlines() if RECORDS.exists() else []
    records = [json.loads(line) for line in lines]
    return {record["key"]: record for record in records}


def current_records(
    seeds: int, iterations: int | None, tasks: Sequence[str] = (*TASKS, *PUZZLES)
) -> dict[str, dict[str, Any]]:
    """Finished runs of the settings as they are now; those of earlier settings stay in the file alone."""
    variants = (SUPERVISED, *METHODS, *ABLATIONS)
    keys = {
        key_of(run_config(task, seed, one, iterations))
        for task in tasks
        for seed in range(max(seeds, SEEDS))  # those of a shorter call stay in the table
        for one in variants
    }
    return {key: record for key, record in read_records().items() if key in keys}


def append_record(record: dict[str, Any]) -> None:
    """Add a line."""
    RECORDS.parent.mkdir(parents=True, exist_ok=True)
    with RECORDS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, separators=(",", ":")) + "\n")


def run_config(
    task: str, seed: int, one: Variant, iterations: int | None, more: Sequence[str] = ()
) -> Config:
    """Configuration of a run; the base policy and the PRM are filled in when it starts.

    `more` overrides come last; the learning rate that `method_rates.py` chose comes before them.
    """
    from airls_ray.config import load_config

    overrides = [
        "prm.shares=1",  # as all records but those of the ablation on it
        *overrides_of(one),
        *method_rates.chosen(task, one.name),
        *more,
        f"name={one.name}_seed_{seed}",
        f"seed={seed}",
        f"output={FOLDER / task}",
    ]
    config = load_config(config_path(task), overrides)
    total = iterations or ITERATIONS[task]
    learning = {"iterations": total - config.warmup_iterations, "keep_checkpoints": 1}
    return config.model_copy(update={"train": config.train.model_copy(update=learning)})


def key_of(config: Config) -> str:
    """Task, variant, seed and a digest of all settings that decide the result."""
    tree = config.model_dump(mode="json")
    for where in ("name", "output", "ray", "verifier", "supervised_prm", "serve", "failures", "self_train"):
        tree.pop(where)
    tree["model"].pop("path"), tree["prm"].pop("path")
    for section, name, default in _NEWER:
        fields = reduce(dict.__getitem__, section.split("."), tree)
        if fields.get(name) == default:  # it changes nothing
            del fields[name]
    if config.method.prm_objective.name != "repirl" or config.prm.repirl.weight_scope == "batch":
        del tree["prm"]["repirl"]["weight_scope"]  # the older runs of rePIRL had all problems in one
    if config.train.sync_tolerance is None:
        tree["train"]["sync_tolerance"] = config.sync_tolerance
    # Of the search only what the samples before and after training depend on.
    tree["search"] = {name: tree["search"][name] for name in _SAMPLING if name in tree["search"]}
    return f"{config.task.name}/{config.name}/{common.digest(json.dumps(tree, sort_keys=True))}"


def run(task: str, seed: int, one: Variant, config: Config, progress: Progress) -> dict[str, Any]:
    """Train by one variant; returns its record."""
    if one.name == SUPERVISED.name:
        return run_supervised(task, seed, config, base_policy(task, progress), progress)
    summary, made, cost = trained(task, one, config, progress)
    return {
        "key": key_of(config),
        "task": task,
        "variant": one.name,
        "seed": seed,
        **figures(summary, made),
        **({"labels": cost} if cost else {}),
    }


def trained(
    task: str, one: Variant, config: Config, progress: Progress
) -> tuple[dict[str, Any], RunFolder, dict[str, Any]]:
    """Train, or go on; returns the run's summary, its folder and what the labels of its PRM cost."""
    from actors.train.launch import run_training
    from airls_ray.runs.run_folder import RunFolder

    base = base_policy(task, progress)
    changes: dict[str, Any] = {"model": config.model.model_copy(update={"path": str(base)})}
    cost: dict[str, Any] = {}
    if one.needs_prm:
        folder, cost = labelled_prm(task, base, progress)
        changes["prm"] = config.prm.model_copy(update={"path": str(folder)})
    if one.small_prm:
        changes["prm"] = config.prm.model_copy(update={"path": str(base_policy(task, progress, SMALL_PRM))})
    changes["output"] = config.output / key_of(config).rpartition("/")[2]  # each setting has its own folder
    ready = config.model_copy(update=changes)
    made = RunFolder(ready.output / ready.name)
    return made.read_summary() or run_training(ready, resume=made.config_file.exists()), made, cost


def run_supervised(task: str, seed: int, config: Config, base: Path, progress: Progress) -> dict[str, Any]:
    """Continue supervised training on the traces that the other runs see, one update an iteration."""
    name = f"supervised on {task}, seed {seed}"
    weights = airls_vs_grpo.supervised_weights(config, str(base), SUPERVISED_RATE, progress, name)
    with airls_vs_grpo.evaluator(config, str(base), progress) as (pool, verifier):
        result = airls_vs_grpo.evaluate(weights, config, pool, verifier, progress)
    return {
        "key": key_of(config),
        "task": task,
        "variant": SUPERVISED.name,
        "seed": seed,
        "accuracy": {"trained": result["accuracy"]},
        "search": {way: curve["16"] for way, curve in result["search"].items()},
        "right_of_16": result["right_of_16"],
        "rollouts": 0,
    }


def figures(summary: dict[str, Any], folder: Any) -> dict[str, Any]:
    """What the table needs of a run."""
    lines = folder.read_metrics()
    kept: dict[str, Any] = {
        key: {name: _round(value) for name, value in summary[key].items()}
        for key in ("prm", "prm_base", "policy_log_prob", "policy_log_prob_base")
        if key in summary
    }
    return {
        "accuracy": summary["accuracy"],
        "search": {way: curve["16"] for way, curve in summary["search"].items()},
        "search_base": {way: curve["16"] for way, curve in summary["search_base"].items()},
        **kept,
        "right_of_16": methods_table.encode_counts(folder.path / "samples" / "trained.parquet"),
        "outcome": [_round(line["outcome/mean"]) for line in lines],
        "seconds_by_iteration": [_round(line["time/iteration"]) for line in lines],
        "rollouts": summary["rollouts"],
        "seconds": _round(summary["seconds"]["train"]),
        "warnings": [warning["kind"] for warning in summary.get("warnings", [])],
    }


def base_policy(task: str, progress: Progress, shape: Sequence[str] = ()) -> Path:
    """The one warm-started policy of a task, from which all runs start (or one of another shape)."""
    from airls_ray.config import load_config

    return common.warm_started_policy(load_config(config_path(task), shape), progress)


def labelled_prm(task: str, base: Path, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """Train the Math-Shepherd PRM once per task; returns its folder and what its labels cost."""
    from actors.commands.train_prm import train_prm
    from airls_ray.config import load_config

    overrides = [
        "prm.parameterisation=scalar_head",
        "prm.search_score=auto",
        "prm.log_prob=auto",
        "prm.search_aggregate=min",
        "supervised_prm.labels=math_shepherd_soft",
    ]
    config = load_config(PRM_CONFIGS[task], overrides)
    folder = FOLDER / task / "math_shepherd"
    file = folder / "train_prm.json"
    summary = json.loads(file.read_text()) if file.exists() else train_prm(config, base, folder, progress)
    labels = {name: value for name, value in summary["labels"].items() if name != "file"}
    return Path(summary["prm_path"]), labels


def _round(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    common.run(main)
