"""One rank of the warm start: what Ray Train runs in each of its workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.train
import torch

from actors.learn.deepspeed_engine import DeepSpeedEngine
from actors.learn.sft_state import METRICS, SUMMARY, SFTProgress, SFTState
from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.config.task_choice import to_graders
from airls_ray.data.detours import with_detours
from airls_ray.data.lengths import fit_of
from airls_ray.data.problems import ProblemStream
from airls_ray.errors import DataError
from airls_ray.grading.pool import GradeRequest, GraderPool
from airls_ray.learning.supervised import sample_responses, update_on_traces, updates_until_check
from airls_ray.models.load import load_policy_module, save_hf
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, encode_traces
from airls_ray.truncation import Truncation

_HELD_OUT_SHARE = 10  # of a file of problems, no more than one in so many is held out


def train_rank(job: dict[str, Any]) -> None:
    """One rank, run by Ray Train: update on traces until the target accuracy; rank 0 writes the files."""
    torch.set_num_threads(job["threads"])
    config: Config = job["config"]
    folder, source = Path(job["folder"]), job["source"]
    engine = DeepSpeedEngine(
        lambda: load_policy_module(
            source,
            config.model.dtype,
            attention=config.model.attention,
            trust_remote_code=config.model.trust_remote_code,
            gradient_checkpointing=config.sft.learner.gradient_checkpointing,
            logit_chunk_mib=config.sft.learner.logit_chunk_mib,
        ),
        config.sft.learner,
    )
    done = SFTProgress()
    if job["before"] is not None:
        engine.load_state(job["before"])
        done = SFTState.read(job["before"])
    summary = _train(engine, config, source, folder, job["state"], done)
    weights = dict(engine.named_weights())  # collective under ZeRO-3
    if engine.rank == 0:
        save_hf(engine.module, weights, source, folder)
        files.write_text(folder / SUMMARY, files.to_json(summary, indent=2))


def _train(
    engine: Any, config: Config, source: str, folder: Path, state: SFTState, done: SFTProgress
) -> dict[str, Any]:
    """The loop of all ranks; every decision comes from numbers that are the same on all of them."""
    sft, started = config.sft, time.perf_counter()
    task = make_task(config.task)
    codec = TextCodec.for_model(config.model, source, task)
    held_out = held_out_problems(config, codec)
    stream = training_traces(config, codec, held_out)
    for _ in range(done.update):  # what was drawn before is not drawn again
        next(stream)
    curve = done.curve
    next_check = done.update + updates_until_check(curve, sft.target_accuracy, sft.evaluate_every)
    with Check(config, codec, held_out, engine) as check:
        for update in range(done.update + 1, sft.iterations + 1):
            line = update_on_traces(engine, next(stream), sft.learner, pad_id=codec.pad_id)
            done.update, done.tokens = update, done.tokens + line["sft/tokens"]
            if update in (next_check, sft.iterations):
                curve.append((update, check.accuracy(update)))
                line["sft/accuracy"] = curve[-1][1]
                next_check = update + updates_until_check(curve, sft.target_accuracy, sft.evaluate_every)
                ray.train.report({"update": update, **line})
            if engine.rank == 0:
                files.append(folder / METRICS, files.to_json({"update": update, **line}).encode() + b"\n")
            if curve and curve[-1][1] >= sft.target_accuracy < 1.0:
                break
            if curve and curve[-1][0] == update < sft.iterations:
                seconds = done.seconds + time.perf_counter() - started
                state.save(engine, source, folder / METRICS, done, seconds)
    return {
        "accuracy": curve[-1][1],
        "target": sft.target_accuracy,
        "reached": curve[-1][1] >= sft.target_accuracy,
        "updates": done.update,
        "tokens": int(done.tokens),
        "curve": [list(point) for point in curve],
        "seed": config.seed,
    }


class Check:
    """The sampled accuracy on held-out training problems; every rank samples and grades its share."""

    def __init__(self, config: Config, codec: TextCodec, problems: pa.Table, engine: Any) -> None:
        """Encode the prompts and start one grader process."""
        self._config = config
        self._codec = codec
        self._engine = engine
        self._problems = _share(problems, engine.rank, engine.world_size)
        asked = (self._problems[name].to_pylist() for name in ("prompt", "details"))
        self._prompts = [codec.encode_problem(*one) for one in zip(*asked, strict=True)]
        self._pool = GraderPool(to_graders(config.task), 1, config.verifier.deadline_seconds)

    def __enter__(self) -> Check:
        """Return the check itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the grader process."""
        self._pool.close()

    def accuracy(self, update: int) -> float:
        """Sample one response per problem and return the mean outcome over all ranks."""
        engine, config = self._engine, self._config
        responses = sample_responses(
            engine.module,
            self._prompts,
            temperature=config.rollout.temperature,
            truncation=Truncation.of(config.rollout),
            max_response_tokens=config.rollout.max_response_tokens,
            eos_ids=self._codec.eos_ids,
            pad_id=self._codec.pad_id,
            seed=derive_seed(config.seed, "sft check", update, engine.rank),
            in_step_with_others=engine.stage == 3 and engine.world_size > 1,
        )
        columns = (self._problems[name].to_pylist() for name in ("prompt", "answer", "details"))
        requests = [
            GradeRequest(
                prompt,
                answer,
                details,
                self._codec.decode(response),
                open_thought=self._codec.open_thought,
            )
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


def held_out_problems(config: Config, codec: TextCodec) -> pa.Table:
    """Training problems that the warm start never learns from, for the accuracy check.

    Of a file with few problems, no more than one in ten is held out: the others are to be learned from.
    """
    wanted = config.sft.evaluate_problems
    seed = derive_seed(config.seed, "sft held out")
    stream = ProblemStream(make_task(config.task), "train", seed, fit=fit_of(config, codec))
    table = stream.take(wanted)
    unique = table.take(_first_rows(table["problem_id"]))
    known = set(unique["problem_id"].to_pylist())
    while len(known) < wanted * _HELD_OUT_SHARE:
        new = set(stream.take(wanted)["problem_id"].to_pylist()) - known
        if not new:  # a file has come to its end and begins again
            break
        known |= new
    return unique.slice(0, min(wanted, max(len(known) // _HELD_OUT_SHARE, 1)))


def _first_rows(column: pa.ChunkedArray) -> pa.Array:
    """Row of the first occurrence of each value."""
    rows = pa.table({"value": column, "row": pa.array(range(len(column)))})
    return rows.group_by("value", use_threads=False).aggregate([("row", "min")])["row_min"].combine_chunks()


def training_traces(config: Config, codec: TextCodec, held_out: pa.Table) -> Iterator[pa.Table]:
    """Yield one TRACES table per update, from training problems that are not held out.

    Raises:
        DataError: no training problem has a trace.
    """
    task = make_task(config.task)
    stream = ProblemStream(task, "train", derive_seed(config.seed, "sft"), fit=fit_of(config, codec))
    kept_out = held_out["problem_id"].combine_chunks()
    wanted, number = config.sft.problems_per_iteration, 0
    while True:
        parts: list[pa.Table] = []
        rows = tries = 0
        while rows < wanted:
            problems = stream.take(wanted - rows)
            problems = problems.filter(pc.invert(pc.is_in(problems["problem_id"], kept_out)))
            seed = derive_seed(config.seed, "sft traces", number)
            problems = with_detours(problems, task, config.sft.detour_share, seed)
            parts.append(encode_traces(problems, codec, config.model.context_tokens, seed))
            rows, tries, number = rows + parts[-1].num_rows, tries + 1, number + 1
            if rows == 0 and tries > 1000:
                raise DataError(
                    "no training problem has a trace to learn from: fill 'traces' in the training file"
                )
        yield pa.concat_tables(parts).combine_chunks()
