"""Choosing an answer, records, the journal and what is summed up from it."""

from __future__ import annotations

import json
import math
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from actors.search.search import _settings
from airls_ray.config.schema import Config
from airls_ray.data.problems import problems_to_table
from airls_ray.errors import DataError
from airls_ray.search.beam import Beam
from airls_ray.search.best_of_n import BestOfN
from airls_ray.search.journal import Journal, figures_of, key_of
from airls_ray.search.ledger import Ledger, Limits, unique_tokens
from airls_ray.search.live import Search, SearchProblem
from airls_ray.search.plots import draw_curves
from airls_ray.search.records import (
    SEARCH_RECORDS,
    Leaf,
    Run,
    Verdict,
    choose,
    expected_outcome,
    make_record,
    records_table,
)
from airls_ray.search.summary import bootstrap_interval, flat_share, sample_curves, summarise
from airls_ray.search.tree import Node, SearchState
from airls_ray.tasks.base import Problem
from tests.unit.search_fakes import run

RUN = Run("best_of_n", "prm", 4, 0, "best")
FACTORS = ((0.25, 0.25, 0.75), (0.75, 0.25, 0.25))
PROBLEM = problems_to_table([Problem("p", "1+1=", "2")])


def leaf(score: float, answer: str | None, outcome: float = 0.0) -> Leaf:
    return Leaf(0, log(score), log(score), 0.0, answer, outcome)


def record(problem: int = 0, seed: int = 0, **fields: Any) -> dict[str, Any]:
    searcher = BestOfN(4)
    state = run(searcher, seed=problem)
    search = Search(SearchProblem(problem, f"p{problem}", (1, 2), problem), searcher, state)
    verdicts = [Verdict(f"a{at % 2}", float(at % 2), ["x"], [True]) for at in range(4)]
    return make_record(search, searcher, Run("best_of_n", "prm", 4, seed, "best"), "prod", verdicts) | fields


def test_best_takes_the_highest_score_and_the_oldest_of_equals() -> None:
    assert choose([leaf(0.2, "a"), leaf(0.9, "b"), leaf(0.9, "c")], "best") == 1


def test_majority_counts_and_weighted_adds_scores() -> None:
    leaves = [leaf(0.9, "a"), leaf(0.2, "b"), leaf(0.3, "b")]
    assert choose(leaves, "majority") == 1
    assert choose(leaves, "weighted") == 0


def test_without_an_answer_a_vote_falls_back_to_the_score() -> None:
    assert choose([leaf(0.1, None), leaf(0.8, None)], "majority") == 1
    assert choose([], "weighted") is None


@pytest.mark.parametrize(
    ("leaves", "rule", "expected"),
    [
        ([leaf(0.9, "a", 1.0), leaf(0.9, "b", 0.0), leaf(0.2, "c", 1.0)], "best", 1 / 2),
        ([leaf(0.9, "a", 1.0), leaf(0.2, "b", 0.0), leaf(0.3, "c", 0.0)], "majority", 1 / 3),
        ([leaf(0.9, "a", 0.0), leaf(0.2, "b", 1.0), leaf(0.3, "b", 1.0)], "majority", 1.0),
        ([leaf(0.5, "a", 1.0), leaf(0.25, "b", 0.0), leaf(0.25, "b", 0.0)], "weighted", 1 / 2),
        # No answer was read: the scores decide, as in `choose`.
        ([leaf(0.8, None, 1.0), leaf(0.8, None, 0.0)], "majority", 1 / 2),
        ([], "weighted", 0.0),
    ],
)
def test_equals_share_the_choice_whatever_their_order(leaves: list[Leaf], rule: Any, expected: float) -> None:
    assert expected_outcome(leaves, rule) == pytest.approx(expected)
    assert expected_outcome(leaves[::-1], rule) == pytest.approx(expected)


def test_products_of_the_same_factors_in_another_order_tie() -> None:
    nodes = [Node(-1), *(Node(0, (3, 2), scores=one, step_ends=(1, 1, 2)) for one in FACTORS)]
    logs = [SearchState(0, nodes=nodes).log_score(node, "prod") for node in (1, 2)]
    assert logs[0] != logs[1]
    leaves = [Leaf(at, log_score, log_score, 0.0, "a", float(at)) for at, log_score in enumerate(logs)]
    assert expected_outcome(leaves, "best") == expected_outcome(leaves[::-1], "best") == 0.5


def test_a_record_holds_the_verdict_of_its_chosen_leaf() -> None:
    one = record()
    scores = [leaf["score"] for leaf in one["leaves"]]
    assert one["chosen"] == int(np.argmax(scores))
    assert one["outcome"] == one["leaves"][one["chosen"]]["outcome"]
    assert one["oracle"] == 1.0


