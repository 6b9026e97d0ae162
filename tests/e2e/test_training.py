"""Training with every part real: what it leaves, and exact sync."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from airls_ray.config.load import load_config
from airls_ray.data.schemas import ROLLOUTS
from airls_ray.runs.best_metric import evaluation_names
from tests.e2e.conftest import (
    TrainedRun,
    base_config,
    train,
)

SIZES = {"1", "2", "4"}
WAYS = {"mean", "best_of_n", "majority", "weighted", "policy_log_prob", "oracle"}


@pytest.fixture(scope="session")
def scalar_run(
    ray_cluster: None, policy_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainedRun:
    """A scalar head with shaping, two rollout workers, no reference server."""
    config = base_config(
        policy_folder,
        tmp_path_factory.mktemp("runs"),
        method={"name": "airl_s"},
        rollout={"min_workers": 2, "max_workers": 2},
        prm={"parameterisation": "scalar_head", "shaping": True},
        train={"iterations": 2, "rollouts_every": 1},
    )
    return train(config)


# ------------------------------------------------------------------------------------- what it leaves


def test_the_run_folder_holds_what_the_design_says(airl_run: TrainedRun) -> None:
    names = {path.name for path in airl_run.folder.iterdir()}
    assert names - {"run.lock"} == {  # the lock's file may stay; what counts is the kernel's lock on it
        "config.yaml", "metrics.jsonl", "tensorboard", "rollouts", "samples", "checkpoints",
        "summary.json", "examples.json", "report.html", "status.json",
    }  # fmt: skip
    assert load_config(airl_run.folder / "config.yaml") == airl_run.config
    assert list((airl_run.folder / "tensorboard").iterdir())
    assert {path.stem for path in (airl_run.folder / "samples").iterdir()} == {
        "base", "base_grades", "trained", "trained_grades",
    }  # fmt: skip


def test_every_iteration_is_a_line_with_the_metrics_of_its_phase(airl_run: TrainedRun) -> None:
    assert [line["iteration"] for line in airl_run.metrics] == [1, 2, 3, 4, 5, 6]
    assert [line["phase"] for line in airl_run.metrics] == ["warmup"] + ["train"] * 5
    assert [line["policy/version"] for line in airl_run.metrics] == [0, 1, 2, 3, 4, 5]
    always = {
        "outcome/mean", "groups/constant_share", "groups/solved_share", "rollout/response_tokens_mean",
        "rollout/steps_mean", "rollout/truncated_share", "rollout/log_prob_mean", "prm/loss",
        "prm/expert_accuracy", "prm/policy_accuracy", "prm/step_auroc", "prm/trace_auroc",
        "prm/trace_auroc_within",
        "prm/step_auroc_within", "policy_log_prob/trace_auroc_within", "policy_log_prob/step_auroc",
        "policy_log_prob/trace_auroc", "time/rollout", "time/grade", "time/reference", "time/prm_update",
        "time/prm_score", "time/measure", "time/iteration", "tokens_per_second/rollout",
    }  # fmt: skip
    of_training = {
        "policy/loss", "policy/reference_kl", "policy/entropy", "policy/gradient_norm", "policy/clip_share",
        "sync/logprob_difference_max", "sync/logprob_difference_mean", "time/policy_update", "time/sync",
    }  # fmt: skip
    for line in airl_run.metrics:
        assert always <= line.keys()
    for line in airl_run.metrics[1:]:
        assert of_training <= line.keys()
        assert all(line[key] is not None for key in of_training)
    assert not of_training & airl_run.metrics[0].keys()


def test_every_second_iteration_has_the_figures_of_an_evaluation(airl_run: TrainedRun) -> None:
    for line in airl_run.metrics:
        found = {name for name in line if name.startswith("evaluation/")}
        assert found == (set(evaluation_names(airl_run.config)) if line["iteration"] % 2 == 0 else set())
        assert ("time/evaluation" in line) == bool(found)
        if found:
            assert line["evaluation/accuracy"] <= line["evaluation/search/oracle"] <= 1
            assert line["evaluation/greedy"] in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)


def test_replayed_rollouts_join_the_prm_batch_from_the_second_iteration(airl_run: TrainedRun) -> None:
    first, *later = [line["prm/sequences"] for line in airl_run.metrics]
    assert all(sequences > first for sequences in later)


def test_the_policy_leaves_the_reference_model(airl_run: TrainedRun) -> None:
    first, *later = [line["policy/reference_kl"] for line in airl_run.metrics[1:]]
    assert 0 < first < 0.01  # the first of its two updates began at the reference
    assert all(kl > first for kl in later)


@pytest.mark.parametrize("name", ["airl_run", "scalar_run"])
def test_sampler_and_trainer_agree_after_every_sync(name: str, request: pytest.FixtureRequest) -> None:
    run: TrainedRun = request.getfixturevalue(name)
    differences = [line["sync/logprob_difference_max"] for line in run.metrics[1:]]
    assert len(differences) == run.config.train.iterations
    assert all(0 < difference < 1e-4 for difference in differences)


@pytest.mark.parametrize("name", ["airl_run", "scalar_run"])
def test_the_summary_has_what_is_promised(name: str, request: pytest.FixtureRequest) -> None:
    run: TrainedRun = request.getfixturevalue(name)
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["accuracy"].keys() == {"base", "trained"}
    for accuracies in summary["accuracy"].values():
        assert accuracies.keys() == {"sampled", "greedy"}
        assert all(0 <= accuracy <= 1 for accuracy in accuracies.values())
    for scorer in ("prm", "policy_log_prob"):
        assert {"step_auroc", "trace_auroc"} <= summary[scorer].keys()
    for curves in (summary["search"], summary["search_base"]):
        assert curves.keys() == WAYS
        assert all(curve.keys() == SIZES for curve in curves.values())
    assert {"train", "search", "total"} <= summary["seconds"].keys()
    responses = sum(line["rollout/response_tokens_mean"] for line in run.metrics) * 16
    assert summary["tokens"] == pytest.approx(responses)
    assert summary["seed"] == 0
    assert {"python", "torch", "transformers", "ray", "deepspeed"} <= summary["versions"].keys()


def test_accuracies_are_those_of_the_saved_samples(airl_run: TrainedRun) -> None:
    for name, accuracy in airl_run.summary["accuracy"].items():
        outcomes = pq.read_table(airl_run.folder / "samples" / f"{name}.parquet")["outcome"].to_numpy()
        assert len(outcomes) == 16
        assert accuracy["sampled"] == pytest.approx(outcomes.mean())
    assert 0 < airl_run.summary["accuracy"]["base"]["sampled"] < 1  # the fixture's policy is of use


def test_the_report_needs_no_other_file(airl_run: TrainedRun) -> None:
    text = (airl_run.folder / "report.html").read_text()
    assert "<html" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']+""", text)
    assert not re.findall(r"@import|url\((?!['\"]?(?:data:|#))", text)


