"""An iteration of GRPO here and by TRL, in turns: the same policy, problems, sizes, sampling and seed.

    demo        the demo's warm-started policy of 0.8 M parameters, 64 problems x 4 rollouts of 37 tokens
    mixed       a new policy of 15 M parameters, 8 problems x 4 rollouts of 20 to 512 tokens
                (`mixed_policy.py`)
    pretrained  a model of your own (--model), 8 problems x 4 rollouts of at most 96 tokens

TRL generates by transformers in its one process: its use of vLLM wants GPUs. It has an environment of its own
(`environments.py`). Neither side recomputes activations (TRL's default does), and both learn in float32.
TRL's micro-batches have a number of rows, padded to the longest response of the iteration; ours have a
number of tokens. Where the policy solves nothing, both learn from one function (`peers_reward.py`) instead of
the answers.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Annotated, Any

import common
import mixed_policy
import peers_reward
import typer
from environments import trl_python, version_in, with_byte_code
from processes import Usage, watched

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 1800.0


@dataclass(frozen=True)
class Setting:
    """What both sides do."""

    config: Path
    problems: int
    tokens: int
    """Most of a response."""
    updates: int
    """Of an iteration, each on its share of the rollouts."""
    rate: float
    rows: int
    """Rollouts of one of TRL's micro-batches."""
    iterations: int
    """Of a run; the first is counted apart."""
    rollouts: int = 4
    overrides: tuple[str, ...] = ()
    """Of our configuration."""
    reward: str = ""
    """A function of `peers_reward.py`; empty: the right answer."""


SMOLLM = common.ROOT / "configs" / "arithmetic_smollm2.yaml"
SETTINGS = {
    "demo": Setting(common.CONFIG, 64, 40, 4, 5e-5, rows=64, iterations=6),
    "mixed": Setting(
        common.CONFIG, 8, 512, 2, 1e-5, rows=8, iterations=3, overrides=mixed_policy.SIZES, reward="odd_ones"
    ),
    "pretrained": Setting(
        SMOLLM, 8, 96, 1, 5e-6, rows=8, iterations=3, overrides=("model.context_tokens=256",),
        reward="odd_ones",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """What one side took."""

    first_update: float
    """Seconds from the command to the end of the first iteration."""
    iterations: list[float]
    """Seconds of each later iteration."""
    usage: Usage
    tokens: float
    """Mean of a response."""


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
if job["reward"]:
    sys.path.insert(0, job["rewards"])
    import peers_reward
    right = getattr(peers_reward, job["reward"])
share = job["problems"] * job["rollouts"] // job["updates"]
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(job["policy"], dtype="float32"),
    processing_class=AutoTokenizer.from_pretrained(job["policy"]),
    reward_funcs=right,
    train_dataset=Dataset.from_list(job["examples"]),
    args=GRPOConfig(output_dir=job["output"], max_steps=job["steps"], seed=0, learning_rate=job["rate"],
        per_device_train_batch_size=job["rows"], gradient_accumulation_steps=share // job["rows"],
        steps_per_generation=job["updates"] * (share // job["rows"]), num_generations=job["rollouts"],
        max_completion_length=job["tokens"], temperature=1.0, gradient_checkpointing=False,
        use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
        logging_steps=job["steps"]),
    callbacks=[Watch()],
)
trainer.train()
name = "completions/mean_length"
print("response tokens", [one[name] for one in trainer.state.log_history if name in one][-1], flush=True)
"""
"""One generation for all updates of an iteration, each of which learns from its share of them, as here."""


def main(
    setting: Annotated[
        list[str] | None, typer.Option(help="demo, mixed or pretrained (may be repeated).")
    ] = None,
    model: Annotated[str, typer.Option(help="Folder of the pretrained model.")] = "",
    turns: Annotated[int, typer.Option(min=1, help="Runs of each side, in turn.")] = 2,
    iterations: Annotated[
        int | None, typer.Option(min=2, help="Of each run, the first counted apart; default: the setting's.")
    ] = None,
    ours: Annotated[list[str] | None, typer.Option(help="Override of our configuration.")] = None,
) -> None:
    """Time iterations of GRPO by TRL and here, and write `results/peers.json`.

    Settings that are not measured now keep the figures that they have there, with their date and machine.
    """
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    names = setting or ["demo", "mixed", *(["pretrained"] if model else [])]
    check_settings(names, model)
    python = trl_python()
    figures: dict[str, Any] = {}
    rows = []
    for name in names:
        one = SETTINGS[name]
        if iterations is not None:
            one = replace(one, iterations=iterations)
        policy = Path(model) if name == "pretrained" else own_policy(name, one)
        sides: dict[str, list[Side]] = {"TRL": [], "airls-ray": []}
        for turn in range(turns):
            sides["TRL"].append(trl_run(one, policy))
            sides["airls-ray"].append(our_run(one, policy, ours or ()))
            last = ", ".join(f"{who} {median(found[-1].iterations):.2f} s" for who, found in sides.items())
            progress.say(f"{name}, turn {turn + 1} of {turns}: an iteration {last}")
        facts = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": common.machine(),
            "trl": version_in(python, "trl"),
        }
        figures[name] = facts | summary(sides)
        for who, found in figures[name]["sides"].items():
            rows.append((name, who, *found.values()))
    columns = (
        "setting",
        "",
        "to the first update, s",
        "iteration, s",
        "processor s / iteration",
        "memory, GiB",
        "tokens of a response",
    )
    progress.table("GRPO, medians", rows, columns)
    for name, found in figures.items():
        progress.say(f"{name}: TRL's seconds of an iteration over ours {found['ratio']:.2f}")
    kept = common.kept_figures("peers").get("iteration", {})
    path = common.write_result("peers", {"iteration": kept | figures})
    progress.say(f"written to {path}")


def check_settings(names: Sequence[str], model: str) -> None:
    """Before anything is measured.

    Raises:
        ConfigError: no such setting, or `pretrained` without a model.
    """
    from airls_ray.errors import ConfigError

    for name in names:
        if name not in SETTINGS:
            raise ConfigError(f"--setting {name} is unknown: take one of {', '.join(SETTINGS)}")
    if "pretrained" in names and not (Path(model) / "config.json").is_file():
        raise ConfigError(f"--setting pretrained needs --model with a model's folder, but got '{model}'")


def own_policy(name: str, one: Setting) -> Path:
    """The demo's warm-started policy, or the one of mixed lengths; each is made once."""
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    config = load_config(one.config, list(one.overrides))
    if name == "mixed":
        return mixed_policy.mixed_policy(config)
    return common.warm_started_policy(config, make_progress())


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
                "response_tokens": median(one.tokens for one in found),
            }
            for who, found in sides.items()
        },
    }


