"""`airls-ray search` on the checkpoint of a real run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airls_ray.data.schemas import ROLLOUTS
from tests.e2e.conftest import TrainedRun, airls, assert_refused, make_policy


@pytest.fixture(scope="module")
def searched(
    airl_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], pa.Table]:
    """Summary and samples of a search with policy and PRM of the latest checkpoint."""
    output = tmp_path_factory.mktemp("search")
    done = airls("search", airl_run.folder, "--output", output, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads((output / "summary.json").read_text()), pq.read_table(output / "samples.parquet")


def test_the_summary_has_every_way_of_choosing_for_every_size(
    searched: tuple[dict[str, Any], pa.Table],
) -> None:
    summary, _ = searched
    assert {"policy", "prm_path", "task", "seed", "problems", "accuracy", "versions"} <= summary.keys()
    assert summary["search"].keys() == {
        "mean", "best_of_n", "majority", "weighted", "policy_log_prob", "oracle",
    }  # fmt: skip
    assert all(curve.keys() == {"1", "2", "4"} for curve in summary["search"].values())
    for scorer in ("prm", "policy_log_prob"):
        assert {"step_auroc", "trace_auroc"} <= summary[scorer].keys()


def test_one_sample_is_worth_the_mean_outcome_however_it_is_chosen(
    searched: tuple[dict[str, Any], pa.Table],
) -> None:
    summary, samples = searched
    assert samples.schema.names == ROLLOUTS.names
    assert samples.num_rows == 16
    mean = samples["outcome"].to_numpy().mean()
    assert summary["accuracy"]["sampled"] == pytest.approx(mean)
    for way, curve in summary["search"].items():
        assert curve["1"] == pytest.approx(mean), way


def test_the_oracle_of_all_samples_is_the_share_of_problems_solved_once(
    searched: tuple[dict[str, Any], pa.Table],
) -> None:
    summary, samples = searched
    solved = samples["outcome"].to_numpy().reshape(4, 4).max(axis=1).mean()
    assert summary["search"]["oracle"]["4"] == pytest.approx(solved)


def test_a_checkpoint_searches_as_the_run_did_at_its_end(
    searched: tuple[dict[str, Any], pa.Table], airl_run: TrainedRun
) -> None:
    """Weights, PRM form and seeds come through the checkpoint: the same samples, the same choices."""
    summary, samples = searched
    trained = pq.read_table(airl_run.folder / "samples" / "trained.parquet")
    for column in ("problem_id", "group", "index", "response", "outcome"):
        assert samples[column].to_pylist() == trained[column].to_pylist()
    assert summary["search"] == airl_run.summary["search"]
    assert summary["prm"] == pytest.approx(airl_run.summary["prm"], nan_ok=True)


def test_a_prm_with_another_vocabulary_is_refused(airl_run: TrainedRun, tmp_path: Path) -> None:
    other = make_policy(tmp_path / "other", task={"name": "arithmetic", "operations": 2, "modulus": 7})
    form = airl_run.folder / "checkpoints" / "iteration_000006" / "prm" / "prm.json"
    (other / "prm.json").write_text(form.read_text())
    policy = airl_run.folder / "checkpoints" / "iteration_000006" / "policy"
    assert_refused(
        ["search", airl_run.folder, "--policy", policy, "--prm", other, "--output", tmp_path / "out"],
        str(other), "vocabulary of 14 tokens", str(policy), "one of 12",
    )  # fmt: skip
