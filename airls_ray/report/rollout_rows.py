"""The rollouts that a report can look through: every stored iteration and the test samples, as text.

What is too much for one file is sampled: as many rollouts of each iteration, drawn by a seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from airls_ray.data.schemas import REWARD_STEPS, REWARD_SUM
from airls_ray.errors import DataError, UserError
from airls_ray.evaluation.steps import aggregate_steps
from airls_ray.report.data import RunData
from airls_ray.runs.run_folder import RunFolder, latest_models
from airls_ray.seeding import derive_seed
from airls_ray.tasks.base import Task
from airls_ray.text.codec import TextCodec

MOST_BYTES = 10_000_000
"""Of rollouts as JSON in one page."""
_ROW_BYTES, _STEP_BYTES = 170, 40
"""Of a rollout without its text, and of a step's quotes, score, truth and log-probability."""
_MEASURED_ROWS = 16
_SAMPLES = {"base": "test samples, base policy", "trained": "test samples, trained policy"}


@dataclass(frozen=True)
class Source:
    """A file of rollouts."""

    name: str
    kind: str
    """"iteration" or "samples"."""
    path: Path
    grades: Path | None = None
    """Answers and step truths of its rows, where they are a file of their own."""


@dataclass(frozen=True)
class BrowsedRollouts:
    """What goes into the page."""

    sources: list[dict[str, Any]] = field(default_factory=list)
    """`name`, `kind`, `rows` in the file and `shown` of them, for each file."""
    prompts: list[str] = field(default_factory=list)
    rewards: list[str] = field(default_factory=list)
    """Names of the rewards; a rollout's `rewards` are in this order."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One a rollout, see `_row`."""
    seed: int = 0
    problem: str = ""
    """Why there are none, where the run has some."""

    @property
    def stored(self) -> int:
        """Number of rollouts in the files."""
        return sum(int(source["rows"]) for source in self.sources)

    def has(self, name: str) -> bool:
        """Whether any rollout has a field, such as `scores`."""
        return any(name in row for row in self.rows)


class _AnyTask:
    """Stands for the task, of which nothing is needed to turn tokens into text.

    The run's own task may be a file of somebody else's, and a report opens none.
    """

    step_delimiter = "\n"

    def vocabulary(self) -> None:
        """The tokenizer is read as it is."""
        return None


def run_codec(run: RunData) -> TextCodec:
    """Return the tokenizer of the run's policy: of its latest checkpoint, or of the base model.

    Raises:
        UserError: there is neither.
    """
    task = cast(Task, _AnyTask())
    try:
        return TextCodec.from_folder(latest_models(run.path)[0], task)
    except UserError:
        base = _setting(run, "model", "path")
        if not base or not Path(str(base)).is_dir():  # a name of the hub: a report uses no network
            raise
        return TextCodec.from_folder(str(base), task)


def find_sources(path: Path) -> list[Source]:
    """Return the files of rollouts in a run folder: iterations in order, then the test samples."""
    found = [
        Source(f"iteration {int(file.stem.rpartition('_')[2])}", "iteration", file)
        for file in sorted(RunFolder(path).rollouts_folder.glob("iteration_*.parquet"))
        if file.stem.rpartition("_")[2].isdigit()
    ]
    for name, text in _SAMPLES.items():
        file, grades = path / "samples" / f"{name}.parquet", path / "samples" / f"{name}_grades.parquet"
        if file.exists():
            found.append(Source(text, "samples", file, grades if grades.exists() else None))
    return found


def read_rollouts(run: RunData, most_bytes: int = MOST_BYTES) -> BrowsedRollouts:
    """Read the rollouts of a run, no more than about `most_bytes` of them; none are no error.

    Raises:
        DataError: a file is broken.
    """
    sources = find_sources(run.path)
    if not sources:
        return BrowsedRollouts()
    try:
        codec = run_codec(run)
    except UserError as error:
        return BrowsedRollouts(problem=str(error))
    seed = run.summary.get("seed")
    seed = seed if isinstance(seed, int) else 0
    a_token = _bytes_per_token(_table(sources[0], ["response"]), codec)
    sizes = [_row_bytes(_table(source, ["prompt", "response", "step_ends"]), a_token) for source in sources]
    chosen = sample_evenly(sizes, [source.name for source in sources], most_bytes, seed)
    found = BrowsedRollouts(seed=seed)
    how, numbers = str(_setting(run, "prm", "search_aggregate") or "prod"), _Prompts(codec, found.prompts)
    for position, (source, rows, size) in enumerate(zip(sources, chosen, sizes, strict=True)):
        found.sources.append(
            {"name": source.name, "kind": source.kind, "rows": len(size), "shown": len(rows)}
        )
        table = _with_grades(source).take(pa.array(rows, pa.int64()))
        found.rewards.extend(
            name for name in table.column_names if _is_reward(name) and name not in found.rewards
        )
        for row in table.to_pylist():
            found.rows.append(_row(position, row, codec, numbers, how, found.rewards))
    return found


