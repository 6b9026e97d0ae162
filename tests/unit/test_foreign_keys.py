"""Keys of other packages: each is answered with a setting that we have."""

from __future__ import annotations

from pathlib import Path

import pytest

from airls_ray.config.explain import known_keys
from airls_ray.config.foreign_keys import FOREIGN_KEYS
from airls_ray.config.load import load_config
from airls_ray.errors import ConfigError


def sentence(path: Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_every_setting_of_ours_in_the_table_exists() -> None:
    known = known_keys()
    named = {ours for key in FOREIGN_KEYS.values() for ours in key.ours}  # settings, or lists of sections
    assert named
    assert not [ours for ours in named if not any(f"{key}.".startswith(f"{ours}.") for key in known)]


@pytest.mark.parametrize("name", FOREIGN_KEYS)
def test_every_key_of_the_table_is_answered_with_all_our_settings(name: str) -> None:
    said = sentence(None, f"{name}=1")
    assert said.startswith(f"unknown key {name.split('.')[0]}; {FOREIGN_KEYS[name].whose}'s {name} ")
    assert all(key in said for key in FOREIGN_KEYS[name].ours)


def test_a_key_without_a_counterpart_says_why() -> None:
    assert not [name for name, key in FOREIGN_KEYS.items() if not key.ours and not key.remark]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "num_generations=8",
            "unknown key num_generations; TRL's num_generations is train.rollouts_per_problem here",
        ),
        ("train.num_generations=8", "TRL's num_generations is train.rollouts_per_problem here"),
        ("rollout.n=8", "unknown key rollout.n; verl's actor_rollout_ref.rollout.n is train.rollouts_per"),
        ("adv_estimator=grpo", "verl's algorithm.adv_estimator is method.outcome_advantage here"),
        ("delta=4", "unknown key delta; TRL's delta is method.policy_loss here (dual_clip bounds"),
        ("bf16=true", "TRL and OpenRLHF's bf16 is model.dtype here (bfloat16 or float32)"),
        ("train.warmup_ratio=0.1", "is policy.lr_warmup_updates here (updates, not a share of them)"),
        ("use_vllm=true", "TRL's use_vllm has no counterpart here: vLLM samples all rollouts"),
        ("trainer.nnodes=2", "verl's trainer.nnodes is policy.ranks and rollout.max_workers here"),
        ("colocate_all_models=true", "is policy.resources.gpus and rollout.resources.gpus here (shares"),
        ("critic.optim.lr=1e-5", "verl's critic has no counterpart here: no critic is trained"),
    ],
)
def test_a_key_is_known_by_its_end_and_by_its_whole_path(override: str, said: str) -> None:
    assert said in sentence(None, override)


def test_in_a_file_of_verl_the_first_key_that_has_an_answer_counts(tmp_path: Path) -> None:
    path = tmp_path / "ppo_trainer.yaml"
    path.write_text("actor_rollout_ref:\n  hybrid_engine: true\n  rollout: {name: vllm, n: 8}\n")
    said = sentence(path)
    assert said.startswith(f"{path}: unknown key actor_rollout_ref; verl's actor_rollout_ref.rollout.n is ")


def test_a_misspelt_key_of_ours_still_gets_the_nearest() -> None:
    assert "did you mean rollout.temperature?" in sentence(None, "rollout.temprature=1")


@pytest.mark.parametrize("whose", ["TRL", "verl", "OpenRLHF"])
def test_the_page_for_those_who_come_from_another_package_has_its_keys_and_no_others(whose: str) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "coming_from.md").read_text()
    section = page.partition(f"\n## {whose}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{name}` | {', '.join(f'`{ours}`' for ours in key.ours) or 'none'} |{f' {key.remark}'.rstrip()} |"
        for name, key in FOREIGN_KEYS.items()
        if whose in key.whose.split(" and ")
    ]
