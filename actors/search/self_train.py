"""`airls-ray self-train`: rounds of search, warm start and PRM training, by the commands that there are.

Every stage leaves a file when it is finished; a call with the same settings goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.commands.evaluate_outputs import evaluate_policy
from actors.commands.sft import run_sft
from actors.commands.train_prm import PRM, train_prm
from actors.search.search import run_search
from actors.search.search_setup import with_prm_form
from actors.train.launch_checks import check_lengths
from actors.train.start import connected
from airls_ray import files
from airls_ray.config.schema import Config
from airls_ray.console.choose import make_progress
from airls_ray.console.progress import Progress
from airls_ray.data.check_method import try_step_labels
from airls_ray.data.lengths import fit_of
from airls_ray.data.prm_labels import LabelFacts, write_labels
from airls_ray.data.problems import (
    ProblemStream,
    problems_to_table,
    table_to_problems,
    take_distinct,
    write_problems,
)
from airls_ray.errors import ConfigError, DataError
from airls_ray.runs.checkpoint_record import fingerprints
from airls_ray.seeding import derive_seed
from airls_ray.self_training.balance import best_setting
from airls_ray.self_training.records import right_traces, selected_counts, value_labels
from airls_ray.self_training.rounds import (
    RoundFiles,
    check_settings,
    compared_settings,
    learning,
    searching,
)
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec

SUMMARY, SETTINGS, TEST = "self_train.json", "settings.json", "test.jsonl"
_STREAM = "self_train"


def _try_out(config: Config, progress: Progress) -> None:
    if config.self_train.prm != "none":
        try_step_labels(config, progress, rule=config.self_train.prm == "completions")


@dataclass(frozen=True)
class Stages:
    """The commands that rounds are made of, and what is around them."""

    search: Callable[..., Any] = run_search
    sft: Callable[..., Any] = run_sft
    train_prm: Callable[..., Any] = train_prm
    evaluate: Callable[..., Any] = evaluate_policy
    connected: Callable[[Config], AbstractContextManager[None]] = connected
    try_out: Callable[[Config, Progress], None] = _try_out
    """What runs code of the user's own before it is needed."""


def run_self_train(
    config: Config,
    policy: str | Path,
    prm: Path | None,
    output: Path,
    progress: Progress | None = None,
    stages: Stages | None = None,
) -> dict[str, Any]:
    """Self-train `policy` and `prm` by `config.self_train` and leave a folder for every round in `output`.

    Args:
        config: task, `search`, `sft`, `prm`, `supervised_prm` and `self_train`.
        policy: folder or hub name; searches first, and warm starts begin with it (`self_train.policy_from`).
        prm: guides the first search; None with a scorer that needs none.
        output: gets `round_1` and so on, `evaluation` (of `policy`) and `self_train.json` (what is returned).
        progress: where lines and tables go.
        stages: the commands.

    Returns:
        `policy`, `prm_path` (the last ones), `problems`, `accuracy` (of `policy`, on the test problems) and
        `rounds`: of each `temperature, threshold, balance` (None: not chosen), `solved` (problems with a
        trace), `traces`, `accuracy_before, accuracy, low, high`, `policy`, `prm_path`.

    Raises:
        UserError: one sentence: see `check_settings` and the commands; a round without traces; `output` holds
            another self-training.
    """
    progress, stages = progress or make_progress(), stages or Stages()
    policy = str(Path(policy).resolve()) if Path(policy).is_dir() else str(policy)
    prm, output = None if prm is None else prm.resolve(), output.resolve()
    _check(config, policy, prm, progress, stages)
    _begin(config, policy, prm, output)
    problems = _training_problems(config, policy)
    if not (output / TEST).exists():
        test = ProblemStream(make_task(config.task), "test", config.seed).take(config.task.test_problems)
        write_problems(test, output / TEST)
    driver = _Driver(config, policy, output, problems, stages, progress)
    newest, rounds = policy, list[dict[str, Any]]()
    over = RoundFiles.of(output, config.self_train.rounds).evaluation / "summary.json"
    with nullcontext() if over.exists() else stages.connected(config):
        first = accuracy = driver.accuracy(policy, output / "evaluation")
        for number in range(1, config.self_train.rounds + 1):
            progress.say(f"Round {number} of {config.self_train.rounds}")
            done = driver.round(number, newest, prm)
            rounds.append({"round": number, "accuracy_before": accuracy["mean"], **done})
            newest, accuracy = done["policy"], {"mean": done["accuracy"]}
            prm = done["prm_path"] and Path(done["prm_path"])
    summary = {
        "policy": newest,
        "prm_path": None if prm is None else str(prm),
        "problems": problems.num_rows,
        "accuracy": first,
        "rounds": rounds,
    }
    files.write_text(output / SUMMARY, files.to_json(summary, indent=2) + "\n")
    _show(summary, progress)
    return summary


