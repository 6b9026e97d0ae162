"""What the benchmarks share: paired measurements, result files, facts of the machine, policies to measure.

Nothing heavy is imported at module level, so that `--help` is instant.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress, Track
    from airls_ray.text.codec import TextCodec

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "demo_arithmetic.yaml"
RESULTS = ROOT / "benchmarks" / "results"
RUNS = ROOT / "runs" / "benchmarks"
"""What may be deleted at any time: models and run folders that the benchmarks make and use again."""

SMALL = ("model.hidden_size=128", "model.layers=4", "model.heads=4", "model.intermediate_size=384")
"""The demo's policy, 0.8 M parameters."""
MEDIUM = ("model.hidden_size=256", "model.layers=6", "model.heads=8", "model.intermediate_size=704")
"""4.8 M parameters."""


# ------------------------------------------------------------------------------------- measuring
@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        return cls(float(median(values)), float(min(values)), float(max(values)))

    def __str__(self) -> str:
        """`0.970 (0.931-1.01)`."""
        from airls_ray.console.formatting import format_number

        middle, low, high = (format_number(value) for value in (self.median, self.low, self.high))
        return f"{middle} ({low}-{high})"

    def figures(self) -> dict[str, float]:
        """As it is written to a result file."""
        return {"median": self.median, "min": self.low, "max": self.high}


@dataclass(frozen=True)
class Pairs:
    """Measurements of two sides, taken in turn: `ours[i]` and `bare[i]` met the same state of the machine."""

    ours: list[float]
    bare: list[float]

    @property
    def ratio(self) -> Spread:
        """Our figure over the bare one, pair by pair."""
        return Spread.of([one / other for one, other in zip(self.ours, self.bare, strict=True)])


def measure_pairs(
    ours: Callable[[], float], bare: Callable[[], float], count: int, bar: Track | None = None
) -> Pairs:
    """Call both sides in turn, `count` times each after one call each to warm up.

    Each side returns its figure (such as tokens per second). Machines that others use too are noisy from
    one second to the next; the ratio within a pair is not.
    """
    ours(), bare()
    pairs = Pairs([], [])
    for _ in range(count):
        pairs.ours.append(ours())
        pairs.bare.append(bare())
        if bar is not None:
            bar.advance(1, ratio=pairs.ours[-1] / pairs.bare[-1])
    return pairs


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return (intercept, slope) of the least-squares line y = intercept + slope x through two or more x."""
    if len(set(x)) < 2:
        raise ValueError(f"a line needs two different x, but there are {sorted(set(x))}")
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum(
        (a - mean_x) ** 2 for a in x
    )
    return mean_y - slope * mean_x, slope


# --------------------------------------------------------------------------- commands and results
def run(command: Callable[..., None]) -> None:
    """Make a command of a benchmark's `main`; a user's mistake ends it with one sentence."""
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        app()
    except Exception as error:
        from airls_ray.cli.main import sentence_of

        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        sys.exit(2)


def use_all_cores(threads: int | None = None) -> int:
    """Give this process the threads (by default all cores) and the waiting that the actors have; call before
    torch is imported. Threads that spin while they wait make a process ten times as slow beside others."""
    threads = threads or os.cpu_count() or 1
    if "torch" in sys.modules:
        raise RuntimeError("use_all_cores must be called before torch is imported")
    os.environ.update(
        OMP_NUM_THREADS=str(threads),
        KMP_BLOCKTIME="1",
        OMP_WAIT_POLICY="passive",
        TOKENIZERS_PARALLELISM="false",
    )
    return threads


def write_result(
    name: str, figures: dict[str, Any], folder: Path = RESULTS, *, script: str | None = None
) -> Path:
    """Write `results/NAME.json`: the figures, and what they depend on; by default NAME.py made it."""
    from airls_ray import files
    from airls_ray.version import versions

    record = {
        "benchmark": name,
        "command": " ".join(["python", f"benchmarks/{script or name}.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "figures": figures,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    files.write_text(path, files.to_json(record, indent=2) + "\n")
    return path


def kept_figures(name: str) -> dict[str, Any]:
    """Figures of an earlier call of a benchmark that measures a part at a time; empty where there is none."""
    path = RESULTS / f"{name}.json"
    kept: dict[str, Any] = json.loads(path.read_text())["figures"] if path.exists() else {}
    return kept


def machine() -> dict[str, Any]:
    """Processor, cores, memory and GPUs of this machine, and how busy it is."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages * size / 2**30, 1),
        "gpu": _gpus() or "none",
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return found.stdout.split("\n")[:-1]


