"""PRMs from stored solutions of GSM8K: how well they choose among four, on one core and from nothing.

    openai/grade-school-math: train.jsonl (questions, traces)  -> tokenizer, warm start as a language model
    example_model_solutions.jsonl: 1,319 questions with four graded solutions of four language models
        half of the questions -> PRMs by AIRL, rePIRL and outcome labels; the other half -> the figures

Needs no Ray and no engine: the updates are those of `airls-ray train-prm --rollouts`, in this process.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import offline_prm_data
import typer
from offline_prm_data import MODELS, Data

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.data.rollout_files import StoredRollouts
    from airls_ray.learning.engine import TorchEngine

FOLDER = common.RUNS / "offline_prm"
DATA = "AIRLS_RAY_TEST_DATA"
"""The environment variable whose folder gsm8k/ holds the files."""
SIZES = {
    "hidden_size": 128, "layers": 4, "heads": 4, "intermediate_size": 384, "context_tokens": 512,
}  # fmt: skip
LEARNER = {
    "learning_rate": 5e-4, "lr_warmup_updates": 10, "tokens_per_microbatch": 2048, "adam_betas": [0.9, 0.99],
}  # fmt: skip
WARM_START = {"learning_rate": 2e-3, "lr_warmup_updates": 20}
ROLLOUTS_PER_UPDATE = 16

METHODS: dict[str, dict[str, Any]] = {
    "orm": {"method": "orm"},
    "airl_s, traces against all": {"method": "airl_s", "prm": {"search_aggregate": "mean"}},
    "airl_s, traces and right ones against failed": {
        "method": "airl_s",
        "prm": {"search_aggregate": "mean", "negatives": "failed", "correct_rollouts": "reference"},
    },
    "repirl": {"method": "repirl"},
}
"""All with a scalar head, since the solutions have no log-probabilities. The settings were not tuned."""


def main(
    warm_seconds: Annotated[float, typer.Option(min=1, help="Processor time of the warm start.")] = 160.0,
    prm_seconds: Annotated[float, typer.Option(min=1, help="Processor time of each PRM.")] = 105.0,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and split.")] = 0,
) -> None:
    """Selection among the four stored solutions of each of 660 GSM8K questions, by four PRMs and without one.

    The seconds are of one thread; the warm start and the four PRMs are ten minutes together by default.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from airls_ray.console.choose import make_progress
    from airls_ray.errors import DataError
    from airls_ray.evaluation.selection import count_problems

    folder = Path(os.environ.get(DATA, "nowhere")) / "gsm8k"
    if not (folder / "example_model_solutions.jsonl").is_file():
        raise DataError(
            f"there is no gsm8k/example_model_solutions.jsonl in {DATA}: set it to a folder that has the "
            "files of openai/grade-school-math in gsm8k"
        )
    torch.set_num_threads(1)
    progress = make_progress()
    base = FOLDER / f"base_{seed}"
    config = settings(base, {}, seed)
    data = offline_prm_data.read(folder, base, config, progress)
    cost = {"warm start": warm_start(base, config, data, warm_seconds, progress)}
    learn, held_out = split(config, data)
    figures: dict[str, Any] = {
        "questions": {"learned": count_problems(learn.rollouts), "held_out": count_problems(held_out)},
        "parameters": parameters(base),
        "controls": controls(base, config, data, held_out),
        "prms": {},
    }
    for name, changes in METHODS.items():
        chosen = settings(base, changes, seed)
        figures["prms"][name], cost[name] = train(chosen, base, data, prm_seconds, progress, name)
    figures["too_long"] = {"solutions": data.stored.too_long, "traces": data.stored.traces_too_long}
    figures["training_processor_seconds"] = {name: round(seconds, 1) for name, seconds in cost.items()}
    show(figures, progress)
    progress.say(f"written to {common.write_result('offline_prm', figures)}")


