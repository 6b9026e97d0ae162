"""The files of configs/: all can be planned, and those of papers hold the published numbers."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from airls_ray.cli import main as cli
from airls_ray.config import Config, load_config
from airls_ray.config.door_section import DoorConfig
from airls_ray.config.task_sections import FileTaskConfig
from airls_ray.data.sources import parse_hub
from airls_ray.planning import make_plan
from airls_ray.planning.memory import GIB
from tests.unit.gym_fakes import stand_in
from tests.unit.test_gym_compact import ENTRIES

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
PAPERS = sorted(CONFIGS.glob("paper_*.yaml"))
RECIPES = {
    "gsm8k_qwen2.5_0.5b_1gpu": 1,
    "gsm8k_qwen2.5_3b_8gpus": 8,
    "math_qwen2.5_1.5b_1gpu": 1,
    "math_qwen2.5_7b_8gpus": 8,
}
"""Recipes for published data, and the GPUs of the node that each is for."""

REPIRL = {
    "method.prm_objective": "repirl",
    "method.outcome_advantage": "rloo",
    "method.trajectory_reward": "mean",
    "method.outcome_weight": 1.0,
    "method.step_weight": 0.0,
    "method.clip_low": 0.2,
    "method.clip_high": 0.2,
    "method.entropy_coefficient": 0.001,
    "method.kl_coefficient": 0.0,
    "method.accuracy_band": (0.2, 0.8),
    "method.updates_per_iteration": 4,
    "train.problems_per_iteration": 128,
    "train.rollouts_per_problem": 4,
    "rollout.max_response_tokens": 3000,
    "model.context_tokens": 1535 + 3000,
    "policy.learning_rate": 5e-7,
    "policy.weight_decay": 0.0,
    "policy.gradient_clip": 1.0,
    "prm.action": "token",
    "prm.parameterisation": "scalar_head",
    "prm.negatives": "failed",
    "prm.correct_rollouts": "reference",
    "prm.learner.learning_rate": 3e-8,
    "prm.learner.weight_decay": 0.0,
    "prm.learner.gradient_clip": 10.0,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "paper_repirl_qwen2.5_3b": {
        **REPIRL, "model.path": "Qwen/Qwen2.5-3B-Instruct", "method.trajectory_weight": 0.05,
    },
    "paper_repirl_qwen3_4b": {
        **REPIRL, "model.path": "Qwen/Qwen3-4B-Base", "method.trajectory_weight": 0.1,
    },
    "paper_prime_qwen2.5_3b": {
        "model.path": "Qwen/Qwen2.5-3B-Instruct",
        "method.prm_objective": "prime",
        "method.outcome_advantage": "rloo",
        "method.step_baseline": "leave_one_out",
        "method.step_return": "to_go",
        "method.return_per_step": False,
        "method.whiten": True,
        "prm.action": "token",
        "prm.parameterisation": "log_prob",
        "prm.prime.beta": 0.05,
        "prm.learner.learning_rate": 1e-6,
        "prm.learner.gradient_clip": 10.0,
    },
    "paper_airl_s_qwen2.5_7b": {
        "model.path": "Qwen/Qwen2.5-7B-Instruct",
        "method.prm_objective": "airl",
        "method.outcome_advantage": "grpo",
        "prm.action": "step",
        "prm.reward": "log_odds",
    },
    "paper_grpo_qwen2.5_7b": {
        "model.path": "Qwen/Qwen2.5-7B-Instruct",
        "method.prm_objective": "none",
        "method.outcome_advantage": "grpo",
    },
}  # fmt: skip


def name_of(path: Path) -> str:
    return path.stem


def at(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value.name if isinstance(value, DoorConfig) else value


def test_every_paper_configuration_is_checked():
    assert {path.stem for path in PAPERS} == set(PUBLISHED)


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [(file, field, value) for file, fields in PUBLISHED.items() for field, value in fields.items()],
)
def test_a_paper_configuration_resolves_to_the_published_value(file, field, value):
    assert at(load_config(CONFIGS / f"{file}.yaml"), field) == value


class OneEntry:
    """A data set that draws one and the same entry."""

    seed = 0

    def __init__(self, name: str, size: int, seed: int, **settings: Any) -> None:
        self._entry = {"question": "which moves?", **ENTRIES[name]}

    def __getitem__(self, _: int) -> dict[str, Any]:
        return self._entry


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_configuration_can_be_planned_and_fits(path, monkeypatch):
    stand_in(monkeypatch, OneEntry, tuple(ENTRIES))
    plan = make_plan(load_config(path))
    assert plan.unknown is None
    assert not plan.placement.never
    assert all(memory.total < 80 * GIB for memory in plan.memory.values())
    assert plan.engine is not None
    assert plan.engine.sequences >= 1


@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_a_paper_configuration_fits_one_node_of_eight_gpus_with_room_to_spare(path):
    plan = make_plan(load_config(path), gpus_per_node=8, gpu_memory_gib=80)
    assert len(plan.placement.nodes) == 1
    # The estimate leaves out fragmentation: a tenth of the GPU stays free.
    assert all(memory.total < 72 * GIB for memory in plan.memory.values())


@pytest.mark.parametrize(("name", "gpus"), RECIPES.items())
def test_a_recipe_fits_one_node_of_its_gpus_and_lacks_nothing(name, gpus):
    plan = make_plan(load_config(CONFIGS / f"{name}.yaml"), gpus_per_node=gpus, gpu_memory_gib=80)
    assert len(plan.placement.nodes) == 1
    assert all(memory.total < 72 * GIB for memory in plan.memory.values())
    assert plan.warnings == ()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_pins_its_data_and_says_that_it_was_not_run(name):
    task = load_config(CONFIGS / f"{name}.yaml").task
    assert isinstance(task, FileTaskConfig)
    for source in (task.train_file, task.test_file):
        assert re.fullmatch(r"[0-9a-f]{40}", parse_hub(source).revision or "")
    assert "not run here" in (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_a_paper_configuration_lacks_nothing_but_its_problem_files(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    warnings = make_plan(load_config(path)).warnings
    assert warnings == ("there is no problem file data/train.jsonl or data/test.jsonl here",)


@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_a_paper_configuration_says_what_is_published_and_that_it_was_not_run(path):
    text = path.read_text(encoding="utf-8")
    assert "Not run here" in text
    assert "[P]" in text
    assert "[C]" in text


# ----------------------------------------------------------------------------------- --dry-run
PAPER = str(CONFIGS / "paper_repirl_qwen2.5_3b.yaml")


def test_a_dry_run_prints_sizes_actors_placement_and_memory(capsys):
    assert cli.run(["train", PAPER, "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["rollouts", "per", "iteration", "512"] in lines
    assert ["policy", "learner", "3", "4", "1"] in lines
    assert any(line[:2] == ["node", "1"] and line[-3:] == ["8", "of", "8"] for line in lines)
    assert any(line[:3] == ["PRM", "learner", "1.92"] for line in lines)


def test_a_dry_run_warns_in_words_and_ends_well(capsys):
    command = ["train", PAPER, "--dry-run", "--gpu-memory-gib", "40", "--gpus-per-node", "4"]
    assert cli.run([*command, "policy.logit_chunk_mib=0"]) == 0
    output = capsys.readouterr().out
    assert "Warning: the GPU of policy learner needs about 50.2 GiB, and it has 40 GiB: lower" in output
    assert "policy.logit_chunk_mib (0 is no limit)" in output
    assert "node 2" in output


def test_a_dry_run_takes_overrides_and_refuses_wrong_ones(capsys):
    assert cli.run(["train", PAPER, "--dry-run", "policy.rank=2"]) == 2
    assert capsys.readouterr().err == "Error: unknown key policy.rank; did you mean policy.ranks?\n"


def test_a_dry_run_shows_custom_resources(capsys):
    assert cli.run(["train", PAPER, "--dry-run", "policy.resources.custom={big: 1}"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["actor", "number", "CPUs", "GPUs", "big"] in lines
    assert ["policy", "learner", "3", "4", "1", "1"] in lines
    assert lines[[line[:2] for line in lines].index(["in", "all"])][-1] == "3"


def test_a_dry_run_starts_nothing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "actors.train.launch", None)  # an import would raise
    assert cli.run(["train", PAPER, "--dry-run"]) == 0
