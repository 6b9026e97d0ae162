"""The real loops and pool in virtual time: 8 to 2,048 simulated GPUs, heavy tails of lengths, faults."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer

if TYPE_CHECKING:
    from virtual_loop import Outcome, Scenario

    from airls_ray.console.progress import Progress

SIZES = (8, 64, 256, 1024, 2048)
FEW = 64
"""Workers of the runs in which one thing changes."""
TURNS = 6
"""Iterations of these."""
MIDDLE = 256
"""Workers of the comparison of loops."""
LARGE = 1024
"""Workers at which the aims are."""
LINEAR, OF_LONGEST, CORES = 0.9, 1.15, 1.0
"""Aims at `LARGE` workers."""


@dataclass(frozen=True)
class Row:
    """A scenario and what came of it."""

    name: str
    scenario: Scenario
    outcome: Outcome

    def figures(self) -> dict[str, Any]:
        """As it is written."""
        from virtual_loop import Scenario

        given = {
            name: value
            for name, value in asdict(self.scenario).items()
            if value != asdict(Scenario(self.scenario.workers))[name]
        }
        return {
            "name": self.name,
            "workers": self.scenario.workers,
            "differs": given,
            **asdict(self.outcome),
            "of_longest": self.outcome.of_longest,
        }


def main(
    workers: Annotated[
        list[int] | None, typer.Option(help="Rollout workers (may be repeated); by default 8 to 2,048.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Scenarios that are simulated at once.")] = 2,
) -> None:
    """Run the loops with workers, learners and network that take the seconds of the planner's formulas.

    A 7B policy and PRM; responses with a median of 4,096 tokens, of which one in a hundred is longer than
    24,576 (all assumed). "Of linear" is a worker's rollouts per second against those with the fewest workers.
    "Of the longest" is an iteration over the longer of the workers' mean work and all that the learners do.
    The figures are the same on every machine, but for the driver's cores: the processor seconds of the
    project's own code in the driver, without Ray's, over the virtual seconds.
    """
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    asked = {
        "sizes": list(_sizes(sorted(workers or SIZES))), "loops": list(_loops()), "tails": list(_tails()),
        "faults": list(_faults()),
    }  # fmt: skip
    tables = _run(asked, processes, progress)
    for name, rows in tables.items():
        progress.table(name.capitalize(), _cells(rows), COLUMNS)
    for line in aims(tables["sizes"]):
        progress.say(line)
    figures = {name: [row.figures() for row in rows] for name, rows in tables.items()}
    for name, rows in tables.items():
        (common.RESULTS / f"virtual_scale_{name}.md").write_text(markdown(name, rows), encoding="utf-8")
    progress.say(f"written to {common.write_result('virtual_scale', figures)} and virtual_scale_*.md")


def _sizes(sizes: Sequence[int]) -> Iterable[tuple[str, Scenario]]:
    from virtual_loop import Scenario

    for count in sizes:
        # One iteration of few workers has few responses, so that it takes more of them for a mean.
        turns = 2 if count > LARGE else 4 if count >= MIDDLE else 10
        yield "synchronous", Scenario(count, turns)
        yield "synchronous, NCCL", Scenario(count, turns, nccl=True)
        yield "asynchronous, 2", Scenario(count, turns + 2, staleness=2)


def _loops() -> Iterable[tuple[str, Scenario]]:
    from virtual_loop import Scenario
    from virtual_parts import EVEN

    for name, lengths in (("even", EVEN), ("heavy", Scenario(1).lengths)):
        # The learners take as long as the workers' mean work: the hardest case for an overlap.
        learning = 45.0 if lengths is EVEN else 200.0
        for staleness in (0, 1, 2):
            made = Scenario(MIDDLE, 5, staleness=staleness, lengths=lengths, learning_seconds=learning)
            yield f"{name} lengths, max_staleness {staleness}", made


def _tails() -> Iterable[tuple[str, Scenario]]:
    from virtual_loop import Scenario

    for shares in (1, 2, 4):
        yield (
            f"synchronous, shares_per_worker {shares}",
            Scenario(FEW, TURNS, shares_per_worker=shares),
        )
        yield (
            f"asynchronous 2, shares_per_worker {shares}",
            Scenario(FEW, TURNS, staleness=2, shares_per_worker=shares),
        )
    for groups in (4, 16):
        yield (
            f"asynchronous 2, {8 * groups} rollouts a worker",
            Scenario(FEW, TURNS, staleness=2, groups_per_worker=groups),
        )
    for rounds in (0, 1, 3):
        made = Scenario(FEW, TURNS, refill_rounds=rounds, kept_share=0.6)
        yield f"synchronous, 60 % of the groups kept, refill_rounds {rounds}", made


def _faults() -> Iterable[tuple[str, Scenario]]:
    from virtual_loop import Scenario

    for loop, staleness in (("synchronous", 0), ("asynchronous 2", 2)):
        yield f"{loop}, nothing wrong", Scenario(FEW, TURNS, staleness=staleness)
        for shares in (1, 4):
            yield (
                f"{loop}, one node of eight at half speed, shares_per_worker {shares}",
                Scenario(FEW, TURNS, staleness=staleness, shares_per_worker=shares, slow_nodes=1, slower=2.0),
            )
        yield (
            f"{loop}, policy learner at half speed",
            Scenario(FEW, TURNS, staleness=staleness, hot_learner=2.0),
        )
        yield (
            f"{loop}, object store spills the weights",
            Scenario(FEW, TURNS, staleness=staleness, spills=True),
        )


def _run(
    asked: Mapping[str, Sequence[tuple[str, Scenario]]], processes: int, progress: Progress
) -> dict[str, list[Row]]:
    """All scenarios of all tables, the largest first."""
    each = [one for scenarios in asked.values() for one in scenarios]
    largest = sorted(range(len(each)), key=lambda at: (-each[at][1].workers, -each[at][1].staleness))
    rows: dict[int, Row] = {}
    with ProcessPoolExecutor(processes) as pool:
        begun = {pool.submit(_outcome, each[at][1]): at for at in largest}
        for done in as_completed(begun):
            at = begun[done]
            rows[at] = Row(*each[at], done.result())
            seconds = rows[at].outcome.iteration_seconds
            progress.say(f"{rows[at].scenario.workers} workers, {rows[at].name}: {seconds:.0f} s")
    left = iter([rows[at] for at in range(len(each))])
    return {name: [next(left) for _ in scenarios] for name, scenarios in asked.items()}


def _outcome(scenario: Scenario) -> Outcome:
    from virtual_loop import simulate

    with tempfile.TemporaryDirectory(prefix="airls_virtual_") as folder:
        return simulate(scenario, Path(folder) / "run")


def of_linear(rows: Sequence[Row]) -> Mapping[int, float]:
    """Rollouts per second of a worker against those with the fewest workers, by workers; rows of one name."""
    rates = {row.scenario.workers: row.outcome.rollouts_per_second / row.scenario.workers for row in rows}
    return {count: rate / rates[min(rates)] for count, rate in rates.items()}


def aims(rows: Sequence[Row]) -> Iterable[str]:
    """A line for each loop with what the aims say of it, where it ran at that size."""
    for name in dict.fromkeys(row.name for row in rows):
        named = [row for row in rows if row.name == name]
        for row in named:
            if row.scenario.workers != LARGE:
                continue
            linear = of_linear(named)[LARGE]
            yield f"{name}, {LARGE} workers, of linear: {linear:.3f} {common.verdict(linear, LINEAR)}"
            cores = row.outcome.driver_cores
            yield f"the driver's cores: {cores:.4f} {common.verdict(cores, CORES, at_most=True)}"
            if row.scenario.staleness:
                longest = row.outcome.of_longest
                yield f"of the longest: {longest:.3f} {common.verdict(longest, OF_LONGEST, at_most=True)}"


COLUMNS = (
    "run",
    "workers",
    "rollouts/s",
    "of linear",
    "s an iteration",
    "of the longest",
    "workers busy",
    "sync, s",
    "wait, s",
    "driver, cores",
)


def _cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Of a table with `COLUMNS`."""
    linear = {
        (row.name, count): share
        for row in rows
        for count, share in of_linear([one for one in rows if one.name == row.name]).items()
    }
    return [
        (
            row.name,
            str(row.scenario.workers),
            f"{row.outcome.rollouts_per_second:.1f}",
            f"{linear[row.name, row.scenario.workers]:.3f}",
            f"{row.outcome.iteration_seconds:.0f}",
            f"{row.outcome.of_longest:.2f}",
            f"{row.outcome.busy_share:.2f}",
            f"{row.outcome.stages.get('sync', 0.0):.1f}",
            f"{row.outcome.stages.get('wait', 0.0):.0f}",
            f"{row.outcome.driver_cores:.4f}",
        )
        for row in rows
    ]


SHOWN = {
    "sizes": ("run", "workers", "s an iteration", "of linear", "of the longest", "sync, s", "driver, cores"),
    "loops": ("run", "s an iteration", "of the longest", "workers busy"),
    "tails": ("run", "s an iteration", "rollouts/s", "workers busy"),
    "faults": ("run", "s an iteration", "workers busy", "sync, s", "wait, s"),
}
"""Columns of the tables in docs/scale.md."""


def markdown(name: str, rows: Sequence[Row]) -> str:
    """A table as docs/scale.md has it."""
    places = [COLUMNS.index(column) for column in SHOWN[name]]
    cells = [[row[at] for at in places] for row in _cells(rows)]
    lines = [SHOWN[name], ["---"] * len(places), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    common.run(main)
