"""Commands that sample and grade, on a real engine: `evaluate`, also stopped in between, `data unsolved`."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.commands import evaluate_outputs
from actors.commands.evaluate_outputs import evaluate_policy
from actors.commands.unsolved import write_unsolved
from airls_ray.data.problems import ProblemStream, read_problems, table_to_problems
from airls_ray.evaluation.outputs import GREEDY
from airls_ray.tasks import make_task
from tests.e2e.conftest import base_config


def test_a_policy_is_evaluated_and_an_interrupted_evaluation_goes_on(
    one_sampler: None, policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_unsolved_problems_are_written_for_training(
    one_sampler: None, policy_folder: Path, tmp_path: Path
) -> None:
    config = base_config(policy_folder, tmp_path, search={"problems_per_call": 20})
    file = tmp_path / "hard.jsonl"
    found = write_unsolved(config, str(policy_folder), file, problems=30, samples=2)
    table = read_problems(file)
    assert found["problems"] == 30
    assert table.num_rows == found["unsolved"] < 30
    hard = config.task.model_copy(update={"train_file": file})
    stream = ProblemStream(make_task(hard), "train", 0)
    assert set(stream.take(table.num_rows)["problem_id"].to_pylist()) == set(table["problem_id"].to_pylist())
