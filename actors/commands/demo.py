"""The whole system in one command: warm start, AIRL-S, search with the learned PRM, report."""

from __future__ import annotations

import time
from typing import Any

from actors.commands.sft import run_sft
from actors.train.launch import run_training
from actors.train.launch_checks import warm_start_folder
from actors.train.start import connected
from airls_ray.config.schema import Config
from airls_ray.console.choose import make_progress
from airls_ray.console.progress import Progress
from airls_ray.data.check_rewards import try_rewards
from airls_ray.grading.reward_pool import find_rewards
from airls_ray.runs.run_folder import RunFolder


def run_demo(config: Config) -> dict[str, Any]:
    """Warm-start a policy, train it with its PRM, search with it, write the report; returns the summary.

    One Ray cluster serves all stages. A demo that was interrupted goes on where it stood; one that is
    finished is shown again.
    """
    progress = make_progress()
    folder = warm_start_folder(config)
    run = RunFolder(config.output / config.name)
    if summary := run.read_summary():
        progress.say(f"{run.path} holds a finished demo; delete that folder or set name=... to run it again")
        show_summary(summary, progress)
        return summary
    resume = run.latest_checkpoint() is not None
    try_rewards(config, find_rewards(config.task.reward), progress)  # not only after the warm start
    with connected(config):
        if not (folder / "sft.json").exists():
            progress.say("1  Warm start: supervised training on solved problems")
            run_sft(config, folder)
        progress.say("2  AIRL-S: policy and PRM learn together, then the PRM picks the best of N")
        start = time.perf_counter()
        summary = run_training(config, resume, again="when the demo is started again")
        progress.phase_done("training and search", time.perf_counter() - start)
    show_summary(summary, progress)
    progress.say(f"Report: {run.report_file}")
    return summary


def show_summary(summary: dict[str, Any], progress: Progress) -> None:
    """Print what was reached as a table."""
    accuracy, search, base = summary["accuracy"], summary["search"], summary["search_base"]
    largest = max(search["oracle"], key=int)
    rows = [
        ("one sample", accuracy["base"]["sampled"], accuracy["trained"]["sampled"]),
        ("greedy", accuracy["base"]["greedy"], accuracy["trained"]["greedy"]),
        (f"majority of {largest}", base["majority"][largest], search["majority"][largest]),
        (
            f"best of {largest} by policy log-probability",
            base["policy_log_prob"][largest],
            search["policy_log_prob"][largest],
        ),
    ]
    if "best_of_n" in search:
        rows += [
            (f"PRM-weighted vote of {largest}", base["weighted"][largest], search["weighted"][largest]),
            (f"best of {largest} by PRM", base["best_of_n"][largest], search["best_of_n"][largest]),
        ]
    rows.append((f"oracle of {largest}", base["oracle"][largest], search["oracle"][largest]))
    progress.table(
        "Accuracy on held-out problems",
        [[name, f"{before:.3f}", f"{after:.3f}"] for name, before, after in rows],
        ["", "base policy", "trained policy"],
    )
    if "prm" not in summary:
        return
    metrics = [m for m in ("step_auroc", "trace_auroc") if m in summary["prm"]]
    progress.table(
        "Scorers against the truth (trained policy's rollouts)",
        [
            [name, *(f"{summary[key][metric]:.3f}" for metric in metrics)]
            for name, key in (("PRM", "prm"), ("policy log-probability", "policy_log_prob"))
        ],
        ["", *(metric.replace("_auroc", " AUROC") for metric in metrics)],
    )
