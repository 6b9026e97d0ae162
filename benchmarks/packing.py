"""Arrow tables to packed tensors against Python lists, and the layout of a micro-batch on a CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from common import Pairs, Spread

if TYPE_CHECKING:
    import pyarrow as pa

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.models.modules import PolicyModule
    from airls_ray.tensors.batch import Layout

ROWS = (256, 2048, 16384)
ROLLOUTS = 128
"""Of one pass in the measurement of the layouts."""
BUDGETS: dict[Layout, tuple[int, ...]] = {"padded": (1024, 4096, 16384), "packed": (512, 2048)}
"""Tokens of a micro-batch. Without variable-length kernels packed attention grows with its square."""
SHAPES = {"equal lengths": (37, 37), "mixed lengths": (8, 64)}
"""Shortest and longest response; the demo's responses have 37 tokens."""


def main(
    pairs: Annotated[int, typer.Option(min=1, help="Measurements of each side of the conversion.")] = 15,
    layout_rounds: Annotated[int, typer.Option(min=1, help="Measurements of each layout and budget.")] = 5,
) -> None:
    """Microseconds from a list column to tensors, and tokens per second of both layouts on this CPU."""
    threads = common.use_all_cores()
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    config = load_config(common.CONFIG)
    conversion = measure_conversion(pairs, progress)
    layouts = measure_layouts(config, layout_rounds, progress)
    faster = [entry["faster"] for entry in layouts.values()]
    choice = "padded" if faster.count("padded") * 2 >= len(faster) else "packed"
    progress.say(f"faster on this CPU: {', '.join(faster)}; layout `auto` takes padded on a CPU")
    figures = {"conversion": conversion, "layout": layouts, "layout_on_cpu": choice, "threads": threads}
    progress.say(f"written to {common.write_result('packing', figures)}")


def token_table(rows: int, shortest: int, longest: int) -> pa.Table:
    """Return prompts of 13 tokens and responses of `shortest` to `longest`, in steps of up to 6 tokens."""
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(0)
    lengths = random.integers(shortest, longest + 1, rows)
    steps = [[*range(6, int(length), 6), int(length)] for length in lengths]
    return pa.table(
        {
            "prompt": _lists(np.full(rows, 13), random),
            "response": _lists(lengths, random),
            "step_ends": pa.array(steps, pa.list_(pa.int32())),
        }
    )


def _lists(lengths: Any, random: Any) -> pa.ListArray:
    import numpy as np
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, random.integers(2, 12, offsets[-1]).astype(np.int32))


