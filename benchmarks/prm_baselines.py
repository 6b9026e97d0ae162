"""PRMs on puzzles with many right ways, tuned alike: without labels, from labels, from the truth.

    base policy -> rollouts of training problems -> outcomes, completions of prefixes, truth of steps
        each PRM at every rate and epoch and aggregation -> the best on validation problems
            -> choosing among 16 samples of test problems, AUROC over all and within problems

Sampling runs on the rollout workers; training runs in this process, by the updates of `airls-ray train-prm`.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from method_variants import config_path

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.data.rollout_files import StoredRollouts
    from airls_ray.text.codec import TextCodec

FOLDER = common.RUNS / "prm_baselines"
TASKS = ("jugs", "quantum_lock", "word_ladder")
ROLLOUTS = 8
"""Of each training problem."""
SAMPLES = 16
"""Of each test problem."""
AGGREGATES = ("min", "prod", "mean", "last")
SCALAR = ("prm.parameterisation=scalar_head", "prm.search_score=auto", "prm.log_prob=auto", "prm.reward=f")
RATIO = ("prm.parameterisation=log_prob", "prm.search_score=ratio", "prm.log_prob=sum")
TRUTH, TRACES = "truth", "traces"
"""What is no label rule: the truth of the steps; no labels, but the traces as text to be likely."""


@dataclass(frozen=True)
class Recipe:
    """A way to train a PRM."""

    name: str
    label: str
    overrides: tuple[str, ...]
    rates: tuple[float, ...]
    labels: str | None = None
    """The label rule, `TRUTH` or `TRACES`; None: by the method's objective, from traces and outcomes."""
    aggregates: tuple[str, ...] = AGGREGATES
    """Tried, the best on validation problems is taken."""


_SLOW, _FAST = (1e-4, 3e-4), (3e-4, 1e-3)
RECIPES = (
    Recipe("airl_s", "AIRL-S, mean of log phi", ("method=airl_s",), _SLOW),
    Recipe(
        "airl_s_ratio", "AIRL-S, log phi - log pi", ("method=airl_s", *RATIO, "prm.reward=log_odds"), _SLOW
    ),
    Recipe(
        "expert",
        "language model of the traces alone, times the policy",
        ("method=airl_s", "prm.log_prob=sum", "prm.search_score=product"),
        _FAST,
        TRACES,
    ),
    Recipe(
        "repirl",
        "rePIRL",
        (
            "method=repirl", "prm.action=token", "prm.reward_unit=token", "prm.output_l2=0.1",
            "prm.negatives=failed", "prm.correct_rollouts=reference", "prm.log_prob=sum",
            "prm.search_aggregate=prod",
        ),
        _SLOW,
    ),
    Recipe(
        "implicit", "implicit PRM, outcomes", ("method=orm", *RATIO, "supervised_prm.step_loss=implicit_prm"),
        _SLOW, "outcome", ("odds", *AGGREGATES),
    ),
    Recipe("orm", "outcomes, scalar head", ("method=orm", *SCALAR), _FAST, "outcome"),
    Recipe("soft", "Math-Shepherd soft, scalar head", ("method=orm", *SCALAR), _FAST, "math_shepherd_soft"),
    Recipe(
        "soft_ratio", "Math-Shepherd soft, log phi - log pi", ("method=orm", *RATIO), _SLOW,
        "math_shepherd_soft",
    ),
    Recipe("hard", "Math-Shepherd hard, scalar head", ("method=orm", *SCALAR), _FAST, "math_shepherd_hard"),
    Recipe("progress", "relative progress, scalar head", ("method=orm", *SCALAR), _FAST, "relative_progress"),
    Recipe(
        "pqm", "PQM on hard labels, scalar head",
        ("method=orm", *SCALAR, "supervised_prm.step_loss=pqm"), _FAST, "math_shepherd_hard",
    ),
    Recipe("truth", "true step labels, scalar head (upper bound)", ("method=orm", *SCALAR), _FAST, TRUTH),
    Recipe("truth_ratio", "true step labels, log phi - log pi", ("method=orm", *RATIO), _SLOW, TRUTH),
)  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """What all PRMs of a task learn from and are measured on."""

    learn: dict[str, pa.Table]
    """PRM_LABELS by label rule: the same rollouts."""
    stored: StoredRollouts
    """The same rollouts and the traces of their problems."""
    parts: dict[str, pa.Table]
    """PRM_LABELS of `validation` and `test` problems."""
    cost: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What the training of all PRMs of a task shares."""

    task: str
    base: Path
    samples: Samples
    epochs: int
    folder: Path
    progress: Progress


def main(
    task: Annotated[list[str] | None, typer.Option(help="Only this task (may be repeated).")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this PRM (may be repeated).")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds of the training: 0, 1, ...")] = 1,
    problems: Annotated[int, typer.Option(min=16, help="Training problems, with 8 rollouts each.")] = 384,
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs of a PRM.")] = 3,
    completions: Annotated[int, typer.Option(min=1, help="Of each prefix, for Monte Carlo labels.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="Of this process.")] = 2,
) -> None:
    """Train every PRM on the same rollouts of one base policy, and let each choose among 16 samples.

    About half an hour a task and seed on two cores. Finished PRMs are kept under
    runs/benchmarks/prm_baselines, and the command goes on from them.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    sizes = {"problems": problems, "completions": completions, "epochs": epochs}
    recipes = [one for one in RECIPES if not only or one.name in only]
    figures: dict[str, Any] = {"sizes": {**sizes, "rollouts": problems * ROLLOUTS}, "tasks": {}}
    for name in task or TASKS:
        figures["tasks"][name] = run_task(name, recipes, range(seeds), sizes, threads, progress)
        common.write_result("prm_baselines", figures)
    for name, found in figures["tasks"].items():
        show(name, found, progress)


