"""The samples of a run's test problems, which a resume reads where they are whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.cluster import cluster
from actors.train import evaluate
from actors.train.evaluate import Samples, evaluate_policy
from airls_ray.config import Config
from airls_ray.console.progress import QuietProgress
from airls_ray.data.schemas import GRADES, rows_to_table
from airls_ray.runs.run_folder import RunFolder
from tests.tiny import make_rollouts


@pytest.mark.parametrize(
    ("broken", "times"), [(None, 1), ("base.json", 2), ("base.parquet", 2), ("base_grades.parquet", 2)]
)
def test_a_resume_samples_again_where_a_file_of_the_samples_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str | None, times: int
) -> None:
    rollouts, sampled = make_rollouts(1, 2), []
    grades = rows_to_table([(1.0, None, None, "graded"), (0.0, None, None, "graded")], GRADES)

    def sample(*_: Any, **__: Any) -> Samples:
        sampled.append("base")
        return Samples("base", rollouts, [rollouts], grades, {"sampled": 0.5})

    monkeypatch.setattr(evaluate, "sample_problems", sample)
    monkeypatch.setattr(cluster, "put", lambda value: value)
    parts: Any = SimpleNamespace(pool=None, verifier=None, starting=None)

    def again(*, resume: bool) -> Samples:
        return evaluate_policy(
            parts, Config(), rollouts, RunFolder(tmp_path), QuietProgress(), name="base", resume=resume
        )

    again(resume=False)
    if broken:
        (tmp_path / "samples" / broken).write_text("")  # as a kill in the middle of a plain write leaves it
    found = again(resume=True)
    assert found.accuracy == {"sampled": 0.5}
    assert found.grades.equals(grades)
    assert len(sampled) == times
    # They are those of another policy by now.
    assert [one["kind"] for one in RunFolder(tmp_path).read_warnings()] == ["samples_gone"] * (times - 1)
