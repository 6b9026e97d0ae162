"""Labels of steps: from completions and from outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.commands.prm_labels import facts_of
from actors.rollout.rollout_worker import RolloutRequest
from airls_ray.config.schema import ArithmeticTaskConfig
from airls_ray.config.supervised_section import LabelRuleConfig
from airls_ray.data.prm_labels import LabelFacts, write_labels
from airls_ray.data.problems import ProblemStream, take_distinct
from airls_ray.data.schemas import PRM_LABELS, ROLLOUTS
from airls_ray.errors import DataError
from airls_ray.prm.step_labels import Completions, chunks, distinct_prefixes, known_to, label_steps
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer
from tests.unit.prm_label_fakes import (
    MOST,
    TASK,
    config,
    label,
    workers,
)


def rollouts(*rows: tuple[str, list[int], list[int]]) -> pa.Table:
    """ROLLOUTS of (problem, response, step ends), with prompt [9]."""
    columns: dict[str, list[Any]] = {name: [None] * len(rows) for name in ROLLOUTS.names}
    columns["problem_id"], columns["response"], columns["step_ends"] = (
        list(c) for c in zip(*rows, strict=True)
    )
    columns["prompt"] = [[9]] * len(rows)
    arrays = [pa.array(columns[field.name], field.type) for field in ROLLOUTS]
    return pa.Table.from_arrays(arrays, schema=ROLLOUTS)


# -------------------------------------------------------------------------------- from outcomes
def test_equal_prefixes_of_a_problem_are_completed_once() -> None:
    found = distinct_prefixes(
        rollouts(
            ("a", [1, 2, 3], [1, 2, 3]), ("a", [1, 5], [1, 2]), ("b", [1, 2, 3], [1, 3]), ("b", [4], [1])
        )
    )
    rows = [(row["problem_id"], row["response"]) for row in found.table.to_pylist()]
    assert rows == [("a", [1]), ("a", [1, 2]), ("b", [1])]
    assert found.numbers == [[0, 1], [0], [2], []]
    assert found.all == 4


FOUR = {"problem_id": ["a", "a", "b", "b"], "outcome": [1.0, 0.0, 0.0, 0.25]}
"""Rollouts of three, one, two steps and none."""
PREFIXES = distinct_prefixes(
    rollouts(("a", [1, 2, 3], [1, 2, 3]), ("a", [4], [1]), ("b", [1, 5], [1, 2]), ("b", [], []))
)


def labelled(rule: str, completed: Completions | None) -> list[list[float | None]]:
    table = pa.table({**FOUR, "step_ends": [[1, 2, 3], [1], [1, 2], []]})
    known = known_to(table, None if completed is None else (PREFIXES, completed))
    labels: list[list[float | None]] = label_steps(LabelRuleConfig(name=rule), known).to_pylist()
    return labels


@pytest.mark.parametrize(
    ("kind", "expected"), [("math_shepherd_hard", [1.0, 0.0, 0.0]), ("math_shepherd_soft", [1 / 3, 0.0, 0.0])]
)
def test_a_prefix_is_worth_any_or_the_share_of_its_completions(kind: str, expected: list[float]) -> None:
    """The third prefix has no completion: it fills the response, and a truncated response is wrong."""
    owner, outcomes = np.array([0, 1, 0, 1, 0]), np.array([1.0, 0.0, 0.0, 0.5, 0.0])
    first, second, third = expected
    found = labelled(kind, Completions.count(3, owner, outcomes))
    assert found == [[pytest.approx(first), second, 1.0], [0.0], [third, 0.0], []]


def test_the_last_step_has_the_outcome_and_the_others_their_prefixes_value() -> None:
    """Of fractions, too: a hard label is of completions alone."""
    table = pa.table({"problem_id": ["a"], "outcome": [0.75], "step_ends": [[1, 2, 3]]})
    prefixes = distinct_prefixes(rollouts(("a", [1, 2, 3], [1, 2, 3])))
    known = known_to(table, (prefixes, Completions(np.array([4, 4]), np.array([3, 2]))))
    for kind, wanted in (("soft", [0.75, 0.5, 0.75]), ("hard", [1.0, 1.0, 0.75])):
        assert label_steps(LabelRuleConfig(name=f"math_shepherd_{kind}"), known).to_pylist() == [wanted]


def test_outcomes_alone_label_the_last_step_alone() -> None:
    assert labelled("outcome", None) == [[None, None, 1.0], [0.0], [None, 0.0], []]


def test_what_a_rule_knows_lies_rollout_by_rollout() -> None:
    table = pa.table({**FOUR, "step_ends": [[1, 2, 3], [1], [1, 2], []]})
    made, correct = np.array([4, 4, 0]), np.array([2, 1, 0])
    known = known_to(table, (PREFIXES, Completions(made, correct)))
    assert {name: values.tolist() for name, values in known.items()} == {
        "outcomes": [1.0, 0.0, 0.0, 0.25],
        "groups": [0, 0, 1, 1],
        "step_rows": [0, 0, 0, 1, 2, 2],
        "positions": [0, 1, 2, 0, 0, 1],
        "last": [False, False, True, True, False, True],
        "values": [0.5, 0.25, 1.0, 0.0, 0.0, 0.0],
        "completions": [4, 4, 0, 0, 0, 0],
        "correct": [2, 1, 0, 0, 0, 0],
    }


def test_chunks_cover_everything_once() -> None:
    assert chunks(5, 2) == [range(0, 2), range(2, 4), range(4, 5)]
    assert chunks(4, 2) == [range(0, 2), range(2, 4)]


def test_a_stream_of_few_problems_gives_each_once() -> None:
    stream = ProblemStream(make_task(ArithmeticTaskConfig(operations=1, modulus=2)), "train", seed=1)
    identities = take_distinct(stream, 500)["problem_id"].to_pylist()
    assert 1 < len(identities) < 13
    assert len(set(identities)) == len(identities)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_tokenizer(make_task(TASK), tmp_path)
    return tmp_path


def test_labels_are_the_share_of_correct_completions_of_every_prefix(folder: Path) -> None:
    """Sampled once more, prefix by prefix and each alone."""
    settings = config(labels="math_shepherd_soft")
    table, _ = label(folder, settings, workers(folder, settings, 1))
    assert table.schema.equals(PRM_LABELS, check_metadata=True)
    (worker,) = workers(folder, settings, 1)
    request = RolloutRequest(6, 1.0, 0, ("train_prm",))
    seen = set()
    for row in table.to_pylist():
        for end, value in zip(row["step_ends"][:-1], row["labels"][:-1], strict=True):
            prefix = {
                "problem_id": [row["problem_id"]],
                "prompt": [row["prompt"]],
                "response": [row["response"][:end]],
            }
            completed = worker.worker.complete(pa.table(prefix), [0], request)["response"].to_pylist()
            assert all(response[:end] == row["response"][:end] for response in completed)
            assert value == pytest.approx(np.mean([response[-3] % 2 for response in completed]))
            seen.add(value)
        assert row["labels"][-1] == row["outcome"] == row["response"][-3] % 2
    assert len(seen) > 2


def test_hard_labels_say_whether_any_completion_was_correct(folder: Path) -> None:
    tables = {}
    for kind in ("math_shepherd_hard", "math_shepherd_soft"):
        settings = config(labels=kind, completions=2)
        tables[kind], _ = label(folder, settings, workers(folder, settings, 1))
    hard, soft = (table["labels"].to_pylist() for table in tables.values())
    assert [[float(v > 0) for v in row[:-1]] for row in soft] == [row[:-1] for row in hard]
    assert hard != soft


@pytest.mark.parametrize("kind", ["outcome", "math_shepherd_soft"])
def test_labels_do_not_depend_on_the_number_of_workers(folder: Path, kind: str) -> None:
    settings = config(labels=kind)
    one, cost = label(folder, settings, workers(folder, settings, 1))
    three, other = label(folder, settings, workers(folder, settings, 3))
    assert one.equals(three)
    assert {**cost, "seconds": 0} == {**other, "seconds": 0}


def test_all_prefixes_of_a_chunk_are_completed_in_one_pass_and_equal_ones_once(folder: Path) -> None:
    settings = config()
    (worker,) = workers(folder, settings, 1)
    table, cost = label(folder, settings, [worker])
    rollout_call, (prompts, limits) = worker.engine.calls
    assert len(rollout_call[0]) == 5
    assert len({tuple(prompt) for prompt in prompts}) == len(prompts) == cost["distinct_prefixes"]
    assert (
        cost["distinct_prefixes"]
        < cost["prefixes"]
        == sum(len(ends) - 1 for ends in table["step_ends"].to_pylist())
    )
    prompt = len(table["prompt"][0].as_py())
    assert limits == [MOST - (len(tokens) - prompt) for tokens in prompts]


def test_the_cost_counts_what_was_sampled(folder: Path) -> None:
    settings = config()
    table, cost = label(folder, settings, workers(folder, settings, 1))
    assert (cost["problems"], cost["rollouts"]) == (5, 20)
    assert cost["completions"] == 6 * cost["distinct_prefixes"]
    assert cost["labelling_rollouts"] == 20 + cost["completions"]
    assert cost["rollout_tokens"] == sum(map(len, table["response"].to_pylist()))
    assert cost["completion_tokens"] == 7 * cost["completions"]  # three steps of two tokens, and the end
    assert cost["tokens"] == cost["rollout_tokens"] + cost["completion_tokens"]


def test_outcome_labels_cost_no_completions(folder: Path) -> None:
    settings = config(labels="outcome")
    (worker,) = workers(folder, settings, 1)
    _, cost = label(folder, settings, [worker])
    assert (len(worker.engine.calls), cost["completions"], cost["labelling_rollouts"]) == (1, 0, 20)


def test_a_prefix_that_fills_the_response_has_no_completions(folder: Path) -> None:
    (worker,) = workers(folder, config(), 1)
    prefixes = pa.table(
        {"problem_id": ["a", "b"], "prompt": [[3], [3]], "response": [[4] * MOST, [4] * (MOST - 1)]}
    )
    done = worker.worker.complete(prefixes, [10, 11], RolloutRequest(3, 1.0, 0, ()))
    assert done["prefix"].to_pylist() == [11] * 3
    assert worker.worker.complete(prefixes.slice(0, 1), [10], RolloutRequest(3, 1.0, 0, ())).num_rows == 0


def test_the_texts_are_those_of_the_tokens(folder: Path) -> None:
    settings = config(labels="outcome")
    table, _ = label(folder, settings, workers(folder, settings, 1))
    codec = TextCodec.from_folder(folder, make_task(TASK))
    for row in table.to_pylist():
        assert "".join(row["step_texts"]) == codec.decode(row["response"])
        assert codec.encode_prompt(row["prompt_text"]) == row["prompt"]


# ------------------------------------------------------------------------- labels of an earlier call


@pytest.mark.parametrize("old", [{"top_p": 0.9}, {"spoiled": True}, {}])
def test_labels_of_an_earlier_call_are_taken_where_all_settings_are_the_same(
    tmp_path: Path, old: dict[str, Any]
) -> None:
    """A setting that is as by default is in neither record, as in files that are older than it."""
    now, file = {"seed": 3}, tmp_path / "labels.parquet"
    write_labels(PRM_LABELS.empty_table(), file, LabelFacts(now | old, {}))
    if old:
        with pytest.raises(DataError, match=f"made with another {next(iter(old))}: give another --output"):
            facts_of(file, now)
    else:
        assert facts_of(file, now).settings == now
