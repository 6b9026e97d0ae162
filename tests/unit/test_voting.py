"""Votes against Python counting over all subsets."""

import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from airls_ray.evaluation import voting
from airls_ray.evaluation.voting import best_of_n_curve, best_of_n_values, vote, vote_curve, vote_shares

Answer = str | None


def test_the_majority_wins() -> None:
    assert vote(["a", "b", "b"]) == 1


def test_weights_can_overrule_the_majority() -> None:
    assert vote(["a", "b", "b"], [0.9, 0.3, 0.3]) == 0


def test_weights_of_equal_answers_add_up() -> None:
    assert vote(["a", "b", "b"], [0.5, 0.3, 0.3]) == 1


def test_of_tied_answers_the_first_seen_is_given() -> None:
    assert vote(["b", "a", "a", "b"]) == 0
    assert vote(["a", "b"], [0.0, 0.0]) == 0


def test_samples_without_an_answer_have_no_vote() -> None:
    assert vote([None, None, "a"]) == 2
    assert vote([None, "a"], [9.0, 0.0]) == 1


def test_a_vote_without_any_answer_has_no_winner() -> None:
    assert vote([None, None]) is None
    assert vote([]) is None


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_bad_weights_are_an_error(weight: float) -> None:
    with pytest.raises(ValueError, match="not negative"):
        vote(["a", "b"], [1.0, weight])


def counted_vote(answers: list[Answer], weights: list[float], correct: list[float]) -> float:
    """One vote in plain Python: answers with equal votes share it."""
    tally: dict[str, float] = {}
    right: dict[str, list[float]] = {}
    for answer, weight, one in zip(answers, weights, correct, strict=True):
        if answer is not None:
            tally[answer] = tally.get(answer, 0.0) + weight
            right.setdefault(answer, []).append(one)
    if not tally:
        return 0.0
    winners = [answer for answer, votes in tally.items() if votes == max(tally.values())]
    return sum(sum(right[answer]) / len(right[answer]) for answer in winners) / len(winners)


def random_problem(seed: int, samples: int = 7) -> tuple[list[Answer], list[float], list[float]]:
    """Answers with ties and missing ones; weights in eighths, so that sums are exact."""
    rng = np.random.default_rng(seed)
    answers = [[None, "a", "b", "c"][i] for i in rng.integers(0, 4, samples)]
    correct = [float(a == "b") for a in answers]
    return answers, (rng.integers(0, 9, samples) / 8).tolist(), correct


@pytest.mark.parametrize("weighted", [False, True])
def test_votes_equal_all_subsets(weighted: bool) -> None:
    problems = [random_problem(seed) for seed in range(12)]
    answers = [p[0] for p in problems]
    weights, correct = np.array([p[1] for p in problems]), np.array([p[2] for p in problems])
    for k in range(1, 8):
        got = vote_curve(answers, correct, weights if weighted else None, k)
        for p, (given, heavy, right) in enumerate(problems):
            used = heavy if weighted else [1.0] * 7
            wanted = [
                counted_vote([given[i] for i in s], [used[i] for i in s], [right[i] for i in s])
                for s in combinations(range(7), k)
            ]
            assert got[p] == pytest.approx(np.mean(wanted), abs=1e-12), (p, k)


def test_a_tie_in_a_subset_counts_its_share() -> None:
    """`b a b a`, a right: of the six subsets of two, one is b alone, one a alone, and four are tied."""
    correct = np.array([[0.0, 1.0, 0.0, 1.0]])
    assert vote_curve([["b", "a", "b", "a"]], correct, None, 2)[0] == pytest.approx((1 + 4 / 2) / 6)


def test_shares_of_a_vote_by_hand() -> None:
    """a and b tie with two votes each; the samples of an answer share its half."""
    assert vote_shares(["a", "b", "b", "a", "c"]).tolist() == [0.25, 0.25, 0.25, 0.25, 0.0]
    assert vote_shares(["a", "b", None], [0.1, 0.3, 9.0]).tolist() == [0.0, 1.0, 0.0]
    assert vote_shares([None, None]).tolist() == [0.0, 0.0]


def test_sums_that_differ_in_their_last_digit_alone_tie() -> None:
    """0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 are not the same number to a computer."""
    answers: list[Answer] = ["a", "a", "a", "b", "b", "b"]
    shares = vote_shares(answers, [0.1, 0.2, 0.3, 0.3, 0.2, 0.1])
    assert shares.tolist() == pytest.approx([1 / 6] * 6)


@pytest.mark.parametrize("draws", [512, 20])
def test_no_figure_depends_on_the_order_of_the_samples(draws: int) -> None:
    problems = [random_problem(seed, 9) for seed in range(20)]
    answers, weights, correct = ([problem[part] for problem in problems] for part in range(3))
    order = np.random.default_rng(0).permutation(9)
    for k in (2, 4, 9):
        for scores in (None, np.array(weights)):
            before = vote_curve(answers, np.array(correct), scores, k, draws=draws)
            mixed = [[row[at] for at in order] for row in answers]
            after = vote_curve(
                mixed,
                np.array(correct)[:, order],
                scores if scores is None else scores[:, order],
                k,
                draws=draws,
            )
            np.testing.assert_allclose(before, after, atol=1e-12)


