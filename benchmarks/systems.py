"""The neighbouring systems of docs/systems.md that train a policy, each at a small equal budget.

    one base policy of a task -> GRPO, AIRL-S, and each system on top of one of them -> sampled accuracy,
    response length, AUROC of the PRM within problems

Small: what a system does to a run is seen, not which one is best. Searches are compared by `search_curves.py`
and `puzzle_search.py`, which take every algorithm; labels and losses of PRMs by `prm_baselines.py`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import common
import methods
import methods_table
import typer
from method_variants import Variant, config_path, overrides_of, variant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

RECORDS = common.RESULTS / "systems_runs.jsonl"
TASKS = ("arithmetic", "countdown")
"""One right way, and many."""
SEEDS = 3
"""Most that the table looks for."""
ITERATIONS = 24
RATE = ("policy.learning_rate=1.0e-4", "prm.warmup_iterations=4")
"""Of every run; a warm-up is part of the iterations."""
FOUR = ("method.updates_per_iteration=4",)
PROBABILITY = ("prm.reward=probability",)
TEACHER = (
    "prm.reward=distillation",
    "prm.action=token",
    "prm.reward_unit=token",
    "prm.parameterisation=log_prob",
    "method.step_weight=1.0",
    "method.step_baseline=none",
    "method.step_return=immediate",
    "method.updates_per_iteration=1",
)
"""What a task's configuration sets for AIRL-S, as a distillation has it."""

SYSTEMS: tuple[Variant, ...] = (
    Variant("grpo", "GRPO", of="grpo"),
    Variant("airl_s", "AIRL-S", of="airl_s"),
    Variant(
        "clip_delta",
        "clip and delta",
        (
            "method.step_transforms=[{name: clip, options: {threshold: 0.0}}, delta]",
            "method.step_return=to_go",
            "method.return_per_step=false",
        ),
        "airl_s",
    ),
    Variant("gated", "G-RA, gated steps", ("method.step_transforms=[gated]",), "airl_s"),
    Variant("renorm", "PPR's ReNorm", (*PROBABILITY, "method.step_transforms=[renorm]"), "airl_s"),
    Variant(
        "capo",
        "CAPO by the PRM",
        (
            *PROBABILITY,
            "method.step_transforms=[capo]",
            "method.step_weight=1.0",
            "method.step_return=immediate",
        ),
        "airl_s",
    ),
    Variant("prof", "PROF", ("method.row_filters=[prof]", "method.step_weight=0.0"), "airl_s"),
    Variant(
        "kimi_length",
        "Kimi k1.5, length",
        ("method.outcome_terms=[{name: kimi_length, weight: 0.4}]",),
        "grpo",
    ),
    Variant("laser_d", "LASER-D", ("method.outcome_terms=[{name: laser_d, weight: 0.5}]",), "grpo"),
    Variant("laser", "LASER", ("method.outcome_terms=[{name: laser, weight: 0.5}]",), "grpo"),
    Variant(
        "gdpo",
        "GDPO of outcome and LASER",
        (
            "method.outcome_terms=[{name: laser, weight: 0.5}]",
            "method.separate_rewards=true",
            "method.whiten=true",
        ),
        "grpo",
    ),
    # The cosine is the whole reward, as in the paper.
    Variant(
        "cosine", "cosine reward", ("method.outcome_terms=[cosine]", "method.outcome_weight=0.0"), "grpo"
    ),
    # Steps of 6 tokens, as the tasks' are; in the published 256 a response here would be one step.
    Variant(
        "prl",
        "PRL",
        ("method.policy_loss={name: prl, options: {step_tokens: 6}}", "method.kl_coefficient=0.005"),
        "grpo",
    ),
    Variant("reinforce_pp", "REINFORCE++", ("method.outcome_advantage=none", "method.whiten=true"), "grpo"),
    Variant(
        "pass_at_2",
        "Pass@k Training, K = 2",
        ("method.outcome_advantage=pass_at_k", "method.pass_at_k=2"),
        "grpo",
    ),
    Variant(
        "airl_s_pass_at_2",
        "AIRL-S and Pass@k Training, K = 2",
        ("method.outcome_advantage=pass_at_k", "method.pass_at_k=2"),
        "airl_s",
    ),
    Variant(
        "reinforce_pp_baseline",
        "REINFORCE++ with a baseline",
        ("method.outcome_advantage=dr_grpo", "method.whiten=true"),
        "grpo",
    ),
    Variant(
        "igpo",
        "IGPO, information gain of steps",
        ("method.step_transforms=[information_gain]", "method.step_weight=1.0"),
        "grpo",
    ),
    Variant("sar", "SAR", ("method.outcome_terms=[{name: sar, weight: 0.2}]",), "grpo"),
    Variant(
        "par",
        "PAR by the PRM",
        ("prm.reward=f", "method.step_weight=0.0", "method.outcome_terms=[par]"),
        "airl_s",
    ),
    Variant("vote", "TTRL, outcomes by vote", ("method.outcomes=vote",), "grpo"),
    Variant(
        "refill",
        "DAPO's dynamic sampling",
        ("method.drop_constant_groups=true", "train.refill_rounds=2"),
        "grpo",
    ),
    Variant("opd", "on-policy distillation of AIRL-S", ("method.name=opd", *TEACHER), teacher="airl_s"),
    Variant(
        "exopd",
        "ExOPD of AIRL-S",
        ("method.name=exopd", *TEACHER, "prm.distillation_scale=1.25"),
        teacher="airl_s",
    ),
    # What goes by the ratio to the policy that sampled is GRPO itself with one update an iteration.
    Variant("grpo_updates", "GRPO, four updates", FOUR, "grpo"),
    Variant(
        "gspo_updates",
        "GSPO, four updates",
        (
            "method.policy_loss=gspo",
            "method.aggregation=sequence_mean",
            "method.clip_low=3.0e-4",
            "method.clip_high=4.0e-4",
            *FOUR,
        ),
        "grpo",
    ),
    Variant(
        "cispo_updates",
        "CISPO, four updates",
        ("method.policy_loss=cispo", "method.clip_low=1.0", *FOUR),
        "grpo",
    ),
    Variant("dual_clip_updates", "dual clip, four updates", ("method.policy_loss=dual_clip", *FOUR), "grpo"),
    Variant("prioritised", "prioritised problems", ("train.problem_sampler=prioritised",), "grpo"),
    Variant("learnability", "problems by learnability", ("train.problem_sampler=learnability",), "grpo"),
    Variant("prefix_rl", "PrefixRL", of="grpo", wrapped_by="prefix_rl"),
)


