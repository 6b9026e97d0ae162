"""Outcomes by a rule: the vote against plain counting, who reads its labels, and rules of the user's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.learn.learners import graded_rollouts
from actors.train.tracking import graded_table
from airls_ray.config import load_config
from airls_ray.config.schema import MethodConfig, PRMConfig
from airls_ray.errors import ConfigError, DoorError
from airls_ray.evaluation.rollouts import outcomes_by_group, summarise_rollouts
from airls_ray.grading.learned_outcomes import label_metrics, outcomes_of, with_labels
from airls_ray.grading.outcome_rules.vote import outcomes as vote
from airls_ray.learning.advantages import assign_credit
from airls_ray.learning.group_filter import rows_that_learn
from airls_ray.learning.try_method import try_method
from tests.tiny import make_rollouts
from tests.unit.test_advantages import grades_of, scores_of


# ---------------------------------------------------------------------------------- the vote
@pytest.mark.parametrize(
    ("answers", "groups", "wanted"),
    [
        (["7", "3", "7"], [0, 0, 0], [1, 0, 1]),
        (["3", "7", "7", "3"], [0, 0, 0, 0], [1, 0, 0, 1]),  # equal votes: the first seen
        ([None, None, "7"], [0, 0, 0], [0, 0, 1]),  # an answer has more votes than none
        ([None, None], [0, 0], [0, 0]),
        (["7", "3", "3", "7", "7"], [9, -1, -1, -1, 9], [1, 1, 1, 0, 1]),
        ([], [], []),
    ],
)
def test_votes_by_hand(answers: list[str | None], groups: list[int], wanted: list[float]) -> None:
    assert vote(answers, np.array(groups, dtype=np.int64)).tolist() == wanted


def test_votes_are_those_of_a_counter_in_any_order_of_rows() -> None:
    """As the authors' program counts: `Counter(answers).most_common(1)` without those that are None."""
    rng = Random(0)
    answers = [rng.choice(["1", "2", "3", None]) for _ in range(6000)]
    groups = [rng.randrange(400) for _ in range(6000)]
    wanted = []
    for answer, group in zip(answers, groups, strict=True):
        said = [one for one, other in zip(answers, groups, strict=True) if other == group and one is not None]
        wanted.append(float(answer == Counter(said).most_common(1)[0][0]))
    assert vote(answers, np.array(groups)).tolist() == wanted


# ------------------------------------------------------------------------------ who reads labels
@pytest.fixture
def rollouts() -> pa.Table:
    """Three groups of four; outcomes by turns."""
    return make_rollouts(3, 4)


ANSWERS: list[str | None] = ["1", "1", "1", "2", "5", "5", "5", "5", None, "8", "8", None]
LABELS = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0]


def labelled(rollouts: pa.Table) -> pa.Table:
    problems = pa.table({"problem_id": ["p2", "p0", "p1"], "details": ["{}", "", "{}"]})
    return with_labels(
        grades_of(rollouts, ANSWERS), rollouts, problems, MethodConfig(outcomes="vote").outcomes
    )


def test_labels_stand_beside_the_graders_outcomes_and_are_saved(rollouts: pa.Table) -> None:
    grades = labelled(rollouts)
    assert grades["outcome_label"].to_pylist() == LABELS
    plain = grades_of(rollouts, ANSWERS)
    assert grades.select(plain.column_names).equals(plain)
    assert summarise_rollouts(rollouts, grades) == summarise_rollouts(rollouts, plain)
    kept = graded_table([rollouts], grades)
    assert kept["outcome"].to_pylist() == plain["outcome"].to_pylist()
    assert kept["outcome_label"].to_pylist() == LABELS


@pytest.mark.parametrize("fields", [{}, {"drop_constant_groups": True}, {"whiten": True}])
def test_credit_is_as_if_the_labels_were_the_outcomes(rollouts: pa.Table, fields: dict[str, Any]) -> None:
    method = MethodConfig(name="grpo", **fields)
    at = rollouts.column_names.index("outcome")
    wanted_rows = rollouts.set_column(at, rollouts.field(at), pa.array(LABELS, pa.float32()))
    wanted = assign_credit(wanted_rows, grades_of(wanted_rows), None, method, max_response_tokens=8)
    grades = labelled(rollouts)
    table = graded_rollouts([rollouts], [grades])
    assert assign_credit(table, grades, None, method, max_response_tokens=8).equals(wanted)
    assert table["outcome"].to_pylist() == LABELS  # of which PRM objectives make their classes


def test_credit_transforms_get_the_labels(rollouts: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def by_outcome(rewards, outcomes, step_rows): return outcomes[step_rows]\n"
    )
    method = MethodConfig(
        name="pure",
        step_transform="none",
        step_transforms=f"{tmp_path / 'own.py'}:by_outcome",
        step_weight=1.0,
        step_baseline="none",
        step_return="immediate",
        whiten=False,
    )
    scores = scores_of([[0.5, 0.5]] * 12)
    got = assign_credit(rollouts, labelled(rollouts), scores, method, max_response_tokens=8)
    assert got.to_pylist() == [[label, label] for label in LABELS]