def _check(config: Config, policy: str, prm: Path | None, progress: Progress, stages: Stages) -> None:
    check_settings(config, policy, prm)
    for temperature in config.self_train.balance.temperatures or [config.search.temperature]:
        with_prm_form(searching(config, temperature), prm)
    check_lengths(config, policy, config.self_train.problems, progress, traces=False, stream=_STREAM)
    stages.try_out(config, progress)


def _begin(config: Config, policy: str, prm: Path | None, output: Path) -> None:
    """Write what all stages depend on, or compare it with what is there.

    Raises:
        ConfigError: `output` holds a self-training with other settings or models.
    """
    models = fingerprints({"policy": policy, "prm": prm})
    settings = compared_settings(config) | {"policy": policy, "prm_folder": str(prm), "models": models}
    found = files.read_json(output / SETTINGS, dict)
    if found is not None and found != settings:
        other = sorted(name for name in settings.keys() | found if settings.get(name) != found.get(name))
        raise ConfigError(
            f"{output} holds a self-training with another {', '.join(other)}: go on with those of then, or "
            "give another --output"
        )
    output.mkdir(parents=True, exist_ok=True)
    files.write_text(output / SETTINGS, files.to_json(settings, indent=2) + "\n")


def _training_problems(config: Config, policy: str) -> pa.Table:
    """The problems that every round searches."""
    task = make_task(config.task)
    fit = fit_of(config, TextCodec.for_model(config.model, policy, task))
    stream = ProblemStream(task, "train", derive_seed(config.seed, _STREAM), fit=fit)
    return take_distinct(stream, config.self_train.problems)


