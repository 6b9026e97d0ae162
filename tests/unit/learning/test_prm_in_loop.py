"""The PRM's place in the loop: what it scores with, and when."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from actors.learn.groups import Lesson
from actors.learn.prm_learner import PRMServer
from actors.train.loop import learn_and_score
from actors.train.tracking import Stopwatch
from airls_ray.config import load_config
from airls_ray.errors import ModelError
from airls_ray.learning.engine import FrozenEngine
from airls_ray.models.load import load_prm_module
from tests.tiny import make_rollouts


class Notes:
    """A PRM that notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def learn(self, lesson: Lesson) -> dict[str, float]:
        self.calls.append("learn")
        return {"prm/loss": 1.0}

    def score(self, rollouts: Any, reference: Any = None, current: Any = ()) -> list[Any]:
        self.calls.append("score")
        return ["scores", current]


@pytest.mark.parametrize(("method", "order"), [("airl_s", ["learn", "score"]), ("prime", ["score", "learn"])])
def test_rewards_are_from_the_updated_prm_or_from_the_one_before(method: str, order: list[str]) -> None:
    prm = Notes()
    lesson = Lesson(pa.table({}), [], None, [], 0, ["current"])
    metrics, scores = learn_and_score(
        prm, lesson, load_config(None, [f"method={method}"]), Stopwatch()  # type: ignore[arg-type]
    )  # fmt: skip
    assert prm.calls == order
    assert metrics == {"prm/loss": 1.0}
    assert scores == ["scores", ["current"]]


def server(folder: Path, *overrides: str) -> PRMServer:
    config = load_config(None, ["method=math_shepherd", *overrides])
    made = PRMServer(config, str(folder), str(folder))
    made._codec = SimpleNamespace(pad_id=0)  # type: ignore[assignment]
    made._engine = FrozenEngine(load_prm_module(folder, "scalar_head"))
    return made


def test_a_given_prm_compares_old_rollouts_with_the_policy_as_it_is_now(folder: Path) -> None:
    """Asynchronous loop, reward f - l: the head is 0, so that the rewards are the l of a step."""
    rollouts = make_rollouts(2, 2)  # sampled at -1 nat a token
    now = [[-3.0] * len(row) for row in rollouts["response"].to_pylist()]
    row = pa.array(range(rollouts.num_rows), pa.int64())
    current = pa.table({"row": row, "logprobs": pa.array(now, pa.list_(pa.float32()))})
    prm = server(folder, "prm.reward=log_odds", "prm.log_prob=mean")
    for given, nats in (([], 1.0), ([current], 3.0)):
        part = prm.score([rollouts], [], given)
        assert {value for values in part["rewards"].to_pylist() for value in values} == {nats}


def test_a_given_prm_that_needs_a_reference_model_is_refused(folder: Path) -> None:
    made = server(folder)
    form = made._config.prm.model_copy(update={"search_score": "reference_ratio"})
    made._config = made._config.model_copy(update={"prm": form})
    with pytest.raises(ModelError, match="a reference model, which is not loaded"):
        made.start()