def sample_evenly(
    sizes: Sequence[Sequence[float]], names: Sequence[str], most: float, seed: int
) -> list[list[int]]:
    """Return the rows of each file that are kept: as many of each, drawn by the seed, in their order.

    Args:
        sizes: bytes of each row of each file.
        names: of the files; a file's draw depends on its name and on no other file.
        most: bytes of all that are kept.
        seed: of the draw.
    """
    orders = []
    for name, rows in zip(names, sizes, strict=True):
        order = list(range(len(rows)))
        Random(derive_seed(seed, "report", name)).shuffle(order)
        orders.append(order)
    kept: list[list[int]] = [[] for _ in sizes]
    left = float(most)
    for turn in range(max((len(order) for order in orders), default=0)):
        here = [at for at, order in enumerate(orders) if turn < len(order)]
        costs = [sizes[at][orders[at][turn]] for at in here]
        whole = sum(costs) <= left
        if not whole:  # some of the files, as far from each other as can be
            count = int(len(here) * left / sum(costs))
            here = [here[at * len(here) // count] for at in range(count)]
        for at in here:
            kept[at].append(orders[at][turn])
            left -= sizes[at][orders[at][turn]]
        if not whole:
            break
    return [sorted(rows) for rows in kept]


class _Prompts:
    """Prompts as text, each once: the rollouts of a group share theirs."""

    def __init__(self, codec: TextCodec, texts: list[str]) -> None:
        self._codec, self._texts = codec, texts
        self._places: dict[tuple[int, ...], int] = {}

    def place(self, tokens: Sequence[int]) -> int:
        """Number of a prompt in the list of texts."""
        key = tuple(tokens)
        if key not in self._places:
            self._places[key] = len(self._texts)
            self._texts.append(self._codec.decode(key))
        return self._places[key]


def _row(
    source: int, row: dict[str, Any], codec: TextCodec, prompts: _Prompts, how: str, rewards: Sequence[str]
) -> dict[str, Any]:
    """Return a rollout as the script reads it; what is not known is left out.

    `logs`: summed log-probability of each step's tokens, in nats. `trace`: the step scores aggregated as
    the search does.
    """
    ends = row["step_ends"] or []
    found: dict[str, Any] = {
        "source": source,
        "prompt": prompts.place(row["prompt"]),
        "problem": row["problem_id"],
        "steps": [text.strip("\n") for text in codec.step_texts(row["response"], ends)],
        "tokens": len(row["response"]),
        "finish": row["finish"],
        "outcome": rounded(row["outcome"]),
        "version": row.get("version"),
    }
    for name in ("answer", "status"):
        found[name] = row.get(name)
    starts = [0, *ends][:-1]
    logs = row.get("logprobs") or []
    if len(logs) == len(row["response"]):
        found["logs"] = [rounded(sum(logs[start:end])) for start, end in zip(starts, ends, strict=True)]
    scores = row.get("scores")
    if scores and len(scores) == len(ends):
        found["scores"] = [rounded(score) for score in scores]
        if None not in found["scores"]:
            values = np.asarray(scores, np.float64)
            found["trace"] = rounded(float(aggregate_steps(values, np.array([0, len(values)]), how)[0]))  # type: ignore[arg-type]
    truths = row.get("step_truth")
    if truths and len(truths) == len(ends):
        found["truths"] = truths
    if rewards:
        found["rewards"] = [rounded(row.get(name)) for name in rewards]
    paid = row.get(REWARD_STEPS)
    if paid and len(paid) == len(ends):
        found["paid"] = [rounded(value) for value in paid]
    return {name: value for name, value in found.items() if value is not None}


def rounded(value: Any) -> float | None:
    """Return a number to four places, None for what is none (JSON has no NaN)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return round(float(value), 4)


def _is_reward(name: str) -> bool:
    return name == REWARD_SUM or name.startswith(f"{REWARD_SUM}/")


def _table(source: Source, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(source.path, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{source.path} is no readable Parquet file ({error}): delete it to report without it"
        ) from error


def _with_grades(source: Source) -> pa.Table:
    """The file's rows, with answers and truths of the grades where it has none of its own."""
    table = _table(source)
    if source.grades is None:
        return table
    grades = _table(Source(source.name, source.kind, source.grades))
    if grades.num_rows != table.num_rows:
        raise DataError(
            f"{source.grades} has {grades.num_rows} rows and {source.path.name} {table.num_rows}: delete "
            "both to report without them"
        )
    for name in ("answer", "step_truth", "status"):
        if name in grades.column_names and name not in table.column_names:
            table = table.append_column(name, grades[name])
    return table


def _bytes_per_token(table: pa.Table, codec: TextCodec) -> float:
    """Bytes of JSON that a token takes, measured on some rows."""
    rows = table.slice(0, _MEASURED_ROWS)
    responses = [row for row in rows["response"].to_pylist() if row]
    tokens = sum(len(row) for row in responses)
    return sum(len(json.dumps(codec.decode(row))) for row in responses) / tokens if tokens else 4.0


def _row_bytes(table: pa.Table, a_token: float) -> list[float]:
    """About what each row takes in the page."""
    lengths = [
        np.nan_to_num(np.asarray(pc.list_value_length(table[name]).to_numpy(), np.float64))
        for name in ("prompt", "response", "step_ends")
    ]
    prompt, response, steps = lengths
    return list((prompt + response) * a_token + steps * _STEP_BYTES + _ROW_BYTES)


def _setting(run: RunData, section: str, name: str) -> Any:
    """A setting of the run's configuration file, None where there is none."""
    try:
        tree = yaml.safe_load(run.config)
    except yaml.YAMLError:
        return None
    part = tree.get(section) if isinstance(tree, dict) else None
    return part.get(name) if isinstance(part, dict) else None
