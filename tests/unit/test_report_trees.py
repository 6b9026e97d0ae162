"""Search trees of a report: from nodes, and from what finished responses share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from airls_ray.config import Config
from airls_ray.errors import DataError
from airls_ray.report.data import load_run
from airls_ray.report.rollout_rows import run_codec
from airls_ray.report.trees import read_trees, render_trees, tree_of_leaves, tree_of_nodes, trees_intro
from airls_ray.runs.run_folder import RunFolder
from airls_ray.search.ledger import AXES
from airls_ray.search.records import records_table
from airls_ray.text.make_tokenizer import train_tokenizer
from airls_ray.text.tokenizer_files import load_tokenizer
from tests.unit.report_pages import EVIL, Page


def leaf(node: int, steps: list[list[int]], **more: Any) -> dict[str, Any]:
    """A finished response; its texts are named after its tokens."""
    response = [token for step in steps for token in step]
    return {
        "node": node,
        "response": response,
        "step_ends": [sum(map(len, steps[: at + 1])) for at in range(len(steps))],
        "steps": ["".join(map(str, step)) + "\n" for step in steps],
        "step_truth": None,
        "scores": [token / 10 for token, *_ in steps],
        "score": 0.5,
        "log_score": -0.5,
        "log_prob": -2.0,
        "finish": "stop",
        "answer": "a",
        "outcome": 1.0,
    } | more


def node(parent: int, tokens: list[int], scores: list[float]) -> dict[str, Any]:
    return {"parent": parent, "tokens": tokens, "log_prob": -1.0, "scores": scores, "finish": "step"}


def record(problem: str = "p1", budget: int = 4, **more: Any) -> dict[str, Any]:
    costs = {axis: 1 for axis in AXES if axis != "seconds"}
    return {
        "algorithm": "beam",
        "scorer": "prm",
        "budget": budget,
        "seed": 0,
        "problem_id": problem,
        "prompt": "1+1=",
        "rule": "best",
        "answer": "a",
        "outcome": 1.0,
        "oracle": 1.0,
        "chosen": 1,
        "rounds": 2,
        "stopped_by": None,
        **costs,
        "leaves": [leaf(2, [[1], [2]]), leaf(3, [[1], [3]])],
        "nodes": None,
    } | more


def make_run(path: Path, records: list[dict[str, Any]], tokenizer: Path | None = None) -> Path:
    run = RunFolder(path)
    run.create(Config.model_validate({"name": "a", "model": {"path": str(tokenizer or path / "none")}}))
    run.write_summary({"seed": 0})
    (path / "search").mkdir()
    pq.write_table(records_table(records), path / "search" / "records.parquet")
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([], 258, folder)
    return folder


# ------------------------------------------------------------------------------------ of leaves
def test_equal_beginnings_are_one_node() -> None:
    tree = tree_of_leaves([leaf(0, [[1], [2, 3]]), leaf(0, [[1], [4]]), leaf(0, [[5]])])
    assert tree == [
        {"parent": -1, "text": ""},
        {"parent": 0, "text": "1", "score": 0.1},
        {"parent": 1, "text": "23", "score": 0.2, "leaf": 0},
        {"parent": 1, "text": "4", "score": 0.4, "leaf": 1},
        {"parent": 0, "text": "5", "score": 0.5, "leaf": 2},
    ]


def test_equal_responses_have_an_end_each() -> None:
    tree = tree_of_leaves([leaf(0, [[1], [2]]), leaf(0, [[1], [2]]), leaf(0, [[1], [2], [3]])])
    assert [one["leaf"] for one in tree if "leaf" in one] == [0, 1, 2]
    assert sum(one["text"] == "1" for one in tree) == 1


def test_a_step_knows_whether_it_is_right() -> None:
    tree = tree_of_leaves([leaf(0, [[1], [2]], step_truth=[True, False])])
    assert [one.get("truth") for one in tree] == [None, True, False]


# ------------------------------------------------------------------------------------- of nodes
def test_the_whole_tree_has_the_branches_that_were_given_up(tokenizer: Path, tmp_path: Path) -> None:
    ids = {
        text: load_tokenizer(tokenizer, chat=False).encode(text).ids for text in ("one\n", "two\n", "dead\n")
    }
    one, two, dead = ids.values()
    nodes = [node(-1, [], []), node(0, one, [0.25]), node(0, dead, [0.125]), node(1, two, [0.75])]
    leaves = [leaf(3, [one, two], step_truth=[True, False])]
    codec = run_codec(load_run(make_run(tmp_path / "a", [record()], tokenizer)))
    assert tree_of_nodes(nodes, leaves, codec) == [
        {"parent": -1, "text": ""},
        {"parent": 0, "text": "one", "score": 0.25, "truth": True, "log": -1.0},
        {"parent": 0, "text": "dead", "score": 0.125, "log": -1.0},
        {"parent": 1, "text": "two", "score": 0.75, "truth": False, "log": -1.0, "leaf": 0},
    ]


def test_a_node_of_several_steps_is_a_node_for_each(tokenizer: Path, tmp_path: Path) -> None:
    encode = load_tokenizer(tokenizer, chat=False).encode
    one, two = encode("one\n").ids, encode("two\n").ids
    nodes = [node(-1, [], []), node(0, one + two, [0.25, 0.75])]
    codec = run_codec(load_run(make_run(tmp_path / "a", [record()], tokenizer)))
    tree = tree_of_nodes(nodes, [leaf(1, [one, two], step_truth=[True, False])], codec)
    assert tree[1:] == [
        {"parent": 0, "text": "one", "score": 0.25, "truth": True},
        {"parent": 1, "text": "two", "score": 0.75, "truth": False, "leaf": 0},
    ]


# --------------------------------------------------------------------------------- the records
@pytest.mark.parametrize("column", ["scorer", "prompt", "leaves"])
def test_records_without_a_column_that_is_read_are_one_sentence(tmp_path: Path, column: str) -> None:
    run = make_run(tmp_path / "a", [record("p", 4)])
    file = run / "search" / "records.parquet"
    pq.write_table(pq.read_table(file).drop_columns(column), file)
    with pytest.raises(DataError, match="lacks columns of a search's records: delete the file"):
        read_trees(load_run(run))


def test_a_run_without_records_has_no_trees(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a")
    run.write_summary({"seed": 0})
    assert render_trees(read_trees(load_run(run.path))) is None


def test_the_first_problems_of_every_search_are_there(tmp_path: Path) -> None:
    records = [record(f"p{at}", budget) for budget in (4, 16) for at in range(3)]
    found = read_trees(load_run(make_run(tmp_path / "a", records)), most_problems=2)
    assert [one["name"] for one in found.searches] == [
        "beam by prm, N = 4, seed 0",
        "beam by prm, N = 16, seed 0",
    ]
    assert [[one["problem"] for one in search["records"]] for search in found.searches] == [["p0", "p1"]] * 2
    assert found.left_out == 2
    assert "2 more are in search/records.parquet" in trees_intro(found)


def test_what_is_too_much_is_left_out_of_all_searches(tmp_path: Path) -> None:
    records = [record(f"p{at}", budget) for budget in (4, 16) for at in range(9)]
    size = len(json.dumps(read_trees(load_run(make_run(tmp_path / "a", records))).searches)) // 18
    found = read_trees(load_run(tmp_path / "a"), most_bytes=5 * size)
    assert [len(search["records"]) for search in found.searches] in ([2, 2], [3, 2])


def test_nodes_without_a_tokenizer_are_drawn_from_the_leaves(tmp_path: Path) -> None:
    kept = record(nodes=[node(-1, [], []), node(0, [1], [0.1])])
    found = read_trees(load_run(make_run(tmp_path / "a", [kept])))
    drawn = found.searches[0]["records"][0]
    assert not drawn["whole"]
    assert len(drawn["nodes"]) == 4


def test_text_of_records_stays_data(tmp_path: Path) -> None:
    evil = f"</script>{EVIL}"
    found = read_trees(load_run(make_run(tmp_path / "a", [record(evil, prompt=evil, answer=evil)])))
    page = Page(str(render_trees(found)))
    assert [attributes for attributes, _ in page.scripts] == [{"type": "application/json"}]
    data = json.loads(page.scripts[0][1])
    assert data["searches"][0]["records"][0]["answer"] == evil


def test_a_broken_file_of_records_is_named(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", [record()])
    (path / "search" / "records.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"records\.parquet is no readable Parquet file"):
        read_trees(load_run(path))
