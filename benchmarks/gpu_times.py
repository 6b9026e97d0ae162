"""Where the time of 64 to 1,024 GPUs would go for a 7B policy and PRM, on paper (docs/scale.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer

if TYPE_CHECKING:
    from airls_ray.planning.iteration_times import GPUs, IterationTimes

STALENESS = 2
"""`train.max_staleness`."""
AT_ONCE = 160
"""Most sequences that are decoded at once: 50 GiB of cache hold as many of 5,500 tokens, of 56 KiB each."""


@dataclass(frozen=True)
class Best:
    """The split of so many GPUs with the shortest iteration."""

    total: int
    asynchronous: bool
    gpus: GPUs
    times: IterationTimes

    @property
    def seconds(self) -> float:
        """Of an iteration."""
        return self.times.asynchronous(STALENESS) if self.asynchronous else self.times.synchronous

    @property
    def decides(self) -> str:
        """The largest stage, or which of its three bounds the asynchronous loop meets."""
        times = self.times
        parts = {
            "longest worker": times.longest,
            "PRM update": times.prm_update,
            "policy update": times.policy_update,
        }
        if self.asynchronous:
            parts = {
                "workers' work": times.work,
                "learners": times.learning,
                "staleness": (times.longest + times.learning) / (STALENESS + 1),
            }
        return max(parts, key=lambda name: parts[name])

    def cells(self) -> tuple[str, ...]:
        """Of the table."""
        times, gpus = self.times, self.gpus
        low, high = times.sync_store
        return (
            str(self.total),
            "asynchronous" if self.asynchronous else "synchronous",
            f"{gpus.rollout} + {gpus.policy} + {gpus.prm}",
            f"{times.work:.0f}",
            f"{times.longest:.0f}",
            f"{times.log_probs - (0.0 if self.asynchronous else times.recomputed):.0f}",
            f"{times.prm_update:.0f}",
            f"{times.prm_score:.0f}",
            f"{times.policy_update:.0f}",
            f"{times.sync:.1f}",
            f"{low:.0f} to {high:.0f}",
            f"{self.seconds:.0f}",
            self.decides,
        )


COLUMNS = (
    "GPUs", "loop", "workers + policy + PRM", "mean work", "longest", "log-probs", "PRM update", "PRM score",
    "policy update", "NCCL", "object store", "iteration", "decides",
)  # fmt: skip


def main(
    gpus: Annotated[
        list[int] | None, typer.Option(help="GPUs in all (may be repeated); by default 64 to 1,024.")
    ] = None,
    problems: Annotated[int, typer.Option(min=1, help="Problems of an iteration.")] = 512,
    rollouts: Annotated[int, typer.Option(min=2, help="Rollouts of a problem.")] = 16,
) -> None:
    """Work out the best split of so many GPUs and its seconds, for the same iteration throughout."""
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    found = [
        best(count, problems, rollouts, asynchronous)
        for count in gpus or (64, 128, 256, 512, 1024)
        for asynchronous in (False, True)
    ]
    cells = [one.cells() for one in found]
    progress.table("Seconds of an iteration, on paper", cells, COLUMNS)
    (common.RESULTS / "gpu_times.md").write_text(markdown(cells), encoding="utf-8")
    path = common.write_result("gpu_times", {"best": [_figures(one) for one in found]})
    progress.say(f"written to {path} and gpu_times.md")


def best(total: int, problems: int, rollouts: int, asynchronous: bool) -> Best:
    """The fastest of some splits of `total` GPUs.

    Raises:
        ValueError: there are fewer than three nodes: one each for workers, policy and PRM.
    """
    from virtual_parts import PROMPT, REASONING, SHAPE

    from airls_ray.planning.costs import Hardware
    from airls_ray.planning.iteration_times import IterationSizes, iteration_times, splits

    hardware = Hardware()
    sizes = IterationSizes(problems, rollouts, PROMPT, REASONING, AT_ONCE)
    nodes = total // hardware.gpus_per_node
    made = [
        Best(total, asynchronous, split, iteration_times(SHAPE, hardware, sizes, split))
        for split in splits(SHAPE, hardware, sizes, nodes)
        if split.rollout <= problems
    ]
    if not made:
        raise ValueError(
            f"{total} GPUs are {nodes} nodes, and workers, policy and PRM need one each: raise --gpus"
        )
    return min(made, key=lambda one: one.seconds)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The table as docs/scale.md has it."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figures(one: Best) -> dict[str, Any]:
    return {
        "gpus": one.total, "asynchronous": one.asynchronous, "split": asdict(one.gpus),
        "times": asdict(one.times), "iteration": one.seconds, "decides": one.decides,
    }  # fmt: skip


if __name__ == "__main__":
    common.run(main)
