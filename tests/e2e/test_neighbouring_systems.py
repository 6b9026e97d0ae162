"""Systems that touch the loop itself, with all parts real: a teacher, a vote, groups that are replaced."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import base_config, train


def test_a_teacher_that_is_the_policy_teaches_nothing(
    ray_cluster: None, policy_folder: Path, tmp_path: Path
) -> None:
    """log teacher, log pi and log pi_ref are one number, by three models in three processes."""
    done = train(
        base_config(
            policy_folder,
            tmp_path,
            method={"name": "exopd"},
            prm={"path": str(policy_folder)},
            train={"iterations": 1, "problems_per_iteration": 4},
        )
    )
    (line,) = done.metrics
    assert abs(line["prm/reward_mean"]) < 1e-5
    assert line["policy/gradient_norm"] < 1e-3
    assert not (done.folder / "checkpoints" / "iteration_000001" / "prm").exists()


def test_groups_of_one_vote_are_replaced_until_enough_teach(
    ray_cluster: None, policy_folder: Path, tmp_path: Path
) -> None:
    """Labels are votes, so that some groups are all alike; figures are of the truth and of all groups."""
    problems = 6
    done = train(
        base_config(
            policy_folder,
            tmp_path,
            method={
                "name": "dapo",
                "outcomes": "vote",
                "outcome_terms": [{"name": "kimi_length", "weight": 0.1}],
                "policy_loss": "dual_clip",
            },
            train={"iterations": 2, "problems_per_iteration": problems, "refill_rounds": 2},
        )
    )
    for line in done.metrics:
        assert problems <= line["groups/sampled"] <= 3 * problems
        assert line["policy/rollouts"] <= problems * 4
        assert 0.0 <= line["label/agreement"] <= 1.0 and 0.0 <= line["outcome/mean"] <= 1.0
    assert max(line["groups/sampled"] for line in done.metrics) > problems
    assert done.summary["rollouts"] == 4 * sum(line["groups/sampled"] for line in done.metrics)