def run_task(
    task: str, recipes: list[Recipe], seeds: range, sizes: dict[str, int], threads: int, progress: Progress
) -> dict[str, Any]:
    """Return the figures of a task: controls, and each PRM with its settings."""
    import torch

    from airls_ray.config import load_config

    config = load_config(config_path(task), [f"supervised_prm.problems={sizes['problems']}"])
    folder = FOLDER / f"{task}_{common.digest(json.dumps([sizes, config.model_dump(mode='json')]))}"
    base = common.warm_started_policy(config, progress)
    samples = sample(config, base, folder, sizes["completions"], progress)
    torch.set_num_threads(threads)
    prms: dict[str, Any] = {}
    job = Job(task, base, samples, sizes["epochs"], folder, progress)
    for recipe in recipes:
        runs = [train(job, recipe, seed) for seed in seeds]
        prms[recipe.name] = {"label": recipe.label, "seeds": runs}
    return {"controls": controls(samples.parts["test"]), "prms": prms, "cost": samples.cost}


# ---------------------------------------------------------------------------------------- samples
def sample(config: Config, base: Path, folder: Path, completions: int, progress: Progress) -> Samples:
    """Sample what is not there yet: rollouts with labels, validation and test."""
    import pyarrow as pa

    from actors.commands.prm_labels import label_chunk, make_labels
    from actors.commands.samplers import started_samplers
    from actors.train.start import connected
    from airls_ray.data.prm_labels import LabelFacts, read_facts, read_labels, write_labels
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec

    task = make_task(config.task)
    codec = TextCodec.for_model(config.model, str(base), task)

    def labelling(rule: str, rollouts: int) -> Config:
        section = {"labels": rule, "rollouts_per_problem": rollouts, "completions": completions}
        return config.model_validate(
            config.model_dump() | {"supervised_prm": config.supervised_prm.model_dump() | section}
        )

    values = folder / "values.parquet"
    parts = {name: folder / f"{name}.parquet" for name in ("validation", "test")}
    if any(not file.exists() for file in (values, *parts.values())):
        with connected(config):
            make_labels(labelling("math_shepherd_soft", ROLLOUTS), str(base), values, progress)
            chosen = labelling("outcome", SAMPLES)
            with started_samplers(chosen, str(base), progress) as samplers:
                held_out = distinct_test_problems(config)
                first = held_out.num_rows // 3
                tables = {"validation": held_out.slice(0, first), "test": held_out.slice(first)}
                for name, file in parts.items():
                    table, cost = label_chunk(
                        chosen, samplers.pool, samplers.verifier, codec, tables[name], 10**6
                    )
                    write_labels(table, file, LabelFacts({"sampled": name}, cost))
    soft = read_labels(values)
    rules = {one.labels for one in RECIPES if one.labels not in (None, TRUTH, TRACES)}
    learn = {rule: labelled_by(rule, soft) for rule in rules if rule is not None}
    learn[TRUTH] = with_labels(soft, soft["step_truth"].combine_chunks().cast(pa.list_(pa.int8())))
    facts = read_facts(values)
    return Samples(
        learn,
        stored_of(soft, config, task, codec),
        {name: read_labels(file) for name, file in parts.items()},
        {} if facts is None else facts.cost,
    )


