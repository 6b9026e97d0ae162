"""The warm start: supervised training on traces by Ray Train and DeepSpeed, stopped at an accuracy.

Ray Train starts the ranks and their process group; each runs `train_rank` to its end and draws its own
problems (all ranks draw the same and take their share). The driver follows the metrics file.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from actors import cluster
from actors.sft_rank import METRICS, SUMMARY, train_rank
from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.errors import RunError, UserError
from airls_ray.models.check import check_model_folder
from airls_ray.progress import Progress, Track, make_progress
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text import TextCodec, build_tokenizer

_POLL_SECONDS = 0.5


def run_sft(config: Config, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Train the policy of `config.model` on traces and leave it in `folder`, in Hugging Face format.

    Beside the model lie `sft.json` (the summary that is returned) and `metrics.jsonl` (a line per
    update). `folder` appears when all is done; what it held before stays until then. Joins the Ray
    cluster that is connected, else connects for the time of the call.

    Returns:
        accuracy (last check), target, reached, updates, tokens, seconds, curve ([update, accuracy]).

    Raises:
        UserError: one sentence: bad model or data, too few resources, a deadline, a dead process.
    """
    progress = progress or make_progress()
    started = time.perf_counter()
    was_connected = cluster.is_connected()
    guard = files.FullDisk(folder.parent, "the warm-started policy", "free some space and run sft again")
    with guard, files.replacing(folder.resolve()) as work:
        source = prepare_model(config, work)
        cluster.connect(config.ray)
        try:
            _fit(config, source, work, progress)
        finally:
            if not was_connected:
                cluster.disconnect()
        summary = _finish(work, time.perf_counter() - started)
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
    from airls_ray.models.create import create_policy

    task = make_task(config.task)
    build_tokenizer(task, folder)
    codec = TextCodec.from_folder(folder, task, config.model.prompt_template)
    create_policy(config.model, codec, folder, derive_seed(config.seed, "model"))
    return str(folder)


def _finish(folder: Path, seconds: float) -> dict[str, Any]:
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    summary["seconds"] = seconds
    files.write_text(folder / SUMMARY, files.to_json(summary, indent=2))
    files.remove(folder / "ray_train")
    return dict(summary)


# ------------------------------------------------------------------------------------ driver
def _fit(config: Config, source: str, folder: Path, progress: Progress) -> None:
    """Run Ray Train in a thread and follow its metrics, so that the driver keeps its deadlines."""
    learner = config.sft.learner
    demand = cluster.Demand("warm-start rank", learner.resources, learner.ranks)
    cluster.require_resources([demand], config.ray.resources_deadline_seconds)
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            _trainer(config, source, folder).fit()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    with progress.track("Warm start", config.sft.iterations) as bar:
        thread.start()
        _follow(folder / METRICS, thread.is_alive, bar, config)
    if failure:
        raise _in_words(failure[0])


def _follow(file: Path, is_running: Callable[[], bool], bar: Track, config: Config) -> None:
    """Show each update as its line appears, until the training ends.

    Raises:
        RunError: no line within the deadline.
    """
    deadline = max(config.train.deadline_seconds, config.ray.start_deadline_seconds)
    last, lines = time.monotonic(), _new_lines(file)
    running = True
    while running:
        running = is_running()  # before reading, so that the last lines are read too
        for line in next(lines):
            last = time.monotonic()
            fields = {"loss": line["sft/loss"]}
            if "sft/accuracy" in line:
                fields["accuracy"] = line["sft/accuracy"]
            bar.advance(1, **fields)
        if time.monotonic() - last > deadline:
            raise RunError(
                f"the warm start made no update within {deadline:g} s: look into the Ray logs, or raise "
                "train.deadline_seconds"
            )
        if running:
            time.sleep(_POLL_SECONDS)


def _new_lines(file: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield, at each turn, the whole lines that were added since the last one."""
    position = 0
    while True:
        lines: list[dict[str, Any]] = []
        if file.exists():
            with file.open("rb") as opened:
                opened.seek(position)
                for line in opened:
                    if not line.endswith(b"\n"):
                        break
                    position += len(line)
                    lines.append(json.loads(line))
        yield lines


def _trainer(config: Config, source: str, folder: Path) -> Any:
    """Ray Train's trainer for the ranks of the warm start."""
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # else relative paths of the configuration break
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(config.ray.start_deadline_seconds))
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    learner = config.sft.learner
    resources = {"CPU": learner.resources.cpus, "GPU": learner.resources.gpus, **learner.resources.custom}
    threads = learner.resources.threads or max(1, (os.cpu_count() or 1) // learner.ranks)
    return TorchTrainer(
        train_rank,
        train_loop_config={"config": config, "source": source, "folder": str(folder), "threads": threads},
        torch_config=TorchConfig(timeout_s=int(config.train.deadline_seconds)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=learner.ranks,
            use_gpu=learner.resources.gpus > 0,
            resources_per_worker={name: value for name, value in resources.items() if value > 0},
        ),
        run_config=ray.train.RunConfig(
            name="sft",
            storage_path=str(folder / "ray_train"),
            failure_config=ray.train.FailureConfig(max_failures=0),
            worker_runtime_env={"env_vars": cluster.process_environment(learner.resources, threads)},
        ),
    )


def _in_words(error: BaseException) -> BaseException:
    """Turn what Ray Train raises into the error of the rank that failed first, or into one sentence."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for cause in [*failures, error]:
        inner: BaseException | None = cause
        while inner is not None:
            if isinstance(inner, UserError):
                return inner
            inner = getattr(inner, "cause", None) or inner.__cause__
    first = failures[0] if failures else error
    text = " ".join((str(first).strip().splitlines() or [type(first).__name__])[-1].split())[:300]
    failed = RunError(f"the warm start failed: {text}")
    failed.__cause__ = error
    return failed
