"""How rewards are called and what they may return, inside one process."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from airls_ray.config.reward_section import RewardConfig
from airls_ray.config.schema import MethodConfig
from airls_ray.data.schemas import GRADES
from airls_ray.grading.reward_calls import Row, WrongValue, read_reward
from airls_ray.grading.reward_pool import RewardValue, batches
from airls_ray.grading.reward_table import add_rewards, failed_labels, reward_metrics
from airls_ray.learning.advantages import assign_credit
from airls_ray.rewards import format as format_reward
from airls_ray.rewards import length, repetition
from tests.tiny import make_rollouts

ROWS = [
    Row("2+2", "so; 4", "4", ["so;", " 4"], 1.0, {"level": 3, "data_source": "sums"}),
    Row("2+3", "6", "5", ["6"], 0.0, {"level": 1}),
]


def values(function: Any, rows: list[Row] = ROWS, **options: Any) -> list[Any]:
    reward = read_reward(function, options)
    if reward.batch:
        return reward.read(rows, reward.call(rows))
    return [reward.read([row], reward.call([row]))[0] for row in rows]


def test_our_keywords_are_given_by_name_and_in_any_number() -> None:
    def score(correct: float, response: str, row: dict[str, Any], bonus: float = 0.5) -> float:
        return correct + len(response) + row["level"] + bonus

    assert values(score) == [1 + 5 + 3 + 0.5, 0 + 1 + 1 + 0.5]
    assert values(score, bonus=0.0) == [9.0, 2.0]
    assert values(lambda **fields: len(fields)) == [6.0, 6.0]


def test_plural_names_are_a_batch() -> None:
    def score(responses: list[str], steps: list[list[str]], correct: list[float]) -> list[float]:
        return [len(r) * 10 + len(s) + c for r, s, c in zip(responses, steps, correct, strict=True)]

    assert values(score) == [53.0, 11.0]


def test_trls_signature_gets_columns_and_may_have_nothing_to_say() -> None:
    def only_hard(prompts: list[str], completions: list[str], level: list[int], **columns: Any) -> list[Any]:
        assert columns["answer"] == ["4", "5"] and prompts == ["2+2", "2+3"]
        return [len(one) if hard > 2 else None for one, hard in zip(completions, level, strict=True)]

    assert values(only_hard) == [5.0, None]


def test_verls_signature_is_a_number_or_a_score() -> None:
    def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> Any:
        right = float(solution_str.endswith(ground_truth))
        return {"score": right, "source": data_source} if extra_info["level"] > 2 else right

    assert values(compute_score) == [1.0, 0.0]


def test_a_class_is_made_once_with_its_options() -> None:
    made = []

    class Scorer:
        def __init__(self, scale: float) -> None:
            made.append(scale)

        def __call__(self, response: str) -> float:
            return made[0] * len(response)

    assert values(Scorer, scale=2.0) == [10.0, 2.0]
    assert made == [2.0]


@pytest.mark.parametrize("number", [1, True, 0.5, np.float32(0.5), np.array(2.0), torch.tensor(3.0)])
def test_numbers_of_other_libraries_are_numbers(number: Any) -> None:
    assert values(lambda response: number) == [float(number)] * 2


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor])
def test_one_number_a_step(make: Callable[[list[float]], Any]) -> None:
    assert values(lambda steps: make([0.5] * len(steps))) == [[0.5, 0.5], [0.5]]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned None, and a reward is a number"),
        (math.nan, "returned nan, and a reward is finite"),
        (-math.inf, "returned -inf, and a reward is finite"),
        (1e39, "returned 1e+39 (float), and a reward is at most 3.4e+38"),
        ("0.5", "returned the text '0.5', and a reward is a number"),
        ({"score": 1.0}, "returned {'score': 1.0} (dict), and a reward is a number"),
        ([0.5], "returned 1 values for a response of 2 steps"),
        ([0.5, math.nan], "returned nan, and a reward is finite"),
        ([0.5, "1"], "returned the text '1', and a reward is a number"),
    ],
)
def test_what_is_no_reward_is_said(returned: Any, said: str) -> None:
    (wrong,) = values(lambda response: returned, ROWS[:1])
    assert isinstance(wrong, WrongValue) and str(wrong) == said


@pytest.mark.parametrize(
    ("returned", "said"), [([1.0], "returned 1 values for 2 responses"), (1.0, "it must be a list")]
)
def test_a_batch_of_another_size_is_said(returned: Any, said: str) -> None:
    with pytest.raises(WrongValue, match=said):
        values(lambda responses: returned)


def test_one_wrong_value_of_a_batch_costs_its_response_alone() -> None:
    first, second = values(lambda responses: [1.0, math.nan])
    assert first == 1.0 and isinstance(second, WrongValue)


def test_groups_stay_whole_in_batches() -> None:
    groups = [number // 40 for number in range(100)]
    packs = batches(groups)
    assert packs == [list(range(40)), list(range(40, 100))]
    assert batches([0] * 100) == [list(range(100))]


def test_the_built_ins() -> None:
    assert [length.score("x" * n, free=10, most=20) for n in (10, 15, 20, 99)] == [0.0, -0.5, -1.0, -1.0]
    assert [format_reward.score(text) for text in ("so\n#### 4", "\\boxed{4}", "4")] == [1.0, 1.0, 0.0]
    assert format_reward.score("a\nb: 4", pattern="^b:") == 1.0
    assert repetition.score("a b a b a b", words=2) == pytest.approx(2 / 5 - 1)
    assert repetition.score("a b", words=4) == 0.0
    wrong = [Row("", "a b a b a b", "", [], right, {}) for right in (1.0, 0.0)]
    assert values(repetition.score, wrong, words=2, wrong_only=True) == pytest.approx([0.0, 2 / 5 - 1])


# ---- columns ------------------------------------------------------------------------------------
def graded(outcomes: list[float]) -> pa.Table:
    rows = len(outcomes)
    columns = [outcomes, ["1"] * rows, [None] * rows, ["graded"] * rows]
    arrays = [pa.array(column) for column in columns]
    return pa.Table.from_arrays(arrays, names=GRADES.names).cast(GRADES)


def said(*found: Any, **settings: Any) -> tuple[RewardConfig, list[RewardValue]]:
    """A reward's settings and values; "failed" is one that failed."""
    said = [RewardValue(None, True) if one == "failed" else RewardValue(one) for one in found]
    return RewardConfig(name="own", **settings), said


