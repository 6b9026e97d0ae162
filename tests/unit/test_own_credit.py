"""Credit of the user's own: transforms, outcome terms and row filters, beside the built-in ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from airls_ray import doors
from airls_ray.config.schema import MethodConfig
from airls_ray.credit.own import kept_rows, transformed, with_terms
from airls_ray.errors import DoorError
from airls_ray.learning.advantages import assign_credit, reward_parts, total_reward
from airls_ray.learning.group_filter import rollout_values, rows_that_learn
from tests.tiny import make_rollouts
from tests.unit.test_advantages import grades_of, scores_of

OWN = """
import torch
def plus(rewards, amount=1.0): return rewards + amount
def twice(rewards): return 2 * rewards
def of_rows(rewards, step_rows, outcomes, groups, learns):
    return outcomes[step_rows] + 10 * groups[step_rows] + 100 * learns[step_rows]
def in_place(rewards, outcomes):
    outcomes.zero_()
    return rewards.mul_(0.0)
def raises(rewards): return {}["x"]
def none(rewards): return None
def scalar(rewards): return rewards.sum()
def short(rewards): return rewards[1:]
def nan(rewards): return rewards.where(torch.arange(rewards.numel()) != 1, torch.nan)
def boolean(rewards): return rewards > 0
def needs_more(rewards, temperature): return rewards
class Rule: pass
def cut(truncated, unanswered, lengths, max_response_tokens):
    return truncated * 1.0 + 10.0 * unanswered + lengths / max_response_tokens
