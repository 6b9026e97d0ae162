"""Every kind of method with all parts real: rePIRL, PRIME, and a PRM that is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from airls_ray.errors import ConfigError
from tests.e2e.conftest import REPOSITORY, TrainedRun, base_config, train


def run(policy: Path, output: Path, /, **sections: Any) -> TrainedRun:
    return train(base_config(policy, output, **{"train": {"iterations": 2}, **sections}))


@pytest.fixture(scope="module")
def repirl_run(
    ray_cluster: None, policy_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainedRun:
    """Scalar head, token rewards, replay, the accuracy band and a trust region; one warm-up iteration."""
    return run(
        policy_folder,
        tmp_path_factory.mktemp("repirl"),
        method={"name": "repirl", "accuracy_band": [0.1, 0.9]},
        prm={"replay_iterations": 2, "drift_penalty": 0.1},
        train={"iterations": 2, "problems_per_iteration": 8},
    )


@pytest.fixture(scope="module")
def prime_run(ray_cluster: None, policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """The implicit PRM against the reference server, with replay, on two ranks."""
    return run(
        policy_folder,
        tmp_path_factory.mktemp("prime"),
        method={"name": "prime", "accuracy_band": [0.0, 1.0]},
        prm={
            "warmup_iterations": 0,
            "replay_iterations": 1,
            "learner": {"ranks": 2, "resources": {"threads": 1}},
        },
    )


def test_repirl_weighs_failed_rollouts_and_learns_after_its_warm_up(repirl_run: TrainedRun) -> None:
    warmup, *rest = repirl_run.metrics
    assert warmup["phase"] == "warmup"
    learned = [line for line in rest if line.get("prm/failed_rollouts")]
    assert learned, "no iteration had failed rollouts within the band"
    for line in learned:
        assert 1.0 <= line["prm/effective_sample_size"] <= line["prm/failed_rollouts"] + 1e-6
        assert line["prm/output_drift"] >= 0.0


def test_the_accuracy_band_leaves_rollouts_out_of_the_update(repirl_run: TrainedRun) -> None:
    trained = [line for line in repirl_run.metrics if line["phase"] == "train"]
    assert any(line["policy/rollouts"] < 32 for line in trained)


def test_prime_compares_with_the_reference_and_starts_without_rewards(prime_run: TrainedRun) -> None:
    """No warm-up: the first PRM update meets logits of 0, up to the rounding of two forward passes, and
    rewards are from before it. In the second, scores differ a little; their mean may be 0.5."""
    first, second = prime_run.metrics
    assert first["phase"] == "train"
    assert first["prm/logit_abs_mean"] < 1e-4
    assert abs(first["prm/reward_mean"]) < 1e-5
    assert first["prm/score_spread"] < 1e-5 < second["prm/score_spread"] < 0.05


def test_the_summary_measures_the_first_wrong_step(prime_run: TrainedRun) -> None:
    for scorer in ("prm", "policy_log_prob"):
        value = prime_run.summary[scorer]["first_error_f1"]
        assert value is None or value != value or 0.0 <= value <= 1.0


def test_an_objective_and_credit_of_ones_own_train(
    ray_cluster: None, policy_folder: Path, tmp_path: Path
) -> None:
    """From a folder of their own; the learners get their text, and never see the folder."""
    for name in ("own_objective", "own_credit"):
        shutil.copy(REPOSITORY / "examples" / f"{name}.py", tmp_path)
    objective = {"name": f"{tmp_path / 'own_objective.py'}:Hinge", "options": {"margin": 2.0}}
    credit = f"{tmp_path / 'own_credit.py'}:"
    done = run(
        policy_folder,
        tmp_path / "runs",
        method={
            "name": "airl_s",
            "prm_objective": objective,
            "step_transforms": ["min_form", credit + "until_the_first_mistake"],
            "outcome_terms": [{"name": credit + "brevity", "weight": 0.1}],
            "row_filters": [credit + "finished"],
            "policy_loss": "gspo",
        },
        train={"iterations": 1, "problems_per_iteration": 4},
    )
    warmup, trained = done.metrics
    assert 0.0 <= warmup["prm/policy_accuracy"] <= 1.0 and warmup["prm/loss"] > 0.0
    assert 0.0 < trained["policy/rollouts"] <= 16 and trained["policy/ratio_mean"] > 0.0
    kept = json.loads((done.folder / "doors.json").read_text())
    assert {one["kind"] for one in kept} == {
        "prm objective", "credit transform", "outcome term", "row filter",
    }  # fmt: skip
    assert (done.folder / "checkpoints" / "iteration_000002" / "prm").is_dir()


def test_a_given_prm_scores_without_learning(
    airl_run: TrainedRun, policy_folder: Path, tmp_path: Path
) -> None:
    given = airl_run.folder / "checkpoints" / "iteration_000006" / "prm"
    done = run(policy_folder, tmp_path, method={"name": "pure"}, prm={"path": str(given)})
    assert [line["phase"] for line in done.metrics] == ["train", "train"]
    assert all("prm/loss" not in line and "prm/trace_auroc" in line for line in done.metrics)
    saved = done.folder / "checkpoints" / "iteration_000002" / "prm"
    assert (saved / "model.safetensors").read_bytes() == (given / "model.safetensors").read_bytes()


def test_a_method_with_a_given_prm_says_when_none_is(policy_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prm\.path is not set"):
        run(policy_folder, tmp_path, method={"name": "pure"})
