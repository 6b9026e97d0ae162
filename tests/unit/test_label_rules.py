"""Built-in label rules of published PRMs: their formulas by plain loops over the steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from airls_ray.config.prm_sections import PRMConfig
from airls_ray.config.supervised_section import LabelRuleConfig, StepLossConfig
from airls_ray.errors import DoorError
from airls_ray.learning.try_step_labels import try_label_rule
from airls_ray.objectives.step_loss import StepLossInputs, StepNormaliser, known_to
from airls_ray.prm.label_rule import LabelRule
from airls_ray.prm.label_rules import relative_progress
from airls_ray.prm.scores import step_rewards

Solution = tuple[int, list[int]]
"""Problem, and correct completions of eight for each step; for the last one all or none."""

SMALL: list[Solution] = [(0, [4, 6, 8]), (0, [4, 2, 1, 0]), (1, [0]), (0, [8]), (1, [1, 0, 0])]
K = 8


def many(seed: int = 0) -> list[Solution]:
    """Hundreds of problems, thousands of steps."""
    random = np.random.default_rng(seed)
    return [
        (problem, [*random.integers(0, K + 1, size=random.integers(0, 12)).tolist(), K * random.integers(2)])
        for problem in range(400)
        for _ in range(4)
    ]


def known_of(solutions: list[Solution]) -> dict[str, np.ndarray]:
    """What `airls_ray.prm.step_labels.known_to` gives of them."""
    counts = [len(steps) for _, steps in solutions]
    last = np.array([at == count - 1 for count in counts for at in range(count)])
    correct = np.array([c for _, steps in solutions for c in steps])
    return {
        "outcomes": np.array([steps[-1] / K for _, steps in solutions]),
        "groups": np.array([problem for problem, _ in solutions]),
        "step_rows": np.repeat(np.arange(len(counts)), counts),
        "positions": np.array([at for count in counts for at in range(count)]),
        "last": last,
        "values": correct / K,
        "completions": np.where(last, 0, K),
        "correct": np.where(last, 0, correct),
    }


def labels_by(name: str, solutions: list[Solution], **options: Any) -> list[list[float]]:
    rule: LabelRule = LabelRuleConfig(name=name, options=options).open()
    labels = np.asarray(rule(known_of(solutions)))
    ends = np.cumsum([len(steps) for _, steps in solutions])
    return [row.tolist() for row in np.split(labels, ends[:-1])]


def share_right(solutions: list[Solution], problem: int) -> float:
    own = [steps[-1] / K for one, steps in solutions if one == problem]
    return sum(own) / len(own)


def advantages(solutions: list[Solution], best_of: int) -> list[list[float]]:
    """PAV's eq. 2 step by step, the prover's value 1 - (1 - p)^K by the failures of all K samples."""
    shares = {problem: share_right(solutions, problem) for problem, _ in solutions}

    def prover(share: float) -> float:
        return 1.0 - math.prod([1.0 - share] * best_of)

    rows = []
    for problem, steps in solutions:
        before, row = prover(shares[problem]), []
        for correct in steps:
            now = prover(correct / K)
            row.append(now - before)
            before = now
        rows.append(row)
    return rows


@pytest.mark.parametrize("solutions", [SMALL, many()])
@pytest.mark.parametrize("eta", [1.0, 2.0, -3.0, 1e-6, -1e-6, -37.0, 100.0, -100.0])
def test_an_entropy_regularised_value_is_the_soft_maximum_over_completions(
    eta: float, solutions: list[Solution]
) -> None:
    """Over the rewards of all eight completions, one by one; a whole solution has one reward."""
    expected = [
        [
            c / K if at == len(steps) - 1 else logsumexp([eta] * c + [0.0] * (K - c), b=1 / K) / eta
            for at, c in enumerate(steps)
        ]
        for _, steps in solutions
    ]
    for mine, theirs in zip(labels_by("er_prm", solutions, eta=eta), expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("eta", [1e-12, -1e-12, 0.3, -25.0, -36.0, 100.0])
def test_an_entropy_regularised_value_is_a_share_and_exact_at_its_ends(eta: float) -> None:
    labels = labels_by("er_prm", [(0, [*range(K + 1), 0])], eta=eta)[0]
    assert (labels[0], labels[K]) == (0.0, 1.0)
    assert labels[:-1] == sorted(labels[:-1])


@pytest.mark.parametrize("solutions", [SMALL, many(1)])
@pytest.mark.parametrize("best_of", [1, 4])
def test_a_process_advantage_is_the_difference_of_the_provers_values(
    best_of: int, solutions: list[Solution]
) -> None:
    labels = labels_by("process_advantage", solutions, best_of_k=best_of)
    for mine, theirs in zip(labels, advantages(solutions, best_of), strict=True):
        assert [2 * label - 1 for label in mine] == pytest.approx(theirs, abs=1e-12)
        assert all(0.0 <= label <= 1.0 for label in mine)


def test_process_advantages_of_a_solution_sum_to_its_outcome_less_the_value_at_the_start() -> None:
    """They telescope, whatever the prover: no length is paid for."""
    solutions = many(2)
    for (problem, steps), labels in zip(
        solutions, labels_by("process_advantage", solutions, best_of_k=3), strict=True
    ):
        start = 1 - (1 - share_right(solutions, problem)) ** 3
        assert sum(2 * label - 1 for label in labels) == pytest.approx(steps[-1] / K - start, abs=1e-12)


@pytest.mark.parametrize("loss", ["mean_squared_error", "cross_entropy"])
def test_a_loss_of_signed_labels_is_lowest_where_the_reward_is_the_advantage(loss: str) -> None:
    """Thousands of steps; (1 + A) / 2 is no probability, and neither loss asks for one."""
    solutions = [(problem, steps) for problem, steps in many(4) if len(steps) > 1]
    wanted = np.concatenate([np.array(row) for row in advantages(solutions, 4)]).clip(-0.999, 0.999)
    logits = torch.tensor(2 * np.arctanh(wanted), requires_grad=True)
    places = torch.arange(len(wanted))
    given = StepLossInputs.of(logits, torch.tensor((1 + wanted) / 2), places, places * 0)
    config = PRMConfig(parameterisation="scalar_head", reward="signed_probability")
    value = StepLossConfig(name=loss).open()(known_to(given, StepNormaliser(1, 1), config))[0]
    value.backward()
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-12
    none = torch.zeros_like(logits)
    rewards = step_rewards(logits.detach(), none, none, config)
    assert rewards.numpy() == pytest.approx(wanted, abs=1e-12)
    if loss == "mean_squared_error":
        off = StepLossInputs.of(logits.detach() * 0 + 0.3, given.labels, places, places * 0)
        brier = float(StepLossConfig(name=loss).open()(known_to(off, StepNormaliser(1, 1), config))[0])
        assert brier == pytest.approx(((math.tanh(0.15) - wanted) ** 2).sum() / 4, rel=1e-9)


def test_a_fraction_of_an_outcome_is_no_chance_of_the_prover() -> None:
    """Of a whole solution that has 3/4 of the points the best of many is still 3/4."""
    known = {**known_of([(0, [4, 6])]), "outcomes": np.array([0.75])}
    rule: LabelRule = LabelRuleConfig(name="process_advantage", options={"best_of_k": 2}).open()
    assert (2 * np.asarray(rule(known)) - 1).tolist() == [0.75 - 0.9375, 0.0]
    soft: LabelRule = LabelRuleConfig(name="er_prm").open()
    assert np.asarray(soft(known)).tolist() == [pytest.approx(math.log(0.5 + 0.5 * math.e)), 0.75]


@pytest.mark.parametrize("solutions", [SMALL, many(3)])
@pytest.mark.parametrize(("alpha", "best_of"), [(0.4, 4), (0.8, 4), (1.0, 1)])
def test_an_effective_step_has_value_and_progress_above_zero_together(
    alpha: float, best_of: int, solutions: list[Solution]
) -> None:
    """With alpha = 1 and K = 1 a step that halves the value is at 0 exactly, and bad."""
    labels = labels_by("relative_effective", solutions, alpha=alpha, best_of_k=best_of)
    for (_, steps), mine, progress in zip(solutions, labels, advantages(solutions, best_of), strict=True):
        effective = [c / K + alpha * a for c, a in zip(steps, progress, strict=True)]
        assert mine == [float(value > 1e-9) for value in effective]


def test_the_strict_ratio_calls_a_step_at_the_threshold_bad() -> None:
    """Ratios 1, 5/5, 4/5 and 3/4 behind a start of 5/8 and of 5/10, with a threshold of 4/5."""
    known = {
        "values": np.array([0.625, 0.625, 0.5, 0.375, 0.4, 1.0]),
        "positions": np.array([0, 1, 2, 3, 0, 1]),
        "outcomes": np.array([0.625, 0.5]),
        "groups": np.array([0, 1]),
        "step_rows": np.array([0, 0, 0, 0, 1, 1]),
    }
    for strict, expected in ((False, [1, 1, 1, 0, 1, 1]), (True, [1, 1, 0, 0, 0, 1])):
        rule = LabelRuleConfig(name="relative_progress", options={"strict": strict}).open()
        assert rule({**known, "completions": 0, "correct": 0, "last": 0}).tolist() == expected


def test_a_ratio_at_the_threshold_is_good_for_every_number_of_completions() -> None:
    ratios = [(4 * part / k, 5 * part / k) for k in range(5, 65) for part in range(1, k // 5 + 1)]
    known = {
        "values": np.array([value for now, before in ratios for value in (before, now)]),
        "positions": np.tile([0, 1], len(ratios)),
        "outcomes": np.ones(len(ratios)),
        "groups": np.arange(len(ratios)),
        "step_rows": np.repeat(np.arange(len(ratios)), 2),
    }
    rule: LabelRule = LabelRuleConfig(name="relative_progress").open()
    assert np.asarray(rule({**known, "completions": 0, "correct": 0, "last": 0}))[1::2].all()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "er_prm",
            {"eta": 0},
            "er_prm takes an eta from -100 to 100 other than 0, but it is 0: give another",
        ),
        ("er_prm", {"eta": 1000.0}, "er_prm takes an eta .* but it is 1000"),
        (
            "process_advantage",
            {"best_of_k": 0},
            r"takes a best_of_k of at least 1 \(the policy itself\), but it is 0",
        ),
        ("relative_effective", {"alpha": -1}, "takes an alpha of at least 0 .* they are -1 and 4"),
        ("process_advantage", {"best_of": 4}, "takes no option 'best_of' .*best_of_k"),
    ],
)
def test_an_option_that_cannot_be_is_one_sentence(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DoorError, match=rf"^supervised_prm\.labels: .*{said}") as caught:
        try_label_rule(LabelRuleConfig(name=name, options=options))
    assert "\n" not in str(caught.value)


def progress(values: list[float], start: float = 1.0, **options: Any) -> list[float]:
    """Labels of one solution whose problem is right in a share `start` of its rollouts."""
    place = np.arange(len(values))
    group = np.zeros(1, dtype=np.int64)
    found = relative_progress.label(
        np.array(values), place, np.array([start]), group, np.zeros(len(values), dtype=np.int64), **options
    )
    return found.tolist()


def test_a_step_of_a_solution_that_is_lost_is_bad_though_it_loses_nothing_more() -> None:
    assert progress([0.5, 0.0, 0.0], start=0.5) == [1.0, 0.0, 0.0]


def test_a_step_just_at_the_threshold_is_bad_with_strict_also_where_the_product_is_rounded() -> None:
    """0.7 * 10/15 is 7/15, and a rounding below it."""
    assert 7 / 15 > 0.7 * (10 / 15)
    assert progress([10 / 15, 7 / 15], start=10 / 15, least=0.7, strict=True) == [1.0, 0.0]
