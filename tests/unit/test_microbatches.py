"""Plans of micro-batches: complete, within budget, balanced."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from airls_ray.tensors.microbatches import plan_microbatches


def cases() -> list[tuple[torch.Tensor, int, int]]:
    """Random lengths, ranks and budgets; some rows are longer than the budget."""
    found = []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(1, int(rng.integers(2, 200)), int(rng.integers(0, 120)))
        found.append((torch.from_numpy(lengths), int(rng.integers(1, 6)), int(rng.integers(20, 600))))
    return found


def cost(lengths: torch.Tensor, rows: torch.Tensor, layout: str) -> int:
    sizes = lengths[rows].tolist()
    return len(sizes) * max(sizes) if layout == "padded" else sum(sizes)


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_every_row_occurs_once(layout: str) -> None:
    for lengths, ranks, budget in cases():
        plan = plan_microbatches(lengths, ranks, budget, layout)
        rows = sorted(row for share in plan for part in share for row in part.tolist())
        assert rows == list(range(len(lengths)))


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_no_microbatch_is_above_the_budget_except_a_single_long_row(layout: str) -> None:
    for lengths, ranks, budget in cases():
        for share in plan_microbatches(lengths, ranks, budget, layout):
            for part in share:
                assert part.numel() <= 1 or cost(lengths, part, layout) <= budget


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_microbatch_is_as_full_as_it_can_be(layout: str) -> None:
    for lengths, ranks, budget in cases():
        for share in plan_microbatches(lengths, ranks, budget, layout):
            for part, following in pairwise(share):
                if following.numel():
                    assert cost(lengths, torch.cat([part, following[:1]]), layout) > budget


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_all_ranks_have_the_same_number_of_microbatches(layout: str) -> None:
    for lengths, ranks, budget in cases():
        plan = plan_microbatches(lengths, ranks, budget, layout)
        assert len(plan) == ranks
        assert len({len(share) for share in plan}) == 1
        assert not plan[0] or any(share[-1].numel() for share in plan)


def test_tokens_of_two_ranks_differ_by_at_most_the_longest_row() -> None:
    for lengths, ranks, budget in cases():
        plan = plan_microbatches(lengths, ranks, budget, "packed")
        totals = [sum(int(lengths[part].sum()) for part in share) for share in plan]
        assert max(totals) - min(totals) <= (int(lengths.max()) if len(lengths) else 0)


def test_rows_of_similar_length_are_together() -> None:
    for lengths, ranks, budget in cases():
        for share in plan_microbatches(lengths, ranks, budget, "padded"):
            rows = torch.cat(share) if share else torch.zeros(0, dtype=torch.int64)
            assert bool((lengths[rows].diff() <= 0).all())


def test_a_plan_by_hand() -> None:
    plan = plan_microbatches(torch.tensor([4, 9, 2, 7, 5]), 2, 10, "padded")
    # Longest first 1,3,4,0,2 (9 7 5 4 2), dealt 0 1 1 0 0.
    assert [[part.tolist() for part in share] for share in plan] == [[[1], [0, 2]], [[3], [4]]]


def test_a_rank_without_rows_gets_empty_microbatches() -> None:
    plan = plan_microbatches(torch.tensor([3]), 2, 10, "padded")
    assert [part.tolist() for part in plan[1]] == [[]]
    assert plan[1][0].dtype == torch.int64


@pytest.mark.parametrize(("ranks", "budget"), [(0, 10), (1, 0)])
def test_sizes_below_one_are_an_error(ranks: int, budget: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plan_microbatches(torch.tensor([3]), ranks, budget, "padded")