def test_a_search_without_finished_responses_is_wrong() -> None:
    searcher = Beam(4, 2)
    state = SearchState(0, nodes=[Node(-1), Node(0, (5, 2), scores=(0.5,))])
    search = Search(SearchProblem(0, "p", (1,), 0), searcher, state, stopped_by="generations")
    one = make_record(search, searcher, RUN, "prod", [])
    assert (one["outcome"], one["chosen"], one["stopped_by"]) == (0.0, None, "generations")


def test_records_survive_json_and_parquet() -> None:
    one = record()
    again = json.loads(json.dumps(one))
    table = records_table([again])
    assert table.schema.equals(SEARCH_RECORDS)
    assert table.to_pylist()[0]["leaves"][0]["response"] == one["leaves"][0]["response"]


def test_nodes_are_kept_when_asked_for() -> None:
    searcher = BestOfN(2)
    state = run(searcher, seed=1)
    search = Search(SearchProblem(0, "p", (1,), 0), searcher, state)
    one = make_record(search, searcher, RUN, "prod", [Verdict("a", 1.0, ["x"])] * 2, keep_nodes=True)
    assert len(one["nodes"]) == len(state.nodes)
    assert records_table([one])["nodes"].null_count == 0


def test_the_journal_goes_on_where_it_was(tmp_path: Path) -> None:
    Journal(tmp_path, {"a": 1}, resume=False).add([record(0), record(1)])
    again = Journal(tmp_path, {"a": 1}, resume=True)
    assert list(again.records) == [key_of(record(0)), key_of(record(1))]


def test_a_setting_that_older_journals_lack_is_compared_where_it_is_known(tmp_path: Path) -> None:
    Journal(tmp_path / "old", {"a": 1}, resume=False).add([record(0)])
    assert Journal(tmp_path / "old", {"a": 1, "models": "x"}, resume=True, newer=["models"]).records
    Journal(tmp_path / "new", {"a": 1, "models": "x"}, resume=False)
    with pytest.raises(DataError, match="other settings, models or problems"):
        Journal(tmp_path / "new", {"a": 1, "models": "y"}, resume=True, newer=["models"])


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json"])
def test_other_weights_or_another_plan_at_the_same_path_are_another_search(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    for file in ("model.safetensors", "plan.json"):
        (tmp_path / file).write_bytes(b"then")
    config = Config.model_validate({"search": {"auto": {"plan": tmp_path / "plan.json"}}})
    before = _settings(config, tmp_path, None, PROBLEM)
    assert _settings(config, tmp_path, None, PROBLEM) == before
    (tmp_path / name).write_bytes(b"now!")
    assert _settings(config, tmp_path, None, PROBLEM) != before


def test_the_words_of_a_prompt_are_part_of_a_search(tmp_path: Path) -> None:
    chat = Config.model_validate({"model": {"prompt_template": "chat"}})
    assert _settings(chat, tmp_path, None, PROBLEM) != _settings(Config(), tmp_path, None, PROBLEM)


def test_prompts_that_did_not_fit_are_not_resumed_with_a_longer_context(tmp_path: Path) -> None:
    longer = Config.model_validate({"model": {"context_tokens": 4096}})
    assert _settings(longer, tmp_path, None, PROBLEM) != _settings(Config(), tmp_path, None, PROBLEM)


def test_another_answer_of_a_problem_makes_it_another_search(tmp_path: Path) -> None:
    other = problems_to_table([Problem("p", "1+1=", "3")])
    assert _settings(Config(), tmp_path, None, other) != _settings(Config(), tmp_path, None, PROBLEM)


def test_half_a_line_is_dropped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    Journal(tmp_path, {}, resume=False).add([record(0), record(1)])
    path = tmp_path / "records.jsonl"
    path.write_text(path.read_text()[:-30])
    journal = Journal(tmp_path, {}, resume=True)
    assert list(journal.records) == [key_of(record(0))]
    journal.add([record(1)])
    assert len(Journal(tmp_path, {}, resume=True).records) == 2


def test_texts_and_tokens_stay_on_disk_and_reach_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {}, resume=False)
    made = [record(at) for at in range(3)]
    journal.add(made[:1])
    journal.add(made[1:])
    assert not {"steps", "scores"} & set(journal.records[key_of(made[0])]["leaves"][0])
    order = [key_of(made[at]) for at in (2, 0, 1)]
    assert pq.read_table(journal.write_parquet(order)).equals(records_table([made[2], made[0], made[1]]))