def main(
    task: Annotated[list[str] | None, typer.Option(help="Only this task (may be repeated).")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this system (may be repeated).")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, ...")] = 1,
    minutes: Annotated[float, typer.Option(help="Start no further run after this many minutes.")] = 1e9,
) -> None:
    """Train by every system from the same base policy and compare.

    Two to four minutes a run on two cores; finished runs are kept in `results/systems_runs.jsonl`, and the
    same command goes on from them.
    """
    common.use_all_cores()
    from actors.train.start import connected
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    until = time.monotonic() + 60 * minutes
    tasks = task or TASKS
    wanted = [
        (name, seed, one)
        for seed in range(seeds)
        for name in tasks
        for one in SYSTEMS
        if not only or one.name in only
    ]
    records = read_records()
    with connected(load_config(config_path(tasks[0])), keep=True):
        for name, seed, one in wanted:
            config = run_config(name, seed, one)
            key = methods.key_of(config)
            if key in records or time.monotonic() > until:
                continue
            progress.say(f"{one.label} on {name}, seed {seed}")
            records[key] = {"key": key, **run(name, seed, one, config, progress)}
            with RECORDS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(records[key], separators=(",", ":")) + "\n")
    report(current_records(records, max(seeds, SEEDS)), progress)


def read_records() -> dict[str, dict[str, Any]]:
    """Finished runs by key."""
    lines = RECORDS.read_text().splitlines() if RECORDS.exists() else []
    return {record["key"]: record for record in map(json.loads, lines)}


def current_records(records: Mapping[str, dict[str, Any]], seeds: int) -> list[dict[str, Any]]:
    """Finished runs of the settings as they are now, also of tasks and systems that were not asked for."""
    every = ((task, seed, one) for task in TASKS for one in SYSTEMS for seed in range(seeds))
    return [records[key] for key in (methods.key_of(run_config(*one)) for one in every) if key in records]


def run_config(task: str, seed: int, one: Variant) -> Config:
    """Configuration of a run."""
    from airls_ray.config import load_config

    overrides = [
        "prm.shares=1",
        *(overrides_of(variant(one.of)) if one.of else ()),
        *RATE,
        *one.overrides,
        f"name={one.name}_seed_{seed}",
        f"seed={seed}",
        f"output={common.RUNS / 'systems' / task}",
        "search.problems=150",
        "search.samples=8",
    ]
    config = load_config(config_path(task), overrides)
    learning = {"iterations": ITERATIONS - config.warmup_iterations, "keep_checkpoints": 1}
    config = config.model_copy(update={"train": config.train.model_copy(update=learning)})
    if one.wrapped_by is None:
        return config
    inner = {"name": task, **config.task.model_dump(mode="json", exclude_defaults=True)}
    wrapped = {"task": {"name": one.wrapped_by, "options": {"task": inner}}}
    return type(config).model_validate(config.model_dump(mode="json") | wrapped)


