"""Search trees of a report: the nodes that the records keep, or what their finished responses share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from airls_ray.errors import DataError, UserError
from airls_ray.report.data import RunData
from airls_ray.report.markup import data_script, fill
from airls_ray.report.rollout_rows import rounded, run_codec
from airls_ray.text.codec import TextCodec

MOST_PROBLEMS = 10
"""Of each search."""
MOST_BYTES = 3_000_000
"""Of trees as JSON in one page."""

_COLUMNS = frozenset(
    {
        "algorithm", "answer", "budget", "chosen", "leaves", "nodes", "oracle", "outcome", "problem_id",
        "prompt", "rule", "scorer", "seed", "stopped_by",
    }
)  # fmt: skip
"""Of the records, those that are read."""

Record = Mapping[str, Any]
Tree = list[dict[str, Any]]
"""Nodes with `parent` (-1: the root, which is the first) and `text`; where known `score`, `log`, `truth` of
the step, and `leaf`, the number of the finished response that ends there."""


@dataclass(frozen=True)
class SearchTrees:
    """What goes into the page."""

    searches: list[dict[str, Any]] = field(default_factory=list)
    """`name` and `records` of each search."""
    prompts: list[str] = field(default_factory=list)
    left_out: int = 0
    """Problems that the records have besides."""


def read_trees(run: RunData, most_problems: int = MOST_PROBLEMS, most_bytes: int = MOST_BYTES) -> SearchTrees:
    """Read the first problems of every search in `search/records.parquet`; no file is no error.

    Raises:
        DataError: the file is broken.
    """
    path = run.path / "search" / "records.parquet"
    if not path.exists():
        return SearchTrees()
    by_search: dict[str, list[Record]] = {}
    total = 0
    for record in _records(path):
        total += 1
        kept = by_search.setdefault(_name(record), [])
        if len(kept) < most_problems:
            kept.append(record)
    try:
        codec = run_codec(run)
    except UserError:  # nodes are tokens; leaves have texts
        codec = None
    found = SearchTrees([{"name": name, "records": []} for name in by_search])
    shown, left = 0, most_bytes
    for turn in range(most_problems):  # the first problem of all searches before the second of any
        for search, records in zip(found.searches, by_search.values(), strict=True):
            if turn >= len(records):
                continue
            drawn = _drawn(records[turn], codec, found.prompts)
            left -= len(json.dumps(drawn))
            if left < 0 and shown:
                return _whole(found, total - shown)
            search["records"].append(drawn)
            shown += 1
    return _whole(found, total - shown)


def render_trees(found: SearchTrees) -> Markup | None:
    """Return the choice of a search and a problem, the place of the tree and the data; None without any."""
    if not found.searches:
        return None
    data = data_script({"searches": found.searches, "prompts": found.prompts})
    return fill("trees.html", names=[one["name"] for one in found.searches], data=data)


def trees_intro(found: SearchTrees) -> str:
    """Return what of the records is shown."""
    more = f" {found.left_out:,} more are in search/records.parquet." if found.left_out else ""
    return f"The first problems of each search; the line on the left leads to the chosen response.{more}"


def tree_of_leaves(leaves: Sequence[Record]) -> Tree:
    """Return the tree that finished responses span: steps of equal tokens behind equal steps are one node."""
    nodes: Tree = [{"parent": -1, "text": ""}]
    places: dict[tuple[int, tuple[int, ...]], int] = {}
    for number, leaf in enumerate(leaves):
        at, start = 0, 0
        for step, end in enumerate(leaf["step_ends"]):
            key = (at, tuple(leaf["response"][start:end]))
            last = end == len(leaf["response"])
            # Two leaves may be equal: each has an end of its own, or one would hide the other.
            if last or key not in places:
                texts = leaf["steps"]
                node = {"parent": at, "text": texts[step].strip("\n") if step < len(texts) else ""}
                node |= {"score": _at(leaf["scores"], step), "truth": _at(leaf["step_truth"], step)}
                nodes.append(_known(node))
                if last:
                    at = len(nodes) - 1
                    break
                places[key] = len(nodes) - 1
            at, start = places[key], end
        nodes[at]["leaf"] = number
    return nodes


def tree_of_nodes(nodes: Sequence[Record], leaves: Sequence[Record], codec: TextCodec) -> Tree:
    """Return the whole tree, with a node for each step: the ends of steps are known from the leaves."""
    cuts: dict[int, list[int]] = {}
    truths: dict[tuple[int, int], bool] = {}
    for leaf in leaves:
        _find_cuts(nodes, leaf, cuts, truths)
    tree: Tree = []
    ends_at: dict[int, int] = {}  # number of the last piece of each node
    for number, node in enumerate(nodes):
        tokens, scores = node["tokens"], node["scores"] or []
        ends = cuts.get(number, [])
        if not ends or len(ends) != len(scores):
            ends = [len(tokens)]
        parent = ends_at.get(node["parent"], -1)
        for piece, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            score = _at(scores, piece) if len(ends) == len(scores) else (scores or [None])[-1]
            one = {"parent": parent, "text": codec.decode(tokens[start:end]).strip("\n")}
            one |= {"score": rounded(score), "truth": truths.get((number, end))}
            one["log"] = rounded(node["log_prob"]) if number and len(ends) == 1 else None
            tree.append(_known(one))
            parent = len(tree) - 1
        ends_at[number] = parent
    for number, leaf in enumerate(leaves):
        tree[ends_at[leaf["node"]]]["leaf"] = number
    return tree


def _find_cuts(
    nodes: Sequence[Record],
    leaf: Record,
    cuts: dict[int, list[int]],
    truths: dict[tuple[int, int], bool],
) -> None:
    """Note where in the nodes of a leaf's path its steps end, and whether they are right."""
    path, at = [], leaf["node"]
    while at > 0:
        path.append(at)
        at = nodes[at]["parent"]
    start = 0
    for at in reversed(path):
        stop = start + len(nodes[at]["tokens"])
        inside = [(step, end) for step, end in enumerate(leaf["step_ends"]) if start < end <= stop]
        cuts[at] = [end - start for _, end in inside]
        for step, end in inside:
            truth = _at(leaf["step_truth"], step)
            if truth is not None:
                truths[at, end - start] = bool(truth)
        start = stop


