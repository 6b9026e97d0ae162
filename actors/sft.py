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

import pyarrow as pa
import pyarrow.compute as pc

from actors import cluster
from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.data.problems import ProblemStream
from airls_ray.errors import DataError, RunError, UserError
from airls_ray.models.check import check_model_folder
from airls_ray.progress import Progress, Track, make_progress
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text import TextCodec, build_tokenizer, encode_traces

SUMMARY = "sft.json"
METRICS = "metrics.jsonl"
_POLL_SECONDS = 0.5
_HELD_OUT_SHARE = 10  # of a small file of problems, one in so many is held out


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
    with files.FullDisk(folder.parent, "the warm-started policy", "free some space and run sft again"):
        with files.replacing(folder.resolve()) as work:
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


# ------------------------------------------------------------------------------------ ranks
def train_rank(job: dict[str, Any]) -> None:
    """One rank, run by Ray Train: update on traces until the target accuracy; rank 0 writes the files."""
    import torch

    from actors.deepspeed_engine import DeepSpeedEngine, adopt_process_group
    from airls_ray.models.load import load_policy_module, save_hf

    torch.set_num_threads(job["threads"])
    config: Config = job["config"]
    folder, source = Path(job["folder"]), job["source"]
    adopt_process_group()
    engine = DeepSpeedEngine(
        lambda: load_policy_module(
            source,
            config.model.dtype,
            trust_remote_code=config.model.trust_remote_code,
            gradient_checkpointing=config.sft.learner.gradient_checkpointing,
        ),
        config.sft.learner,
    )
    summary = _train(engine, config, source, folder)
    weights = dict(engine.named_weights())  # collective under ZeRO-3
    if engine.rank == 0:
        save_hf(engine.module, weights, source, folder)
        files.write_text(folder / SUMMARY, files.to_json(summary, indent=2))


def _train(engine: Any, config: Config, source: str, folder: Path) -> dict[str, Any]:
    """The loop of all ranks; every decision comes from numbers that are the same on all of them."""
    import ray.train

    from airls_ray.learning.supervised import update_on_traces, updates_until_check

    sft = config.sft
    task = make_task(config.task)
    codec = TextCodec.from_folder(source, task, config.model.prompt_template)
    held_out = held_out_problems(config)
    stream = training_traces(config, codec, held_out)
    curve: list[tuple[int, float]] = []
    tokens, next_check = 0.0, sft.evaluate_every
    with Check(config, codec, held_out, engine) as check:
        for update in range(1, sft.iterations + 1):
            line = update_on_traces(engine, next(stream), sft.learner, pad_id=codec.pad_id)
            tokens += line["sft/tokens"]
            if update in (next_check, sft.iterations):
                curve.append((update, check.accuracy(update)))
                line["sft/accuracy"] = curve[-1][1]
                next_check = update + updates_until_check(curve, sft.target_accuracy, sft.evaluate_every)
                ray.train.report({"update": update, **line})
            if engine.rank == 0:
                files.append(folder / METRICS, files.to_json({"update": update, **line}).encode() + b"\n")
            if curve and curve[-1][1] >= sft.target_accuracy < 1.0:
                break
    return {
        "accuracy": curve[-1][1],
        "target": sft.target_accuracy,
        "reached": curve[-1][1] >= sft.target_accuracy,
        "updates": update,
        "tokens": int(tokens),
        "curve": [list(point) for point in curve],
        "seed": config.seed,
    }


class Check:
    """The sampled accuracy on held-out training problems; every rank samples and grades its share."""

    def __init__(self, config: Config, codec: TextCodec, problems: pa.Table, engine: Any) -> None:
        """Encode the prompts and start one grader process."""
        from airls_ray.grading.pool import GraderPool

        self._config = config
        self._codec = codec
        self._engine = engine
        self._problems = _share(problems, engine.rank, engine.world_size)
        self._prompts = [codec.encode_prompt(text) for text in self._problems["prompt"].to_pylist()]
        self._pool = GraderPool(config.task.model_dump_json(), 1, config.verifier.deadline_seconds)

    def __enter__(self) -> Check:
        """Return the check itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the grader process."""
        self._pool.close()

    def accuracy(self, update: int) -> float:
        """Sample one response per problem and return the mean outcome over all ranks."""
        from airls_ray.grading.pool import GradeRequest
        from airls_ray.learning.supervised import sample_responses

        engine, config = self._engine, self._config
        responses = sample_responses(
            engine.module,
            self._prompts,
            temperature=config.rollout.temperature,
            max_response_tokens=config.rollout.max_response_tokens,
            eos_id=self._codec.eos_id,
            pad_id=self._codec.pad_id,
            seed=derive_seed(config.seed, "sft check", update, engine.rank),
            in_step_with_others=engine.stage == 3 and engine.world_size > 1,
        )
        columns = (self._problems[name].to_pylist() for name in ("prompt", "answer", "details"))
        requests = [
            GradeRequest(prompt, answer, details, self._codec.decode(response))
            for prompt, answer, details, response in zip(*columns, responses, strict=True)
        ]
        outcome = sum(result.outcome for result in self._pool.grade(requests))
        totals = engine.sum_over_ranks({"outcome": outcome, "problems": float(len(requests))})
        return totals["outcome"] / max(totals["problems"], 1.0)


def _share(problems: pa.Table, rank: int, world_size: int) -> pa.Table:
    """As many problems for every rank (ZeRO-3 samples in step); at least one."""
    each = max(problems.num_rows // world_size, 1)
    rows = [(rank * each + number) % problems.num_rows for number in range(each)]
    return problems.take(rows)


def held_out_problems(config: Config) -> pa.Table:
    """Training problems that the warm start never learns from, for the accuracy check.

    Of a file with few problems, one in ten is held out.
    """
    wanted = config.sft.evaluate_problems
    stream = ProblemStream(make_task(config.task), "train", derive_seed(config.seed, "sft held out"))
    table = stream.take(wanted)
    unique = table.take(_first_rows(table["problem_id"]))
    if unique.num_rows == wanted:
        return unique
    return unique.slice(0, max(unique.num_rows // _HELD_OUT_SHARE, 1))


def _first_rows(column: pa.ChunkedArray) -> pa.Array:
    """Row of the first occurrence of each value."""
    rows = pa.table({"value": column, "row": pa.array(range(len(column)))})
    return rows.group_by("value", use_threads=False).aggregate([("row", "min")])["row_min"].combine_chunks()


def training_traces(config: Config, codec: TextCodec, held_out: pa.Table) -> Iterator[pa.Table]:
    """Yield one TRACES table per update, from training problems that are not held out.

    Raises:
        DataError: no training problem has a trace.
    """
    stream = ProblemStream(make_task(config.task), "train", derive_seed(config.seed, "sft"))
    kept_out = held_out["problem_id"].combine_chunks()
    wanted, number = config.sft.problems_per_iteration, 0
    while True:
        parts: list[pa.Table] = []
        rows = tries = 0
        while rows < wanted:
            problems = stream.take(wanted - rows)
            problems = problems.filter(pc.invert(pc.is_in(problems["problem_id"], kept_out)))
            seed = derive_seed(config.seed, "sft traces", number)
            parts.append(encode_traces(problems, codec, config.model.context_tokens, seed))
            rows, tries, number = rows + parts[-1].num_rows, tries + 1, number + 1
            if rows == 0 and tries > 1000:
                raise DataError(
                    "no training problem has a trace to learn from: fill the field 'traces' of the training file"
                )
        yield pa.concat_tables(parts).combine_chunks()