def test_row_filters_and_samplers_of_problems_know_the_labels_alone(rollouts: pa.Table) -> None:
    grades = labelled(rollouts)
    method = MethodConfig(name="grpo", drop_constant_groups=True)
    rows = rows_that_learn(graded_rollouts([rollouts], [grades]), method.filters)
    assert rows.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]  # the second group agrees with itself
    told = outcomes_by_group(rollouts, grades)
    assert told == [("p0", LABELS[:4]), ("p1", LABELS[4:8]), ("p2", LABELS[8:])]


def test_without_a_rule_the_graders_outcomes_are_learned_from(rollouts: pa.Table) -> None:
    grades = grades_of(rollouts, ANSWERS)
    assert graded_rollouts([rollouts], [grades])["outcome"].to_pylist() == grades["outcome"].to_pylist()
    assert label_metrics(grades, rollouts["group"].to_numpy()) == {}


def test_metrics_say_how_far_the_vote_is_right() -> None:
    """TTRL's `label_accuracy` and `reward_accuracy`, by loops over thousands of rollouts."""
    rng = Random(1)
    groups = sorted(rng.randrange(200) for _ in range(3000))
    right = {group: rng.choice("123") for group in groups}
    answers = [rng.choice(["1", "1", "2", "3", None]) for _ in groups]
    truth = [float(answer == right[group]) for answer, group in zip(answers, groups, strict=True)]
    labels = vote(answers, np.array(groups)).tolist()
    hits = []
    for group in sorted(set(groups)):
        said = Counter(a for a, g in zip(answers, groups, strict=True) if g == group and a is not None)
        if said:
            hits.append(said.most_common(1)[0][0] == right[group])
    grades = pa.table(
        {"outcome": pa.array(truth, pa.float32()), "outcome_label": pa.array(labels, pa.float32())}
    )
    got = label_metrics(grades, np.array(groups))
    assert got["label/accuracy"] == pytest.approx(sum(hits) / len(hits))
    same = [one == other for one, other in zip(labels, truth, strict=True)]
    assert got["label/agreement"] == pytest.approx(sum(same) / len(same))
    assert got["label/mean"] == pytest.approx(sum(labels) / len(labels))
    by_group = [{b for b, g in zip(labels, groups, strict=True) if g == group} for group in set(groups)]
    assert got["label/constant_share"] == pytest.approx(np.mean([len(one) == 1 for one in by_group]))


# ------------------------------------------------------------------------- rules of the user's own
OWN = """
import numpy as np
def by_field(problem_ids, details, answers):
    return [one.get("weak", 0.0) if answer else 0.0 for one, answer in zip(details, answers)]
def short(answers): return [1.0]
def large(answers): return np.full(len(answers), 2.0)
def nan(answers): return np.full(len(answers), np.nan)
def words(answers): return ["right"] * len(answers)
def raises(answers): return {}["x"]
def takes_outcomes(answers, outcomes): return outcomes
def of_lengths(lengths, truncated, share=0.5): return np.where(truncated, 0.0, share)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(OWN, encoding="utf-8")
    return file


def test_a_rule_of_the_users_own_sees_the_problems(own: Path, rollouts: pa.Table) -> None:
    problems = pa.table(
        {"problem_id": ["p0", "p1", "p2"], "details": ['{"weak": 0.25}', "{}", '{"weak": 0.75}']}
    )
    named = MethodConfig(outcomes=f"{own}:by_field").outcomes
    got = with_labels(grades_of(rollouts, ANSWERS), rollouts, problems, named)["outcome_label"].to_pylist()
    assert got == [0.25] * 4 + [0.0] * 4 + [0.0, 0.75, 0.75, 0.0]


def test_options_reach_the_rule(own: Path) -> None:
    named = MethodConfig(outcomes={"name": f"{own}:of_lengths", "options": {"share": 0.125}}).outcomes
    known = {"answers": ["1", "1"], "lengths": np.array([3, 8]), "truncated": np.array([False, True])}
    assert outcomes_of(named, known).tolist() == [0.125, 0.0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short", r"short returned shape \[1\], and it must be 6 numbers from 0 to 1"),
        ("large", r"large returned 2 for rollout 0, and it must be"),
        ("nan", r"nan returned nan for rollout 0"),
        ("words", r"words returned \[.right., .*\(list\), and it must be"),
        ("raises", r"raises raises KeyError: .x. \(own\.py line \d+\)"),
        ("takes_outcomes", r"takes .outcomes., which nobody gives it"),
        ("nothing", r"has no attribute .nothing."),
    ],
)
def test_what_is_no_rule_is_said_before_a_run(own: Path, name: str, words: str) -> None:
    method = MethodConfig(name="grpo", outcomes=f"{own}:{name}")
    with pytest.raises(DoorError, match=words) as caught:
        try_method(method, PRMConfig(), 8, reference=False)
    assert str(caught.value).startswith("method.outcomes: ") and "\n" not in str(caught.value)


def test_a_mistyped_rule_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"method\.outcomes: .*votes.*vote"):
        load_config(None, ["method=grpo", "method.outcomes=votes"])


@pytest.mark.parametrize(("overrides", "more"), [([], False), (["method.outcomes=vote"], True)])
def test_only_a_rule_adds_to_the_grades(overrides: list[str], more: bool) -> None:
    config = load_config(None, ["method=grpo", *overrides])
    assert config.grades_more == more
    assert config.model_dump()["method"]["outcomes"] == ("vote" if more else "graded")
