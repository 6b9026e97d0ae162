"""The warm start: supervised training on traces by Ray Train and DeepSpeed, stopped at an accuracy.

Each rank runs `train_rank` to its end and draws its own problems (all ranks draw the same and take their
share). The driver follows the metrics file.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.cluster import cluster
from actors.learn.ray_train import Line, RankRun, run_ranks
from actors.learn.sft_state import METRICS, SUMMARY, SFTState, state_folder
from actors.train.launch_checks import check_lengths, require_model
from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.console.choose import make_progress
from airls_ray.console.progress import Progress
from airls_ray.data.check_config import check_before
from airls_ray.data.problems import ProblemStream, table_to_problems, take_distinct
from airls_ray.models.check import check_model_folder
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer
from airls_ray.text.make_tokenizer import train_tokenizer
from airls_ray.text.messages import history_of

_TOKENIZER_PROBLEMS = 10_000
"""Most problems that a new tokenizer is learned from."""


def run_sft(
    config: Config, folder: Path, progress: Progress | None = None, resume: bool = False
) -> dict[str, Any]:
    """Train the policy of `config.model` on traces and leave it in `folder`, in Hugging Face format.

    Beside the model lie `sft.json` (the summary that is returned) and `metrics.jsonl` (a line per
    update). `folder` appears when all is done; what it held before stays until then. A hidden sibling of it
    holds the state of the last accuracy check, from which `resume` goes on; an uninterrupted run and a
    resumed one make the same updates. Joins the Ray cluster that is connected, else connects for the time of
    the call.

    Returns:
        accuracy (last check), target, reached, updates, tokens, seconds, curve ([update, accuracy]).

    Raises:
        UserError: one sentence: bad model or data, too few resources, a deadline, a dead process; the state
            is of other settings.
    """
    progress = progress or make_progress()
    started = time.perf_counter()
    was_connected = cluster.is_connected()
    state = SFTState(state_folder(folder.resolve()), config)
    before = state.begin(resume)
    spent = 0.0 if before is None else SFTState.read(before).seconds
    guard = files.FullDisk(folder.parent, "the warm-started policy", "free some space and run sft again")
    with guard, files.replacing(folder.resolve()) as work:
        source = prepare_model(config, work) if before is None else _take_up(before, work, progress)
        draws = config.sft.iterations * config.sft.problems_per_iteration
        check_lengths(config, source, draws, progress, traces=True)
        check_before(config, progress, splits=("train",), traces=True)
        cluster.connect(config.ray)
        try:
            _fit(config, source, work, progress, state, before)
        finally:
            if not was_connected:
                cluster.disconnect()
        summary = _finish(work, spent + time.perf_counter() - started)
    state.forget()
    if not summary["reached"] and summary["target"] < 1.0:
        progress.say(
            f"The warm start ended at accuracy {summary['accuracy']:.3f}, below sft.target_accuracy "
            f"{summary['target']:.3f}, after {summary['updates']} updates; the policy is kept. Raise "
            "sft.iterations or lower the target"
        )
    return summary


def prepare_model(config: Config, folder: Path) -> str:
    """Return the model to start from: `config.model.path`, or a new one made in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if config.model.path is not None:
        check_model_folder(config.model.path, context_tokens=config.model.context_tokens)
        return config.model.path
    require_model(config)
    from airls_ray.models.create import create_policy

    task = make_task(config.task)
    if task.vocabulary() is None:
        train_tokenizer(_training_texts(config), config.model.vocabulary, folder)
    else:
        build_tokenizer(task, folder)
    codec = TextCodec.for_model(config.model, folder, task)
    create_policy(config.model, codec, folder, derive_seed(config.seed, "model"))
    return str(folder)


def _training_texts(config: Config) -> Iterator[str]:
    """Prompts and traces that a new tokenizer is learned from."""
    stream = ProblemStream(make_task(config.task), "train", derive_seed(config.seed, "tokenizer"))
    for problem in table_to_problems(take_distinct(stream, _TOKENIZER_PROBLEMS)):
        yield from (one["content"] for one in history_of(problem.details))
        yield problem.prompt
        yield from problem.traces


def _take_up(before: Path, work: Path, progress: Progress) -> str:
    """Bring the metrics of the updates that are made; returns the model to go on with."""
    work.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(before / METRICS, work / METRICS)
    progress.say(f"The warm start goes on after update {SFTState.read(before).update}")
    return str(before)


def _finish(folder: Path, seconds: float) -> dict[str, Any]:
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    summary["seconds"] = seconds
    files.write_text(folder / SUMMARY, files.to_json(summary, indent=2))
    return dict(summary)


# ------------------------------------------------------------------------------------ driver
def _fit(
    config: Config, source: str, folder: Path, progress: Progress, state: SFTState, before: Path | None
) -> None:
    run = RankRun(
        name="sft",
        what="warm start",
        train_rank="actors.learn.sft_rank:train_rank",
        job={
            "config": config,
            "source": source,
            "folder": str(folder),
            "state": state,
            "before": before,
        },
        learner=config.sft.learner,
        folder=folder,
        metrics=folder / METRICS,
    )
    with progress.track("Warm start", config.sft.iterations) as bar:

        def show(line: Line) -> None:
            fields = {"loss": line["sft/loss"]}
            if "sft/accuracy" in line:
                fields["accuracy"] = line["sft/accuracy"]
            bar.advance(1, **fields)

        run_ranks(run, config, show)
