"""Files of solutions whose steps are labelled: TRL's, Math-Shepherd's, PRM800K's, benchmarks' and our own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from airls_ray.data.rows import Row, readable_rows
from airls_ray.data.step_forms import CORRECT, READERS, StepForm, StepRow, detect_form, prm800k_alternatives
from airls_ray.errors import DataError
from airls_ray.tasks.generate import content_id

__all__ = [
    "CORRECT",
    "StepForm",
    "StepRow",
    "distinct_originals",
    "own_identifiers",
    "read_step_file",
    "read_step_files",
    "step_rows",
]


def read_step_file(path: Path, form: StepForm | None = None) -> list[StepRow]:
    """Read a JSONL, JSON or Parquet file of labelled steps.

    - `processbench` (arXiv 2412.06559): `problem`, `steps`, `label`: the first wrong step counted from 0, or
      -1. Steps behind it have no label. `final_answer_correct` is the outcome where it is there.
    - `prmbench` (arXiv 2501.03124): a row gives its `modified_process`, with `error_steps` counted from 1,
      and once each distinct `original_process`, all of it right. Wrong steps behind the last step are
      ignored, as by the benchmark's own code; the published file has 100 such rows of 6,216.
    - `labels`: `problem`, `steps`, `labels` (one a step: true, false, a number from 0 to 1 of which more than
      1/2 is right, or null). Optional: `problem_id`, `subset`, `correct` (or `outcome`), `answer`, and
      `classification` and `pair` of solutions that are to be measured as those of PRMBench.
    - `stepwise` (TRL's stepwise supervision): `prompt`, `completions`, `labels`, as `labels`.
    - `math_shepherd` (arXiv 2312.08935): `input` and `label`, see `marked_steps`.
    - `prm800k` (arXiv 2305.20050): `question`, `label`: the steps that the raters went on from, to the first
      wrong one; ratings 1 and 0 are right. Rows without a rated step, of a bad problem or given up are left
      out.
    - `records`: what `airls-ray search` leaves: each finished response is a solution; the labels are the
      task's step truth, the scores those of the search.
    - `prm_labels`: what `airls-ray train-prm` leaves; the labels are the task's step truth, not its own.

    All may bring `scores` (one a step, in [0, 1]); PRMBench those of the original as `original_scores`.

    Args:
        path: the file.
        form: None: told from the fields of the first row.

    Returns:
        The rows in order; PRMBench's originals stand before the first change of each.

    Raises:
        DataError: one sentence with the file, the line (JSONL) or row and what is wrong.
    """
    rows = []
    for row in step_rows(path, form):
        if isinstance(row, DataError):
            raise row
        rows.append(row)
    return list(distinct_originals(rows))


def step_rows(
    path: Path, form: StepForm | None = None, *, alternatives: bool = False
) -> Iterator[StepRow | DataError]:
    """As `read_step_file`, but a row that cannot be used comes as the error that names it.

    PRMBench's originals come before each of their changes.

    Args:
        path: the file.
        form: None: told from the fields of the first row that is of a known form.
        alternatives: of PRM800K also the rated steps that nobody went on from, each as a solution that ends
            with it and has no other label.

    Raises:
        DataError: the file cannot be read as a whole or rates no step.
    """
    read: Callable[[str, Row, str], Iterable[StepRow]] | None = None
    count = found = 0
    for where, row in readable_rows(path):
        count += 1
        ready: list[StepRow | DataError] = []
        if isinstance(row, DataError):
            ready = [row]
        else:
            try:
                read = read or _reader(form or detect_form(where, row), alternatives)
                ready = [*read(where, row, path.stem)]
            except DataError as error:
                ready = [error]
        found += len(ready)
        yield from ready
    if not found:
        raise DataError(f"{path} has no rated step in its {count} rows")


def _reader(form: StepForm, alternatives: bool) -> Callable[[str, Row, str], Iterable[StepRow]]:
    return prm800k_alternatives if alternatives and form == "prm800k" else READERS[form]


def distinct_originals(rows: Iterable[StepRow]) -> Iterator[StepRow]:
    """Yield all rows, but of equal originals the first: the same one is changed in several ways."""
    seen: set[str] = set()
    for row in rows:
        if row.classification == CORRECT and row.pair:
            if row.pair in seen:
                continue
            seen.add(row.pair)
        yield row


def own_identifiers(rows: Iterable[StepRow]) -> Iterator[StepRow]:
    """Yield all rows; equal problems (up to blanks) have one identifier, and no two different ones have it.

    Files may each count their problems from 0: where an identifier is another problem's already, one is made
    of the text. The changed problem of a pair has that of the one it was made from.
    """
    identities: dict[str, str] = {}  # of a text
    owners: dict[str, str] = {}  # text of an identifier
    originals: dict[str, str] = {}  # text of a pair's first row
    for row in rows:
        text = " ".join(row.problem.split())
        source = text if row.pair is None else originals.setdefault(row.pair, text)
        if source not in identities:
            free = owners.setdefault(row.problem_id, source) == source
            identities[source] = row.problem_id if free else content_id("steps", source)
        identity = identities.setdefault(text, identities[source])
        yield row if identity == row.problem_id else replace(row, problem_id=identity)


def read_step_files(paths: Sequence[Path], form: StepForm | None = None) -> list[StepRow]:
    """Read several files, one after the other; see `read_step_file` and `own_identifiers`.

    Each original of PRMBench comes once.
    """
    rows = (row for path in paths for row in read_step_file(path, form))
    return list(own_identifiers(distinct_originals(rows)))