def test_of_a_problem_searched_twice_the_last_record_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {}, resume=False)
    first, last = record(0), {**record(0), "outcome": 0.25}
    journal.add([first, record(1)])
    journal.add([last])
    for one in (journal, Journal(tmp_path, {}, resume=True)):
        found = pq.read_table(one.write_parquet([key_of(first)]))
        assert found["outcome"].to_pylist() == [0.25]


def test_different_responses_are_told_apart_without_their_tokens() -> None:
    one = record(0)
    again = figures_of({**one, "leaves": [one["leaves"][0]] * 2})
    assert again["leaves"][0] == again["leaves"][1]
    other = {**one["leaves"][0], "response": [*one["leaves"][0]["response"], 1]}
    first, second = figures_of({**one, "leaves": [one["leaves"][0], other]})["leaves"]
    assert first["response"] != second["response"]


def test_a_resumed_search_writes_the_same_file(tmp_path: Path) -> None:
    order = [key_of(record(at)) for at in range(3)]
    through = Journal(tmp_path / "through", {}, resume=False)
    through.add([record(at) for at in range(3)])
    Journal(tmp_path / "resumed", {}, resume=False).add([record(1)])
    resumed = Journal(tmp_path / "resumed", {}, resume=True)
    resumed.add([record(0), record(2)])
    files = [journal.write_parquet(order) for journal in (through, resumed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert pq.read_table(files[0])["problem_id"].to_pylist() == ["p0", "p1", "p2"]


def test_a_journal_of_other_settings_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path, {"width": 4}, resume=False)
    with pytest.raises(DataError, match="other settings"):
        Journal(tmp_path, {"width": 8}, resume=True)


def test_a_finished_search_is_not_overwritten(tmp_path: Path) -> None:
    Journal(tmp_path, {}, resume=False)
    with pytest.raises(DataError, match="--resume"):
        Journal(tmp_path, {}, resume=False)


def test_summary_is_a_row_for_each_algorithm_and_budget() -> None:
    rows = summarise([record(0, outcome=1.0), record(1, outcome=0.0), record(0, budget=8, policy_tokens=7)])
    assert [(row["budget"], row["problems"], row["accuracy"]) for row in rows] == [
        (4, 2, 0.5),
        (8, 1, record(0)["outcome"]),
    ]
    assert rows[1]["policy_tokens"] == 7


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(size=4000)
    low, high = bootstrap_interval(values)
    error = 1.96 * values.std() / np.sqrt(4000)
    assert low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_curves_over_k_come_from_one_run() -> None:
    curves = sample_curves([record(at) for at in range(5)])
    ways = {"mean", "oracle", "majority", "best_of_n", "weighted", "policy_log_prob"}
    assert set(curves) == ways | {"hybrid", "reward_frequency"}
    assert curves["mean"]["1"] == pytest.approx(0.5)
    assert curves["oracle"]["4"] == 1.0
    # Of any two of four samples (two right, two wrong) one is right in 5 of 6 pairs.
    assert curves["oracle"]["2"] == pytest.approx(5 / 6)


def test_a_limit_names_its_axis() -> None:
    assert Limits(policy_tokens=10).reached(Ledger(policy_tokens=9)) is None
    assert Limits(policy_tokens=10, flops=1).reached(Ledger(policy_tokens=10)) == "policy_tokens"


def test_ledgers_add_up() -> None:
    total = Ledger(generations=1, flops=2.0)
    total.add(Ledger(generations=3, seconds=0.5))
    assert total == Ledger(generations=4, flops=2.0, seconds=0.5)


def test_unique_tokens_by_hand() -> None:
    nodes = [Node(-1), Node(0, (5, 6)), Node(0, (5, 7)), Node(1, (8,)), Node(0, (5, 6, 8))]
    assert unique_tokens((1, 2), SearchState(0, nodes=nodes)) == 2 + len({(5,), (5, 6), (5, 7), (5, 6, 8)})


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    rows = summarise([record(0), record(1), record(0, budget=8)])
    draw_curves(tmp_path / "curves.png", rows, "title")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def responses(*rows: tuple[int, float]) -> dict[str, Any]:
    """A record with leaves of a token and a score each."""
    return {"leaves": [{"response": [token], "score": score} for token, score in rows]}


def test_scores_that_differ_by_rounding_are_flat_and_equal_responses_do_not_count() -> None:
    flat, told = responses((3, 0.5), (4, 0.50005)), responses((3, 0.5), (4, 0.5002))
    same = responses((3, 0.5), (3, 0.5))
    assert flat_share([flat, told]) == 0.5
    assert flat_share([flat, told, same, responses((3, 0.5)), responses()]) == 0.5
    assert math.isnan(flat_share([same]))
