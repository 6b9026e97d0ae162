"""`airls-ray self-train` with real engines: a search by a head on the policy, a warm start, a new head."""

from __future__ import annotations

import json
from pathlib import Path

from actors.search.self_train import run_self_train
from airls_ray.config.schema import LearnerConfig, PRMConfig
from airls_ray.console.progress import QuietProgress
from airls_ray.data.prm_labels import read_labels
from airls_ray.data.problems import read_problems
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.save import save_trained
from airls_ray.models.load import load_prm_module
from airls_ray.prm.folder import PromptForm, write_prm_form
from tests.e2e.conftest import base_config


def test_a_round_of_self_training(ray_cluster: None, policy_folder: Path, tmp_path: Path) -> None:
    form = {"parameterisation": "scalar_head", "head": "policy", "search_aggregate": "geometric_mean"}
    first = tmp_path / "head"
    save_trained(
        TorchEngine(load_prm_module(policy_folder, "scalar_head", head="policy"), LearnerConfig()),
        policy_folder,
        first,
    )
    write_prm_form(PRMConfig.model_validate(form), first, PromptForm())
    config = base_config(
        policy_folder,
        tmp_path,
        prm={**form, "learner": {"learning_rate": 3e-3, "resources": {"threads": 1}}},
        sft={
            "iterations": 10,
            "problems_per_iteration": 32,
            "evaluate_problems": 8,
            "learner": {"resources": {"threads": 1}},
        },
        supervised_prm={"step_loss": "mean_squared_error", "epochs": 2, "rollouts_per_update": 32},
        search={"budgets": [4], "temperature": 1.0},
        self_train={"rounds": 1, "problems": 24},
    )
    out = tmp_path / "out"
    summary = run_self_train(config, policy_folder, first, out, QuietProgress())
    (one,) = summary["rounds"]
    assert read_problems(out / "round_1/traces.jsonl").num_rows == one["solved"] > 2
    assert one["solved"] <= one["traces"] <= 4 * one["solved"]
    assert all(0.0 <= one[name] <= 1.0 for name in ("accuracy_before", "accuracy"))
    labels = read_labels(out / "round_1/values.parquet").to_pylist()
    assert {row["outcome"] for row in labels} <= {0.0, 1.0}
    assert all(row["labels"][-1] == 1.0 for row in labels if row["outcome"] == 1.0)
    head = Path(summary["prm_path"])
    assert json.loads((head / "policy_head.json").read_text())["policy"] == summary["policy"]
    before, after = (load_prm_module(folder, "scalar_head").model for folder in (first, head))
    assert not before.score[0].weight.equal(after.score[0].weight)
    again = run_self_train(config, policy_folder, first, out, QuietProgress())  # all of it is there
    assert again == summary
