"""A PRM from files of stored rollouts, without sampling: by an adversarial objective or from outcomes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.cluster import cluster
from actors.commands.train_prm import LABELS, METRICS, PRM, SUMMARY, check_models, curve_points, fit
from actors.learn.ray_train import Line, RankRun
from actors.train.launch_checks import record_doors
from actors.train.start import connected
from airls_ray import files
from airls_ray.config.named import find_doors
from airls_ray.config.schema import Config
from airls_ray.console.choose import make_progress
from airls_ray.console.progress import Progress
from airls_ray.data.check_config import check_before
from airls_ray.data.check_method import try_objective, try_step_labels
from airls_ray.data.check_rows import source_of
from airls_ray.data.prm_labels import LabelFacts, write_labels
from airls_ray.data.rollout_files import (
    StoredRollouts,
    lacking_logprobs,
    read_stored_rollouts,
    write_stored,
)
from airls_ray.evaluation.selection import count_problems, measure_controls
from airls_ray.objectives.text_loss import check_text_loss
from airls_ray.prm.consensus import refuse_judge
from airls_ray.prm.folder import PromptForm
from airls_ray.prm.offline import selection_seed, split_stored, updates_of_an_epoch
from airls_ray.prm.offline_method import OfflineMethod, choose_method
from airls_ray.prm.spoiled import refuse_spoiled
from airls_ray.prm.step_labels import label_stored, rule_record
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from airls_ray.text.tokenizer_files import require_same_tokens
from airls_ray.version import versions

ROLLOUTS, TRACES = "rollouts.parquet", "traces.parquet"


@dataclass(frozen=True)
class StoredFiles:
    """What `airls-ray train-prm --rollouts` learns from; see `read_stored_rollouts`."""

    rollouts: Sequence[Path]
    traces: Path | None = None
    problems: Path | None = None


def train_prm_offline(
    config: Config,
    policy: str | Path,
    output: Path,
    stored_files: StoredFiles,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a PRM on stored rollouts by `config.method` and leave it in `output/prm`.

    `output` also gets `rollouts.parquet` and `traces.parquet` (what was read, in tokens), for `method: orm`
    `labels.parquet`, `metrics.jsonl` (a line per update) and `train_prm.json` (what is returned).
    `output/prm` appears when all is done; a call that was cut short starts anew. Joins the Ray cluster that
    is connected, else connects for the time of the call.

    Args:
        config: task (which text ends a step), method, `prm`, `supervised_prm` (epochs, rollouts per update,
            held-out share) and the seed.
        policy: folder or hub name; gives the tokenizer and (without `prm.path`) the weights, and the
            log-probabilities of traces that have none.
        output: folder.
        stored_files: rollouts, traces and problems.
        progress: where bars and tables go.

    Returns:
        `prm_path, policy, task, seed`; `data`: files, objective, what was used instead of what is missing,
        rows that were too long; `problems, rollouts, traces` (learned from), `held_out_problems, epochs,
        updates`; `prm` and `controls`: figures of choosing on held-out problems; `curve`: the PRM's for each
        epoch, 0 being before it; `seconds`; `versions`.

    Raises:
        UserError: one sentence: bad data, form, model or resources; a deadline; a dead process.
    """
    started = time.perf_counter()
    progress = progress or make_progress()
    named = find_doors(config, "task", "method.prm_objective" if config.prm_learns else "supervised_prm")
    refuse_spoiled(config, "--rollouts")
    refuse_judge(config, "--rollouts")
    check_text_loss(config.supervised_prm.text_loss, config.prm, adversarial=config.prm_learns)
    policy, source = check_models(config, policy)
    if config.prm_learns:
        try_objective(config, progress)
    else:
        try_step_labels(config, progress)
    if source != policy:
        require_same_tokens(policy, source)
    codec = TextCodec.for_model(config.model, policy, make_task(config.task))
    stored = read_stored_rollouts(
        stored_files.rollouts,
        codec,
        config.model.context_tokens,
        traces=stored_files.traces,
        problems=stored_files.problems,
    )
    if stored_files.problems == source_of(config.task, "train"):
        check_before(config, progress, splits=("train",), traces=stored.traces.num_rows > 0)
    method = choose_method(config, stored)
    learn, held_out = split_stored(stored, config.supervised_prm.held_out, config.seed)
    updates = config.supervised_prm.epochs * updates_of_an_epoch(config, method, learn)
    _say(progress, config, policy, method, stored)
    output = output.resolve()
    guard = files.FullDisk(output.parent, "the PRM", "free some space and run train-prm again")
    with guard, connected(config):
        output.mkdir(parents=True, exist_ok=True)
        record_doors(output, named, progress)
        run = _rank_run(config, (policy, source), stored, method, codec, output)
        cluster.require_resources([run.demand], config.ray.resources_deadline_seconds)
        shown = {"loss": "train_prm/loss", "selected": "prm/best_of_n"}
        curve = fit(config, run, updates, progress, shown)
    summary = _summary(config, policy, output, stored_files, stored, method, learn, held_out, curve)
    summary["seconds"] = {"total": time.perf_counter() - started}
    files.write_text(output / SUMMARY, files.to_json(summary, indent=2) + "\n")
    _show(summary, progress)
    return summary