def test_rewards_are_summed_by_their_weights() -> None:
    table = add_rewards(
        graded([1.0, 0.0]), [0, 0], [1, 1], {"a": said(1.0, 2.0, weight=0.5), "b": said(3.0, 1.0, weight=-1)}
    )
    assert table["reward"].to_pylist() == [-2.5, 0.0]
    assert table["reward/a"].to_pylist() == [1.0, 2.0]
    assert table.select(GRADES.names).equals(graded([1.0, 0.0]))


def test_a_reward_is_normalised_on_its_own_before_the_sum() -> None:
    groups, numbers = [0, 0, 1, 1], (1.0, 3.0, 10.0, 10.0)
    by_group = add_rewards(
        graded([0.0] * 4), groups, [1] * 4, {"a": said(*numbers, normalise="group", weight=2)}
    )
    root = math.sqrt(2)
    assert by_group["reward"].to_pylist() == pytest.approx([-root, root, 0, 0], abs=1e-5)
    by_batch = add_rewards(graded([0.0] * 4), groups, [1] * 4, {"a": said(*numbers, normalise="batch")})
    expected = (np.array(numbers) - 6.0) / np.std(numbers, ddof=1)
    assert by_batch["reward"].to_pylist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_reward_that_failed_neither_pays_nor_costs_and_is_counted() -> None:
    table = add_rewards(
        graded([0.0] * 4),
        [0, 0, 0, 1],
        [1] * 4,
        {"a": said(1.0, "failed", 3.0, "failed"), "b": said(*[None] * 4)},
    )
    assert table["reward"].to_pylist() == [1.0, 2.0, 3.0, 0.0]  # the mean of its group's; none there: 0
    metrics = reward_metrics(table)
    assert metrics["reward/a"] == 2.0 and metrics["reward/a_failed_share"] == 0.5
    assert math.isnan(metrics["reward/b"]) and metrics["reward/b_failed_share"] == 0.0
    assert failed_labels(metrics) == ["a"]
    assert metrics["reward/total"] == 1.5


