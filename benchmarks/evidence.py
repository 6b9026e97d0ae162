"""What is known of the methods in one file: results of other benchmarks, each row with seeds and interval.

    methods.json        policies: every method from one base policy
    prm_baselines.json  PRMs: tuned alike, choosing among 16 samples
    method_rates.jsonl  the grid of learning rates on the puzzles, on validation problems
    offline_prm.json    PRMs from stored solutions of GSM8K, from nothing
    pretrained_prm.json the same from a pretrained model
    pretrained_online.json  AIRL-S and GRPO from a pretrained model
    puzzle_search.json  live search on a puzzle by each scorer
    countdown.json      search with three and four numbers
    countdown_seeds.json  the PRM of three seeds choosing among the same samples
    reward_hacking.json policies that learn from a PRM's reward alone
    self_training.json  policies that learn their own solutions, chosen by a PRM or without

Runs nothing itself: `docs/evidence.md` says which command makes which file.
"""

from __future__ import annotations

import json
from typing import Any

import common
import method_rates
import prm_table

SOURCES = (
    "methods",
    "prm_baselines",
    "offline_prm",
    "pretrained_prm",
    "pretrained_online",
    "puzzle_search",
    "countdown",
    "countdown_seeds",
    "reward_hacking",
    "self_training",
)


def main() -> None:
    """Write results/evidence.json from the other result files, and print the tables of the tasks."""
    from airls_ray.console.choose import make_progress

    found = {name: read(name) for name in SOURCES}
    tasks: dict[str, dict[str, Any]] = {}
    for name, table in found["methods"].get("tasks", {}).items():
        if table:
            tasks.setdefault(name, {})["policies"] = {
                method: policy_row(row) for method, row in table.items()
            }
    for name, part in found["prm_baselines"].get("tasks", {}).items():
        tasks.setdefault(name, {})["prms"] = prm_rows(part)
    figures = {
        "tasks": tasks,
        "learning_rates": method_rates.read_records(),
        "gsm8k_offline": {key: found["offline_prm"].get(key) for key in ("questions", "controls", "prms")},
        "gsm8k_pool": found["pretrained_prm"],
        "processbench": found["pretrained_prm"].get("processbench"),
        "prm800k": found["pretrained_prm"].get("prm800k"),
        "pretrained_online": found["pretrained_online"],
        "puzzle_search": found["puzzle_search"],
        "countdown": found["countdown"],
        "countdown_seeds": found["countdown_seeds"],
        "reward_hacking": found["reward_hacking"],
        "self_training": found["self_training"],
    }
    progress = make_progress()
    for name, one in tasks.items():
        rows = [
            [kind, method, row["seeds"], row["value"], _range(row)]
            for kind in ("policies", "prms")
            for method, row in one.get(kind, {}).items()
        ]
        progress.table(name, rows, ["", "", "seeds", "accuracy / Best-of-16", "95 %"])
    progress.say(f"written to {common.write_result('evidence', figures)}")


def read(name: str) -> dict[str, Any]:
    """Figures of a benchmark; empty where it was not run."""
    path = common.RESULTS / f"{name}.json"
    figures: dict[str, Any] = json.loads(path.read_text())["figures"] if path.exists() else {}
    return figures


def policy_row(row: dict[str, Any]) -> dict[str, Any]:
    """Sampled accuracy after training, over seeds and problems."""
    return {
        "seeds": row["seeds"],
        "value": row["sampled"],
        "low": row.get("sampled_low"),
        "high": row.get("sampled_high"),
        "greedy": row["greedy"],
        "any_of_16": row.get("pass_16"),
        "any_of_16_low": row.get("pass_16_low"),
        "any_of_16_high": row.get("pass_16_high"),
        "rollouts": row.get("rollouts", 0),
    }


def prm_rows(part: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Choosing among 16 by each PRM and by the controls; intervals are of the problems."""
    rows = {name: {"seeds": 1, **one} for name, one in part["controls"].items()}
    for name, prm in part["prms"].items():
        settings = [{key: run[key] for key in ("rate", "epoch", "aggregate")} for run in prm["seeds"]]
        rows[name] = prm_table.over_seeds(prm) | {"settings": settings}
        del rows[name]["aggregates"]
    return {name: {"value": row.pop("best_of_n"), **row} for name, row in rows.items()}


def _range(row: dict[str, Any]) -> str:
    return "" if row.get("low") is None else f"{row['low']:.3f}-{row['high']:.3f}"


if __name__ == "__main__":
    common.run(main)
