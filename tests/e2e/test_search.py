"""`airls-ray search` on the checkpoint of a real run: real engines, a real PRM, records that resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.search.search import run_search
from airls_ray.config.schema import Config, SearchConfig
from airls_ray.errors import ConfigError
from airls_ray.search.records import SEARCH_RECORDS
from airls_ray.search.registry import ready_searches
from tests.e2e.conftest import REPOSITORY, TrainedRun, assert_refused, make_policy

BUDGETS = [2, 4]
PROBLEMS = 6


def checkpoint(run: TrainedRun) -> Path:
    return run.folder / "checkpoints" / "iteration_000006"


def settings(run: TrainedRun, **search: Any) -> Config:
    fields = {"problems": PROBLEMS, "live_problems": 4, "budgets": BUDGETS, **search}
    search = SearchConfig.model_validate(run.config.search.model_dump() | fields)
    return run.config.model_copy(update={"search": search})


def search(run: TrainedRun, output: Path, resume: bool = False, **fields: Any) -> dict[str, Any]:
    folder = checkpoint(run)
    return run_search(settings(run, **fields), folder / "policy", folder / "prm", output, resume)


@pytest.fixture(scope="module")
def searched(airl_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folder and summary of every algorithm on the latest checkpoint."""
    output = tmp_path_factory.mktemp("search")
    return output, search(airl_run, output, algorithms=ready_searches())


def records(folder: Path) -> list[dict[str, Any]]:
    table = pq.read_table(folder / "records.parquet")
    assert table.schema.equals(SEARCH_RECORDS)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_every_algorithm_has_a_record_for_every_problem_and_budget(
    searched: tuple[Path, dict[str, Any]],
) -> None:
    output, summary = searched
    keys = [(row["algorithm"], row["budget"]) for row in records(output)]
    assert keys == [
        (name, budget) for name in ready_searches() for budget in BUDGETS for _ in range(PROBLEMS)
    ]
    assert len(summary["algorithms"]) == len(ready_searches()) * len(BUDGETS)
    assert (output / "curves.png").exists()


def test_no_algorithm_finishes_more_responses_than_its_width(searched: tuple[Path, dict[str, Any]]) -> None:
    for row in records(searched[0]):
        assert len(row["leaves"]) <= row["budget"], row["algorithm"]


def test_leaves_are_graded_and_scored_by_step(searched: tuple[Path, dict[str, Any]]) -> None:
    for row in records(searched[0]):
        for leaf in row["leaves"]:
            assert len(leaf["scores"]) == len(leaf["step_ends"])
            assert leaf["step_ends"][-1] == len(leaf["response"])
            sizes = np.diff(leaf["step_ends"], prepend=0)
            assert leaf["log_score"] == pytest.approx(
                float(sizes @ np.log(leaf["scores"])), rel=1e-4, abs=1e-5
            )
            assert leaf["score"] == pytest.approx(np.exp(leaf["log_score"] / sizes.sum()), rel=1e-5)
            assert leaf["outcome"] in (0.0, 1.0)


def test_a_search_of_steps_scores_as_the_learner_does(
    searched: tuple[Path, dict[str, Any]], airl_run: TrainedRun
) -> None:
    """Cached prefixes and end-of-sequence steps give the scores that the PRM gives whole responses."""
    from airls_ray.models.load import load_prm_module
    from airls_ray.prm.folder import read_prm_form
    from tests.e2e.plain_scores import plain_step_scores

    folder = checkpoint(airl_run) / "prm"
    config = read_prm_form(folder, airl_run.config.prm)
    module = load_prm_module(folder, config.parameterisation)
    by_id = {row["problem_id"]: row for row in airl_run_prompts(airl_run)}
    for row in records(searched[0]):
        prompt = by_id[row["problem_id"]]["prompt"]
        for leaf in row["leaves"][:1]:
            expected = plain_step_scores(module, prompt, leaf["response"], leaf["step_ends"])
            assert leaf["scores"] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_a_resumed_search_gives_the_same_bytes(
    searched: tuple[Path, dict[str, Any]], airl_run: TrainedRun, tmp_path: Path
) -> None:
    lines = (searched[0] / "records.jsonl").read_text().splitlines(keepends=True)
    head = json.loads(lines[0])
    kept = [line for line in lines[1:] if json.loads(line)["algorithm"] in ("beam", "best_of_n")]
    tmp_path.joinpath("records.jsonl").write_text(
        json.dumps(head, sort_keys=True) + "\n" + "".join(kept[: PROBLEMS + 5])
    )
    names = ["beam", "best_of_n"]  # the order in which `searched` had them
    search(airl_run, tmp_path, resume=True, algorithms=names)
    whole = [row for row in records(searched[0]) if row["algorithm"] in names]
    expected = pa.Table.from_pylist(whole, schema=SEARCH_RECORDS)
    assert pq.read_table(tmp_path / "records.parquet").equals(expected)


