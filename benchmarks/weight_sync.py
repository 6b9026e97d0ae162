"""Weight sync from learner to rollout worker against a memory copy of the same bytes."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from common import Spread

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress

TARGET = 3.0
SIZES = {
    "0.8 M": common.SMALL,
    "5 M": ("model.hidden_size=256", "model.layers=6", "model.heads=8", "model.intermediate_size=768"),
    "20 M": ("model.hidden_size=512", "model.layers=6", "model.heads=16", "model.intermediate_size=1536"),
    "57 M": ("model.hidden_size=768", "model.layers=8", "model.heads=24", "model.intermediate_size=2048"),
}
SMALL_ENGINE = ("rollout.engine.kv_cache_gib=0.05", "rollout.engine.max_sequences=8")
PARTS = ("pack", "put", "load")


@dataclass
class Round:
    """Seconds of one sync's parts, and of a memory copy of the same bytes right after it."""

    pack: float
    put: float
    load: float
    copy: float

    @property
    def sync(self) -> float:
        """Seconds of the whole sync."""
        return self.pack + self.put + self.load


def main(
    rounds: Annotated[int, typer.Option(min=3, help="Measurements of each size.")] = 15,
) -> None:
    """Seconds of a sync over the object store, as fixed cost and memory copies.

    pack: all weights into one buffer; put: the buffer into the object store; load: the rollout worker's
    vLLM engine reads it in place, repacks its layers and forgets its prefix cache. A line is fitted through
    the sizes: seconds = fixed cost + slope * bytes; a memory copy (into new memory, as every copy of a
    sync) has a slope, too.
    """
    common.use_all_cores()
    from actors.train.start import connected
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    measured: dict[int, list[Round]] = {}
    names: dict[int, str] = {}
    with connected(load_config(common.CONFIG)):
        for name, settings in SIZES.items():
            config = load_config(common.CONFIG, [*settings, *SMALL_ENGINE])
            size, results = measure(config, name, rounds, progress)
            measured[size], names[size] = results, name
    progress.table("Weight sync, milliseconds: median", list(rows_of(measured, names)), COLUMNS)
    figures = fitted(measured) | {"target_copies": TARGET, "rounds": rounds}
    low, high = figures["copies_range"]
    progress.table(
        "seconds = fixed + slope * bytes, through the lowest seconds of each size",
        [
            ("fixed cost, ms", f"{figures['fixed_seconds'] * 1e3:.3g}", ""),
            ("slope of the sync, ms per MB", f"{figures['sync_seconds_per_byte'] * 1e9:.3g}", ""),
            ("slope of a memory copy, ms per MB", f"{figures['copy_seconds_per_byte'] * 1e9:.3g}", ""),
            (
                "memory copies that a sync costs",
                f"{figures['copies']:.3g} ({low:.3g}-{high:.3g})",
                common.verdict(figures["copies"], TARGET, at_most=True),
            ),
            *(
                (f"   of them {part}", f"{copies:.3g}", "")
                for part, copies in figures["copies_by_part"].items()
            ),
        ],
        ("", "value", "target"),
    )
    figures["sizes"] = {
        names[size]: {"bytes": size}
        | {
            part: Spread.of([getattr(r, part) for r in results]).figures()
            for part in (*PARTS, "sync", "copy")
        }
        for size, results in measured.items()
    }
    progress.say(f"written to {common.write_result('weight_sync', figures)}")


def measure(config: Config, name: str, rounds: int, progress: Progress) -> tuple[int, list[Round]]:
    """Return the bytes of a model's weights and the rounds, the first (which warms up) left out."""
    from actors.cluster import cluster, processes
    from actors.rollout.rollout_worker import RolloutWorker
    from actors.rollout.vllm_engine import engine_environment
    from airls_ray.models.load import load_policy_module

    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        common.new_policy(config, Path(folder))
        module = load_policy_module(folder)
        worker = processes.start_actor(
            RolloutWorker,
            f"rollout-{config.model.hidden_size}",
            config.rollout.resources,
            "benchmark",
            config,
            folder,
            environment=engine_environment(threads),
            threads=threads,
        )
        with progress.phase(f"Starting an engine, {name} parameters"):
            cluster.fetch(worker.start.remote(), config.ray.start_deadline_seconds, "starting the engine")
    results = []
    with progress.track(f"Syncs, {name} parameters", rounds + 1) as bar:
        for version in range(1, rounds + 2):
            result, size = one_round(module, worker, version)
            results.append(result)
            bar.advance(1, sync_ms=1e3 * result.sync, copy_ms=1e3 * result.copy)
    processes.kill(worker)
    return size, results[1:]


def one_round(module: Any, worker: Any, version: int) -> tuple[Round, int]:
    """One sync as the actors do it, then one copy of the buffer into new memory; and the buffer's bytes."""
    import torch

    from actors.cluster import cluster
    from airls_ray.weights import pack_weights

    start = time.perf_counter()
    buffer = pack_weights(module.hf_parameters(), version)
    packed = time.perf_counter()
    reference = cluster.put(buffer)
    put = time.perf_counter()
    cluster.fetch(worker.update_weights.remote(reference), 600.0, "weight sync")
    loaded = time.perf_counter()
    source = torch.from_numpy(buffer.data)
    copy = common.seconds_of(source.clone)
    return Round(packed - start, put - packed, loaded - put, copy), buffer.nbytes


COLUMNS = ("parameters", "MB", *PARTS, "sync", "memory copy", "sync / copy")


def rows_of(measured: dict[int, list[Round]], names: dict[int, str]) -> Any:
    """Yield the table's rows."""
    for size, results in measured.items():
        cells = {
            part: 1e3 * Spread.of([getattr(result, part) for result in results]).median
            for part in (*PARTS, "sync", "copy")
        }
        ratio = Spread.of([result.sync / result.copy for result in results])
        yield (names[size], f"{size / 1e6:.1f}", *(f"{ms:.3g}" for ms in cells.values()), str(ratio))


def fitted(measured: dict[int, list[Round]]) -> dict[str, Any]:
    """Fit lines through the sizes; the range is that of three thirds of the rounds, fitted by themselves."""
    whole = fit(measured)
    thirds = [fit({size: results[k::3] for size, results in measured.items()}) for k in range(3)]
    copies = [part["copies"] for part in (whole, *thirds)]
    return whole | {"copies_range": [min(copies), max(copies)]}


def fit(measured: dict[int, list[Round]]) -> dict[str, Any]:
    """Fixed seconds and seconds per byte of a sync, in seconds and in memory copies.

    Fitted to the lowest seconds of each size: noise only adds, and noise of a small size would pass for
    fixed cost and make the slope, which is what is judged, look better than it is.
    """
    sizes = [float(size) for size in measured]
    lines = {
        part: common.fit_line(
            sizes, [min(getattr(result, part) for result in results) for results in measured.values()]
        )
        for part in (*PARTS, "sync", "copy")
    }
    per_byte = lines["copy"][1]
    return {
        "copies": lines["sync"][1] / per_byte,
        "copies_by_part": {part: lines[part][1] / per_byte for part in PARTS},
        "fixed_seconds": lines["sync"][0],
        "sync_seconds_per_byte": lines["sync"][1],
        "copy_seconds_per_byte": per_byte,
    }


if __name__ == "__main__":
    common.run(main)
