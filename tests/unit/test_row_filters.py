"""Row filters that choose within a group, against hand-made groups and a search over all choices."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from airls_ray.config.schema import MethodConfig, PRMConfig
from airls_ray.credit.filters import prof
from airls_ray.errors import DoorError
from airls_ray.learning.advantages import assign_credit
from airls_ray.learning.group_filter import rows_that_learn
from airls_ray.learning.try_method import try_method
from tests.unit.test_advantages import grades_of, scores_of, with_outcomes


def method(*filters: Any, **fields: Any) -> MethodConfig:
    return MethodConfig.model_validate({"name": "grpo", "row_filters": list(filters), **fields})


def kept(outcomes: list[float], means: list[float], **options: Any) -> list[int]:
    """Rows of one group that PROF keeps; each rollout has two steps around its mean."""
    rewards = torch.tensor([mean + shift for mean in means for shift in (-0.05, 0.05)])
    rows = torch.arange(len(means)).repeat_interleave(2)
    groups = torch.zeros(len(outcomes), dtype=torch.int64)
    found = prof.keep(torch.tensor(outcomes), groups, rewards, rows, **options)
    return found.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("outcomes", "wanted"),
    [
        # four of eight: two right ones with the highest means, two wrong ones with the lowest
        ([1, 1, 1, 1, 0, 0, 0, 0], [1, 3, 4, 6]),
        # one right rollout is all there is: three wrong ones fill up, without the highest mean (0.9)
        ([1, 0, 0, 0, 0, 0, 0, 0], [0, 2, 4, 6]),
        ([1, 1, 1, 1, 1, 1, 1, 0], [1, 3, 5, 7]),
        ([0] * 8, [0, 2, 4, 6]),
    ],
)
def test_prof_keeps_the_consistent_half_and_balances_it(outcomes: list[float], wanted: list[int]) -> None:
    means = [0.25, 0.9, 0.3, 0.8, 0.1, 0.7, 0.2, 0.6]
    assert kept([float(one) for one in outcomes], means) == wanted


def test_prof_of_right_rollouts_alone_keeps_the_wrong_ones_in_their_order() -> None:
    outcomes, means = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.2, 0.4, 0.9, 0.1, 0.8, 0.3]
    assert kept(outcomes, means, share=0.5, both=False) == [0, 1, 2]
    assert kept(outcomes, means, share=0.34, both=False) == [0, 1, 2]  # 2.04 rollouts are 3
    assert kept(outcomes, means, share=0.3, both=False) == [1, 2]
    assert kept(outcomes, means, share=1.0) == [0, 1, 2, 3, 4, 5]


def test_prof_rounds_an_exact_share_to_itself() -> None:
    assert 0.07 * 100 > 7
    assert len(kept([1.0, 0.0] * 50, [0.5] * 100, share=0.07)) == 7


def many(seed: int, groups: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Groups of `size` rollouts, mixed in the table, of 1 to 8 steps."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.arange(groups * size) % groups
    rate = torch.rand(groups, generator=generator)[number]
    outcomes = (torch.rand(groups * size, generator=generator) < rate).float()
    lengths = torch.randint(1, 9, (groups * size,), generator=generator)
    rows = torch.repeat_interleave(torch.arange(groups * size), lengths)
    return outcomes, number, torch.rand(rows.numel(), generator=generator), rows


@pytest.mark.parametrize("share", [0.3, 0.5, 0.75])
def test_prof_keeps_what_the_papers_rule_keeps_in_many_groups(share: float) -> None:
    """500 groups of 9: the numbers by a search for the largest k+ k-, the rows by sorting each class."""
    outcomes, groups, rewards, rows = many(0, 500, 9)
    found = prof.keep(outcomes, groups, rewards, rows, share)
    mean = [rewards[rows == row].double().mean().item() for row in range(outcomes.numel())]
    m = math.ceil(share * 9)
    for group in range(500):
        members = (groups == group).nonzero().flatten().tolist()
        right = sorted((row for row in members if outcomes[row] == 1), key=lambda row: -mean[row])
        wrong = sorted((row for row in members if outcomes[row] == 0), key=lambda row: mean[row])
        choices = [pair for pair in product(range(len(right) + 1), range(len(wrong) + 1)) if sum(pair) == m]
        best = max(a * b for a, b in choices)
        chosen = [row for row in members if bool(found[row])]
        a = sum(row in right for row in chosen)
        assert a * (m - a) == best and len(chosen) == m
        assert set(chosen) == {*right[:a], *wrong[: m - a]}


# ------------------------------------------------------------------ step rewards reach a filter
def test_a_filter_sees_the_prms_rewards_of_a_table() -> None:
    table = with_outcomes([1.0, 1.0, 1.0, 0.0, 0.0])
    scores = scores_of([[0.9, 0.9], [0.1], [0.5, 0.4, 0.6], [0.2, 0.2], [0.8]])
    config = method("prof", prm_objective="frozen")
    assert rows_that_learn(table, config.filters, scores).tolist() == [0, 2, 3]
    assert rows_that_learn(table, [], scores).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prm_objective": "none"}, r"method\.row_filters: prof takes 'rewards', .*; name a PRM"),
        (
            {"prm_objective": "frozen", "row_filters": [{"name": "prof", "prm": True}]},
            r"method\.row_filters: prof takes 'rewards', .* leave out prm: true",
        ),
    ],
)
def test_a_filter_that_needs_step_rewards_is_refused_before_a_run(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DoorError, match=said):
        try_method(method(**{"row_filters": ["prof"], **fields}), PRMConfig(), 8, reference=False)


def test_a_filter_with_step_rewards_is_tried_where_a_prm_gives_them() -> None:
    try_method(method("prof", prm_objective="frozen"), PRMConfig(), 8, reference=False)
    with pytest.raises(DoorError, match="prof takes no option 'shares'"):
        wrong = method({"name": "prof", "options": {"shares": 0.5}}, prm_objective="frozen")
        try_method(wrong, PRMConfig(), 8, reference=False)


def test_a_filter_with_an_optional_reward_goes_without_a_prm(tmp_path: Any) -> None:
    """What takes any keyword, or has a default, is called with what there is."""
    file = tmp_path / "own.py"
    file.write_text(
        "def some(lengths, rewards=None): return lengths > (3 if rewards is None else 4)\n"
        "def every(**known): return known['lengths'] > len(known)\n"
    )
    table = with_outcomes([1.0] * 5)
    lengths = [len(row) for row in table["response"].to_pylist()]
    scores = pa.table({"rewards": pa.array([[0.5]] * 5, pa.list_(pa.float32()))})
    for name, few, more in (("some", 3, 4), ("every", 4, 6)):
        filters = method(f"{file}:{name}").filters
        assert rows_that_learn(table, filters).tolist() == [i for i in range(5) if lengths[i] > few]
        assert rows_that_learn(table, filters, scores).tolist() == [i for i in range(5) if lengths[i] > more]


def test_advantages_are_whitened_over_what_the_filter_keeps() -> None:
    table = with_outcomes([1.0, 1.0, 1.0, 0.0, 0.0])
    lengths = [len(row) for row in table["response"].to_pylist()]
    tokens = [[0.9 - 0.2 * row + 0.01 * at for at in range(n)] for row, n in enumerate(lengths)]
    config = method("prof", name="prime", step_scale="none", accuracy_band=None)
    found = assign_credit(
        table, grades_of(table), scores_of(tokens), config, max_response_tokens=8
    ).to_pylist()
    kept = rows_that_learn(table, config.filters, scores_of(tokens)).tolist()
    learned = torch.tensor([value for row in kept for value in found[row]], dtype=torch.float64)
    assert kept == [0, 1, 4]
    assert float(learned.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(learned.std()) == pytest.approx(1.0, abs=1e-5)


def test_what_was_cut_off_is_not_learned_from() -> None:
    table = with_outcomes([1.0] * 5)
    place = table.column_names.index("finish")
    ends = pa.array(["stop", "length", "stop", "length", "stop"])
    ends = ends.dictionary_encode().cast(table.schema.field(place).type)
    table = table.set_column(place, table.schema.field(place), ends)
    assert rows_that_learn(table, method("untruncated").filters).tolist() == [0, 2, 4]


def test_a_filter_with_step_rewards_and_groups_that_are_replaced_are_refused_together() -> None:
    """Groups are replaced before a PRM has scored them."""
    prof = method("prof", prm_objective="frozen")
    with pytest.raises(DoorError, match=r"prof takes the step rewards .* set train\.refill_rounds=0"):
        try_method(prof, PRMConfig(), 8, reference=False, refill=True)
    try_method(method("varied_groups"), PRMConfig(), 8, reference=False, refill=True)
