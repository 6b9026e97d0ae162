"""Labelled rollouts of which a judge says the same: consensus filtering (arXiv 2501.07301).

    labels of steps -> first wrong step, or none
    scores of a judge -> first wrong step, or none
        kept where both are the same

Monte Carlo labels call a step right from which a completion happens to be right, and wrong where the policy
is too weak; a judge errs elsewhere. What the judge said is written as it comes, and a call goes on from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airls_ray import files
from airls_ray.config.door_section import ConsensusConfig
from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress
from airls_ray.data.prm_labels import LabelFacts
from airls_ray.errors import ConfigError, DataError
from airls_ray.evaluation.rollouts import list_column
from airls_ray.prm.items import StepText
from airls_ray.search.own_scorer import open_own

_ROWS_AT_ONCE = 64
_NO_VERDICT = ("outcome", "process_advantage")
"""Label rules of which a label of 0 is no verdict on a step."""


class Judge(Protocol):
    """What `open_judge` gives: `airls_ray.search.own_scorer.OwnScorer`."""

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        """Return one score in [0, 1] for each step of each item."""
        ...

    def told(self) -> str:
        """Return what became of its requests, in a line; may be empty."""
        ...


def open_judge(config: Config, progress: Progress, *, sampled: bool) -> Judge | None:
    """Return the judge of `supervised_prm.consensus`, tried; None where there is none to ask.

    `sampled`: whether the labels are those of `supervised_prm.labels`.

    Raises:
        ConfigError: the labels say nothing of a first wrong step, or the name is of no scorer of texts.
        DoorError: it does not open, nobody answers, or no reply can be read.
    """
    named = config.supervised_prm.consensus
    if named is None:
        return None
    rule = config.supervised_prm.labels.name
    if sampled and rule in _NO_VERDICT:
        raise ConfigError(
            f"supervised_prm.consensus compares first wrong steps, which supervised_prm.labels={rule} does "
            "not give: take math_shepherd_hard, math_shepherd_soft or omega_prm"
        )
    if named.needs != "texts":
        raise ConfigError(
            f"supervised_prm.consensus needs a scorer of texts, and {named.name} is none: take a critic "
            "(airls-ray list scorer) or your own (docs/doors.md)"
        )
    with progress.phase(f"try {named.shown}"):
        judge = open_own(named)
        judge.try_out()
    return judge


def refuse_judge(config: Config, option: str) -> None:
    """Refuse a judge where what is learned has no labels of steps.

    Raises:
        ConfigError: there is one.
    """
    if config.supervised_prm.consensus is not None:
        raise ConfigError(
            f"supervised_prm.consensus compares labels of steps, which {option} does not have: leave it out, "
            "or learn from sampled labels, --labels or --steps"
        )


def first_wrong(wrong: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the position of the first wrong step of each solution, counted from 0; -1 where none is.

    Args:
        wrong: bool [S], all steps one solution after the other.
        counts: int64 [N], steps of each solution, at least one.

    Returns:
        int64 [N].
    """
    starts = np.cumsum(counts) - counts
    positions = np.arange(len(wrong)) - np.repeat(starts, counts)
    far = len(wrong) + 1
    first = np.minimum.reduceat(np.where(wrong, positions, far), starts)
    found: np.ndarray = np.where(first == far, -1, first)
    return found


