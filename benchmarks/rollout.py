"""Rollout worker against bare vLLM: the same prompts, seeds and sampling on the same engine."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from common import Pairs, Spread

if TYPE_CHECKING:
    import pyarrow as pa

    from actors.rollout.rollout_worker import RolloutRequest, RolloutWorker
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

TARGET = 0.95
MAX_TOKENS = 40


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Measurements of each side.")] = 9,
    problems: Annotated[
        int, typer.Option(min=1, help="Prompts of one measurement, as many rollouts each as the demo has.")
    ] = 64,
) -> None:
    """Tokens per second of `RolloutWorker.generate` against `vllm.LLM.generate`.

    Both sides use the worker's own engine, so what is measured is everything around it: encoding,
    sampling parameters, the Arrow table, step ends. Both draw the very same tokens.
    """
    threads = common.use_all_cores()
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    config = load_config(common.CONFIG, [f"rollout.max_response_tokens={MAX_TOKENS}"])
    folder = common.warm_started_policy(config, progress)
    measured, tokens = measure(config, str(folder), problems, pairs, progress)
    rows = [
        ("rollout worker", str(Spread.of(measured.ours)), ""),
        ("vllm.LLM.generate", str(Spread.of(measured.bare)), ""),
        ("ratio of each pair", str(measured.ratio), common.verdict(measured.ratio.median, TARGET)),
    ]
    progress.table("Rollouts, response tokens per second: median (range)", rows, ("", "tokens/s", "target"))
    figures = {
        "rollout_worker_tokens_per_second": Spread.of(measured.ours).figures(),
        "vllm_tokens_per_second": Spread.of(measured.bare).figures(),
        "ratio": measured.ratio.figures(),
        "target_ratio": TARGET,
        "pairs": pairs,
        "problems": problems,
        "rollouts_per_problem": config.train.rollouts_per_problem,
        "response_tokens": tokens,
        "threads": threads,
    }
    progress.say(f"written to {common.write_result('rollout', figures)}")


def measure(config: Config, folder: str, problems: int, pairs: int, progress: Progress) -> tuple[Pairs, int]:
    """Return the tokens per second of both sides, and the response tokens of one call."""
    from actors.rollout.rollout_worker import RolloutRequest, RolloutWorker
    from airls_ray.data.problems import ProblemStream
    from airls_ray.tasks import make_task

    worker = RolloutWorker("benchmark", config, folder)
    with progress.phase("Starting the engine"):
        worker.start()
    table = ProblemStream(make_task(config.task), "train", config.seed).take(problems)
    request = RolloutRequest(config.train.rollouts_per_problem, 1.0, config.seed, ("benchmark", 0))
    counts: list[int] = []
    llm: Any = worker._vllm()._llm
    requests, parameters = bare_arguments(worker, table, request)

    def ours() -> float:
        llm.reset_prefix_cache()
        start = time.perf_counter()
        rollouts = worker.generate(table, range(problems), request)
        seconds = time.perf_counter() - start
        counts.append(len(rollouts["response"].combine_chunks().values))
        return counts[-1] / seconds

    def bare() -> float:
        llm.reset_prefix_cache()
        start = time.perf_counter()
        outputs = llm.generate(requests, parameters, use_tqdm=False)
        seconds = time.perf_counter() - start
        counts.append(sum(len(sample.token_ids) for output in outputs for sample in output.outputs))
        return counts[-1] / seconds

    with progress.track("Pairs", pairs) as bar:
        measured = common.measure_pairs(ours, bare, pairs, bar)
    if len(set(counts)) != 1:
        raise RuntimeError(f"both sides must draw the same tokens, but they drew {sorted(set(counts))}")
    return measured, counts[0]


def bare_arguments(worker: RolloutWorker, problems: pa.Table, request: RolloutRequest) -> tuple[Any, Any]:
    """What one hands to vLLM for the same samples, made beforehand: prompts and sampling parameters."""
    from vllm import SamplingParams

    from airls_ray.seeding import derive_seed

    codec = worker._codec
    prompts = [{"prompt_token_ids": codec.encode_prompt(text)} for text in problems["prompt"].to_pylist()]
    parameters = [
        SamplingParams(
            n=request.samples,
            temperature=request.temperature,
            max_tokens=MAX_TOKENS,
            seed=derive_seed(request.seed, "rollout", *request.seed_path, identifier),
            stop_token_ids=list(codec.eos_ids),
            logprobs=0,
        )
        for identifier in problems["problem_id"].to_pylist()
    ]
    return prompts, parameters


if __name__ == "__main__":
    common.run(main)