def test_all_samples_are_voted_on_without_random_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_random(*_: object) -> None:
        raise AssertionError("k = N must not draw")

    monkeypatch.setattr(voting.np.random, "default_rng", no_random)
    answers: list[list[Answer]] = [["a"] * 9 + ["b"] * 7, [None] * 16]
    correct = np.array([[1.0] * 9 + [0.0] * 7, [0.0] * 16])
    assert vote_curve(answers, correct, None, 16, draws=1).tolist() == [1.0, 0.0]


def test_a_vote_without_any_answer_is_wrong_whatever_its_samples_are_worth() -> None:
    assert vote_curve([[None, None]], np.ones((1, 2)), None, 2).tolist() == [0.0]
    # subsets of one: {0} has no answer and counts 0, {1} is right
    assert vote_curve([[None, "a"]], np.ones((1, 2)), None, 1).tolist() == [0.5]


def test_random_draws_come_near_the_exact_mean_and_repeat_with_the_seed() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (40, 12))
    answers: list[list[Answer]] = [["abc"[i] for i in row] for row in codes]
    correct = (codes == 1).astype(float)
    exact = vote_curve(answers, correct, None, 5, draws=792)
    drawn = vote_curve(answers, correct, None, 5, draws=600, seed=3)
    assert abs(exact.mean() - drawn.mean()) < 0.02
    assert (exact != drawn).any()
    np.testing.assert_array_equal(drawn, vote_curve(answers, correct, None, 5, draws=600, seed=3))
    assert (drawn != vote_curve(answers, correct, None, 5, draws=600, seed=4)).any()


ANSWERS: list[list[Answer]] = [["x", "y", "y", "y"], ["x", "x", None, "y"]]
CORRECT = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
SCORES = np.array([[0.9, 0.1, 0.2, 0.2], [0.3, 0.2, 0.6, 0.4]])
LOG_PROBS = np.array([[-1.0, -9.0, -2.0, -3.0], [-1.0, -2.0, -3.0, -4.0]])


def test_curves_of_all_samples_by_hand() -> None:
    curves = best_of_n_curve(SCORES, CORRECT, ANSWERS, [4], log_probs=LOG_PROBS)
    assert curves == {
        "mean": {4: 0.375},
        "oracle": {4: 1.0},
        "majority": {4: 0.5},
        "best_of_n": {4: 0.5},
        "weighted": {4: 1.0},
        "policy_log_prob": {4: 1.0},
    }


def test_at_one_sample_every_way_of_choosing_is_the_mean() -> None:
    curves = best_of_n_curve(SCORES, CORRECT, ANSWERS, [1], log_probs=LOG_PROBS)
    assert {name: curve[1] for name, curve in curves.items()} == dict.fromkeys(curves, 0.375)


def test_the_oracle_bounds_every_other_way() -> None:
    curves = best_of_n_curve(SCORES, CORRECT, ANSWERS, [1, 2, 4], log_probs=LOG_PROBS)
    for curve in curves.values():
        assert all(curve[k] <= curves["oracle"][k] + 1e-12 for k in (1, 2, 4))


def test_without_scores_the_curves_that_need_them_are_left_out() -> None:
    assert set(best_of_n_curve(None, CORRECT, ANSWERS, [1])) == {"mean", "oracle", "majority"}


def test_the_seed_and_the_number_of_draws_reach_the_votes() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, (30, 10))
    answers: list[list[Answer]] = [["abc"[i] for i in row] for row in codes]
    correct, scores = (codes == 1).astype(float), rng.random((30, 10))

    def votes(draws: int, seed: int) -> dict[str, dict[int, np.ndarray]]:
        return best_of_n_values(scores, correct, answers, [4], draws=draws, seed=seed)

    for other in (votes(9, 1), votes(10, 0)):
        for name in ("majority", "weighted"):
            assert (votes(9, 0)[name][4] != other[name][4]).any()
    for seed in range(5):
        mean = best_of_n_curve(scores, correct, answers, [4], draws=9, seed=seed)["weighted"][4]
        assert mean == pytest.approx(votes(9, seed)["weighted"][4].mean())


def test_values_are_given_per_problem() -> None:
    assert best_of_n_values(SCORES, CORRECT, ANSWERS, [4])["best_of_n"][4].tolist() == [1.0, 0.0]


def test_bad_shapes_and_sizes_are_an_error() -> None:
    with pytest.raises(ValueError, match="answers must have the shape"):
        best_of_n_curve(SCORES, CORRECT, ANSWERS[:1], [1])
    with pytest.raises(ValueError, match="scores must have the shape"):
        best_of_n_curve(SCORES[:, :2], CORRECT, ANSWERS, [1])
    with pytest.raises(ValueError, match="size must be between 1"):
        best_of_n_curve(SCORES, CORRECT, ANSWERS, [5])


def test_evaluation_imports_without_torch() -> None:
    code = "import sys, airls_ray.evaluation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
