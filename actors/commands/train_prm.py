"""A PRM by supervised learning: labels by sampling, training by Ray Train and DeepSpeed, early figures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.cluster import cluster
from actors.commands.prm_labels import SEED_PATH, make_labels
from actors.commands.samplers import sampler_demands
from actors.learn.ray_train import Line, RankRun, run_ranks
from actors.train.launch_checks import check_lengths, record_doors
from actors.train.start import connected
from airls_ray import files
from airls_ray.config.named import find_doors
from airls_ray.config.schema import Config
from airls_ray.console.choose import make_progress
from airls_ray.console.progress import Progress
from airls_ray.data.check_config import check_before
from airls_ray.data.check_method import try_step_labels
from airls_ray.data.prm_labels import LabelFacts, read_facts, read_labels, write_labels
from airls_ray.errors import DataError
from airls_ray.evaluation.labels import measure_labels_themselves, measure_log_prob
from airls_ray.models.check import check_model_folder
from airls_ray.objectives.text_loss import check_text_loss
from airls_ray.prm.consensus import keep_agreeing, open_judge
from airls_ray.prm.folder import PromptForm
from airls_ray.prm.labelled_files import STEP_END, StepFiles, StepLabels, read_step_labels, say_left_out
from airls_ray.prm.labelled_sequences import LabelledSequences
from airls_ray.prm.spoiled import refuse_spoiled
from airls_ray.prm.supervised import (
    check_form,
    require_logprobs,
    split_by_problem,
)
from airls_ray.prm.training import labelled_rows
from airls_ray.prm.update_plan import plan_label_updates
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from airls_ray.text.tokenizer_files import require_same_tokens
from airls_ray.version import versions

LABELS, STEP_LABELS, AGREED = "labels.parquet", "step_labels.parquet", "agreed_labels.parquet"
VERDICTS = "verdicts.jsonl"
METRICS, SUMMARY, PRM = "metrics.jsonl", "train_prm.json", "prm"
_COMPARED_ROWS = 50


def train_prm(
    config: Config,
    policy: str | Path,
    output: Path,
    progress: Progress | None = None,
    labels: Path | None = None,
    steps: StepFiles | None = None,
) -> dict[str, Any]:
    """Label rollouts of `policy` (or take labels that are there) and leave a PRM of them in `output/prm`.

    `output` also gets `labels.parquet` with `labels.json` (unless `labels` were given; of `steps`:
    `step_labels.*`; with a judge its `verdicts.jsonl`, and `agreed_labels.*`, which are learned from),
    `metrics.jsonl` (a line per update), `train_prm.json` (what is returned) and, if code of the user's own is
    loaded, `doors.json`. `output/prm` appears when all is done, and labels and verdicts are written as they
    come: a call with the same settings goes on from there. Joins the Ray cluster that is connected, else
    connects for the time of the call.

    Args:
        config: task, engine, learner, `prm` and `supervised_prm`.
        policy: folder or hub name; samples, and gives the tokenizer and (without `prm.path`) the weights.
        output: folder.
        progress: where bars and tables go.
        labels: a Parquet file (PRM_LABELS) to learn from instead of sampling.
        steps: files of labelled steps to learn from instead.

    Returns:
        `prm_path, policy, task` (None for `steps`), `seed, labels` (file, kind, cost, and how well they fit
        the truth of the steps), `problems, rollouts` (learned from), `held_out_problems, epochs,
        updates`; `prm` and
        `policy_log_prob`: figures on held-out problems; `curve`: the PRM's for each epoch, 0 being before
        it; `seconds`; `versions`.

    Raises:
        UserError: one sentence: bad form, policy, labels or resources; a deadline; a dead process.
    """
    started = time.perf_counter()
    progress = progress or make_progress()
    sampled = labels is None and steps is None
    if not sampled:
        refuse_spoiled(config, "--labels" if steps is None else "--steps")
    loaded = [
        "supervised_prm.step_loss",
        "supervised_prm.consensus",
        *(["task", "supervised_prm.labels"] if sampled else []),
    ]
    named = find_doors(config, *loaded)
    check_text_loss(config.supervised_prm.text_loss, config.prm)
    policy, source = check_sources(
        config, policy, logprobs=steps is None and not config.supervised_prm.spoiled
    )
    try_step_labels(config, progress, rule=sampled)
    judge = open_judge(config, progress, sampled=sampled)
    found = None if steps is None else _read_steps(config, policy, source, steps, progress)
    given = None if labels is None else read_given_labels(config, policy, labels)
    if found is not None:
        given = found.table, found.facts
    if given is None:
        draws = config.supervised_prm.problems
        check_lengths(config, policy, draws, progress, traces=False, stream=SEED_PATH[0])
        check_before(config, progress, splits=("train",), traces=False)
    output = output.resolve()
    guard = files.FullDisk(output.parent, "the PRM or its labels", "free some space and run train-prm again")
    with guard, connected(config):
        output.mkdir(parents=True, exist_ok=True)
        record_doors(output, named, progress)
        file = labels.resolve() if labels else output / (LABELS if found is None else STEP_LABELS)
        if found is not None:
            write_labels(found.table, file, found.facts)
        run = RankRun(
            name="train_prm",
            what="PRM training",
            train_rank="actors.learn.train_prm_rank:train_prm_rank",
            job={"config": config, "source": source, "policy": policy, "labels": str(file)},
            learner=config.prm.learner,
            folder=output,
            metrics=output / METRICS,
        )
        # Before minutes are spent on labels; the two stages do not run at the same time.
        for demands in ([run.demand], [] if given else sampler_demands(config)):
            cluster.require_resources(demands, config.ray.resources_deadline_seconds)
        table, facts = given or make_labels(config, policy, file, progress)
        consensus = config.supervised_prm.consensus
        if judge is not None and consensus is not None:
            table, facts = keep_agreeing(table, facts, consensus, judge, output / VERDICTS, progress)
            file = output / AGREED
            write_labels(table, file, facts)
            run.job["labels"] = str(file)
        run.job["prompt"] = PromptForm.of(config, facts.settings.get(STEP_END, ""))
        learn, held_out = split_by_problem(table, config.supervised_prm.held_out, config.seed)
        labelled = time.perf_counter()
        section = config.supervised_prm
        rows = labelled_rows(LabelledSequences.of(learn))
        ids = learn["problem_id"].to_pylist()
        plan = plan_label_updates(rows, ids, section.step_loss, section.rollouts_per_update, 0)
        updates = section.epochs * len(plan)
        curve = fit(
            config, run, updates, progress, {"loss": "train_prm/loss", "step AUROC": "prm/step_auroc"}
        )
    summary = _summary(config, policy, output, file, facts, learn, held_out, curve)
    ended = time.perf_counter()
    summary["seconds"] = {"labels": labelled - started, "train": ended - labelled, "total": ended - started}
    files.write_text(output / SUMMARY, files.to_json(summary, indent=2) + "\n")
    _show(summary, progress)
    return summary


def _read_steps(config: Config, policy: str, source: str, steps: StepFiles, progress: Progress) -> StepLabels:
    """Read and check everything before Ray is asked for anything.

    Raises:
        ModelError: the PRM to start from has another tokenizer than the policy.
        DataError: see `read_step_labels`; too few problems to hold some out.
    """
    if source != policy:
        require_same_tokens(policy, source)
    with progress.phase("read the labelled steps"):
        found = read_step_labels(config, policy, steps)
    say_left_out(found, progress)
    split_by_problem(found.table, config.supervised_prm.held_out, config.seed)
    return found


def check_sources(config: Config, policy: str | Path, *, logprobs: bool = True) -> tuple[str, str]:
    """Return the policy and the model that the PRM starts from, both as actors find them.

    `logprobs`: whether the labelled rollouts can have the policy's log-probabilities.

    Raises:
        ConfigError: the PRM's form cannot be learned from labels.
        ModelError: one of them is missing, broken or does not fit.
    """
    check_form(config.prm, logprobs=logprobs)
    return check_models(config, policy)


def check_models(config: Config, policy: str | Path) -> tuple[str, str]:
    """As `check_sources`, for any form of a PRM.

    Raises:
        ModelError: one of them is missing, broken or does not fit.
    """
    context = config.model.context_tokens
    info = check_model_folder(policy, context_tokens=context)
    if config.prm.path is not None:
        check_model_folder(
            config.prm.path,
            context_tokens=context,
            vocab_size=info.vocab_size,
            vocab_of=f"the policy {policy}",
        )
    return _absolute(policy), _absolute(config.prm.path or policy)


def _absolute(path: str | Path) -> str:
    """Actors may have another working directory; a hub name stays as it is."""
    return str(Path(path).resolve()) if Path(path).is_dir() else str(path)


def read_given_labels(config: Config, policy: str, file: Path) -> tuple[pa.Table, LabelFacts]:
    """Read a file of labels and check that it is in the policy's tokens.

    Raises:
        DataError: the file is missing or malformed, a row is too long, or it is of another tokenizer.
    """
    table = read_labels(file)
    facts = read_facts(file) or LabelFacts({}, {})
    codec = TextCodec.for_model(config.model, policy, make_task(config.task))
    rows = zip(*(table[name] for name in ("prompt", "response", "step_ends", "step_texts")), strict=True)
    for number, row in enumerate(rows, 1):
        prompt, response, ends, texts = (value.as_py() for value in row)
        tokens = [*prompt, *response]
        where = f"{file}, row {number}"
        if len(tokens) > config.model.context_tokens:
            raise DataError(
                f"{where}: 'prompt' and 'response' have {len(tokens)} tokens, but model.context_tokens is "
                f"{config.model.context_tokens}; raise it or drop the row"
            )
        if not 0 <= min(tokens) <= max(tokens) < codec.vocab_size:
            raise DataError(
                f"{where}: a token lies outside the {codec.vocab_size} of the policy {policy}; the labels "
                "are of another tokenizer"
            )
        if number <= _COMPARED_ROWS and texts is not None and codec.step_texts(response, ends) != texts:
            raise DataError(
                f"{where}: field 'step_texts' is not what the tokenizer of {policy} makes of 'response'; the "
                "labels are of another tokenizer"
            )
    split_by_problem(table, config.supervised_prm.held_out, config.seed)
    require_logprobs(config.prm, not table["logprobs"].null_count)
    return table, facts


def fit(config: Config, run: RankRun, updates: int, progress: Progress, shown: dict[str, str]) -> list[Line]:
    """Train by all ranks, leave the PRM in the run's folder and return the last line of every epoch.

    Args:
        config: deadlines.
        run: what the ranks do; its job gets the folder and the metrics.
        updates: how many there will be.
        progress: where the bar goes.
        shown: by name beside the bar, the metric that stands there.

    Raises:
        UserError: see `run_ranks`.
    """
    curve: dict[int, Line] = {}
    files.remove(run.metrics)
    with files.replacing(run.folder / PRM) as work:
        work.mkdir()
        run.job.update(folder=str(work), metrics=str(run.metrics))
        with progress.track("PRM training", updates) as bar:

            def show(line: Line) -> None:
                fields = {name: line[key] for name, key in shown.items() if line.get(key) is not None}
                bar.advance(int(line["update"] > 0), **fields)
                curve[line["epoch"]] = line

            run_ranks(run, config, show)
    return list(curve.values())


def _summary(
    config: Config,
    policy: str,
    output: Path,
    file: Path,
    facts: LabelFacts,
    learn: pa.Table,
    held_out: pa.Table,
    curve: list[Line],
) -> dict[str, Any]:
    points = curve_points(curve)
    return {
        "prm_path": str(output / PRM),
        "policy": policy,
        "task": None if facts.settings.get(STEP_END) is not None else config.task.name,
        "seed": config.seed,
        "labels": {
            "file": str(file),
            "kind": facts.settings.get("labels"),
            "cost": facts.cost,
            **measure_labels_themselves(pa.concat_tables([learn, held_out])),
        },
        "problems": len(set(learn["problem_id"].to_pylist())),
        "rollouts": learn.num_rows,
        "held_out_problems": len(set(held_out["problem_id"].to_pylist())),
        "epochs": config.supervised_prm.epochs,
        "updates": curve[-1]["update"],
        "prm": {name: value for name, value in points[-1].items() if name != "epoch"},
        "policy_log_prob": measure_log_prob(held_out) if held_out.num_rows else {},
        "curve": points,
        "versions": versions(),
    }


def curve_points(curve: list[Line]) -> list[dict[str, Any]]:
    """The held-out figures of every epoch."""
    return [
        {
            "epoch": line["epoch"],
            **{k.removeprefix("prm/"): v for k, v in line.items() if k.startswith("prm/")},
        }
        for line in curve
    ]


def _show(summary: dict[str, Any], progress: Progress) -> None:
    """The held-out figures of every epoch above those of the control."""
    names = ("loss", "label_auroc", "step_auroc", "trace_auroc", "trace_auroc_within")
    rows = [
        [f"PRM, epoch {point['epoch']}", *(point.get(name) for name in names)] for point in summary["curve"]
    ]
    if summary["policy_log_prob"]:
        rows.append(["policy log-probability", *(summary["policy_log_prob"].get(name) for name in names)])
    columns = (
        "held-out problems",
        "loss",
        "AUROC of labels",
        "AUROC of truth",
        "of traces",
        "within problems",
    )
    if summary["held_out_problems"]:
        progress.table("Supervised PRM", rows, columns)