def _drawn(record: Record, codec: TextCodec | None, prompts: list[str]) -> dict[str, Any]:
    """A record as the script reads it."""
    leaves, nodes = record["leaves"] or [], record["nodes"]
    whole = bool(nodes) and codec is not None
    if record["prompt"] not in prompts:
        prompts.append(record["prompt"])
    tree = tree_of_nodes(nodes, leaves, codec) if nodes and codec is not None else tree_of_leaves(leaves)
    ends = [
        _known({"answer": leaf["answer"], "outcome": rounded(leaf["outcome"])})
        | {"score": rounded(leaf["score"]), "log": rounded(leaf["log_prob"])}
        for leaf in leaves
    ]
    return {
        "prompt": prompts.index(record["prompt"]),
        "problem": record["problem_id"],
        "rule": record["rule"],
        "answer": record["answer"],
        "outcome": rounded(record["outcome"]),
        "oracle": rounded(record["oracle"]),
        "chosen": record["chosen"],
        "stopped": record["stopped_by"],
        "whole": whole,
        "leaves": ends,
        "nodes": tree,
    }


def _records(path: Path) -> list[Record]:
    try:
        records: list[Record] = pq.read_table(path).to_pylist()
        if records and not records[0].keys() >= _COLUMNS:
            raise DataError(
                f"{path} lacks columns of a search's records: delete the file to report without it"
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path} is no readable Parquet file ({error}): delete it to report without it"
        ) from error
    return records


def _name(record: Record) -> str:
    return f"{record['algorithm']} by {record['scorer']}, N = {record['budget']}, seed {record['seed']}"


def _whole(found: SearchTrees, left_out: int) -> SearchTrees:
    kept = [one for one in found.searches if one["records"]]
    return SearchTrees(kept, found.prompts, left_out)


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _at(values: Sequence[Any] | None, place: int) -> Any:
    if not values or place >= len(values):
        return None
    value = values[place]
    return value if isinstance(value, bool) else rounded(value)