# ------------------------------------------------------------------------------------- conversion
def measure_conversion(pairs: int, progress: Progress) -> dict[str, Any]:
    """Microseconds of `to_packed` and of Python lists on the response column, by rows."""
    from airls_ray.tensors import to_packed

    figures: dict[str, Any] = {}
    rows = []
    with progress.track("Conversions", pairs * len(ROWS)) as bar:
        for count in ROWS:
            column = token_table(count, 37, 37)["response"]
            repeats = max(1, 2048 // count)
            times = common.measure_pairs(
                partial(_microseconds, partial(to_packed, column), repeats),
                partial(_microseconds, partial(by_lists, column), repeats),
                pairs,
                bar,
            )
            packed, lists = Spread.of(times.ours), Spread.of(times.bare)
            speedup = Spread.of([bare / ours for ours, bare in zip(times.ours, times.bare, strict=True)])
            rows.append((f"{count:,}", f"{count * 37:,}", str(packed), str(lists), str(speedup)))
            figures[str(count)] = {
                "tokens": count * 37,
                "to_packed_microseconds": packed.figures(),
                "python_lists_microseconds": lists.figures(),
                "speedup": speedup.figures(),
            }
    columns = ("rows", "tokens", "to_packed, us", "Python lists, us", "times faster")
    progress.table("List column to tensors: median (range)", rows, columns)
    return figures


def by_lists(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """Do the same by way of Python lists: tokens and offsets."""
    import torch

    lists = column.to_pylist()
    offsets = [0]
    for row in lists:
        offsets.append(offsets[-1] + len(row))
    return torch.tensor([token for row in lists for token in row], dtype=torch.int32), torch.tensor(offsets)


def _microseconds(work: Callable[[], object], repeats: int) -> float:
    def repeat() -> None:
        for _ in range(repeats):
            work()

    return 1e6 * common.seconds_of(repeat) / repeats


# ----------------------------------------------------------------------------------------- layout
def measure_layouts(config: Config, rounds: int, progress: Progress) -> dict[str, Any]:
    """Tokens per second, forward and backward, of both layouts, each at the best of its budgets."""
    from airls_ray.models.load import load_policy_module

    with tempfile.TemporaryDirectory() as folder:
        common.new_policy(config, Path(folder))
        module = load_policy_module(folder)
    figures: dict[str, Any] = {}
    rows = []
    with progress.track("Layouts", rounds * len(SHAPES)) as bar:
        for name, (shortest, longest) in SHAPES.items():
            passes = Passes(module, token_table(ROLLOUTS, shortest, longest))
            speeds: dict[tuple[Layout, int], list[float]] = {
                (layout, size): [] for layout, sizes in BUDGETS.items() for size in sizes
            }
            passes.tokens_per_second("padded", 4096), passes.tokens_per_second("packed", 512)  # warm up
            for _ in range(rounds):
                for (layout, size), values in speeds.items():
                    values.append(passes.tokens_per_second(layout, size))
                bar.advance()
            figures[name] = compare_layouts(speeds)
            shown = figures[name]
            best = shown["best"]
            cells = (
                f"{best[layout]['tokens_per_second']:,.0f} at {best[layout]['budget']}" for layout in best
            )
            rows.append((name, *cells, str(Spread(*shown["padded_to_packed"].values())), shown["faster"]))
    columns = (f"{ROLLOUTS} rollouts", "padded, tokens/s at budget", "packed", "ratio", "faster")
    progress.table("Forward and backward of the policy: median (range)", rows, columns)
    return figures


def compare_layouts(speeds: dict[tuple[Layout, int], list[float]]) -> dict[str, Any]:
    """Compare both layouts, each at the budget with the best median; the ratio is taken within a round."""
    best = {
        layout: max((Spread.of(speeds[layout, size]).median, size) for size in sizes)[1]
        for layout, sizes in BUDGETS.items()
    }
    ratio = Pairs(speeds["padded", best["padded"]], speeds["packed", best["packed"]]).ratio
    return {
        "best": {
            layout: {"budget": size, "tokens_per_second": Spread.of(speeds[layout, size]).median}
            for layout, size in best.items()
        },
        "tokens_per_second": {
            f"{layout} {size}": Spread.of(values).figures() for (layout, size), values in speeds.items()
        },
        "padded_to_packed": ratio.figures(),
        "faster": "padded" if ratio.median >= 1.0 else "packed",
    }


class Passes:
    """Forward and backward passes of a module over one table, prompt and response tokens."""

    def __init__(self, module: PolicyModule, table: pa.Table) -> None:
        """Read the table; batches are cut in `tokens_per_second`, whose time counts them."""
        from airls_ray.learning.batches import Sequences

        self.module = module
        self.sequences = Sequences.of(table)

    def tokens_per_second(self, layout: Layout, budget: int) -> float:
        """Tokens (without padding) per second of one pass over all rows."""
        return int(self.sequences.lengths.sum()) / common.seconds_of(lambda: self._run(layout, budget))

    def _run(self, layout: Layout, budget: int) -> None:
        from airls_ray.tensors import make_batch, plan_microbatches

        sequences = self.sequences
        for rows in plan_microbatches(sequences.lengths, 1, budget, layout)[0]:
            batch = make_batch(sequences.prompt, sequences.response, sequences.step_ends, rows, layout, 0)
            logprobs, _ = self.module(**batch.model_inputs())
            logprobs.sum().backward()
        self.module.zero_grad(set_to_none=True)


if __name__ == "__main__":
    common.run(main)
