"""An iteration of GRPO here and by TRL, in turns: the same policy, problems, sizes and seed.

    demo        the demo's warm-started policy of 0.8 M parameters, 64 problems x 4 rollouts
    pretrained  a model of your own (--model), 8 problems x 4 rollouts

TRL generates by transformers in its one process, and has an environment of its own (`start.py` makes it).
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from processes import Usage, watched
from start import trl_python, with_byte_code

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 1800.0


@dataclass(frozen=True)
class Setting:
    """What both sides do."""

    config: Path
    problems: int
    tokens: int
    updates: int
    rate: float
    rollouts: int = 4


SETTINGS = {
    "demo": Setting(common.CONFIG, 64, 40, 4, 5e-5),
    "pretrained": Setting(common.ROOT / "configs" / "arithmetic_smollm2.yaml", 8, 48, 1, 5e-6),
}


@dataclass(frozen=True)
class Side:
    """What one side took."""

    first_update: float
    """Seconds from the command to the end of the first iteration."""
    iterations: list[float]
    """Seconds of each later iteration."""
    usage: Usage


TRL_SCRIPT = """
import json, re, sys, time
job = json.load(open(sys.argv[1]))
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
class Watch(TrainerCallback):
    def on_step_end(self, *_, **__):
        print("step ends", time.time(), flush=True)
def right(completions, answer, **_):
    found = [re.findall(r"=(-?\\d+)", one) for one in completions]
    return [float(bool(one) and one[-1] == wanted) for one, wanted in zip(found, answer)]
size = job["problems"] * job["rollouts"]
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(job["policy"], dtype="float32"),
    processing_class=AutoTokenizer.from_pretrained(job["policy"]),
    reward_funcs=right,
    train_dataset=Dataset.from_list(job["rows"]),
    args=GRPOConfig(output_dir=job["output"], max_steps=job["steps"], seed=0, learning_rate=job["rate"],
        per_device_train_batch_size=size // job["updates"], steps_per_generation=job["updates"],
        num_generations=job["rollouts"], max_completion_length=job["tokens"],
        use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True, logging_steps=10000),
    callbacks=[Watch()],
)
trainer.train()
"""
"""One generation for every `updates` steps, each of which learns from its share of the rollouts, as here."""


def main(
    setting: Annotated[list[str] | None, typer.Option(help="demo or pretrained (may be repeated).")] = None,
    model: Annotated[str, typer.Option(help="Folder of the pretrained model.")] = "",
    turns: Annotated[int, typer.Option(min=1, help="Runs of each side, in turn.")] = 2,
    iterations: Annotated[int, typer.Option(min=2, help="Of each run; the first is counted apart.")] = 6,
    ours: Annotated[list[str] | None, typer.Option(help="Override of our configuration.")] = None,
) -> None:
    """Time iterations of GRPO by TRL and here, and write `results/peers.json`."""
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    trl_python()
    figures: dict[str, Any] = {}
    rows = []
    for name in setting or ["demo", *(["pretrained"] if model else [])]:
        one = SETTINGS[name]
        policy = Path(model) if name == "pretrained" else warm_started(one)
        sides: dict[str, list[Side]] = {"TRL": [], "airls-ray": []}
        for turn in range(turns):
            sides["TRL"].append(trl_run(one, policy, iterations))
            sides["airls-ray"].append(our_run(one, policy, iterations, ours or ()))
            last = ", ".join(f"{who} {median(found[-1].iterations):.2f} s" for who, found in sides.items())
            progress.say(f"{name}, turn {turn + 1} of {turns}: an iteration {last}")
        figures[name] = summary(sides)
        for who, found in figures[name]["sides"].items():
            rows.append((name, who, *found.values()))
    columns = (
        "setting",
        "",
        "to the first update, s",
        "iteration, s",
        "processor s / iteration",
        "memory, GiB",
    )
    progress.table("GRPO, medians", rows, columns)
    path = common.write_result("peers", {"iteration": figures})
    progress.say(f"written to {path}")


def warm_started(one: Setting) -> Path:
    """The demo's warm-started policy."""
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    return common.warm_started_policy(load_config(one.config), make_progress())


def summary(sides: dict[str, list[Side]]) -> dict[str, Any]:
    """Medians of each side, and TRL's seconds over ours, turn by turn."""
    pairs = zip(sides["TRL"], sides["airls-ray"], strict=True)
    ratio = common.Spread.of([median(theirs.iterations) / median(our.iterations) for theirs, our in pairs])
    return {
        "ratio": ratio.median,
        "ratio_range": [ratio.low, ratio.high],
        "sides": {
            who: {
                "first_update_seconds": median(one.first_update for one in found),
                "iteration_seconds": median(second for one in found for second in one.iterations),
                "processor_seconds": median(one.usage.processor / (1 + len(one.iterations)) for one in found),
                "memory_gib": median(one.usage.memory for one in found),
            }
            for who, found in sides.items()
        },
    }


def trl_run(one: Setting, policy: Path, iterations: int) -> Side:
    """TRL's GRPO trainer."""
    from airls_ray.config import load_config
    from airls_ray.tasks import make_task

    config = load_config(one.config)
    stream = make_task(config.task).problems("train", 0)
    rows = [
        {"prompt": problem.prompt, "answer": str(problem.answer)}
        for problem, _ in zip(stream, range(one.problems * iterations), strict=False)
    ]
    with tempfile.TemporaryDirectory() as name:
        job, script = Path(name, "job.json"), Path(name, "trl_grpo.py")
        script.write_text(TRL_SCRIPT)
        content = {
            "policy": str(policy), "output": f"{name}/trl", "rows": rows, "steps": one.updates * iterations,
            "problems": one.problems, "rollouts": one.rollouts, "updates": one.updates,
            "tokens": one.tokens, "rate": one.rate,
        }  # fmt: skip
        job.write_text(json.dumps(content))
        start = time.time()
        output, usage = watched([trl_python(), str(script), str(job)], LONGEST, with_byte_code())
    ends = [float(found) for found in re.findall(r"^step ends ([\d.]+)$", output, re.MULTILINE)]
    ends = ends[one.updates - 1 :: one.updates]
    return Side(ends[0] - start, [b - a for a, b in pairwise(ends)], usage)


def our_run(one: Setting, policy: Path, iterations: int, more: Sequence[str]) -> Side:
    """`airls-ray train` by GRPO, with next to no search behind it."""
    with tempfile.TemporaryDirectory() as name:
        settings = (
            f"model.path={policy}", "method=grpo", f"method.updates_per_iteration={one.updates}",
            f"train.iterations={iterations}", f"train.problems_per_iteration={one.problems}",
            f"train.rollouts_per_problem={one.rollouts}", f"rollout.max_response_tokens={one.tokens}",
            f"policy.learning_rate={one.rate}", "search.problems=2", "search.samples=2",
            f"output={name}", "name=run", *more,
        )  # fmt: skip
        command = [sys.executable, "-m", "airls_ray.cli.main", "train", str(one.config), *settings]
        _, usage = watched(command, LONGEST, {**with_byte_code(), "PYTHONUNBUFFERED": "1"})
        lines = Path(name, "run", "metrics.jsonl").read_text().splitlines()
        start = json.loads(Path(name, "run", "summary.json").read_text())["seconds"]["start"]
    seconds = [json.loads(line)["time/iteration"] for line in lines]
    return Side(start + seconds[0], seconds[1:], usage)


if __name__ == "__main__":
    common.use_all_cores()
    common.run(main)