def settings(base: Path, changes: dict[str, Any], seed: int) -> Config:
    """The configuration of a method; half of the questions are held out."""
    from airls_ray.config.schema import Config

    prm = {"parameterisation": "scalar_head", "learner": LEARNER, **changes.get("prm", {})}
    file = {"name": "file", "train_file": base, "test_file": base, "step_delimiter": "\n"}
    return Config.model_validate(
        {
            "seed": seed,
            "task": file,
            "model": {"path": str(base), **SIZES},
            "method": changes.get("method", "airl_s"),
            "prm": prm,
            "supervised_prm": {
                "labels": "outcome", "held_out": 0.5, "rollouts_per_update": ROLLOUTS_PER_UPDATE,
            },
        }
    )  # fmt: skip


# -------------------------------------------------------------------------------------- training
def split(config: Config, data: Data) -> tuple[StoredRollouts, pa.Table]:
    """What is learned from and what is held out."""
    from airls_ray.prm.offline import split_stored

    return split_stored(data.stored, config.supervised_prm.held_out, config.seed)


def warm_start(base: Path, config: Config, data: Data, budget: float, progress: Progress) -> float:
    """Train a new language model on the lessons for so much processor time; returns what it took."""
    import pyarrow as pa
    import torch

    from airls_ray.config.schema import LearnerConfig
    from airls_ray.learning.engine import TorchEngine
    from airls_ray.learning.supervised import update_on_traces
    from airls_ray.models.create import create_policy
    from airls_ray.models.load import load_policy_module, save_hf

    create_policy(config.model, data.codec, base, config.seed)
    learner = LearnerConfig.model_validate({**LEARNER, **WARM_START})
    engine = TorchEngine(load_policy_module(base), learner)
    order = torch.randperm(data.lessons.num_rows, generator=torch.Generator().manual_seed(config.seed))
    parts, update, started = order.split(ROLLOUTS_PER_UPDATE), 0, time.process_time()
    with progress.track("Warm start", None) as bar:
        while (spent := time.process_time() - started) < budget:
            rows = data.lessons.take(pa.array(parts[update % len(parts)].numpy()))
            line = update_on_traces(engine, rows, learner, pad_id=data.codec.pad_id)
            update += 1
            bar.advance(1, loss=line["sft/loss"], seconds=spent)
    save_hf(engine.module, None, base, base)
    return time.process_time() - started


def train(
    config: Config, base: Path, data: Data, budget: float, progress: Progress, name: str
) -> tuple[dict[str, Any], float]:
    """Train a PRM for so much processor time; returns its held-out figures and what it took."""
    from airls_ray.learning.engine import TorchEngine
    from airls_ray.models.load import load_prm_module
    from airls_ray.prm.offline import offline_training
    from airls_ray.prm.offline_method import choose_method
    from airls_ray.prm.step_labels import label_stored

    method = choose_method(config, data.stored)
    config = config.model_copy(update={"prm": method.prm})
    engine = TorchEngine(load_prm_module(base, "scalar_head"), config.prm.learner)
    is_labelled = method.objective is None
    labels = (
        label_stored(data.stored.rollouts, data.codec, config.supervised_prm.labels) if is_labelled else None
    )
    training = offline_training(engine, config, method, data.stored, labels, data.codec.pad_id)
    update = epoch = 0
    plan: list[Any] = []
    spent, losses = 0.0, []
    with progress.track(name, None) as bar:
        while spent < budget:
            if not plan:
                epoch += 1
                plan = training.plan(epoch)
            started = time.process_time()
            line = training.update(plan.pop(0))
            spent += time.process_time() - started
            update += 1
            losses.append(line["train_prm/loss"])
            bar.advance(1, loss=losses[-1], seconds=spent)
    figures = measured(engine, config, data, split(config, data)[1])
    last = losses[-20:]
    return {
        **figures, "notes": list(method.notes), "updates": update, 
        "epochs": round(update / len(training.plan(1)), 2), "loss_of_last_20_updates": sum(last) / len(last),
    }, spent  # fmt: skip


