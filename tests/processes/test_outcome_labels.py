"""The verifier with a rule for outcomes: what is learned from stands beside what is measured."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from actors.verify.verifier import Verifier
from airls_ray.config import Config
from airls_ray.data.problems import ProblemStream
from airls_ray.data.schemas import GRADES
from airls_ray.grading.reward_pool import find_rewards
from airls_ray.tasks import make_task
from airls_ray.text.codec import build_tokenizer
from tests.tiny import make_rollouts


def test_rewards_take_the_label_for_the_outcome_and_figures_do_not(tmp_path: Path) -> None:
    """Nothing that is learned from knows the truth; where nothing learns there are grades alone."""
    own = tmp_path / "own.py"
    own.write_text("def ones(answers): return [1.0] * len(answers)\ndef right(correct): return correct\n")
    config = Config.model_validate(
        {"task": {"reward": f"{own}:right"}, "method": {"name": "grpo", "outcomes": f"{own}:ones"}}
    )
    task = make_task(config.task)
    build_tokenizer(task, tmp_path / "policy")
    problems = ProblemStream(task, "train", 0).take(2)
    table = make_rollouts(2, 4)  # of random tokens
    names = [problems["problem_id"][group].as_py() for group in table["group"].to_pylist()]
    rollouts = table.set_column(0, table.schema.field(0), pa.array(names))
    judge = Verifier(config, str(tmp_path / "policy"), find_rewards(config.task.reward))
    try:
        plain = judge.grade([rollouts], problems)
        graded = judge.grade([rollouts], problems, True)
    finally:
        judge.close()
    assert plain.schema.equals(GRADES, check_metadata=True)
    assert graded.select(GRADES.names).equals(plain)
    assert graded["outcome_label"].to_pylist() == graded["reward/right"].to_pylist() == [1.0] * 8
    metrics = judge.summarise([rollouts], graded)
    assert metrics["label/mean"] == 1.0
    assert metrics["outcome/mean"] == judge.summarise([rollouts], plain)["outcome/mean"] < 1.0