def _rank_run(
    config: Config,
    models: tuple[str, str],
    stored: StoredRollouts,
    method: OfflineMethod,
    codec: TextCodec,
    output: Path,
) -> RankRun:
    """Write what the ranks read into `output`; `models`: the policy, and what the PRM starts from."""
    write_stored(stored, output / ROLLOUTS, output / TRACES)
    labels = None
    if method.objective is None:
        labels = output / LABELS
        rule = config.supervised_prm.labels
        facts = LabelFacts({"labels": rule_record(rule), "rollouts": ROLLOUTS}, {})
        write_labels(label_stored(stored.rollouts, codec, rule), labels, facts)
    return RankRun(
        name="train_prm",
        what="PRM training",
        train_rank="actors.learn.train_prm_rank:train_prm_rank",
        job={
            "config": config.model_copy(update={"prm": method.prm}),
            "policy": models[0],
            "source": models[1],
            "method": method,
            "prompt": PromptForm.of(config),
            "rollouts": str(output / ROLLOUTS),
            "traces": str(output / TRACES),
            "labels": None if labels is None else str(labels),
        },
        learner=config.prm.learner,
        folder=output,
        metrics=output / METRICS,
    )


def _say(
    progress: Progress, config: Config, policy: str, method: OfflineMethod, stored: StoredRollouts
) -> None:
    """What a reader of the figures must know of the data."""
    for count, what in ((stored.too_long, "rollouts"), (stored.traces_too_long, "traces")):
        if count:
            limit = config.model.context_tokens
            progress.say(f"{count} {what} are longer than model.context_tokens={limit} and left out")
    for note in method.notes:
        progress.say(note)
    if method.needs_trace_logprobs and lacking_logprobs(stored.traces):
        progress.say(f"Log-probabilities of the traces are those under {policy}")


def _summary(
    config: Config,
    policy: str,
    output: Path,
    stored_files: StoredFiles,
    stored: StoredRollouts,
    method: OfflineMethod,
    learn: StoredRollouts,
    held_out: pa.Table,
    curve: list[Line],
) -> dict[str, Any]:
    points = curve_points(curve)
    return {
        "prm_path": str(output / PRM),
        "policy": policy,
        "task": config.task.name,
        "seed": config.seed,
        "data": {
            "rollouts": [str(file) for file in stored_files.rollouts],
            "traces": None if stored_files.traces is None else str(stored_files.traces),
            "problems": None if stored_files.problems is None else str(stored_files.problems),
            "objective": method.name,
            "notes": list(method.notes),
            "too_long": stored.too_long,
            "traces_too_long": stored.traces_too_long,
        },
        "problems": count_problems(learn.rollouts),
        "rollouts": learn.rollouts.num_rows,
        "traces": learn.traces.num_rows,
        "held_out_problems": count_problems(held_out),
        "epochs": config.supervised_prm.epochs,
        "updates": curve[-1]["update"],
        "prm": {name: value for name, value in points[-1].items() if name != "epoch"},
        "controls": measure_controls(held_out, selection_seed(config)) if held_out.num_rows else {},
        "curve": points,
        "versions": versions(),
    }


_WAYS = {
    "mean": "one at random",
    "majority": "majority of the answers",
    "policy_log_prob": "policy log-probability",
    "oracle": "oracle",
}


def _show(summary: dict[str, Any], progress: Progress) -> None:
    """Choosing by the PRM after every epoch, above choosing without it."""
    if not summary["held_out_problems"]:
        return
    rows = [
        [
            f"PRM, epoch {p['epoch']}",
            *_shares(p, "best_of_n"),
            p["trace_auroc"],
            p["trace_auroc_within"],
            p["length_correlation"],
        ]
        for p in summary["curve"]
    ]
    if "weighted" in summary["prm"]:
        rows.append(["vote weighted by the PRM", *_shares(summary["prm"], "weighted"), None, None, None])
    controls = summary["controls"]
    rows += [
        [name, *_shares(controls, way), None, None, None] for way, name in _WAYS.items() if way in controls
    ]
    columns = (
        "choice on held-out problems",
        "right",
        "95 % from",
        "to",
        "AUROC",
        "within problems",
        "length",
    )
    progress.table("PRM from stored rollouts", rows, columns)


def _shares(figures: dict[str, Any], way: str) -> list[float]:
    return [figures[way], figures[f"{way}_low"], figures[f"{way}_high"]]
