"""What self-training learns from: balance scores, values of a tree, kept traces, labels."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from airls_ray.config import Config
from airls_ray.data.prm_labels import LabelFacts, read_labels, write_labels
from airls_ray.data.problems import ProblemStream, table_to_problems, write_problems
from airls_ray.self_training.balance import balance_score, best_setting
from airls_ray.self_training.records import right_traces, selected_counts, value_labels
from airls_ray.self_training.rounds import learning
from airls_ray.self_training.tree_values import tree_values
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Split
from airls_ray.text.codec import TextCodec
from tests.unit.self_train_fakes import record, solution, text_leaf

SPLITS: tuple[Split, ...] = ("train", "test")


# -------------------------------------------------------------------------------------- balance
def authors_balance(counts: list[tuple[int, int]], wished: int) -> float:
    """`cal_modi_acc_soft` of `determine_hyper.py`, in which every problem has a response."""
    found = []
    for selected, right in counts:
        ratio = right / selected
        found.append(ratio if right >= wished else right * ratio / wished)
    return sum(found) / len(found)


@pytest.mark.parametrize(("problems", "wished"), [(1, 8), (5000, 8), (5000, 3)])
def test_the_balance_score_is_that_of_the_authors_program(problems: int, wished: int) -> None:
    random = Random(0)
    counts = [(n, random.randint(0, n)) for n in (random.randint(1, 20) for _ in range(problems))]
    assert balance_score(counts, wished) == pytest.approx(authors_balance(counts, wished), rel=1e-12)


def test_a_balance_by_hand() -> None:
    """Of four problems: 2 of 4 wished ones and none wrong; 8 right, 8 wrong; 4 wrong; nothing."""
    assert balance_score([(2, 2), (16, 8), (4, 0), (0, 0)], 4) == pytest.approx((0.5 + 0.5 + 0 + 0) / 4)
    with pytest.raises(ValueError, match="0 problems and 4 wished"):
        balance_score([], 4)


def test_the_setting_with_the_most_balance_is_taken_and_the_first_of_equal_ones() -> None:
    few, wrong, good = [(1, 1)] * 3, [(8, 4)] * 3, [(4, 4)] * 3
    counts = {(0.5, 0.0): few, (1.0, 0.0): wrong, (1.0, 0.5): good, (0.7, 0.2): good}
    assert best_setting(counts, 4) == ((1.0, 0.5), 1.0)


# ----------------------------------------------------------------------------------------- values
class Node:
    """A node of the authors' tree (`MCTS/base.py`)."""

    def __init__(self, parent: Node | None = None) -> None:
        self.parent, self.children = parent, dict[int, Node]()
        self.steps_to_correct, self.reaches = 1024, False
        self.value = 0.0


def authors_values(paths: list[list[int]], right: list[bool]) -> list[list[float]]:
    """`get_full_value_samples_vm`: distances from right leaves up, those of wrong ones, values down."""
    root = Node()
    leaves = []
    for path in paths:
        node = root
        for step in path:
            node = node.children.setdefault(step, Node(node))
        leaves.append(node)
    for node, is_right in zip(leaves, right, strict=True):
        if is_right:
            node.steps_to_correct = 1
    for leaf in leaves:
        if leaf.steps_to_correct == 1:
            leaf.reaches, node = True, leaf
            while node.parent is not None:
                node = node.parent
                node.steps_to_correct = min(one.steps_to_correct for one in node.children.values()) + 1
                node.reaches = True
    for leaf in leaves:
        up: Node = leaf
        while up.steps_to_correct == 1024:
            assert up.parent is not None
            up = up.parent
        distance, node = up.steps_to_correct, leaf
        while node is not up:
            node.steps_to_correct = distance
            assert node.parent is not None
            node = node.parent

    def go_down(node: Node) -> None:
        if node.parent is not None:
            r = 1 if node.reaches else -1
            before = node.parent.value
            node.value = max(0, (1 - before) * r / node.steps_to_correct + before)
        for child in node.children.values():
            go_down(child)

    go_down(root)
    values = []
    for path in paths:
        node, row = root, []
        for step in path:
            node = node.children[step]
            row.append(node.value)
        values.append(row)
    return values


def random_tree(responses: int, seed: int) -> tuple[list[list[int]], list[bool]]:
    """Paths of different lengths over three choices; none is the beginning of another one."""
    random = Random(seed)
    paths: list[list[int]] = []
    while len(paths) < responses:
        path = [random.randrange(3) for _ in range(random.randint(1, 12))] + [3 + len(paths)]
        paths.append(path)
    right = [random.random() < 0.2 for _ in paths]
    return paths, right if any(right) else [True, *right[1:]]


@pytest.mark.parametrize(("responses", "trees"), [(6, 200), (2000, 2)])
def test_the_values_of_a_tree_are_those_of_the_authors_program(responses: int, trees: int) -> None:
    for seed in range(trees):
        paths, right = random_tree(responses, seed)
        found = tree_values(paths, right)
        assert found is not None
        for row, wanted in zip(found, authors_values(paths, right), strict=True):
            assert row == pytest.approx(wanted, abs=1e-12)


