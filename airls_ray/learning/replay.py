"""The replay buffer: rollouts and traces of the last iterations, for the discriminator."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airls_ray.data.schemas import ROLLOUTS, TRACES, conform


@dataclass(frozen=True)
class ReplaySample:
    """Old rollouts (graded) and the traces of their problems; log-probabilities are to be recomputed."""

    rollouts: pa.Table
    traces: pa.Table


class ReplayBuffer:
    """Tables of the last `iterations` iterations; `group` keeps telling the groups of one apart."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self._entries: dict[int, ReplaySample] = {}

    def __len__(self) -> int:
        """Iterations held."""
        return len(self._entries)

    def add(self, iteration: int, rollouts: pa.Table, traces: pa.Table) -> None:
        """Keep the tables of `iteration` (with outcomes) and drop those that are too old."""
        if self.iterations == 0:
            return
        self._entries[iteration] = ReplaySample(rollouts, traces)
        for old in sorted(self._entries)[: -self.iterations]:
            del self._entries[old]

    def sample(self, fresh_groups: int, fraction: float, seed: int) -> ReplaySample | None:
        """Draw whole groups so that they are `fraction` of the batch beside `fresh_groups` fresh ones.

        Drawn without replacement, all groups alike; fewer where the buffer holds fewer; None where
        nothing is drawn.
        """
        wanted = round(fresh_groups * fraction / (1.0 - fraction))
        places = [
            (iteration, group)
            for iteration, entry in sorted(self._entries.items())
            for group in pc.unique(entry.rollouts["group"]).to_pylist()
        ]
        if not wanted or not places:
            return None
        drawn = np.random.default_rng(seed).permutation(len(places))[:wanted]
        by_iteration: dict[int, list[int]] = {}
        for place in sorted(drawn):
            iteration, group = places[place]
            by_iteration.setdefault(iteration, []).append(group)
        parts = [_groups_of(self._entries[iteration], groups) for iteration, groups in by_iteration.items()]
        return ReplaySample(
            pa.concat_tables([part.rollouts for part in parts]),
            pa.concat_tables([part.traces for part in parts]),
        )

    def save(self, folder: Path) -> None:
        """Write the buffer as Parquet files, two an iteration, in place of what `folder` held."""
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        for iteration, entry in self._entries.items():
            pq.write_table(entry.rollouts, folder / f"rollouts_{iteration:06d}.parquet")
            pq.write_table(entry.traces, folder / f"traces_{iteration:06d}.parquet")

    def load(self, folder: Path) -> None:
        """Replace the buffer's content by what `save` wrote; no folder leaves it empty."""
        self._entries = {}
        for file in sorted(folder.glob("rollouts_*.parquet")):
            iteration = int(re.sub(r"\D", "", file.stem))
            traces = pq.read_table(folder / f"traces_{iteration:06d}.parquet")
            # Parquet renames the inner field of lists, and tables of two types cannot be joined.
            self.add(iteration, conform(pq.read_table(file), ROLLOUTS), conform(traces, TRACES))


def _groups_of(entry: ReplaySample, groups: list[int]) -> ReplaySample:
    rollouts = entry.rollouts.filter(pc.is_in(entry.rollouts["group"], pa.array(groups, pa.int64())))
    problems = pc.unique(rollouts["problem_id"])
    return ReplaySample(rollouts, entry.traces.filter(pc.is_in(entry.traces["problem_id"], problems)))
