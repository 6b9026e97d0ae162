"""Cooper: right solutions with other numbers, and how labels get them (its loss: test_outcome_losses.py)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from actors.commands.prm_labels import label_chunk, label_settings
from actors.commands.train_prm import train_prm
from actors.commands.train_prm_offline import StoredFiles, train_prm_offline
from airls_ray.config import Config
from airls_ray.data.prm_labels import LabelFacts, read_labels, write_labels
from airls_ray.data.problems import ProblemStream, table_to_problems
from airls_ray.data.schemas import GRADES, PRM_LABELS, rows_to_table
from airls_ray.errors import ConfigError
from airls_ray.prm.labelled_files import StepFiles
from airls_ray.prm.spoiled import add_spoiled, spoil_numbers
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer
from tests.unit.prm_label_fakes import TASK, LocalPool, OddVerifier, config, workers


# --------------------------------------------------------------------------------------- numbers
def test_from_one_number_on_all_are_others_of_the_same_solution() -> None:
    text, prompt = "First 12 + 7 = 19, so x = 19; then 19 * 3 = 57.", "Take 12 and 7, three times?"
    before = re.findall(r"\d+", text)
    changed = set()
    for seed in range(2000):
        found = spoil_numbers(text, prompt, Random(seed))
        assert found is not None and re.sub(r"\d+", "#", found) == re.sub(r"\d+", "#", text)
        after = re.findall(r"\d+", found)
        assert set(after) <= {"12", "7", "19", "3", "57"}
        same = [a == b for a, b in zip(before, after, strict=True)]
        first = same.index(False)
        assert all(same[:first]) and not any(same[first:])
        changed.add(first)
    assert changed == set(range(len(before)))


@pytest.mark.parametrize("text", ["no number", "4 = 4", ""])
def test_without_another_number_nothing_can_be_spoiled(text: str) -> None:
    assert spoil_numbers(text, "4?", Random(0)) is None


# ---------------------------------------------------------------------------------------- labels
@pytest.fixture(scope="module")
def codec(own_policy: Path) -> TextCodec:
    return TextCodec.from_folder(own_policy, make_task(Config().task))


def right_and_wrong(codec: TextCodec, problems: pa.Table) -> pa.Table:
    """Of each problem a wrong row, its trace twice; of the last one a wrong row alone."""
    rows = []
    for number, problem in enumerate(table_to_problems(problems), 1):
        response = codec.encode_trace(problem.traces[0])
        ends = codec.step_ends(response)
        for outcome in (0.0, 1.0, 1.0)[: 1 if number == problems.num_rows else 3]:
            rows.append(
                {
                    "problem_id": problem.problem_id,
                    "prompt": codec.encode_prompt(problem.prompt),
                    "response": response,
                    "step_ends": ends,
                    "labels": [*[None] * (len(ends) - 1), outcome],
                    "outcome": outcome,
                    "prompt_text": problem.prompt,
                    "step_texts": codec.step_texts(response, ends),
                }
            )
    return pa.Table.from_pylist(rows, schema=PRM_LABELS)


def test_every_solved_problem_gets_a_wrong_copy_of_its_right_response(
    codec: TextCodec, tmp_path: Path
) -> None:
    task = make_task(Config().task)
    problems = ProblemStream(task, "train", 5).take(300)
    known = {one.problem_id: one for one in table_to_problems(problems)}

    def judge(asked: Sequence[str], responses: Any, ends: Any) -> list[tuple[float, list[bool] | None]]:
        return [
            (task.grade(known[problem], codec.decode(response)).outcome, [True] * len(steps))
            for problem, response, steps in zip(asked, responses, ends, strict=True)
        ]

    table = right_and_wrong(codec, problems)
    whole = add_spoiled(table, codec, judge, 0, 64)
    write_labels(whole, tmp_path / "labels.parquet", LabelFacts({}, {}))
    assert whole.slice(0, table.num_rows).equals(table)
    rows = read_labels(tmp_path / "labels.parquet").to_pylist()[table.num_rows :]
    assert len({row["problem_id"] for row in rows}) == len(rows) == 299
    firsts = set()
    for row in rows:
        problem = known[row["problem_id"]]
        text = "".join(row["step_texts"])
        assert task.grade(problem, text).outcome == 0.0 == row["outcome"]
        assert row["labels"] == [None] * (len(row["step_ends"]) - 1) + [0.0]
        steps = [f"{step};" for step in problem.traces[0].split(";")[:-1]]
        firsts.add([a == b for a, b in zip(steps, row["step_texts"], strict=True)].index(False))
    assert firsts == set(range(6))  # some go wrong at once, some at the end
    assert add_spoiled(table, codec, judge, 0, 64).equals(whole)
    assert add_spoiled(table, codec, judge, 0, 24).num_rows == table.num_rows  # none fits


@pytest.mark.parametrize(("wrong_at", "added"), [(1, 9), (3, 9), (4, 0)])
def test_a_response_is_spoiled_up_to_three_times(codec: TextCodec, wrong_at: int, added: int) -> None:
    asked: list[int] = []

    def judge(problems: Sequence[str], *_: Any) -> list[tuple[float, None]]:
        asked.append(len(problems))
        return [(float(len(asked) < wrong_at), None)] * len(problems)

    table = right_and_wrong(codec, ProblemStream(make_task(Config().task), "train", 5).take(10))
    assert add_spoiled(table, codec, judge, 0, 64).num_rows == table.num_rows + added
    assert asked == [9] * min(wrong_at, 3)


class OddJudge(OddVerifier):
    """The same verdict on responses that no worker has sampled."""

    def call(self, method: str, problems: pa.Table, rows: list[int], responses: Any, ends: Any) -> pa.Table:
        assert method == "judge" and len(set(rows)) == len(rows)
        found = [
            (float(codes[-3] % 2), None, [True] * len(e), "graded")
            for codes, e in zip(responses, ends, strict=True)
        ]
        return rows_to_table(found, GRADES)


def test_sampled_labels_have_spoiled_rows_where_it_is_asked_for(tmp_path: Path) -> None:
    build_tokenizer(make_task(TASK), tmp_path)
    task_codec = TextCodec.from_folder(tmp_path, make_task(TASK))
    problems = ProblemStream(make_task(TASK), "train", seed=1).take(5)
    tables = {}
    for spoiled in (False, True):
        settings = config(labels="outcome", spoiled=spoiled)
        pool: Any = LocalPool(workers(tmp_path, settings, 1))
        tables[spoiled] = label_chunk(settings, pool, OddJudge(), task_codec, problems, 0)[0]  # type: ignore[arg-type]
        assert label_settings(settings, "x").get("spoiled", False) is spoiled
    plain, more = tables[False], tables[True]
    assert more.slice(0, plain.num_rows).equals(plain)
    added = more.slice(plain.num_rows).to_pylist()
    right = {row["problem_id"] for row in plain.to_pylist() if row["outcome"] == 1.0}
    assert added and {row["problem_id"] for row in added} <= right
    for row in added:
        assert row["response"][-3] % 2 == 0 and row["outcome"] == 0.0 and row["logprobs"] is None


@pytest.mark.parametrize("source", ["labels", "steps", "rollouts"])
def test_labels_that_are_not_sampled_are_not_spoiled(own_policy: Path, tmp_path: Path, source: str) -> None:
    settings = Config.model_validate(
        {"method": "orm", "prm": {"parameterisation": "scalar_head"}, "supervised_prm": {"spoiled": True}}
    )
    with pytest.raises(ConfigError, match=f"come from --{source}: set it to false"):
        if source == "rollouts":
            train_prm_offline(settings, own_policy, tmp_path, StoredFiles([tmp_path / "none.jsonl"]))
        elif source == "steps":
            train_prm(settings, own_policy, tmp_path, steps=StepFiles([tmp_path / "none.jsonl"]))
        else:
            train_prm(settings, own_policy, tmp_path, labels=tmp_path / "none.parquet")


def test_a_prm_of_log_ratios_has_no_use_for_them(own_policy: Path, tmp_path: Path) -> None:
    settings = Config.model_validate(
        {
            "prm": {"search_score": "ratio"},
            "supervised_prm": {"spoiled": True, "labels": "outcome"},
            "model": {"context_tokens": 64},
            "rollout": {"max_response_tokens": 40},
        }
    )
    with pytest.raises(ConfigError, match="the labelled rollouts have no log-probabilities of the policy"):
        train_prm(settings, own_policy, tmp_path / "out")


def test_every_try_spoils_otherwise(own_policy: Path) -> None:
    task = make_task(Config().task)
    codec, tried = TextCodec.from_folder(own_policy, task), []

    def judge(problems: Any, responses: Any, ends: Any) -> list[tuple[float, None]]:
        tried.append([tuple(one) for one in responses])
        return [(1.0, None)] * len(problems)

    add_spoiled(right_and_wrong(codec, ProblemStream(task, "train", 5).take(10)), codec, judge, 0, 64)
    assert len(tried) == 3 and tried[0] != tried[1] != tried[2] != tried[0]


def test_half_an_outcome_is_a_wrong_solution(own_policy: Path) -> None:
    task = make_task(Config().task)
    codec = TextCodec.from_folder(own_policy, task)
    table = right_and_wrong(codec, ProblemStream(task, "train", 5).take(3))
    found = add_spoiled(table, codec, lambda problems, *_: [(0.5, None)] * len(problems), 0, 64)
    assert found["outcome"].to_pylist()[table.num_rows :] == [0.5, 0.5]