def test_grades_without_rewards_have_no_metrics_of_them() -> None:
    assert reward_metrics(graded([1.0])) == {}


def test_rewards_per_step_are_a_column_of_steps() -> None:
    table = add_rewards(
        graded([0.0] * 3), [0, 0, 0], [2, 1, 2], {"a": said([1.0, 2.0], "failed", [3.0, 4.0], weight=2.0)}
    )
    assert table["reward_steps"].to_pylist() == [[2.0, 4.0], [5.0], [6.0, 8.0]]
    assert table["reward"].to_pylist() == [0.0] * 3
    assert table["reward/a"].to_pylist() == [3.0, None, 7.0]
    assert reward_metrics(table)["reward/total"] == pytest.approx((6 + 5 + 14) / 3)


# ---- credit -------------------------------------------------------------------------------------
def credit(grades: pa.Table, scores: pa.Table | None = None, **method: Any) -> list[list[float]]:
    rollouts = make_rollouts(1, 2)
    result: list[list[float]] = assign_credit(
        rollouts, grades, scores, MethodConfig(**method), max_response_tokens=8
    ).to_pylist()
    return result


def steps_of_rollouts() -> list[int]:
    return [len(ends) for ends in make_rollouts(1, 2)["step_ends"].to_pylist()]


def test_the_reward_is_beside_the_outcome_in_the_advantage() -> None:
    counts = steps_of_rollouts()
    table = add_rewards(graded([1.0, 1.0]), [0, 0], counts, {"a": said(0.5, 0.0)})
    method = {"name": "dr_grpo", "outcome_weight": 3.0}
    assert credit(graded([1.0, 1.0]), **method) == [[0.0] * counts[0], [0.0] * counts[1]]
    assert credit(table, **method) == [[0.25] * counts[0], [-0.25] * counts[1]]
    assert table["outcome"].to_pylist() == [1.0, 1.0]


def test_rewards_of_steps_are_summed_where_steps_get_no_credit_of_their_own() -> None:
    counts = steps_of_rollouts()
    own = said([0.25] * counts[0], [0.0] * counts[1])
    got = credit(add_rewards(graded([0.0, 0.0]), [0, 0], counts, {"a": own}), name="dr_grpo")
    assert got[0] == pytest.approx([counts[0] * 0.25 / 2] * counts[0])


def test_rewards_of_steps_give_steps_credit_without_a_prm() -> None:
    counts = steps_of_rollouts()
    own = said([1.0, *[0.0] * (counts[0] - 1)], [0.0] * counts[1])
    table = add_rewards(graded([0.0, 0.0]), [0, 0], counts, {"a": own})
    got = credit(table, name="grpo", step_weight=1.0, step_return="immediate")
    assert got[0][0] > max(got[0][1:]) and got[0][1:] == pytest.approx([got[1][0]] * (counts[0] - 1))


@pytest.mark.parametrize("per_token", [False, True])
def test_rewards_of_steps_join_the_prms(per_token: bool) -> None:
    rollouts = make_rollouts(1, 2)
    ends = rollouts["step_ends"].to_pylist()
    units = [row[-1] if per_token else len(row) for row in ends]
    own = [[float(row * 10 + number) for number in range(len(one))] for row, one in enumerate(ends)]
    prm = [[0.5] * size for size in units]
    joined = [list(row) for row in prm]
    for row, one in enumerate(ends):
        for number, end in enumerate(one):
            joined[row][end - 1 if per_token else number] += own[row][number]
    with_own = add_rewards(graded([0.0, 0.0]), [0, 0], [len(one) for one in ends], {"a": said(*own)})

    def scores(rewards: list[list[float]]) -> pa.Table:
        return pa.table({"rewards": pa.array(rewards, pa.list_(pa.float32()))})

    assert credit(with_own, scores(prm), name="airl_s") == credit(
        graded([0.0, 0.0]), scores(joined), name="airl_s"
    )
