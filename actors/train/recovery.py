"""When a learner dies: the learners are built again from the last checkpoint, and the run goes on there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from actors.train.parts import Parts
from actors.train.tracking import LoopState, read_state
from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress
from airls_ray.errors import ProcessLost, RunError
from airls_ray.runs.run_control import RunControl
from airls_ray.runs.run_folder import RunFolder

_T = TypeVar("_T")

Rebuild = Callable[[Parts, LoopState, Path | None, int], Parts]
"""Parts, the state to go back to, the checkpoint of that state (None: the beginning) and how often it was
done before, to parts with new learners."""


class Recovery:
    """Owns the parts of a run and repeats work that lost a learner, from the last checkpoint."""

    def __init__(
        self,
        parts: Parts,
        state: LoopState,
        config: Config,
        run: RunFolder,
        control: RunControl,
        rebuild: Rebuild,
        progress: Progress,
    ) -> None:
        """`state`: where the run stands; `rebuild`: starts the learners again."""
        self.parts, self.state = parts, state
        self._config, self._run, self._progress = config, run, progress
        self._rebuild_parts, self._control = rebuild, control
        self._in_a_row = 0
        self._furthest = state.iteration
        self.rebuilds = 0

    def work(self, do: Callable[[Parts, LoopState], _T]) -> _T:
        """Return what `do` returns; when it loses a process, rebuild the learners and do it again.

        Raises:
            RunError: `failures.rebuilds` times in a row without an iteration done between.
        """
        lost: ProcessLost | None = None
        while True:
            try:
                if lost is not None:
                    self._rebuild(lost)
                    lost = None  # its traceback holds references: rollouts and weights, to the run's end
                return do(self.parts, self.state)
            except ProcessLost as error:
                lost = error

    def _rebuild(self, error: ProcessLost) -> None:
        reached = max((line["iteration"] for line in self._run.read_metrics()), default=0)
        self._in_a_row = 0 if reached > self._furthest else self._in_a_row
        self._furthest = max(reached, self._furthest)
        most = self._config.failures.rebuilds
        if self._in_a_row >= most:
            raise RunError(
                f"{error}; the learners were rebuilt {self._in_a_row} times in a row "
                f"(failures.rebuilds={most}): look into their logs; --resume goes on from the last checkpoint"
            ) from error
        self._in_a_row += 1
        self.rebuilds += 1
        checkpoint = self._run.latest_checkpoint()
        self.state = read_state(checkpoint) if checkpoint else LoopState()
        self._progress.say(
            f"{error}. The learners are rebuilt, and the run goes on after iteration {self.state.iteration}"
        )
        self._control.say(phase="rebuilding the learners", last_error=str(error))
        self._run.use_rebuilt(checkpoint)
        self._run.rewind(self.state.iteration)
        self.parts = self._rebuild_parts(self.parts, self.state, checkpoint, self.rebuilds)

    def close(self) -> None:
        """End all actors."""
        self.parts.close()