def trl_run(one: Setting, policy: Path) -> Side:
    """TRL's GRPO trainer."""
    from airls_ray.config import load_config
    from airls_ray.tasks import make_task

    config = load_config(one.config, list(one.overrides))
    stream = make_task(config.task).problems("train", 0)
    examples = [
        {"prompt": problem.prompt, "answer": str(problem.answer)}
        for problem, _ in zip(stream, range(one.problems * one.iterations), strict=False)
    ]
    with tempfile.TemporaryDirectory() as name:
        job, script = Path(name, "job.json"), Path(name, "trl_grpo.py")
        script.write_text(TRL_SCRIPT)
        content = {
            "policy": str(policy), "output": f"{name}/trl", "examples": examples,
            "steps": one.updates * one.iterations, "problems": one.problems, "rollouts": one.rollouts,
            "updates": one.updates, "rows": one.rows, "tokens": one.tokens, "rate": one.rate,
            "reward": one.reward, "rewards": str(Path(peers_reward.__file__).parent),
        }  # fmt: skip
        job.write_text(json.dumps(content))
        start = time.time()
        output, usage = watched([trl_python(), str(script), str(job)], LONGEST, with_byte_code())
    ends = [float(found) for found in re.findall(r"^step ends ([\d.]+)$", output, re.MULTILINE)]
    ends = ends[one.updates - 1 :: one.updates]
    (tokens,) = re.findall(r"^response tokens ([\d.]+)$", output, re.MULTILINE)
    return Side(ends[0] - start, [b - a for a, b in pairwise(ends)], usage, float(tokens))


def our_run(one: Setting, policy: Path, more: Sequence[str]) -> Side:
    """`airls-ray train` by GRPO, with next to no search behind it."""
    reward = f"task.reward=[{{name: '{peers_reward.__file__}:{one.reward}'}}]"
    with tempfile.TemporaryDirectory() as name:
        settings = (
            *one.overrides, f"model.path={policy}", "method=grpo",
            f"method.updates_per_iteration={one.updates}", f"train.iterations={one.iterations}",
            f"train.problems_per_iteration={one.problems}", f"train.rollouts_per_problem={one.rollouts}",
            f"rollout.max_response_tokens={one.tokens}", f"policy.learning_rate={one.rate}",
            *((reward, "method.outcome_weight=0") if one.reward else ()), "search.problems=2",
            "search.samples=2", f"output={name}", "name=run", *more,
        )  # fmt: skip
        command = [sys.executable, "-m", "airls_ray.cli.main", "train", str(one.config), *settings]
        _, usage = watched(command, LONGEST, {**with_byte_code(), "PYTHONUNBUFFERED": "1"})
        lines = Path(name, "run", "metrics.jsonl").read_text().splitlines()
        start = json.loads(Path(name, "run", "summary.json").read_text())["seconds"]["start"]
    metrics = [json.loads(line) for line in lines]
    seconds = [one["time/iteration"] for one in metrics]
    tokens = fmean(one["rollout/response_tokens_mean"] for one in metrics)
    return Side(start + seconds[0], seconds[1:], usage, tokens)


if __name__ == "__main__":
    common.use_all_cores()
    common.run(main)
