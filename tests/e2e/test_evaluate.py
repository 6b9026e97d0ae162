"""`airls-ray evaluate` with a policy on real engines: graded as the task does, and stopped in between."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors import evaluate_outputs
from actors.evaluate_outputs import evaluate_policy
from airls_ray.data.problems import table_to_problems
from airls_ray.evaluation.outputs import GREEDY
from airls_ray.tasks import make_task
from tests.e2e.conftest import base_config


def test_a_policy_is_evaluated_and_an_interrupted_evaluation_goes_on(
    ray_cluster: None, policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = base_config(policy_folder, tmp_path)
    whole = evaluate_policy(config, str(policy_folder), tmp_path / "whole", resume=False)
    table = pq.read_table(tmp_path / "whole" / "outputs.parquet")
    assert table.num_rows == 4 * (4 + 1)  # four problems, four samples and a greedy one each
    task = make_task(config.task)
    problems = {one.problem_id: one for one in table_to_problems(evaluate_outputs.test_problems(config))}
    for row in table.to_pylist():
        assert row["outcome"] == task.grade(problems[row["problem_id"]], row["response"]).outcome
    assert table["index"].to_pylist().count(GREEDY) == whole["greedy"]["problems"] == 4

    sample, calls = evaluate_outputs._sample, []

    def stop_in_the_second_chunk(*arguments: object) -> object:
        calls.append(arguments[3])
        if calls == [0, 3]:
            raise KeyboardInterrupt
        return sample(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate_outputs, "_sample", stop_in_the_second_chunk)
    with pytest.raises(KeyboardInterrupt):
        evaluate_policy(config, str(policy_folder), tmp_path / "halves", resume=False)
    evaluate_policy(config, str(policy_folder), tmp_path / "halves", resume=True)
    assert calls == [0, 3, 3]
    assert pq.read_table(tmp_path / "halves" / "outputs.parquet").equals(table)
    assert json.loads((tmp_path / "halves" / "summary.json").read_text()) == json.loads(
        (tmp_path / "whole" / "summary.json").read_text()
    )