@dataclass(frozen=True)
class _Driver:
    """Rounds, stage by stage."""

    config: Config
    base: str
    """The policy of the command."""
    output: Path
    problems: pa.Table
    stages: Stages
    progress: Progress

    def round(self, number: int, policy: str, prm: Path | None) -> dict[str, Any]:
        """Search with `policy` and `prm`; returns what came of it."""
        at = RoundFiles.of(self.output, number)
        kept = _finished(at.kept, lambda: self._keep(at, policy, prm))
        if not kept["traces"]:
            raise DataError(
                f"round {number} kept no trace of {self.problems.num_rows} problems, since no right response "
                f"scores {kept['threshold']:g} or more: lower self_train.threshold or raise search.budgets"
            )
        start = policy if self.config.self_train.policy_from == "newest" else self.base
        settings = learning(self.config, start, at.traces, self.output / TEST)
        _finished(at.policy / "sft.json", lambda: self.stages.sft(settings, at.policy, self.progress, True))
        made = str(at.policy)
        if self.config.self_train.prm != "none":
            _finished(at.train_prm / "train_prm.json", lambda: self._teach_prm(at, made))
            prm = at.train_prm / PRM
        accuracy = self.accuracy(made, at.evaluation)
        figures = {"accuracy": accuracy["mean"], "low": accuracy["low"], "high": accuracy["high"]}
        return {**kept, **figures, "policy": made, "prm_path": None if prm is None else str(prm)}

    def accuracy(self, policy: str, folder: Path) -> dict[str, float]:
        """Mean and interval of single samples on the test problems."""
        summary = _finished(
            folder / "summary.json", lambda: self.stages.evaluate(self.config, policy, folder, True)
        )
        return {name: summary["pass"]["1"][name] for name in ("mean", "low", "high")}

    def _keep(self, at: RoundFiles, policy: str, prm: Path | None) -> None:
        """Search, and write the traces that are kept, then their figures."""
        section = self.config.self_train
        temperature, threshold, balance = self._choose(at, policy, prm)
        records = self._search(at.search, temperature, policy, prm, self.problems)
        traces = right_traces(records, threshold, section.traces_per_problem)
        rows = [
            replace(problem, traces=tuple(traces[problem.problem_id]))
            for problem in table_to_problems(self.problems)
            if problem.problem_id in traces
        ]
        write_problems(problems_to_table(rows), at.traces)
        figures = {
            "temperature": temperature,
            "threshold": threshold,
            "balance": balance,
            "solved": len(traces),
            "traces": sum(map(len, traces.values())),
        }
        files.write_text(at.kept, files.to_json(figures, indent=2) + "\n")

    def _choose(self, at: RoundFiles, policy: str, prm: Path | None) -> tuple[float, float, float | None]:
        """Temperature, threshold, and the balance score by which they were chosen."""
        section = self.config.self_train
        asked = section.balance
        if not asked.temperatures:
            return self.config.search.temperature, section.threshold, None
        some = self.problems.slice(0, asked.problems)
        counts = {}
        for temperature in asked.temperatures:
            records = self._search(at.trial(temperature), temperature, policy, prm, some)
            for threshold in asked.thresholds:
                counts[temperature, threshold] = selected_counts(
                    records, threshold, section.traces_per_problem
                )
        setting, score = best_setting(counts, asked.wished)
        return *setting, score

    def _search(
        self, folder: Path, temperature: float, policy: str, prm: Path | None, problems: pa.Table
    ) -> list[dict[str, Any]]:
        settings = searching(self.config, temperature)
        _finished(
            folder / "summary.json",
            lambda: self.stages.search(settings, Path(policy), prm, folder, True, problems),
        )
        records: list[dict[str, Any]] = pq.read_table(folder / "records.parquet").to_pylist()
        return records

    def _teach_prm(self, at: RoundFiles, policy: str) -> None:
        """Train the PRM for the new policy, by values of the search's tree or by completions."""
        if self.config.self_train.prm == "completions":
            self.stages.train_prm(self.config, policy, at.train_prm, self.progress)
            return
        records = pq.read_table(at.search / "records.parquet").to_pylist()
        codec = TextCodec.for_model(self.config.model, policy, make_task(self.config.task))
        facts = LabelFacts({"labels": "values of the search's tree"}, {})
        write_labels(value_labels(records, self.problems, codec), at.values, facts)
        self.stages.train_prm(self.config, policy, at.train_prm, self.progress, labels=at.values)


def _finished(marker: Path, make: Callable[[], Any]) -> dict[str, Any]:
    """Return what a stage wrote when it was finished; runs the stage if it is not."""
    found: dict[str, Any] | None = files.read_json(marker, dict)
    if found is None:
        make()
        found = files.read_json(marker, dict)
    assert found is not None, f"no {marker}"
    return found


def _show(summary: dict[str, Any], progress: Progress) -> None:
    rows = [
        [
            one["round"],
            one["temperature"],
            one["threshold"],
            one["solved"],
            one["traces"],
            *(one[name] for name in ("accuracy_before", "accuracy", "low", "high")),
        ]
        for one in summary["rounds"]
    ]
    columns = (
        *("round", "temperature", "threshold", "problems solved", "traces kept"),
        *("accuracy before", "after", "95 % from", "to"),
    )
    progress.table(f"Self-training on {summary['problems']} problems", rows, columns)
