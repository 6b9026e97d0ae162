"""Files of step labels (schema PRM_LABELS): written whole with their cost, read with every row checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airls_ray import files
from airls_ray.data.schemas import PRM_LABELS
from airls_ray.errors import DataError

REQUIRED = ("problem_id", "prompt", "response", "step_ends", "labels")
"""Fields that a file must have; the others of the schema may be absent or null."""

_FACTS = b"airls_ray.facts"


@dataclass(frozen=True)
class LabelFacts:
    """What a file says of its labels."""

    settings: dict[str, Any]
    """What the labels depend on."""
    cost: dict[str, float]
    """Counts and seconds that they took; sums over parts."""


def write_labels(table: pa.Table, file: Path, facts: LabelFacts) -> None:
    """Write labels as Parquet with their facts inside and beside it (`.json`), each whole or not at all."""
    content = {"settings": facts.settings, "cost": facts.cost}
    metadata = {**(PRM_LABELS.metadata or {}), _FACTS: files.to_json(content).encode()}
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(file) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)
    files.write_text(file.with_suffix(".json"), files.to_json(content, indent=2) + "\n")


def read_facts(file: Path) -> LabelFacts | None:
    """Return the facts that `write_labels` put into a file; None if it is another program's.

    Raises:
        DataError: the file is no Parquet file.
    """
    try:
        metadata = pq.read_schema(file).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read the labels {file}: {_one_line(error)}") from error
    if _FACTS not in metadata:
        return None
    content = json.loads(metadata[_FACTS])
    return LabelFacts(content["settings"], content["cost"])


def add_costs(costs: list[Mapping[str, float]]) -> dict[str, float]:
    """Add the costs of several parts."""
    return {name: sum(cost[name] for cost in costs) for name in (costs[0] if costs else {})}


def read_labels(file: Path) -> pa.Table:
    """Read a Parquet file of step labels into a table of schema PRM_LABELS.

    Raises:
        DataError: one sentence with the file, the 1-based row and the field that is wrong.
    """
    if not file.exists():
        raise DataError(f"there is no file of labels {file}: give a Parquet file that train-prm has written")
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read the labels {file}: {_one_line(error)}") from error
    table = _conform(file, table)
    if not table.num_rows:
        raise DataError(f"{file} has no rows, so there is nothing to learn")
    _check_rows(file, table)
    return table


def _conform(file: Path, table: pa.Table) -> pa.Table:
    """Order and cast the fields; absent optional ones become null."""
    version = (table.schema.metadata or {}).get(b"airls_ray.version")
    ours = (PRM_LABELS.metadata or {})[b"airls_ray.version"]
    if version not in (None, ours):
        raise DataError(
            f"{file} has version {version.decode()} of the schema and this program reads version "
            f"{ours.decode()}: make the labels again"
        )
    columns = []
    for field in PRM_LABELS:
        if field.name not in table.column_names:
            if field.name in REQUIRED:
                raise DataError(
                    f"{file} lacks the field {field.name!r}; it has {', '.join(table.column_names)}"
                )
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(table[field.name].combine_chunks().cast(field.type))
        except (pa.ArrowException, ValueError) as error:
            raise DataError(
                f"{file}: the field {field.name!r} must be {field.type}, but is "
                f"{table.schema.field(field.name).type} ({_one_line(error)})"
            ) from error
    return pa.Table.from_arrays(columns, schema=PRM_LABELS)


def _check_rows(file: Path, table: pa.Table) -> None:
    lengths = {
        name: pc.list_value_length(table[name]).to_numpy() for name in PRM_LABELS.names if _is_list(name)
    }  # nan where the list is null

    def refuse(name: str, wrong: np.ndarray, reason: str) -> None:
        if wrong.any():
            raise DataError(f"{file}, row {int(wrong.argmax()) + 1}: field {name!r} {reason}")

    for name in REQUIRED:
        refuse(name, table[name].is_null().to_numpy(), "is null")
    for name in ("prompt", "response", "step_ends"):
        refuse(name, lengths[name] == 0, "is empty")
        values, rows = _flat(table[name])
        refuse(name, _any_per_row(values.is_null().to_numpy(False), rows, table), "holds a null")
    ends, rows = _flat(table["step_ends"])
    bounds = ends.to_numpy()
    first = np.diff(rows, prepend=-1) > 0
    last = np.diff(rows, append=table.num_rows) > 0
    rises = np.where(first, bounds > 0, np.diff(bounds, prepend=0) > 0)
    refuse("step_ends", _any_per_row(~rises, rows, table), "does not rise: every step needs a token")
    meets = bounds[last] == lengths["response"]
    refuse("step_ends", ~meets, "must end with the length of 'response'")
    for name, other, per in (
        ("labels", "step_ends", "step"),
        ("step_truth", "step_ends", "step"),
        ("step_texts", "step_ends", "step"),
        ("logprobs", "response", "token of the response"),
    ):
        wrong = ~np.isnan(lengths[name].astype(float)) & (lengths[name] != lengths[other])
        refuse(name, wrong, f"must have one value for every {per}")
    labels, rows = _flat(table["labels"])
    numbers = labels.to_numpy(zero_copy_only=False)
    outside = ~labels.is_null().to_numpy(False) & ~((numbers >= 0) & (numbers <= 1))
    refuse("labels", _any_per_row(outside, rows, table), "must lie between 0 and 1 (null: no label)")
    outcomes = table["outcome"].to_numpy()
    outside = table["outcome"].is_valid().to_numpy() & ~((outcomes >= 0) & (outcomes <= 1))
    refuse("outcome", outside, "must lie between 0 and 1")
    if labels.null_count == len(labels):
        raise DataError(f"{file}: field 'labels' is null at every step, so there is nothing to learn")


def _is_list(name: str) -> bool:
    return pa.types.is_list(PRM_LABELS.field(name).type)


def _flat(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """All values of a list column and the row of each."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    return pc.list_flatten(array), pc.list_parent_indices(array).to_numpy()


def _any_per_row(wrong: np.ndarray, rows: np.ndarray, table: pa.Table) -> np.ndarray:
    return np.bincount(rows[wrong], minlength=table.num_rows) > 0


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
