"""A whole training iteration of the demo by stage: seconds, arithmetic, and what the driver holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from common import Spread
from stage_work import matmul_gflops, stage_gflop

if TYPE_CHECKING:
    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.planning.shapes import ModelShape

STAGES = ("rollout", "grade", "reference", "prm_update", "prm_score", "policy_update", "sync", "measure")
REST = "rest (problems, metrics)"


def main(
    iterations: Annotated[int, typer.Option(min=1, help="Iterations that are measured.")] = 12,
    warm: Annotated[int, typer.Option(min=0, help="Iterations before them.")] = 3,
    problems: Annotated[
        int, typer.Option(min=4, help="Problems of an iteration (fewer for a long look at the memory).")
    ] = 64,
    grpo: Annotated[
        bool, typer.Option(help="Of GRPO in the same sizes: what AIRL-S is compared with.")
    ] = False,
) -> None:
    """Seconds of each stage of an AIRL-S iteration on the demo's configuration, with all its actors."""
    name = "iteration_grpo" if grpo else "iteration"
    common.use_all_cores()
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    base = common.warm_started_policy(load_config(common.CONFIG), progress)
    config = load_config(
        common.CONFIG,
        [
            f"name={name}",
            f"output={common.RUNS}",
            f"model.path={base}",
            "prm.warmup_iterations=0",
            f"train.problems_per_iteration={problems}",
            f"train.iterations={warm + iterations}",
            f"train.checkpoint_every={warm + iterations}",
            f"train.rollouts_every={warm + iterations}",
            *(("method.name=grpo", "method.step_weight=0.0") if grpo else ()),
        ],
    )
    lines, memory = measure(config, str(base), progress)
    figures = summarise(lines[warm:]) | {"memory": memory}
    figures["matmul_gflops"] = matmul_gflops(shape_of(config))
    add_work(figures, lines[warm:], config)
    stages = figures["stages"]
    progress.table(
        "One iteration by stage",
        [
            (
                name,
                str(stage["seconds"]),
                f"{stage['share']:.1%}",
                *((f"{stage['gflop']:.1f}", f"{stage['gflops']:.1f}") if "gflop" in stage else ("", "")),
            )
            for name, stage in stages.items()
        ],
        ("stage", "seconds: median (range)", "share", "GFLOP", "GFLOP/s"),
    )
    progress.say(f"a plain product of these widths reaches {figures['matmul_gflops']:.0f} GFLOP/s")
    progress.table(
        "Around it",
        [
            ("tokens/s, rollout stage", str(figures["rollout_tokens_per_second"])),
            ("rollouts/s, whole iteration", str(figures["rollouts_per_second"])),
            *(
                (
                    f"{name}, MB: start, middle, end; an iteration in the second half",
                    f"{values[0]:.1f}, {values[len(values) // 2]:.1f}, {values[-1]:.1f}; "
                    f"{slope_mb(values):+.4f}",
                )
                for name, values in memory.items()
            ),
        ],
        ("", "value"),
    )
    path = common.write_result(name, _plain(figures), script="iteration")
    progress.say(f"written to {path}")


def measure(
    config: Config, base: str, progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """Run all iterations; return their lines of metrics, and the memory in MB after each."""
    from actors.cluster import cluster
    from actors.train.loop import run_iteration
    from actors.train.start import Sources, connected, start_parts
    from actors.train.tracking import LoopState, Shown, Tracker
    from airls_ray.runs.run_folder import RunFolder

    run = RunFolder(config.output / config.name)
    shutil.rmtree(run.path, ignore_errors=True)
    run.create(config)
    memory: dict[str, list[float]] = {"driver, own": [], "driver, shared": [], "object store": []}
    state = LoopState()
    with connected(config):
        parts = start_parts(config, Sources(policy=base, prm=base, reference=base), progress, state)
        with progress.track("Iterations", config.train.iterations) as bar:
            tracker = Tracker(run, config, Shown(bar, 0))
            while state.iteration < config.train.iterations:
                state = run_iteration(parts, config, state, tracker, warmup=False)
                memory["driver, own"].append(resident_mb("RssAnon"))
                memory["driver, shared"].append(resident_mb("RssShmem"))
                memory["object store"].append(cluster.object_store_used() / 1e6)
        parts.verifier.close()
    return run.read_metrics(), memory


def summarise(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Spread of the seconds of every stage, and its share of all iterations together."""
    total = sum(line["time/iteration"] for line in lines)
    seconds = {stage: [line.get(f"time/{stage}", 0.0) for line in lines] for stage in STAGES}
    seconds[REST] = [
        line["time/iteration"] - sum(values[i] for values in seconds.values()) for i, line in enumerate(lines)
    ]
    stages = {
        name: {"seconds": Spread.of(values), "share": sum(values) / total} for name, values in seconds.items()
    }
    whole = [line["time/iteration"] for line in lines]
    return {
        "stages": stages | {"iteration": {"seconds": Spread.of(whole), "share": 1.0}},
        "rollout_tokens_per_second": Spread.of([line["tokens_per_second/rollout"] for line in lines]),
        "rollouts_per_second": Spread.of(
            [line["policy/rollouts"] / line["time/iteration"] for line in lines]
        ),
        "iterations": len(lines),
    }


def add_work(figures: dict[str, Any], lines: list[dict[str, Any]], config: Config) -> None:
    """Add the arithmetic on paper to each stage that passes a model, and what it reached of it a second."""
    from airls_ray.data.problems import ProblemStream
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec

    groups = config.train.problems_per_iteration
    task = make_task(config.task)
    codec = TextCodec.for_model(config.model, str(config.model.path), task)
    prompts = ProblemStream(task, "train", config.seed).take(groups)["prompt"].to_pylist()
    prompt = sum(len(codec.encode_prompt(one)) for one in prompts) / groups
    shape, shares = shape_of(config), config.prm.shares
    work = [stage_gflop(shape, line, groups=groups, prompt=prompt, prm_shares=shares) for line in lines]
    for name in work[0]:
        stage = figures["stages"][name]
        stage["gflop"] = median(one[name] for one in work)
        stage["gflops"] = stage["gflop"] / stage["seconds"].median


def shape_of(config: Config) -> ModelShape:
    """Shape of the policy, which is the PRM's, too."""
    from airls_ray.planning.shapes import policy_shape

    shape = policy_shape(config)
    assert not isinstance(shape, str)
    return shape


def resident_mb(kind: str) -> float:
    """Memory of this process in MB (0 where the system has no /proc).

    `RssAnon` is its own; `RssShmem` are the pages of the object store that it has looked at, which belong to
    the store and rise to the size of its busiest part.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith(f"{kind}:"):
            return float(line.split()[1]) * 1024 / 1e6
    return 0.0


def slope_mb(values: list[float]) -> float:
    """MB an iteration over the second half, by least squares (the first half warms caches)."""
    half = values[len(values) // 2 :]
    return common.fit_line(list(range(len(half))), half)[1] if len(half) > 1 else 0.0


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return value.figures()
    return {key: _plain(part) for key, part in value.items()} if isinstance(value, dict) else value


if __name__ == "__main__":
    common.run(main)
