from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.train import tracking
from actors.train.tracking import LoopState, Shown, Stopwatch, Tracker, read_state
from airls_ray.config.schema import Config
from airls_ray.errors import RunError
from airls_ray.runs.run_folder import RunFolder


class Bar:
    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}

    def advance(self, n: int = 1, **fields: Any) -> None:
        self.fields |= fields


def record(
    folder: Path, difference: float, *, bar: Bar | None = None, more: Any = None, **config: Any
) -> LoopState:
    tracker = Tracker(RunFolder(folder), Config(**config), Shown(bar or Bar(), 0))
    metrics = {
        "rollout/response_tokens": 100.0,
        "time/rollout": 2.0,
        "time/iteration": 5.0,
        "outcome/mean": 0.5,
        "sync/logprob_difference_mean": difference,
        **(more or {}),
    }
    state = LoopState(iteration=2, version=1)
    return tracker.record(state, metrics, phase="train", rollouts=[], grades=None, parts=None)  # type: ignore[arg-type]


def test_engines_that_sample_with_old_weights_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"differ from the learner's by 0\.3 nats"):
        record(tmp_path, 0.3)


def test_a_difference_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"differ from the learner's by nan nats"):
        record(tmp_path, float("nan"))


def test_rounding_does_not_end_the_run_and_rates_and_seconds_are_logged(tmp_path: Path) -> None:
    assert record(tmp_path, 1e-6).seconds == 5.0
    (line,) = RunFolder(tmp_path).read_metrics()
    assert line["tokens_per_second/rollout"] == 50.0
    assert line["policy/version"] == 1.0


@pytest.mark.parametrize(("difference", "ends"), [(0.02, False), (0.3, True)])
def test_bfloat16_is_checked_with_a_tolerance_of_its_own(
    tmp_path: Path, difference: float, ends: bool
) -> None:
    """Rounding is some hundredths of a nat; other weights or another formula of the logits are more."""
    if ends:
        with pytest.raises(RunError, match=r"train\.sync_tolerance \(0\.05\)"):
            record(tmp_path, difference, model={"dtype": "bfloat16"})
    else:
        assert record(tmp_path, difference, model={"dtype": "bfloat16"}).iteration == 2


def test_the_check_can_be_turned_off(tmp_path: Path) -> None:
    assert record(tmp_path, 0.3, train={"sync_check": False}).iteration == 2


def test_the_progress_line_says_the_accuracy_and_when_it_was_measured(tmp_path: Path) -> None:
    bar = Bar()
    record(tmp_path, 1e-6, bar=bar)
    assert "held-out accuracy" not in bar.fields
    record(tmp_path, 1e-6, bar=bar, more={"evaluation/accuracy": 0.4375})
    assert bar.fields["held-out accuracy"] == "0.438 at 2"


def test_a_stage_that_runs_twice_adds_its_seconds() -> None:
    clock = Stopwatch()
    for _ in range(2):
        with clock("rollout"):
            pass
    assert set(clock.metrics()) == {"time/rollout", "time/iteration"}
    assert 0 <= clock.seconds["rollout"] <= clock.total()


def test_a_checkpoint_without_its_state_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"loop\.json is missing or broken.*delete that checkpoint"):
        read_state(tmp_path / "iteration_000002")


def test_the_state_advances_by_one_iteration() -> None:
    state = LoopState(iteration=3, version=1, position=96, tokens=10.0).advanced(2, 128, 5.0)
    assert (state.iteration, state.version, state.position, state.tokens) == (4, 2, 128, 15.0)


def test_stored_rollouts_have_scores_and_verdicts_in_the_order_of_the_rollouts() -> None:
    rollouts = [pa.table({"problem_id": [name], "outcome": pa.nulls(1, pa.float32())}) for name in "ab"]
    grades = pa.table(
        {
            "outcome": pa.array([0.0, 1.0], pa.float32()),
            "answer": ["3", None],
            "step_truth": [[True], [False]],
            "status": ["wrong_answer", "graded"],
        }
    )
    scores = [pa.table({"row": [1], "scores": [[0.75]]}), pa.table({"row": [0], "scores": [[0.25]]})]
    rows = tracking.graded_table(rollouts, grades, scores).to_pylist()
    assert [row["scores"] for row in rows] == [[0.25], [0.75]]
    assert [(row["answer"], row["step_truth"]) for row in rows] == [("3", [True]), (None, [False])]
    assert "scores" not in tracking.graded_table(rollouts, grades, []).column_names
    assert tracking.graded_table(rollouts, grades).column_names == ["problem_id", "outcome"]
