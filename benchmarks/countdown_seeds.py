"""Countdown: the same samples chosen by PRMs of several seeds, and by the models that they start from.

64 samples of each of the 1,000 public problems with four numbers, of one policy
    -> chosen by the PRM of each seed, by the expert model that it starts from, by the policy alone
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import common
import countdown
import typer

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from airls_ray.config.schema import Config
    from airls_ray.text.codec import TextCodec

NUMBERS = 4
ALGORITHM = "best_of_n"
"""Whose samples they are."""


@dataclass(frozen=True)
class Samples:
    """The same number of samples of each problem, problem after problem."""

    rows: pa.Table
    """`prompt`, `response`, `step_ends`: tokens and ends of steps, as in ROLLOUTS."""
    log_probs: NDArray[np.float64]
    """[problems, samples], nats a response under the policy."""
    outcomes: NDArray[np.float64]
    """[problems, samples]."""


def main(
    files: Annotated[
        Path | None,
        typer.Option(help="Folder of cd3_test.jsonl and cd4_test.jsonl; without it, problems are generated."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many PRMs: seeds 0, 1, ...")] = 3,
) -> None:
    """Train a PRM and the expert model that it starts from with each seed, and let each choose.

    Twenty minutes a seed on two cores, after `benchmarks/countdown.py` with the same files, whose policy,
    PRM and samples are used.
    """
    common.use_all_cores()
    from airls_ray.console.choose import make_progress
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec

    progress = make_progress()
    trained = [countdown.train(files, progress, seed)[0] for seed in range(seeds)]
    countdown.search_all(NUMBERS, files, trained[0], ALGORITHM)
    config = countdown.settings(NUMBERS, files)
    codec = TextCodec.for_model(config.model, trained[0].policy, make_task(config.task))
    samples = read_samples(countdown.all_folder(NUMBERS, ALGORITHM) / "records.parquet", codec)

    figures = {"policy": choosing(samples, samples.log_probs)}
    with progress.track("Scoring the samples", 2 * seeds) as bar:
        for seed, models in enumerate(trained):
            for name, model in (("expert", countdown.expert_folder(seed)), ("prm", models.prms["prm"])):
                scores = response_logprobs(model, samples, config, codec)
                # As search_score=product does: half the sum, which ranks the same.
                figures[f"{name}, seed {seed}"] = choosing(samples, scores + samples.log_probs)
                bar.advance(1)
    shown = [[name, *(f"{value:.3f}" for value in found.values())] for name, found in figures.items()]
    progress.table(f"countdown, {NUMBERS} numbers", shown, ("chosen by", *figures["policy"]))
    progress.say(f"written to {common.write_result('countdown_seeds', figures)}")


def read_samples(records: Path, codec: TextCodec) -> Samples:
    """Every finished response of a search that samples whole responses."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pq.read_table(records, columns=["prompt", "leaves"]).to_pylist()
    leaves = [leaf for record in found for leaf in record["leaves"]]
    prompts = [codec.encode_prompt(record["prompt"]) for record in found for _ in record["leaves"]]
    tokens = pa.list_(pa.int32())
    rows = pa.table(
        {
            "prompt": pa.array(prompts, tokens),
            "response": pa.array([leaf["response"] for leaf in leaves], tokens),
            "step_ends": pa.array([leaf["step_ends"] for leaf in leaves], tokens),
        }
    )
    per_problem = [
        np.array([leaf[name] for leaf in leaves]).reshape(len(found), -1) for name in ("log_prob", "outcome")
    ]
    return Samples(rows, *per_problem)


def response_logprobs(model: Path, samples: Samples, config: Config, codec: TextCodec) -> NDArray[np.float64]:
    """Log-probability of each response under a language model: [problems, samples], nats."""
    from airls_ray.learning.alone_logprobs import row_means
    from airls_ray.learning.engine import FrozenEngine
    from airls_ray.learning.passes import token_logprobs
    from airls_ray.models.load import load_policy_module

    found = token_logprobs(
        FrozenEngine(load_policy_module(model, config.model.dtype)),
        samples.rows,
        temperature=config.rollout.temperature,
        tokens_per_microbatch=config.prm.learner.tokens_per_microbatch,
        pad_id=codec.pad_id,
    ).sort_by("row")
    lengths = found["logprobs"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    return (row_means(found["logprobs"]).numpy() * lengths).reshape(samples.outcomes.shape)


def choosing(samples: Samples, scores: NDArray[np.float64]) -> dict[str, float]:
    """Best-of-N of each budget, the interval at the largest, any right, and the AUROC within problems."""
    import numpy as np

    from airls_ray.evaluation.ranking import auroc_within, best_of_k, confidence_interval

    problems, largest = scores.shape
    budgets = [budget for budget in countdown.BUDGETS if budget <= largest]
    curves = {budget: best_of_k(scores, samples.outcomes, budget) for budget in budgets}
    low, high = confidence_interval(curves[budgets[-1]])
    groups = np.repeat(np.arange(problems), largest)
    return {
        **{f"best_of_{budget}": float(curve.mean()) for budget, curve in curves.items()},
        "low": low,
        "high": high,
        "any_right": float(samples.outcomes.max(1).mean()),
        "auroc_within": auroc_within(scores.ravel(), samples.outcomes.ravel() > 0.5, groups),
    }


if __name__ == "__main__":
    common.run(main)