def distinct_test_problems(config: Config) -> pa.Table:
    """Up to 300 problems of the test split, each once: the warm start has seen most training problems of a
    small puzzle, so those would flatter what is chosen by them."""
    from airls_ray.data.problems import ProblemStream, take_distinct
    from airls_ray.tasks import make_task

    larger = config.task.model_copy(update={"test_problems": 1000})
    return take_distinct(ProblemStream(make_task(larger), "test", config.seed), 300)


def labelled_by(rule: str, soft: pa.Table) -> pa.Table:
    """The rollouts labelled by another rule; the soft labels are the values that every rule goes by."""
    from airls_ray.config.supervised_section import LabelRuleConfig
    from airls_ray.evaluation.rollouts import list_column
    from airls_ray.prm.step_labels import known_to, label_steps

    known = known_to(soft, None)
    values, _ = list_column(soft["labels"])
    known |= {"values": values.astype("float64"), "correct": (values > 0).astype("int64")}
    return with_labels(soft, label_steps(LabelRuleConfig(name=rule), known))


def with_labels(table: pa.Table, labels: pa.Array) -> pa.Table:
    """The rollouts with other labels."""
    field = table.schema.field("labels")
    return table.set_column(table.column_names.index("labels"), field, labels.cast(field.type))


def stored_of(table: pa.Table, config: Config, task: Any, codec: TextCodec) -> StoredRollouts:
    """The rollouts as stored ones, and a trace of each of their problems."""
    import pyarrow as pa

    from actors.commands.prm_labels import training_problems
    from airls_ray.data.rollout_files import StoredRollouts
    from airls_ray.data.schemas import STORED_ROLLOUTS
    from airls_ray.text.codec import encode_traces

    def with_schema(given: pa.Table, **more: pa.Array) -> pa.Table:
        columns = [
            more[name] if name in more else given[name] if name in given.column_names
            else pa.nulls(given.num_rows, kind)
            for name, kind in zip(STORED_ROLLOUTS.names, STORED_ROLLOUTS.types, strict=True)
        ]  # fmt: skip
        return pa.Table.from_arrays(columns, schema=STORED_ROLLOUTS)

    traces = encode_traces(training_problems(config, codec), codec, config.model.context_tokens)
    ones = pa.array([1.0] * traces.num_rows, pa.float32())
    return StoredRollouts(with_schema(table), with_schema(traces, outcome=ones))