def test_the_oracle_scores_zero_and_one(airl_run: TrainedRun, tmp_path: Path) -> None:
    search(airl_run, tmp_path, scorer="oracle", algorithms=["beam"], budgets=[4])
    leaves = [leaf for row in records(tmp_path) for leaf in row["leaves"]]
    assert {score for leaf in leaves for score in leaf["scores"]} <= {0.0, 1.0}
    assert all(leaf["outcome"] == 1.0 for leaf in leaves if leaf["score"] == 1.0)


def test_without_a_prm_the_control_still_searches(airl_run: TrainedRun, tmp_path: Path) -> None:
    config = settings(airl_run, scorer="policy_log_prob", algorithms=["beam"], budgets=[2])
    summary = run_search(config, checkpoint(airl_run) / "policy", None, tmp_path)
    assert summary["algorithms"][0]["prm_tokens"] == 0
    with pytest.raises(ConfigError, match="policy_log_prob"):
        run_search(settings(airl_run), checkpoint(airl_run) / "policy", None, tmp_path / "other")


def test_a_prm_with_another_vocabulary_is_refused(airl_run: TrainedRun, tmp_path: Path) -> None:
    other = make_policy(tmp_path / "other", task={"name": "arithmetic", "operations": 2, "modulus": 7})
    (other / "prm.json").write_text((checkpoint(airl_run) / "prm" / "prm.json").read_text())
    policy = checkpoint(airl_run) / "policy"
    assert_refused(
        ["search", airl_run.folder, "--policy", policy, "--prm", other, "--output", tmp_path / "out"],
        str(other), "vocabulary of 14 tokens", str(policy), "one of 12",
    )  # fmt: skip


def airl_run_prompts(run: TrainedRun) -> list[dict[str, Any]]:
    """Problem and prompt tokens of the run's test samples and of as many problems as are searched."""
    from airls_ray.data.problems import ProblemStream
    from airls_ray.tasks import make_task
    from airls_ray.text.codec import TextCodec

    task = make_task(run.config.task)
    codec = TextCodec.from_folder(checkpoint(run) / "policy", task)
    problems = ProblemStream(task, "test", run.config.seed).take(PROBLEMS)
    return [
        {"problem_id": row["problem_id"], "prompt": codec.encode_prompt(row["prompt"])}
        for row in problems.to_pylist()
    ]


def test_a_search_and_a_scorer_of_ones_own_need_no_prm(airl_run: TrainedRun, tmp_path: Path) -> None:
    """From a folder of their own; the scorer's process gets its text."""
    own = tmp_path / "own_search.py"
    shutil.copy(REPOSITORY / "examples" / "own_search.py", own)
    modulus = airl_run.config.task.modulus
    scorer = {"name": f"{own}:consistent", "options": {"modulus": modulus}}
    config = settings(airl_run, scorer=scorer, algorithms=[f"{own}:Greedy"], budgets=[2])
    run_search(config, checkpoint(airl_run) / "policy", None, tmp_path / "out")
    rows = records(tmp_path / "out")
    assert {(row["algorithm"], row["scorer"]) for row in rows} == {("Greedy", "consistent")}
    # float32 in the records
    found = {round(score, 3) for row in rows for leaf in row["leaves"] for score in leaf["scores"]}
    assert found and found <= {0.1, 0.5, 0.9}
    kept = json.loads((tmp_path / "out" / "doors.json").read_text())
    assert {one["kind"] for one in kept} == {"search", "scorer"}
