"""What a tracker was told of a run already, so that a resume does not tell it again."""

from __future__ import annotations

from airls_ray.runs.trackers import TrackedRun


class ToldOnce:
    """A tracker's own name of a run and the last iteration it was told, in a file of the run folder.

    A resume goes on from a checkpoint and makes the iterations since then again. Trackers cannot take a point
    back and would keep two; so the first one stays.
    """

    def __init__(self, run: TrackedRun, file: str) -> None:
        """Read `file` of the run folder where the run goes on."""
        self._file = run.folder / file
        self.name = ""
        """Empty where the tracker does not know the run yet."""
        self._last = 0
        if run.iteration and self._file.exists():
            self.name, *last = self._file.read_text().splitlines()
            self._last = int(last[0]) if last else run.iteration

    def call(self, name: str) -> None:
        """Keep the tracker's name of the run."""
        self.name = name
        self._write()

    def is_new(self, iteration: int) -> bool:
        """Whether the tracker was not told this iteration."""
        return iteration > self._last

    def told(self, iteration: int) -> None:
        """Note that it was."""
        self._last = iteration
        self._write()

    def _write(self) -> None:
        self._file.write_text(f"{self.name}\n{self._last}\n")
