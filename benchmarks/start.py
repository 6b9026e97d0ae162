"""Seconds from a command to its work, phase by phase, beside `from vllm import LLM` and TRL's GRPO trainer.

Every side starts the same tiny policy, in turn (A B C A B C ...), each in processes of its own. TRL gets an
environment of its own in `runs/benchmarks/trl`, made at the first call.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from common import CONFIG, ROOT, SMALL, new_policy, run, verdict, write_result
from environments import trl_python, with_byte_code

TARGET = 1.7
"""Seconds to the first rollouts of `train` over those of the import, at most."""
AIM_SECONDS = 40.0
LONGEST = 600.0
PORT = "8643"
FEW = (
    "search.problems=8", "search.samples=2", "train.iterations=1", "prm.warmup_iterations=1",
    "train.problems_per_iteration=8", "search.algorithms=[best_of_n,beam]", "search.budgets=[4]",
)  # fmt: skip
PHASES: dict[str, dict[str, str]] = {
    "train": {
        "verifier": r"^verifier ready",
        "rollout worker": r"^rollout-0 ready",
        "first rollouts": r"^Some rollouts",
        "learners": r"^PRM learner.* ready",
        "first iteration": r"^Training  1/",
    },
    "search": {"step scorer": r"^step scorer ready", "rollout worker": r"^rollout-0 ready"},
    "evaluate": {"rollout worker": r"^rollout worker ready"},
    "score": {},
    "score (no such folder)": {},
    "serve": {"rollout worker": r"^rollout-0 ready", "answers": r"Serving model"},
}
"""What a line that begins a phase looks like; `end` is added to all."""


@dataclass
class Timed:
    """One start: seconds to each phase, processor seconds of the command and what it waited for.

    Ray's processes are not in them.
    """

    phases: dict[str, float] = field(default_factory=dict)
    processor: float = 0.0


def timed(name: str, command: list[str], *, until: str | None = None, code: int = 0) -> Timed:
    """Run a command to its end (or to the phase `until`) and note when its lines came."""
    found, start = Timed(), time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**with_byte_code(), "PYTHONUNBUFFERED": "1"}, start_new_session=True,
    )  # fmt: skip
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        for phase, pattern in PHASES.get(name, {}).items():
            if phase not in found.phases and re.search(pattern, line.strip()):
                found.phases[phase] = time.perf_counter() - start
        if until in found.phases:
            process.send_signal(signal.SIGTERM)  # also where SIGINT is ignored, as behind an `&`
            until = None
    process.wait(LONGEST)
    if process.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{''.join(lines[-20:])}")
    found.phases["end"] = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found.processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def commands(policy: Path, work: Path, turn: int) -> dict[str, dict[str, Any]]:
    """What is started, by name: a command, and how it ends."""
    airls = [sys.executable, "-m", "airls_ray.cli.main"]
    settings = [*SMALL, *FEW, f"model.path={policy}", f"output={work}", f"name=run-{turn}"]
    prm = work / f"run-{turn}" / "checkpoints" / "iteration_000002" / "prm"
    solutions = work / "solutions.jsonl"
    solutions.write_text(json.dumps({"problem": "1+2=", "steps": ["1+2=3;"]}) + "\n")
    scored = [str(solutions), str(work / f"scores-{turn}.jsonl")]
    both = ["--policy", str(policy), "--prm", str(prm)]

    def with_config(name: str, *options: str) -> dict[str, Any]:
        return {"command": [*airls, name, str(CONFIG), *options, *settings]}

    return {
        "train": with_config("train"),
        "search": with_config("search", *both, "--output", str(work / f"search-{turn}")),
        "evaluate": with_config(
            "evaluate", "--policy", str(policy), "--output", str(work / f"evaluation-{turn}")
        ),
        "score": {"command": [*airls, "score", str(prm), *scored]},
        "score (no such folder)": {"command": [*airls, "score", "no/such/prm", *scored], "code": 2},
        "serve": {**with_config("serve", *both, "--port", PORT), "until": "answers"},
    }


# ---------------------------------------------------------------------------------------- the others
TRL_SCRIPT = """
import sys, time
start = float(sys.argv[2])
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
class Watch(TrainerCallback):
    def on_step_begin(self, *_, **__):
        print("first step begins", time.time() - start, flush=True)
    def on_step_end(self, *_, **__):
        print("first step ends", time.time() - start, flush=True)
tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(sys.argv[1]),
    processing_class=tokenizer,
    reward_funcs=lambda completions, **_: [float(len(one) % 2) for one in completions],
    train_dataset=Dataset.from_dict({"prompt": ["1+2*3="] * 64}),
    args=GRPOConfig(output_dir=sys.argv[3], max_steps=1, per_device_train_batch_size=16, num_generations=4,
        max_completion_length=40, use_cpu=True, bf16=False, report_to=[], save_strategy="no",
        disable_tqdm=True, logging_steps=1000),
    callbacks=[Watch()],
)
trainer.train()
"""


def trl_start(policy: Path, work: Path) -> Timed:
    """TRL's GRPO trainer with plain generation on the same policy: to its first step, and through it."""
    script = work / "trl_start.py"
    script.write_text(TRL_SCRIPT)
    command = [trl_python(), str(script), str(policy), str(time.time()), str(work / "trl")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, env=with_byte_code())
    if done.returncode:
        raise RuntimeError(f"TRL's trainer failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    phases = re.findall(r"^(first step begins|first step ends) ([\d.]+)$", done.stdout, re.MULTILINE)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed({name: float(seconds) for name, seconds in phases}, processor)


def bare_import() -> Timed:
    """`from vllm import LLM` alone."""
    return timed("import", [sys.executable, "-c", "from vllm import LLM"])


@contextmanager
def made_policy() -> Iterator[tuple[Path, Path]]:
    """A new policy of the demo's size, and a folder for what is started."""
    import tempfile

    from airls_ray.config import load_config

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        new_policy(load_config(CONFIG, list(SMALL)), work / "policy")
        yield work / "policy", work


def main(
    turns: Annotated[int, typer.Option(help="Starts of each side, in turn.")] = 3,
    trl: Annotated[bool, typer.Option(help="Start TRL's trainer, too.")] = True,
) -> None:
    """Time the starts and write `results/start.json`."""
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    seen: dict[str, list[Timed]] = {}
    with made_policy() as (policy, work):
        if trl:
            progress.say("TRL's environment (made once)")
            trl_python()
        for turn in range(turns):
            started = {"from vllm import LLM": bare_import()}
            for name, options in commands(policy, work, turn).items():
                started[name] = timed(name, **options)
                progress.say(f"{turn + 1}/{turns}  {name}: {shown(started[name])}")
            if trl:
                started["TRL GRPO"] = trl_start(policy, work)
            for name, one in started.items():
                seen.setdefault(name, []).append(one)
    bare = seen["from vllm import LLM"]
    first = [one.phases["first rollouts"] for one in seen["train"]]
    ratios = [one / other.phases["end"] for one, other in zip(first, bare, strict=True)]
    starts = {
        name: {
            "seconds": {phase: median(one.phases[phase] for one in all_of) for phase in all_of[0].phases},
            "processor_seconds": median(one.processor for one in all_of),
        }
        for name, all_of in seen.items()
    }
    figures = {
        "first_rollouts_over_vllm_import": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
        "first_rollouts_seconds": median(first),
        "starts": starts,
    }
    rows = [
        (name, phase, f"{median(one.phases[phase] for one in all_of):.1f}",
         f"{median(one.processor for one in all_of):.0f}")
        for name, all_of in seen.items()
        for phase in all_of[0].phases
    ]  # fmt: skip
    progress.table("Starts (medians)", rows, ("command", "to", "seconds", "its own processor seconds"))
    ratio = median(ratios)
    progress.say(
        f"train's first rollouts over `from vllm import LLM`: {ratio:.2f} "
        f"({verdict(ratio, TARGET, at_most=True)}); {median(first):.1f} s "
        f"({verdict(median(first), AIM_SECONDS, at_most=True)})"
    )
    progress.say(f"Figures: {write_result('start', figures).relative_to(ROOT)}")


def shown(one: Timed) -> str:
    """The phases of a start in a line."""
    return ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in one.phases.items())


if __name__ == "__main__":
    run(main)
