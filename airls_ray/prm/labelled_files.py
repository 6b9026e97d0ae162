"""Files of labelled steps as PRM_LABELS, in the policy's tokens: what `train-prm --steps` learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from airls_ray.config.schema import Config
from airls_ray.config.task_sections import ArithmeticTaskConfig, CountdownTaskConfig
from airls_ray.console.progress import Progress
from airls_ray.data.prm_labels import LabelFacts
from airls_ray.data.schemas import PRM_LABELS, rows_to_table
from airls_ray.data.step_files import StepForm, StepRow, distinct_originals, own_identifiers, step_rows
from airls_ray.errors import DataError
from airls_ray.evaluation.rollouts import list_column
from airls_ray.prm.folder import PromptForm
from airls_ray.prm.items import StepText
from airls_ray.prm.step_encoder import StepEncoder
from airls_ray.tasks import make_task
from airls_ray.text.steps import rule_of

STEP_END = "step_end"
"""Fact of a file of labels: what ends a step, for the PRM's `prm.json`."""

_BLANK_LINE = "\n\n"
_SHOWN = 3


@dataclass(frozen=True)
class StepFiles:
    """What `train-prm --steps` is given."""

    paths: Sequence[Path]
    form: StepForm | None = None
    """None: each file's is told from its fields."""


@dataclass(frozen=True)
class StepLabels:
    """What was read."""

    table: pa.Table
    """PRM_LABELS: the rows with a label."""
    facts: LabelFacts
    """Files and counts."""
    bad: tuple[str, ...]
    """A sentence for each row that was left out, with its place."""
    unlabelled: int
    """Rows that were left out since none of their steps has a label."""


def step_end_of(config: Config) -> str:
    """Return what ends a step of a file: see `supervised_prm.step_end`."""
    if config.supervised_prm.step_end is not None:
        return config.supervised_prm.step_end
    if isinstance(config.task, ArithmeticTaskConfig | CountdownTaskConfig):
        return _BLANK_LINE  # the task is one of ours, most likely since the configuration names none
    task = make_task(config.task)
    return rule_of(task).end


def read_step_labels(config: Config, policy: str | Path, given: StepFiles) -> StepLabels:
    """Read files of labelled steps and encode them as a PRM of `policy` is read.

    A step's label stands at its last token; steps without one are read and teach nothing. Of PRM800K the
    steps that nobody went on from are learned, too: in its first phase they are the wrong ones. Rows with
    equal problems (up to blanks) are of one problem, so that no problem is both learned and held out, and
    different ones are of two, whatever their files call them.

    Args:
        config: `model` (context, template), `task` (its words around a problem, what ends a step) and
            `supervised_prm`.
        policy: folder or hub name, for the tokenizer.
        given: the files; their rows go one after the other.

    Raises:
        ModelError: the policy's tokenizer is missing or does not fit.
        DataError: a file cannot be read, no row is left, or (`supervised_prm.bad_rows=error`) a row is
            malformed or too long: one sentence with its place.
    """
    step_end = step_end_of(config)
    encoder = StepEncoder.from_folder(policy, PromptForm.of(config, step_end))
    kept: list[tuple[Any, ...]] = []
    bad: list[str] = []
    unlabelled = 0
    stop = config.supervised_prm.bad_rows == "error"
    for row in own_identifiers(distinct_originals(_rows(given, bad, stop=stop))):
        if all(target is None for target in row.targets):
            unlabelled += 1
            continue
        try:
            kept.append((row.problem_id, *_encode(row, encoder, config.model.context_tokens)))
        except DataError as error:
            _reject(error, bad, stop=stop)
    if not kept:
        first = f"; the first: {bad[0]}" if bad else ""
        raise DataError(
            f"{_names(given)} has no solution with a label that can be used among "
            f"{len(bad) + unlabelled} rows{first}"
        )
    table = rows_to_table(kept, PRM_LABELS)
    return StepLabels(table, _facts(given, step_end, table, len(bad), unlabelled), tuple(bad), unlabelled)


def say_left_out(labels: StepLabels, progress: Progress) -> None:
    """Say how many rows were left out, and name the first of them."""
    if labels.bad:
        more = "; ..." if len(labels.bad) > _SHOWN else ""
        progress.say(f"{len(labels.bad)} rows were left out: {'; '.join(labels.bad[:_SHOWN])}{more}")
    if labels.unlabelled:
        progress.say(f"{labels.unlabelled} rows were left out, since none of their steps has a label")


def _rows(given: StepFiles, bad: list[str], *, stop: bool) -> Iterator[StepRow]:
    """The rows of all files, one at a time: published files have hundreds of thousands."""
    for path in given.paths:
        for row in step_rows(path, given.form, alternatives=True):
            if isinstance(row, DataError):
                _reject(row, bad, stop=stop)
            else:
                yield row


def _reject(error: DataError, bad: list[str], *, stop: bool) -> None:
    if stop:
        raise DataError(
            f"{error}; mend it, or leave such rows out with supervised_prm.bad_rows=skip"
        ) from error
    bad.append(str(error))


def _encode(row: StepRow, encoder: StepEncoder, context_tokens: int) -> tuple[Any, ...]:
    """The fields of PRM_LABELS but the problem's identifier."""
    item = StepText(row.problem, row.steps, finished=row.finished, where=row.where)
    found = encoder.encode(item)
    size = len(found.prefix) + len(found.tokens)
    if size > context_tokens:
        raise DataError(
            f"{row.where}: problem and steps have {size} tokens, but model.context_tokens is {context_tokens}"
        )
    prompt, response, ends = (  # a list of Python's integers would take ten times the memory
        np.asarray(numbers, dtype=np.int32) for numbers in (found.prefix, found.tokens, found.step_ends)
    )
    texts = encoder.texts(item)
    return prompt, response, ends, row.targets, row.outcome, None, None, row.problem, texts


def _facts(given: StepFiles, step_end: str, table: pa.Table, bad: int, unlabelled: int) -> LabelFacts:
    targets, _ = list_column(table["labels"])
    settings = {"labels": "steps", "files": [str(path) for path in given.paths], STEP_END: step_end}
    counts = {
        "rows_left_out": bad,
        "rows_unlabelled": unlabelled,
        "steps_right": (targets > 0.5).sum(),
        "steps_wrong": (targets <= 0.5).sum(),
        "steps_unlabelled": np.isnan(targets).sum(),
    }
    return LabelFacts(settings, {name: float(count) for name, count in counts.items()})


def _names(given: StepFiles) -> str:
    return ", ".join(map(str, given.paths))