def test_rollouts_are_saved_with_outcomes_and_versions(airl_run: TrainedRun) -> None:
    files = sorted((airl_run.folder / "rollouts").iterdir())
    assert [file.stem for file in files] == [f"iteration_{i:06d}" for i in (1, 2, 4, 6)]
    for file, version in zip(files, (0, 0, 2, 4), strict=True):  # the first two before any update
        table = pq.read_table(file)
        assert table.schema.names == [*ROLLOUTS.names, "answer", "step_truth", "status", "scores"]
        steps = [len(ends) for ends in table["step_ends"].to_pylist()]
        assert [len(scores) for scores in table["scores"].to_pylist()] == steps
        assert table.num_rows == 16
        assert table["outcome"].null_count == 0
        assert set(table["version"].to_pylist()) == {version}


def test_two_workers_share_the_groups_of_an_iteration(scalar_run: TrainedRun) -> None:
    table = pq.read_table(scalar_run.folder / "rollouts" / "iteration_000002.parquet")
    assert table["group"].to_pylist() == [group for group in range(4) for _ in range(4)]
    assert table["worker"].to_pylist() == ["rollout-0"] * 8 + ["rollout-1"] * 8


# ---------------------------------------------------------------------------------------- checkpoints


def test_the_newest_checkpoints_are_kept_and_latest_names_the_last(airl_run: TrainedRun) -> None:
    folder = airl_run.folder / "checkpoints"
    names = {path.name for path in folder.iterdir()}
    assert names == {"iteration_000004", "iteration_000006", "latest"}
    assert (folder / "latest").read_text().strip() == "iteration_000006"


@pytest.mark.parametrize(("name", "iteration"), [("airl_run", 6), ("scalar_run", 3)])
def test_checkpoints_load_by_transformers_and_have_learned(
    name: str, iteration: int, policy_folder: Path, request: pytest.FixtureRequest
) -> None:
    run: TrainedRun = request.getfixturevalue(name)
    folder = run.folder / "checkpoints" / f"iteration_{iteration:06d}"
    scalar = run.config.prm.parameterisation == "scalar_head"
    head = AutoModelForTokenClassification if scalar else AutoModelForCausalLM
    base = AutoModelForCausalLM.from_pretrained(policy_folder).state_dict()
    for part, kind in (("policy", AutoModelForCausalLM), ("prm", head)):
        model, report = kind.from_pretrained(folder / part, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        shared = {key: value for key, value in model.state_dict().items() if key in base}
        assert len(shared) > 10
        changed = [key for key, value in shared.items() if not torch.equal(value, base[key])]
        assert len(changed) > 0.9 * len(shared)