def test_values_by_hand() -> None:
    """A right response rises evenly to 1. One that leaves it after two of four steps falls by (1 - v) / m;
    m is 3 from the last right step on, itself counted. One that is wrong at once has none."""
    right, late, early = [1, 2, 3, 4], [1, 2, 8, 9], [5, 6]
    found = tree_values([right, late, early], [True, False, False])
    assert found is not None
    assert found[0] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    after = 0.5 - 0.5 / 3
    assert found[1] == pytest.approx([0.25, 0.5, after, after - (1 - after) / 3])
    assert found[2] == [0.0, 0.0]


def test_values_lie_between_0_and_1_and_right_responses_end_at_1() -> None:
    paths, right = random_tree(3000, 7)
    found = tree_values(paths, right)
    assert found is not None
    assert all(0.0 <= value <= 1.0 for row in found for value in row)
    for row, is_right in zip(found, right, strict=True):
        if is_right:
            assert row[-1] == pytest.approx(1.0) and all(a < b for a, b in pairwise(row))


def test_without_a_right_response_nothing_is_known() -> None:
    assert tree_values([[1], [2, 3]], [False, False]) is None


# ---------------------------------------------------------------------------------------- records
LEAVES = [
    text_leaf("low", 1.0, 0.2),
    text_leaf("best", 1.0, 0.9),
    text_leaf("wrong", 0.0, 0.95),
    text_leaf("best", 1.0, 0.85),
    text_leaf("cut", 1.0, 0.99, finish="length"),
    text_leaf("good", 1.0, 0.5),
]


@pytest.mark.parametrize(
    ("threshold", "most", "traces", "counts"),
    [
        (0.0, 9, ["best", "good", "low"], (4, 3)),
        (0.5, 9, ["best", "good"], (3, 2)),
        (0.5, 1, ["best"], (1, 0)),
        (0.91, 9, None, (1, 0)),
        (0.96, 9, None, (0, 0)),
    ],
)
def test_traces_are_right_different_and_score_high(
    threshold: float, most: int, traces: list[str] | None, counts: tuple[int, int]
) -> None:
    records = [record("p", LEAVES), record("empty", [])]
    assert right_traces(records, threshold, most) == ({} if traces is None else {"p": traces})
    assert selected_counts(records, threshold, most) == [counts, (0, 0)]


@pytest.fixture(scope="module")
def arithmetic(own_policy: Path) -> tuple[TextCodec, Any]:
    task = make_task(Config().task)
    return TextCodec.from_folder(own_policy, task), ProblemStream(task, "train", 0).take(40)


def test_labels_of_a_search_are_a_file_that_train_prm_reads(
    arithmetic: tuple[TextCodec, Any], tmp_path: Path
) -> None:
    codec, table = arithmetic
    problems = table_to_problems(table)
    records = [
        record(one.problem_id, [solution(one, codec, at, 0.5) for at in (None, 3, None, 0)])
        for one in problems[:-1]
    ]
    records.append(record(problems[-1].problem_id, [solution(problems[-1], codec, 2, 0.5)]))
    write_labels(value_labels(records, table, codec), tmp_path / "values.parquet", LabelFacts({}, {}))
    rows = read_labels(tmp_path / "values.parquet").to_pylist()
    assert len(rows) == 3 * (len(problems) - 1)  # equal responses once; the unsolved problem not at all
    steps = 6
    for row, problem in zip(rows[::3], problems, strict=False):
        assert row["problem_id"] == problem.problem_id and row["prompt_text"] == problem.prompt
        assert row["prompt"] == codec.encode_prompt(problem.prompt)
        assert row["labels"] == pytest.approx([(k + 1) / steps for k in range(steps)])
        assert row["step_texts"] == codec.step_texts(row["response"], row["step_ends"])
    for row in rows[1::3]:  # right for three steps; then 1 - v grows by a quarter, m = 4, down to 0
        assert row["labels"][:3] == pytest.approx([1 / 6, 2 / 6, 3 / 6])
        assert row["labels"][3:] == pytest.approx([1 - 0.5 * 1.25, 1 - 0.5 * 1.25**2, 1 - 0.5 * 1.25**3])
    assert all(row["labels"] == [0.0] * steps for row in rows[2::3])


# ------------------------------------------------------------------------------- configurations
def test_files_of_another_form_are_learned_from_in_our_own_fields(tmp_path: Path) -> None:
    """Traces are in our fields, so the test problems must be, too, whatever the fields of the files are."""
    named = {}
    for split in SPLITS:
        rows = table_to_problems(ProblemStream(make_task(Config().task), split, 0).take(12))
        lines = [json.dumps({"q": one.prompt, "a": one.answer, "t": one.traces[0]}) for one in rows]
        named[f"{split}_file"] = tmp_path / f"{split}.jsonl"
        named[f"{split}_file"].write_text("\n".join(lines) + "\n")
    fields = {"prompt": "q", "answer": "a", "traces": "t"}
    settings = Config.model_validate(
        {"model": {"path": "x"}, "task": {"name": "file", "fields": fields, **named}}
    )
    ours = {split: tmp_path / f"our_{split}.jsonl" for split in SPLITS}
    for split, file in ours.items():
        write_problems(ProblemStream(make_task(settings.task), split, 0).take(7), file)
    learned = make_task(learning(settings, "x", ours["train"], ours["test"]).task)
    for split in SPLITS:
        before = table_to_problems(ProblemStream(make_task(settings.task), split, 0).take(7))
        found = table_to_problems(ProblemStream(learned, split, 1).take(7))
        assert sorted(map(repr, found)) == sorted(map(repr, before))
