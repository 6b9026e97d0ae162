"""Files of sampled solutions with their step scores and verdicts, a row a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

from airls_ray.data.rows import Row, kind_of, optional_text, outcome_of, read_rows, scores_of, text_of
from airls_ray.errors import DataError
from airls_ray.tasks.maths.naming import vote_name


@dataclass(frozen=True)
class Sample:
    """One sampled solution."""

    problem_id: str
    answer: str | None
    """Canonical answer; None: it has none."""
    correct: float
    """1 where the answer is right, else 0."""
    scores: tuple[float, ...]
    """In [0, 1], one a step; empty for a solution without steps."""
    log_prob: float | None = None
    """Of the policy, in nats; None: unknown."""


def read_sample_files(paths: Sequence[Path]) -> dict[str, dict[str, list[Sample]]]:
    """Read JSONL, JSON or Parquet files of samples.

    Fields of a row: `problem_id` (text), `scores` (list of numbers in [0, 1], one a step), `correct` or,
    where that is absent, `outcome` (true, false or a number from 0 to 1, of which more than 1/2 is right),
    `answer` (text; null or absent: none), and optionally `log_prob` (a number). Others are ignored.
    Records of a search (`records.parquet`, with `leaves`) give a sample for each finished response.

    Returns:
        For each search of records (by algorithm, budget, seed and scorer; "" for rows of samples) the samples
        of each problem. All in the order in which they are first seen.

    Raises:
        DataError: one sentence with the file, the line (JSONL) or row and what is wrong; a search's record of
            a problem comes twice.
    """
    searches: dict[str, dict[str, list[Sample]]] = {}
    searched: set[tuple[str, str]] = set()
    for path in paths:
        for where, row in read_rows(path):
            name, identity = _search(row), text_of(where, row, "problem_id")
            if name and (name, identity) in searched:
                raise DataError(
                    f"{where}: {name}, has a record of problem {identity!r} already: give the records of a "
                    "search once"
                )
            searched.add((name, identity))
            problems = searches.setdefault(name, {})
            for sample in _samples(where, row):
                problems.setdefault(sample.problem_id, []).append(sample)
    return {name: problems for name, problems in searches.items() if problems}


def _search(row: Row) -> str:
    """Name of the search that a record is of; a sample is of none."""
    if "leaves" not in row:
        return ""
    named = f"{row.get('algorithm')} with N = {row.get('budget')}, seed {row.get('seed')}"
    return f"{named}, by {row['scorer']}" if row.get("scorer") else named


def _samples(where: str, row: Row) -> list[Sample]:
    """The sample of a row, or those of a search's record."""
    if not isinstance(row.get("leaves"), list):
        return [_sample(where, row)]
    samples = []
    for number, leaf in enumerate(row["leaves"], 1):
        if not isinstance(leaf, Mapping):
            raise DataError(
                f"{where}: entry {number} of field 'leaves' must be an object, but is {kind_of(leaf)}"
            )
        samples.append(_sample(where, {**leaf, "problem_id": row.get("problem_id")}))
    return samples


def _sample(where: str, row: Row) -> Sample:
    correct = outcome_of(where, row)
    scores = scores_of(where, row, "scores")
    if scores is None:
        raise DataError(
            f"{where}: field 'scores' must be a list with one number a step, but is absent or null"
        )
    return Sample(
        problem_id=text_of(where, row, "problem_id"),
        answer=vote_name(optional_text(where, row, "answer")),
        correct=float(correct > 0.5),
        scores=scores,
        log_prob=_log_prob(where, row),
    )


def _log_prob(where: str, row: Row) -> float | None:
    value = row.get("log_prob")
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else nan
    except OverflowError:  # an integer of more digits than a float can hold
        number = nan
    if isnan(number):
        raise DataError(f"{where}: field 'log_prob' must be a number, but is {kind_of(value)}")
    return number
