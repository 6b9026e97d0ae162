"""Known failures are named once, healthy runs stay silent."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from airls_ray.runs.diagnostics import CHECKS, RunWatch

Metrics = dict[str, float | str | None]


def healthy(step: int) -> Metrics:
    """A run that learns: the outcome and the reward rise, the entropy falls a little."""
    noise = random.Random(step).uniform(-0.03, 0.03)
    return {
        "phase": "train",
        "outcome/mean": 0.4 + 0.008 * step + noise,
        "groups/solved_share": 0.7 + noise,
        "prm/reward_mean": 0.01 * step + noise,
        "prm/expert_accuracy": 0.7,
        "prm/policy_accuracy": 0.65,
        "prm/effective_sample_size": 20.0,
        "prm/failed_rollouts": 40.0,
        "prm/score_spread": 0.02,
        "policy/entropy": 0.3 - 0.004 * step,
        "rollout/response_tokens_mean": 36.0 + noise,
    }


FAILURES: dict[str, Callable[[int], Metrics]] = {
    "saturated discriminator": lambda step: {"prm/expert_accuracy": 0.99, "prm/policy_accuracy": 1.0},
    "hacked reward": lambda step: {"outcome/mean": 0.9 - 0.01 * step},
    "falling outcome": lambda step: {"outcome/mean": max(0.4 - 0.03 * step, 0.02), "prm/reward_mean": 0.0},
    "drifting length": lambda step: {"rollout/response_tokens_mean": 36.0 * 1.03**step},
    "collapsed entropy": lambda step: {"policy/entropy": 0.3 * 0.8**step},
    "narrowing policy": lambda step: {"groups/solved_share": 0.8 - 0.008 * step},
    "collapsed weights": lambda step: {"prm/effective_sample_size": 1.1},
    "flat scores": lambda step: {"prm/score_spread": 1e-7},
    "skipped updates": lambda step: {"policy/skipped_updates": float(step == 3), "policy/loss": math.nan},
}


def kinds(run: Callable[[int], Metrics], steps: int = 40) -> list[str]:
    watch = RunWatch()
    return [finding.kind for step in range(steps) for finding in watch.see(run(step))]


def test_a_healthy_run_is_silent() -> None:
    assert kinds(healthy) == []


@pytest.mark.parametrize("kind", list(CHECKS))
def test_each_failure_is_named_once_and_alone(kind: str) -> None:
    assert kinds(lambda step: {**healthy(step), **FAILURES[kind](step)}) == [kind]


@pytest.mark.parametrize("learns", [True, False])
def test_the_remedy_of_a_falling_outcome_names_the_prm_only_where_one_learns(learns: bool) -> None:
    watch = RunWatch()
    more = {"prm/updates": 4.0} if learns else {}
    lines = ({**healthy(step), **FAILURES["falling outcome"](step), **more} for step in range(40))
    [found] = [finding for line in lines for finding in watch.see(line)]
    assert ("prm.warmup_iterations" in found.sentence) is learns


def test_weights_that_collapse_within_each_problem_are_named() -> None:
    of_ten = {"prm/weight_groups": 10.0, "prm/effective_sample_size": 11.0}
    assert kinds(lambda step: {**healthy(step), **of_ten}) == ["collapsed weights"]
    assert kinds(lambda step: {**healthy(step), **of_ten, "prm/effective_sample_size": 25.0}) == []


def test_a_solved_task_may_have_no_entropy() -> None:
    assert (
        kinds(lambda step: {**healthy(step), "policy/entropy": 0.3 * 0.8**step, "outcome/mean": 0.97}) == []
    )


def test_the_warm_up_is_no_training() -> None:
    """In the warm-up nothing of the policy changes; its lines are no start to compare with."""
    warm = [{**healthy(0), "phase": "warmup", "rollout/response_tokens_mean": 90.0} for _ in range(20)]
    watch = RunWatch(warm)
    assert [finding for step in range(40) for finding in watch.see(healthy(step))] == []


def test_a_resumed_run_does_not_warn_again() -> None:
    lines = [{**healthy(step), **FAILURES["drifting length"](step)} for step in range(40)]
    watch = RunWatch(lines[:30])
    assert [finding for line in lines[30:] for finding in watch.see(line)] == []


def test_missing_numbers_are_no_failure() -> None:
    empty: Metrics = {"phase": "train", "outcome/mean": None, "prm/expert_accuracy": float("nan")}
    assert kinds(lambda step: empty) == []