def first_errors(
    labels: np.ndarray, scores: np.ndarray, counts: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first wrong step of each solution by its labels and by the judge, as `first_wrong` does.

    Args:
        labels: float64 [S]; a label of 0 is a wrong step, nan none at all.
        scores: float64 [S], of the judge; below `threshold` is a wrong step.
        counts: int64 [N], steps of each solution.
        threshold: of the scores.
    """
    return first_wrong(labels <= 0.0, counts), first_wrong(scores < threshold, counts)


def keep_agreeing(
    table: pa.Table,
    facts: LabelFacts,
    named: ConsensusConfig,
    judge: Judge,
    file: Path,
    progress: Progress,
) -> tuple[pa.Table, LabelFacts]:
    """Return the labelled rollouts on which the judge agrees, and their facts with what became of the others.

    Args:
        table: PRM_LABELS with its texts.
        facts: of the labels.
        named: the setting.
        judge: of `open_judge`.
        file: JSONL of the judge's scores, which is gone on with if it is of the same judge and labels.
        progress: shows the rollouts that are judged.

    Raises:
        DataError: the rows have no texts, `file` is of other labels or another judge, or nothing is left.
        DoorError: see `OwnScorer.score`.
    """
    if table["step_texts"].null_count or table["prompt_text"].null_count:
        raise DataError(
            "supervised_prm.consensus needs 'prompt_text' and 'step_texts' of every row of the labels, which "
            "this file lacks: make the labels with train-prm, or leave consensus out"
        )
    counts = pc.list_value_length(table["step_texts"]).to_numpy().astype(np.int64)
    scores = np.array([one for row in _judged(table, named, judge, file, progress) for one in row])
    labels, _ = list_column(table["labels"])
    by_labels, by_judge = first_errors(labels.astype(np.float64), scores, counts, named.threshold)
    kept = by_labels == by_judge
    found = {
        "consensus_judged": len(kept),
        "consensus_kept": int(kept.sum()),
        "consensus_kept_right": int((kept & (by_labels < 0)).sum()),
        "consensus_only_labels_wrong": int(((by_labels >= 0) & (by_judge < 0)).sum()),
        "consensus_only_judge_wrong": int(((by_labels < 0) & (by_judge >= 0)).sum()),
        "consensus_other_step": int((~kept & (by_labels >= 0) & (by_judge >= 0)).sum()),
    }
    told = f" ({judge.told()})" if judge.told() else ""
    progress.say(
        f"{found['consensus_kept']} of {len(kept)} labelled rollouts have the same first wrong step, or "
        f"none, to {named.shown}{told}"
    )
    if not kept.any():
        raise DataError(
            f"{named.shown} and the labels have the same first wrong step in none of {len(kept)} rollouts, "
            f"so nothing is left to learn: look at its scores in {file}"
        )
    settings = {**facts.settings, "consensus": _record(named)}
    costs = {**facts.cost, **{name: float(value) for name, value in found.items()}}
    return table.filter(pa.array(kept)).combine_chunks(), LabelFacts(settings, costs)


def _judged(
    table: pa.Table, named: ConsensusConfig, judge: Judge, file: Path, progress: Progress
) -> list[list[float]]:
    """The judge's scores of every row, those in `file` taken as they are."""
    head = {"judge": _record(named), "solutions": _fingerprint(table)}
    rows = _read(file, head)
    items = [
        StepText(problem, steps, where=f"row {number}")
        for number, (problem, steps) in enumerate(
            zip(table["prompt_text"].to_pylist(), table["step_texts"].to_pylist(), strict=True), 1
        )
    ]
    with progress.track(f"Judging by {named.shown}", len(items), done=len(rows)) as bar:
        for start in range(len(rows), len(items), _ROWS_AT_ONCE):
            part = judge.score(items[start : start + _ROWS_AT_ONCE])
            files.append(file, "".join(json.dumps({"scores": row}) + "\n" for row in part).encode())
            rows += part
            bar.advance(len(part))
    return rows


def _read(file: Path, head: dict[str, Any]) -> list[list[float]]:
    """Scores of an earlier call; a new file gets its first line.

    Raises:
        DataError: they are of other solutions or of another judge, or the file is broken.
    """
    if not file.exists():
        files.append(file, (json.dumps(head) + "\n").encode())
        return []
    try:
        first, *lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    except ValueError as error:
        raise DataError(
            f"{file} cannot be read ({error}): delete it, and the judge is asked again"
        ) from error
    if first != head:
        other = " and other ".join(name for name in head if first.get(name) != head[name])
        raise DataError(
            f"{file} holds scores of another call (other {other}): give another --output, or delete it"
        )
    return [line["scores"] for line in lines]


def _record(named: ConsensusConfig) -> dict[str, Any]:
    """What tells one judge from another; its address may change."""
    options = {key: value for key, value in named.options.items() if key != "endpoint"}
    return {"name": named.shown, "options": options}


def _fingerprint(table: pa.Table) -> str:
    """What tells the solutions of one table from those of another; their labels may change."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("prompt_text", "step_texts"):
        digest.update(json.dumps(table[name].to_pylist()).encode())
    return digest.hexdigest()