def long_ones(lengths): return lengths > 3
def numbers(lengths): return lengths
"""
REWARDS = torch.tensor([1.0, 2.0, -1.0])
STEPS = {
    "step_rows": torch.tensor([0, 0, 1]),
    "groups": torch.tensor([0, 1]),
    "outcomes": torch.tensor([1.0, 0.5]),
    "learns": torch.tensor([False, True]),
}


def method(**fields: Any) -> MethodConfig:
    return MethodConfig.model_validate({"name": "grpo", **fields})


def after(own: Path, *names: Any) -> list[float]:
    transforms = [
        {**one, "name": f"{own}:{one['name']}"} if isinstance(one, dict) else f"{own}:{one}" for one in names
    ]
    values: list[float] = transformed(REWARDS, method(step_transforms=transforms).transforms, STEPS).tolist()
    return values


# ------------------------------------------------------------------------------------ transforms
def test_transforms_are_applied_in_their_order_and_take_options(own: Path) -> None:
    assert after(own, "plus", "twice") == [4.0, 6.0, 0.0]
    assert after(own, "twice", {"name": "plus", "options": {"amount": 0.5}}) == [2.5, 4.5, -1.5]


def test_a_transform_gets_what_it_names(own: Path) -> None:
    assert after(own, "of_rows") == [1.0, 1.0, 110.5]


def test_what_a_transform_changes_in_place_stays_with_it(own: Path) -> None:
    assert after(own, "in_place") == [0.0, 0.0, 0.0]
    assert REWARDS.tolist() == [1.0, 2.0, -1.0] and STEPS["outcomes"].tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", r"raises KeyError: 'x' \(own\.py line 10\)"),
        ("none", "returned None, and it must be a tensor of 3 numbers, one for each of the steps"),
        ("scalar", r"returned a tensor of shape \[\], and it must be a tensor of 3 numbers"),
        ("short", r"returned a tensor of shape \[2\], and it must be"),
        ("nan", "returned nan for number 1 of the steps, and it must be finite"),
        ("boolean", r"returned a tensor of torch\.bool, and it must be"),
        ("needs_more", "takes 'temperature', which nobody gives it"),
        ("Rule", "is a class, and it must be a function"),
        ("cut", "takes 'truncated', which nobody gives it"),
    ],
)
def test_a_transform_that_fails_is_one_sentence(own: Path, name: str, said: str) -> None:
    with pytest.raises(DoorError, match=rf"method\.step_transforms: .*own\.py:{name} {said}") as caught:
        after(own, name)
    assert "\n" not in str(caught.value)


def test_rewards_that_are_not_finite_themselves_are_not_the_transforms_fault(own: Path) -> None:
    values = transformed(
        torch.tensor([1.0, torch.nan, 1.0]), method(step_transforms=f"{own}:twice").transforms, STEPS
    )
    assert values.isnan().tolist() == [False, True, False]


def test_an_option_that_a_built_in_does_not_take_is_named() -> None:
    wrong = method(step_transforms=[{"name": "min_form", "options": {"temprature": 1.0}}])
    with pytest.raises(
        DoorError, match=r"min_form takes no option 'temprature' \(did you mean 'temperature'"
    ):
        transformed(REWARDS, wrong.transforms, STEPS)


# ------------------------------------------------------------------ fields and lists are one thing
def rollouts() -> pa.Table:
    table = make_rollouts(2, 3)
    outcomes = pa.array([1.0, 0.0, 1.0, 1.0, 1.0, 1.0], pa.float32())
    return table.set_column(table.column_names.index("outcome"), table.schema.field("outcome"), outcomes)


@pytest.mark.parametrize(
    ("fields", "lists"),
    [
        ({"step_scale": "largest_return"}, {"step_transforms": ["largest_return"]}),
        (
            {"step_transform": "min_form", "min_form_temperature": 0.3, "step_scale": "largest_return"},
            {"step_transforms": ["largest_return", {"name": "min_form", "options": {"temperature": 0.3}}]},
        ),
        ({"format_penalty": 0.7}, {"outcome_terms": [{"name": "format_penalty", "weight": 0.7}]}),
        (
            {"overlong_buffer_tokens": 4},
            {"outcome_terms": [{"name": "overlong", "options": {"buffer_tokens": 4}}]},
        ),
        ({"drop_constant_groups": True, "whiten": True}, {"row_filters": ["varied_groups"], "whiten": True}),
        (
            {"accuracy_band": [0.5, 0.7], "whiten": True},
            {"row_filters": [{"name": "accuracy_band", "options": {"band": [0.5, 0.7]}}], "whiten": True},
        ),
    ],
)
def test_a_field_is_the_entry_of_a_list(fields: dict[str, Any], lists: dict[str, Any]) -> None:
    table = rollouts()
    grades = grades_of(table, ["1", None, "1", "2", None, "3"])
    scores = scores_of([[0.3, -0.2], [0.1, 0.8], [-1.0, 0.4], [0.2, 0.2], [0.5, -0.5], [0.0, 0.1]])

    def credit(**given: Any) -> list[list[float]]:
        config = MethodConfig(name="airl_s", step_baseline="leave_one_out", **given)
        values: list[list[float]] = assign_credit(
            table, grades, scores, config, max_response_tokens=8
        ).to_pylist()
        return values

    assert credit(**fields) == credit(**lists)
    without = {name: value for name, value in fields.items() if name == "whiten"}
    assert credit(**fields) != credit(**without)


def test_largest_return_comes_before_min_form_and_the_users_own_after_both(own: Path) -> None:
    both = method(
        step_transform="min_form", step_scale="largest_return", step_transforms=f"{own}:twice", step_weight=0
    )
    assert [one.shown for one in both.transforms] == ["largest_return", "min_form", "twice"]


# -------------------------------------------------------------------------------- terms and filters
def test_a_term_is_added_times_its_weight(own: Path) -> None:
    table = rollouts().slice(0, 3)
    finish = pa.array(["stop", "length", "stop"]).dictionary_encode().cast(table.schema.field("finish").type)
    table = table.set_column(table.column_names.index("finish"), table.schema.field("finish"), finish)
    lengths = [len(row) for row in table["response"].to_pylist()]
    config = method(outcome_terms=[{"name": f"{own}:cut", "weight": -0.5}])
    grades = grades_of(table, ["1", "1", None])
    rows = torch.zeros(0, dtype=torch.int64)
    parts = reward_parts(table, grades, None, rows, config, max_response_tokens=16)
    found = total_reward(parts).tolist()
    wanted = [1 - lengths[0] / 32, -0.5 - lengths[1] / 32, 1 - 5 - lengths[2] / 32]
    assert found == pytest.approx(wanted)


def test_a_filter_leaves_rollouts_out(own: Path) -> None:
    table = rollouts()
    lengths = [len(row) for row in table["response"].to_pylist()]
    rows = rows_that_learn(table, method(row_filters=f"{own}:long_ones").filters).tolist()
    assert rows == [row for row, length in enumerate(lengths) if length > 3]
    assert 0 < len(rows) < 6
    first = [row for row in rows if row < 3]  # the second group has one outcome
    assert (
        rows_that_learn(table, method(row_filters=[f"{own}:long_ones", "varied_groups"]).filters).tolist()
        == first
    )


def test_the_prm_learns_from_what_filters_for_it_keep() -> None:
    config = method(
        accuracy_band=[0.2, 0.8],
        drop_constant_groups=True,
        row_filters=["varied_groups", {"name": "accuracy_band", "prm": True}],
    )
    assert [(one.name, one.prm) for one in config.filters] == [
        ("varied_groups", False),
        ("accuracy_band", True),
        ("varied_groups", False),
        ("accuracy_band", True),
    ]


def test_a_filter_or_term_that_fails_is_one_sentence(own: Path) -> None:
    known = {**rollout_values(rollouts()), "outcomes": torch.zeros(6)}
    with pytest.raises(
        DoorError, match=r"method\.row_filters: .*:numbers returned a tensor of torch\.int64, .* 6 bool"
    ):
        kept_rows(method(row_filters=f"{own}:numbers").filters, known, 6)
    with pytest.raises(
        DoorError, match=r"method\.outcome_terms: .*:long_ones returned a tensor of torch\.bool"
    ):
        with_terms(torch.zeros(6), method(outcome_terms=f"{own}:long_ones").terms, known)
    with pytest.raises(DoorError, match=r"method\.row_filters: accuracy_band raises ValueError"):
        wrong = {"name": "accuracy_band", "options": {"band": [0.2]}}
        kept_rows(method(row_filters=[wrong]).filters, known, 6)


def test_the_built_ins_are_the_files_of_their_folders() -> None:
    names = {name: set(doors.builtins(doors.kind_of(name))) for name in doors.KINDS}
    assert names["credit transform"] == {
        "capo",
        "clip",
        "delta",
        "gated",
        "information_gain",
        "largest_return",
        "min_form",
        "renorm",
    }
    assert names["outcome term"] == {
        "cosine",
        "format_penalty",
        "kimi_length",
        "laser",
        "laser_d",
        "overlong",
        "par",
        "sar",
    }
    assert names["row filter"] == {"accuracy_band", "prof", "untruncated", "varied_groups"}
    assert names["policy loss"] == {"cispo", "clipped", "dual_clip", "gspo", "prl"}
    assert names["prm objective"] == {"airl", "prime", "repirl"}
    assert doors.kind_of("credit_transform").group == "airls_ray.credit_transform"
