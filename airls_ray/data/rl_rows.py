"""Rows of data sets for verl and TRL: what their reward functions are given stays with the problem."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airls_ray.data.messages import BadMessagesError, is_messages
from airls_ray.data.rows import Row
from airls_ray.grading.reward_calls import TRL_COLUMNS

_NOT_GIVEN = ("prompt", "completion", "completion_ids")
"""Columns that TRL keeps for itself."""
_SOLVED = ("solution", "ground_truth", "completion")
"""Columns by which a row without `answer` is known for one of TRL."""


def known_form(row: Row) -> str | None:
    """Return `verl` or `trl` for a row that has no answer under our own name, but under one of theirs."""
    if row.get("prompt") is None or row.get("answer") is not None:
        return None
    if isinstance(row.get("reward_model"), Mapping):
        return "verl"
    return "trl" if any(row.get(name) is not None for name in _SOLVED) else None


def verl_details(row: Row) -> dict[str, Any]:
    """Return `data_source` and `extra_info`, and `ground_truth` where it is more than the text of the answer.

    What JSON has not, such as the bytes of an image, is left out.
    """
    model = row.get("reward_model")
    truth = model.get("ground_truth") if isinstance(model, Mapping) else None
    given = {name: row.get(name) for name in ("data_source", "extra_info")}
    return _json_fields(given if isinstance(truth, str) else given | {"ground_truth": truth})


def trl_details(row: Row) -> dict[str, Any]:
    """Return the columns that TRL gives to a reward function, under `TRL_COLUMNS`; those that JSON has not
    are left out."""
    return {TRL_COLUMNS: _json_fields({name: row[name] for name in row if name not in _NOT_GIVEN})}


def trl_row(where: str, row: Row) -> Row:
    """Return a row whose `completion`, if it is one message of the assistant, is its text.

    Raises:
        BadMessagesError: it is other messages. The sentence begins with `where`.
    """
    said = row.get("completion")
    if not is_messages(said):
        return row
    only = said[0] if len(said) == 1 and isinstance(said[0], Mapping) else {}
    if only.get("role") != "assistant" or not isinstance(only.get("content"), str):
        raise BadMessagesError(
            f"{where}: field 'completion' must be a text or one message of the assistant, since a response "
            "is one turn"
        )
    return {**row, "completion": only["content"]}


def _json_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are there, as JSON gives them back; of objects what JSON has."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            found[name] = _json_fields(value)
            continue
        try:
            found[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            continue
    return found
