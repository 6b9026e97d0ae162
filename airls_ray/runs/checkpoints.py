"""The checkpoints of a run folder: written whole, the newest and the best kept, `latest` and `best` named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from airls_ray import files
from airls_ray.errors import RunError
from airls_ray.runs.checkpoint_record import Inputs, read_record, write_record

_ITERATION = re.compile(r"iteration_(\d{6,})")


class Checkpoints:
    """`checkpoints/` of a run: `iteration_NNNNNN/`, and the pointer files `latest` and `best`."""

    def __init__(self, folder: Path, keep: int = 2, keep_best: int = 0, metric: str = "outcome/mean") -> None:
        """Of the checkpoints the newest `keep` (at least 1) and the `keep_best` largest in `metric` stay."""
        if keep < 1:
            raise ValueError(f"keep_checkpoints must be at least 1, but is {keep}")
        self.folder = folder
        self.latest_file = folder / "latest"
        self.best_file = folder / "best"
        self.keep, self.keep_best, self.metric = keep, keep_best, metric
        self.inputs: Inputs = {}
        """Fingerprints of what the run was started from, for the record of every checkpoint."""
        self._held: Counter[Path] = Counter()

    @contextmanager
    def write(self, iteration: int, metrics: Mapping[str, float | None]) -> Iterator[Path]:
        """Yield an empty folder to write into; on success it becomes the latest checkpoint."""
        files.remove_leftovers(self.folder)
        final = self.folder / iteration_name(iteration)
        with files.replacing(final) as temporary:
            temporary.mkdir()
            yield temporary
            write_record(temporary, iteration, metrics, self.inputs)
        files.write_text(self.latest_file, final.name + "\n")

    def all(self) -> list[Path]:
        """Return the complete checkpoint folders, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _ITERATION.fullmatch(path.name)]
        return sorted(found, key=checkpoint_iteration)

    def latest(self) -> Path | None:
        """Return the folder that `latest` names; the newest complete one if that is gone; or None."""
        if self.latest_file.exists():
            named = self.folder / self.latest_file.read_text(encoding="utf-8").strip()
            if _ITERATION.fullmatch(named.name) and named.is_dir():
                return named
        complete = self.all()
        return complete[-1] if complete else None

    def hold(self, checkpoint: Path) -> None:
        """Keep a checkpoint that someone reads until `release`."""
        self._held[checkpoint] += 1

    def release(self, checkpoint: Path) -> None:
        """Undo `hold`; the checkpoint goes at the next pruning, if it is to go."""
        self._held[checkpoint] -= 1

    def prune(self) -> None:
        """Delete what is neither kept, latest nor held, and name the best."""
        scores = {checkpoint_iteration(folder): self._score(folder) for folder in self.all()}
        latest = self.latest()
        stay = kept(
            scores, checkpoint_iteration(latest) if latest else None, newest=self.keep, best=self.keep_best
        )
        for folder in self.all():
            if checkpoint_iteration(folder) not in stay and self._held[folder] <= 0:
                files.remove(folder)
        if ranked := ranking(scores):  # empty without keep_best
            name = iteration_name(ranked[0])
            if not self.best_file.exists() or self.best_file.read_text(encoding="utf-8").strip() != name:
                files.write_text(self.best_file, name + "\n")

    def _score(self, folder: Path) -> float | None:
        """The metric of a checkpoint's own iteration; None where it is not known."""
        if not self.keep_best:
            return None
        try:
            record = read_record(folder)
        except RunError:  # a broken record is no reason to lose the run; a resume says so
            return None
        return None if record is None else record.metrics.get(self.metric)


def kept(scores: Mapping[int, float | None], latest: int | None, *, newest: int, best: int) -> set[int]:
    """Return the iterations whose checkpoints stay: the newest, the best and the latest.

    Args:
        scores: the metric by iteration; None is never among the best.
        latest: what the pointer names, which need not be the newest.
        newest: how many of the newest stay.
        best: how many of the best stay.
    """
    stay = set(sorted(scores)[-newest:]) | set(ranking(scores)[:best])
    return stay if latest is None else stay | {latest}


def ranking(scores: Mapping[int, float | None]) -> list[int]:
    """Return the iterations that have a score, best (largest) first; of equal ones the newer."""
    return sorted(
        (iteration for iteration, score in scores.items() if score is not None),
        key=lambda iteration: (scores[iteration], iteration),
        reverse=True,
    )


def is_checkpoint(name: str) -> bool:
    """Whether `name` is one of a checkpoint folder."""
    return _ITERATION.fullmatch(name) is not None


def checkpoint_iteration(folder: Path) -> int:
    """Return the iteration in a checkpoint folder's name.

    Raises:
        ValueError: the name is not one of a checkpoint.
    """
    match = _ITERATION.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"{folder} is no checkpoint folder")
    return int(match[1])


def iteration_name(iteration: int) -> str:
    """Return the name of what belongs to an iteration, such as `iteration_000040`."""
    return f"iteration_{iteration:06d}"
