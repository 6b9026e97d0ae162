from random import Random

import pytest

from airls_ray.config.schema import FailureConfig
from airls_ray.dispatch import Dispatch, Share, by_owner, cut

QUICK = FailureConfig(backoff_seconds=0.0)


def dispatch(shares: list[Share], **failures: float) -> Dispatch:
    made = Dispatch(FailureConfig(**{"backoff_seconds": 0.0, **failures}))  # type: ignore[arg-type]
    made.submit(shares)
    return made


def test_shares_are_contiguous_and_differ_by_at_most_one() -> None:
    assert [share.rows for share in cut("job", range(7), 3)] == [(0, 1), (2, 3), (4, 5, 6)]


def test_there_are_no_more_shares_than_rows() -> None:
    assert [share.rows for share in cut("job", range(2), 5)] == [(0,), (1,)]


def test_nothing_is_cut_into_no_shares() -> None:
    assert cut("job", [], 3) == []


def test_an_owner_stays_on_one_worker() -> None:
    shares = by_owner("job", [0, 1, 2, 3, 0], ["a", "b"])
    assert [(share.worker, share.rows) for share in shares] == [("a", (0, 2, 4)), ("b", (1, 3))]


def test_a_worker_gets_its_own_share_before_any_other() -> None:
    board = dispatch([Share("job", (0,)), Share("job", (1,), worker="b")])
    taken = board.take("b", now=0.0)
    assert taken is not None and taken.rows == (1,)


def test_a_worker_does_not_take_what_another_one_owns() -> None:
    assert dispatch([Share("job", (0,), worker="a")]).take("b", now=0.0) is None


def test_what_waited_for_a_dead_worker_is_free_for_any() -> None:
    board = dispatch([Share("job", (0,), worker="a")])
    board.fail("a", now=0.0)
    taken = board.take("b", now=0.0)
    assert taken is not None and taken.rows == (0,)


def test_what_waits_for_a_worker_that_has_left_is_free_for_any() -> None:
    board = dispatch([Share("job", (0,), worker="a"), Share("job", (1,), worker="b")])
    board.free_all_but({"b", "c"})
    taken = board.take("c", now=0.0)
    assert taken is not None and taken.rows == (0,)
    assert board.take("d", now=0.0) is None


def test_a_share_that_failed_once_is_tried_again_as_a_whole() -> None:
    board = dispatch(cut("job", range(4), 1))
    board.take("a", 0.0)
    board.fail("a", 0.0)
    again = board.take("b", 0.0)
    assert again is not None and again.rows == (0, 1, 2, 3)


def test_a_share_that_failed_twice_is_tried_row_by_row() -> None:
    board = dispatch(cut("job", range(3), 1))
    for worker in "ab":
        board.take(worker, 0.0)
        board.fail(worker, 0.0)
    rows = []
    while (share := board.take("c", 0.0)) is not None:
        rows.append(share.rows)
        board.deliver("c")
    assert rows == [(0,), (1,), (2,)]


def test_a_row_that_kills_every_worker_is_dropped_alone() -> None:
    board = dispatch(cut("job", range(8), 1))
    while (share := board.take("worker", 0.0)) is not None:
        if 5 in share.rows:
            board.fail("worker", 0.0)
        else:
            board.deliver("worker")
    assert board.dropped == [("job", 5)]
    assert board.delivered == 7


def test_a_failed_share_waits_longer_each_time() -> None:
    board = dispatch(cut("job", range(1), 1), backoff_seconds=2.0, attempts=4)
    waits = []
    now = 0.0
    for _ in range(3):
        assert board.take("a", now) is not None
        board.fail("a", now)
        later = board.next_try()
        assert later is not None
        waits.append(later - now)
        now = later
    assert waits == [2.0, 4.0, 8.0]


def test_a_share_is_not_tried_before_its_time() -> None:
    board = dispatch(cut("job", range(1), 1), backoff_seconds=5.0)
    board.take("a", 0.0)
    board.fail("a", 0.0)
    assert board.take("b", 4.9) is None
    assert board.take("b", 5.0) is not None


def test_a_worker_has_one_share_at_a_time() -> None:
    board = dispatch(cut("job", range(2), 2))
    board.take("a", 0.0)
    with pytest.raises(ValueError, match="still has a share"):
        board.take("a", 0.0)


def test_a_forgotten_job_leaves_no_waiting_rows() -> None:
    board = dispatch([*cut("old", range(3), 3), *cut("new", range(2), 1)])
    board.take("a", 0.0)
    board.forget("old")
    assert (board.submitted, board.running, board.waiting) == (3, 1, 2)


@pytest.mark.parametrize("seed", range(20))
def test_under_random_failures_every_row_is_delivered_once_or_dropped_once(seed: int) -> None:
    """And at any time submitted == delivered + dropped + running + waiting."""
    random = Random(seed)
    board = Dispatch(FailureConfig(backoff_seconds=0.5, attempts=3))
    workers = [f"worker-{number}" for number in range(5)]
    busy: dict[str, Share] = {}
    delivered: list[tuple[object, int]] = []
    for job in range(4):
        board.submit(cut(job, range(random.randrange(1, 30)), random.randrange(1, 8)))
    total, now = board.submitted, 0.0
    while not board.idle:
        now += random.random()
        worker = random.choice(workers)
        if worker in busy:
            share = busy.pop(worker)
            if random.random() < 0.3:
                board.fail(worker, now)
            else:
                board.deliver(worker)
                delivered += [(share.job, row) for row in share.rows]
        else:
            taken = board.take(worker, now)
            if taken is not None:
                busy[worker] = taken
        assert total == board.delivered + len(board.dropped) + board.running + board.waiting
    assert len(delivered) == len(set(delivered)) == board.delivered
    assert sorted([*delivered, *board.dropped], key=str) == sorted(
        {(job, row) for job, row in [*delivered, *board.dropped]}, key=str
    )
    assert len(delivered) + len(board.dropped) == total