# --------------------------------------------------------------------------------------- figures
def measured(engine: TorchEngine, config: Config, data: Data, held_out: pa.Table) -> dict[str, float]:
    """Of a PRM: those of train-prm, and by how much its choice is better than one at random."""
    from airls_ray.evaluation.selection import (
        choose_by,
        measure_selection,
        trace_log_scores,
        with_intervals,
    )
    from airls_ray.prm.offline import SelectionFigures, selection_seed

    scores = SelectionFigures(engine, config, held_out, data.codec.pad_id).step_scores()
    how, seed = config.prm.search_aggregate, selection_seed(config)
    kind = config.prm.score_kind
    values = choose_by(held_out, trace_log_scores(held_out, scores, how, kind))
    gains = {f"best_of_n_less_{way}": values["best_of_n"] - values[way] for way in ("mean", "majority")}
    return measure_selection(held_out, scores, how, seed, kind) | with_intervals(gains, list(gains), seed)


def controls(base: Path, config: Config, data: Data, held_out: pa.Table) -> dict[str, float]:
    """Choosing without a PRM; two of the ways know more than the solutions' texts.

    `language_model`: highest mean log-probability under the warm-started language model. `one_model`: always
    that of the language model which is right most often on the questions that are learned from.
    """
    from airls_ray.evaluation.selection import choose_by, measure_controls, with_intervals
    from airls_ray.prm.offline import selection_seed

    seed = selection_seed(config)
    learned = set(split(config, data)[0].rollouts["problem_id"].to_pylist())
    ids, outcomes = (data.stored.rollouts[name].to_pylist() for name in ("problem_id", "outcome"))
    rows = list(zip(ids, outcomes, data.models, strict=True))
    right = {
        model: _mean([outcome for name, outcome, by in rows if name in learned and by == model])
        for model in MODELS
    }
    best = max(right, key=lambda model: right[model])
    theirs = _array([float(by == best) for name, _, by in rows if name not in learned])
    values = {
        "one_model": choose_by(held_out, theirs)["best_of_n"],
        "language_model": choose_by(held_out, likelihood(base, config, data, held_out))["best_of_n"],
    }
    return measure_controls(held_out, seed) | with_intervals(values, list(values), seed)


def likelihood(base: Path, config: Config, data: Data, held_out: pa.Table) -> NDArray[np.float64]:
    """Probability of the solutions' tokens under the warm-started model (geometric mean) [rows]."""
    import numpy as np

    from airls_ray.evaluation.rollouts import list_column
    from airls_ray.learning.engine import FrozenEngine
    from airls_ray.models.load import load_policy_module
    from airls_ray.prm.offline_method import logprobs_under

    table = logprobs_under(FrozenEngine(load_policy_module(base)), held_out, config, data.codec.pad_id)
    values, offsets = list_column(table["logprobs"])
    return np.exp(np.add.reduceat(values.astype(np.float64), offsets[:-1]) / np.diff(offsets))


def parameters(base: Path) -> int:
    """Of the PRM."""
    from airls_ray.models.load import load_prm_module

    return sum(one.numel() for one in load_prm_module(base, "scalar_head").parameters())


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)


def _array(values: list[float]) -> NDArray[np.float64]:
    import numpy as np

    return np.array(values, dtype=np.float64)


def show(figures: dict[str, Any], progress: Progress) -> None:
    """One table: ways without a PRM, then the PRMs."""
    names = {
        "mean": "one at random",
        "majority": "majority of the answers",
        "language_model": "likelihood under the warm-started model",
        "one_model": "always the best of the four language models",
        "oracle": "oracle",
    }
    found = figures["controls"]
    rows = [
        [name, *(found[f"{way}{end}"] for end in ("", "_low", "_high")), None, None]
        for way, name in names.items()
    ]
    for name, one in figures["prms"].items():
        shares = [one[f"best_of_n{end}"] for end in ("", "_low", "_high")]
        rows.append([name, *shares, one["trace_auroc"], one["length_correlation"]])
    columns = ("choice among four", "right", "95 % from", "to", "AUROC", "correlation with length")
    progress.table("Held-out questions of GSM8K", rows, columns)


if __name__ == "__main__":
    common.run(main)