# --------------------------------------------------------------------------------------- training
def train(job: Job, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Return the figures of a PRM at the settings that are best on the validation problems."""
    file = job.folder / "prms" / f"{recipe.name}_seed_{seed}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    started = time.perf_counter()
    grid: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    for rate in recipe.rates:
        best = train_at(job, recipe, rate, seed, grid, best)
    assert best is not None
    record = {**best, "grid": grid, "seconds": round(time.perf_counter() - started, 1)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record))
    job.progress.say(
        f"{job.task}, {recipe.label}: Best-of-{SAMPLES} {best['test']['best_of_n']:.3f}, AUROC within "
        f"problems {best['test']['auroc_within']:.3f} (rate {best['rate']:g}, epoch {best['epoch']}, "
        f"steps by {best['aggregate']})"
    )
    return record


def train_at(
    job: Job,
    recipe: Recipe,
    rate: float,
    seed: int,
    grid: list[dict[str, Any]],
    best: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """Train at one rate; adds the figures of every epoch and aggregation to `grid`; returns the best so far.

    Test problems are looked at only where the validation problems say that a setting is the best.
    """
    from airls_ray.config import load_config
    from airls_ray.learning.engine import FrozenEngine, TorchEngine
    from airls_ray.models.load import load_policy_module, load_prm_module
    from airls_ray.prm.offline import AdversarialTraining
    from airls_ray.prm.offline_method import choose_method, logprobs_under
    from airls_ray.prm.training import LabelTraining

    overrides = [
        *recipe.overrides, f"seed={seed}", f"prm.learner.learning_rate={rate}", 
        "supervised_prm.rollouts_per_update=64",
        *([] if recipe.labels in (None, TRACES) else ["supervised_prm.labels=outcome"]),
    ]  # fmt: skip
    config = load_config(config_path(job.task), overrides)
    engine = TorchEngine(load_prm_module(job.base, config.prm.parameterisation), config.prm.learner)
    training: Any
    if recipe.labels is None:
        method = choose_method(config, job.samples.stored)
        stored = job.samples.stored
        if method.needs_trace_logprobs:
            policy = FrozenEngine(load_policy_module(job.base), None)
            stored = replace(stored, traces=logprobs_under(policy, stored.traces, config, 0))
        training = AdversarialTraining(engine, config, method, stored, 0)
    elif recipe.labels == TRACES:
        training = TraceTraining(engine, config, job.samples.stored.traces)
    else:
        training = LabelTraining(
            engine, config, job.samples.learn[recipe.labels], job.samples.parts["test"].slice(0, 0), 0
        )
    validation, test = job.samples.parts["validation"], job.samples.parts["test"]
    with job.progress.track(f"{recipe.name}, rate {rate:g}", job.epochs * len(training.plan(1))) as bar:
        for epoch in range(1, job.epochs + 1):
            for rows in training.plan(epoch):
                line = training.update(rows)
                bar.advance(1, loss=line["train_prm/loss"])
            steps = step_scores(engine, config, validation)
            for aggregate in recipe.aggregates:
                if aggregate == "odds" and config.prm.score_kind != "probability":
                    continue
                setting = {"rate": rate, "epoch": epoch, "aggregate": aggregate}
                figures = measure(validation, steps, aggregate, config)
                grid.append({**setting, **figures})
                if best is None or _rank(figures) > _rank(best["validation"]):
                    best = {**setting, "validation": figures}
            if best is not None and (best["rate"], best["epoch"]) == (rate, epoch):
                best["test"] = measure(test, step_scores(engine, config, test), best["aggregate"], config)
    return best


class TraceTraining:
    """Supervised training on the traces: f = log phi is then a model of the expert, without any rollout."""

    def __init__(self, engine: Any, config: Config, traces: pa.Table) -> None:
        self._engine, self._config, self._traces = engine, config, traces

    def plan(self, epoch: int) -> list[Any]:
        """The traces in an order of the epoch's own, as many updates as 64 rollouts each would be."""
        import torch

        order = torch.randperm(self._traces.num_rows, generator=torch.Generator().manual_seed(epoch))
        return list(order.split(64 // ROLLOUTS))

    def update(self, rows: Any) -> dict[str, float]:
        """One update on some traces."""
        import pyarrow as pa

        from airls_ray.learning.supervised import update_on_traces

        taken = self._traces.take(pa.array(rows.numpy()))
        line = update_on_traces(self._engine, taken, self._config.prm.learner, pad_id=0)
        return {"train_prm/loss": line["sft/loss"]}


def _rank(figures: dict[str, float]) -> float:
    return figures["best_of_n"] + figures["auroc_within"]


# ---------------------------------------------------------------------------------------- figures
def step_scores(engine: Any, config: Config, table: pa.Table) -> NDArray[np.float64]:
    """Search scores of the steps of all rows [S]."""
    import numpy as np

    from airls_ray.evaluation.rollouts import list_column
    from airls_ray.prm.scores import score_steps

    part = score_steps(engine, table, None, config.prm, temperature=config.rollout.temperature, pad_id=0)
    _, offsets = list_column(table["step_ends"])
    values, counts = list_column(part["scores"])
    scores = np.zeros(offsets[-1])
    first = np.repeat(offsets[:-1][part["row"].to_numpy()], np.diff(counts))
    scores[first + np.arange(len(values)) - np.repeat(counts[:-1], np.diff(counts))] = values
    return scores


def measure(table: pa.Table, scores: NDArray[np.float64], aggregate: Any, config: Config) -> dict[str, float]:
    """Choosing by scores: Best-of-N with its interval; AUROCs of responses and steps, over all and within
    problems."""
    from airls_ray.evaluation.selection import trace_log_scores
    from airls_ray.evaluation.steps import log_scores, score_sizes

    kind = config.prm.score_kind
    traces = trace_log_scores(table, scores, aggregate, kind)
    return choosing(table, traces, log_scores(scores, score_sizes(kind, tokens_of(table))))


def tokens_of(table: pa.Table) -> NDArray[np.int64]:
    """Tokens of each step [S]."""
    from airls_ray.evaluation.rollouts import step_tokens

    return step_tokens(table)


def choosing(table: pa.Table, traces: NDArray[np.float64], steps: NDArray[np.float64]) -> dict[str, float]:
    """Figures of log-scores of responses and of steps."""
    import numpy as np
    import pyarrow.compute as pc

    from airls_ray.evaluation.ranking import auroc, auroc_within, confidence_interval
    from airls_ray.evaluation.rollouts import list_column

    right = table["outcome"].to_numpy() > 0.5
    problems = np.unique(table["problem_id"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    _, offsets = list_column(table["step_ends"])
    truth = pc.list_flatten(table["step_truth"].combine_chunks()).to_numpy(zero_copy_only=False)
    of_steps = np.repeat(problems, np.diff(offsets))
    chosen = best_of_all(traces, right, problems)
    low, high = confidence_interval(chosen)
    return {
        "best_of_n": float(chosen.mean()),
        "low": low,
        "high": high,
        "auroc": auroc(traces, right),
        "auroc_within": auroc_within(traces, right, problems),
        "step_auroc": auroc(steps, truth.astype(bool)),
        "step_auroc_within": auroc_within(steps, truth.astype(bool), of_steps),
    }


def best_of_all(
    scores: NDArray[np.float64], right: NDArray[np.bool_], problems: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Whether the highest-scored sample of each problem is right; equal ones share."""
    import numpy as np

    found = []
    for problem in np.unique(problems):
        ours = problems == problem
        top = scores[ours] == scores[ours].max()
        found.append(right[ours][top].mean())
    return np.array(found)


def controls(table: pa.Table) -> dict[str, Any]:
    """The policy's log-probability, one sample, any right one."""
    import numpy as np

    from airls_ray.evaluation.ranking import confidence_interval
    from airls_ray.evaluation.rollouts import list_column, step_sums

    tokens, _ = list_column(table["logprobs"])
    steps, offsets = step_sums(table, tokens)
    right = table["outcome"].to_numpy() > 0.5
    problems = np.unique(table["problem_id"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    shares = np.bincount(problems, right) / np.bincount(problems)
    low, high = confidence_interval(shares)
    return {
        "log_prob": choosing(table, np.add.reduceat(steps, offsets[:-1]), steps),
        "one_sample": {"best_of_n": float(shares.mean()), "low": low, "high": high},
        "any_right": {"best_of_n": float((shares > 0).mean())},
    }


def show(task: str, found: dict[str, Any], progress: Progress) -> None:
    """The table of a task."""
    names = ("auroc_within", "auroc", "step_auroc_within", "step_auroc")
    rows: list[list[Any]] = []

    def add(label: str, one: dict[str, Any], how: str = "") -> None:
        interval = f"{one['low']:.3f}-{one['high']:.3f}" if "low" in one else ""
        rows.append([label, one["best_of_n"], interval, *(one.get(name) for name in names), how])

    add("one sample", found["controls"]["one_sample"])
    add("policy log-probability", found["controls"]["log_prob"])
    for prm in found["prms"].values():
        for run in prm["seeds"]:
            add(prm["label"], run["test"], f"{run['rate']:g}, {run['epoch']}, {run['aggregate']}")
    add("any right", found["controls"]["any_right"])
    columns = [
        "chosen by", f"Best-of-{SAMPLES}", "95 %", "AUROC within", "over all", "of steps within", "over all",
        "rate, epoch, steps by",
    ]  # fmt: skip
    progress.table(task, rows, columns)


if __name__ == "__main__":
    common.run(main)