def run(task: str, seed: int, one: Variant, config: Config, progress: Progress) -> dict[str, Any]:
    """Train (or go on); what the table needs."""
    if one.teacher is not None:
        path = str(trained_policy(task, seed, variant_named(one.teacher), progress))
        config = config.model_copy(update={"prm": config.prm.model_copy(update={"path": path})})
    summary, folder, _ = methods.trained(task, one, config, progress)
    lines = folder.read_metrics()
    last = lines[-5:]
    counts = methods_table.encode_counts(folder.path / "samples" / "trained.parquet")
    return {
        "task": task,
        "system": one.name,
        "label": one.label,
        "seed": seed,
        "base": summary["accuracy"]["base"]["sampled"],
        "trained": summary["accuracy"]["trained"]["sampled"],
        "right_of_8": counts,
        "outcome": [round(line["outcome/mean"], 4) for line in lines],
        "length": round(fmean(line["rollout/response_tokens_mean"] for line in last), 2),
        "auroc_within": summary.get("prm", {}).get("trace_auroc_within"),
        "seconds": round(summary["seconds"]["train"], 1),
    }


def trained_policy(task: str, seed: int, one: Variant, progress: Progress) -> Path:
    """The policy that a system trained; trains it where the run is not on this machine."""
    _, folder, _ = methods.trained(task, one, run_config(task, seed, one), progress)
    checkpoint = folder.latest_checkpoint()
    assert checkpoint is not None
    return checkpoint / "policy"


def variant_named(name: str) -> Variant:
    """The system of that name."""
    return next(one for one in SYSTEMS if one.name == name)


COLUMNS = ("system", "seeds", "base", "trained (95 %)", "any of 8", "tokens", "AUROC within problems")


def report(records: Sequence[Mapping[str, Any]], progress: Progress) -> None:
    """A table a task, also as Markdown, the picture, and the result file."""
    figures: dict[str, Any] = {}
    texts: list[str] = []
    for task in dict.fromkeys(record["task"] for record in records):
        for one in SYSTEMS:
            runs = [found for found in records if (found["task"], found["system"]) == (task, one.name)]
            if runs:
                figures.setdefault(task, {})[one.name] = figure_of(runs)
        rows = [cells(one.label, figures[task][one.name]) for one in SYSTEMS if one.name in figures[task]]
        title = f"{task}: {ITERATIONS} iterations of each"
        progress.table(title, rows, COLUMNS)
        texts += [f"### {title}", methods_table.as_table(COLUMNS, rows)]
    path = common.write_result("systems", {"iterations": ITERATIONS, "tasks": figures})
    path.with_suffix(".md").write_text("\n\n".join(texts) + "\n")
    draw(path.with_suffix(".png"), figures)
    progress.say(f"written to {path}, .md and .png")


def figure_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of a system, with the interval of the accuracy over problems."""
    low, high = methods_table.interval([found["right_of_8"] for found in runs], 8)
    within = [found["auroc_within"] for found in runs if found["auroc_within"] is not None]
    return {
        "seeds": len(runs),
        "base": fmean(found["base"] for found in runs),
        "trained": fmean(found["trained"] for found in runs),
        "low": low,
        "high": high,
        "any_of_8": fmean(fmean(int(count) > 0 for count in found["right_of_8"]) for found in runs),
        "length": fmean(found["length"] for found in runs),
        "auroc_within": fmean(within) if within else None,
    }


def cells(label: str, found: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    accuracy = f"{found['trained']:.3f} ({found['low']:.3f}-{found['high']:.3f})"
    within = "-" if found["auroc_within"] is None else f"{found['auroc_within']:.3f}"
    numbers = (f"{found['any_of_8']:.3f}", f"{found['length']:.1f}", within)
    return [label, str(found["seeds"]), f"{found['base']:.3f}", accuracy, *numbers]


def draw(path: Path, figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Accuracy of each system with its interval and any of 8, a panel a task; a line where the base is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = {one.name: one.label for one in SYSTEMS}
    rows = max((len(found) for found in figures.values()), default=1)
    figure = Figure(figsize=(5.5 * max(1, len(figures)), 1.0 + 0.34 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(1, len(figures)), squeeze=False)[0]
    for axes, (task, found) in zip(panels, figures.items(), strict=False):
        for at, one in enumerate(reversed(list(found.values()))):
            axes.plot([one["low"], one["high"]], [at, at], color="#0072b2", linewidth=2)
            axes.plot(one["trained"], at, "o", color="#0072b2")
            axes.plot(one["any_of_8"], at, "o", markerfacecolor="none", color="#d55e00")
        axes.set_yticks(range(len(found)), [labels[name] for name in reversed(list(found))])
        axes.axvline(fmean(one["base"] for one in found.values()), color="#777777", linestyle="--")
        axes.set(title=f"{task} (dashed: base)", xlabel="one sample (dot, 95 %), any of 8 (ring)")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    common.run(main)