def verdict(value: float, target: float, *, at_most: bool = False) -> str:
    """Say whether a figure reaches its target."""
    met = value <= target if at_most else value >= target
    return f"{'<=' if at_most else '>='} {target:g} {'met' if met else 'MISSED'}"


# ---------------------------------------------------------------------------- policies and rollouts
def digest(*texts: str) -> str:
    """Eight characters that change with the texts: names of what depends on a configuration."""
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=4).hexdigest()


def new_policy(config: Config, folder: Path) -> TextCodec:
    """Write a policy with random weights and return its codec."""
    from airls_ray.models.create import create_policy
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec, build_tokenizer

    task = make_task(config.task)
    build_tokenizer(task, folder)
    codec = TextCodec.from_folder(folder, task)
    create_policy(config.model, codec, folder, config.seed)
    return codec


def warm_started_policy(config: Config, progress: Progress) -> Path:
    """Return the folder of a policy that was warm-started by `config`; made once, used by all benchmarks.

    Its name has the settings that differ from the defaults, so that a new setting does not make it anew.
    """
    import json

    settings = config.model_dump(mode="json", include={"task", "model", "sft"}, exclude_defaults=True)
    name = f"{config.task.name}_{digest(json.dumps(settings))}_seed_{config.seed}"
    folder = RUNS / "base" / name
    if not (folder / "sft.json").exists():
        from actors.commands.sft import run_sft

        progress.say(f"Warm start of the policy with seed {config.seed} (kept in {folder.relative_to(ROOT)})")
        run_sft(config, folder, progress, resume=True)
    return folder


def arithmetic_rollouts(config: Config, codec: TextCodec, problems: int, samples: int) -> pa.Table:
    """Return ROLLOUTS in the shape of the demo's: traces of any problem stand for the responses.

    Outcomes alternate within a group; the log-probabilities are 0.
    """
    import numpy as np
    import pyarrow as pa

    from airls_ray.data.problems import ProblemStream
    from airls_ray.data.schemas import ROLLOUTS
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import encode_traces

    stream = ProblemStream(make_task(config.task), "train", config.seed)
    traces = encode_traces(stream.take(problems), codec, config.model.context_tokens)
    table = traces.take(pa.array(np.repeat(np.arange(problems), samples)))
    count = table.num_rows
    drawn = traces.take(pa.array(np.random.default_rng(0).integers(0, problems, count))).combine_chunks()
    responses = drawn["response"].chunk(0)
    zeros = pa.array(np.zeros(len(responses.values), np.float32))
    index = np.tile(np.arange(samples, dtype=np.int16), problems)
    finish = pa.array(["stop"] * count).dictionary_encode().cast(ROLLOUTS.field("finish").type)
    columns = {name: table[name] for name in ("problem_id", "group", "prompt")} | {
        "response": responses,
        "step_ends": drawn["step_ends"],
        "index": pa.array(index),
        "logprobs": pa.ListArray.from_arrays(responses.offsets, zeros),
        "version": pa.array(np.zeros(count, np.int32)),
        "finish": finish,
        "outcome": pa.array((index % 2).astype(np.float32)),
        "worker": pa.array(["benchmark"] * count),
        "seconds": pa.array(np.zeros(count, np.float32)),
        "token_versions": pa.nulls(count, pa.list_(pa.int32())),
    }
    return pa.table({name: columns[name] for name in ROLLOUTS.names}, schema=ROLLOUTS)
