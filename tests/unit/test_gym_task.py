"""Data sets of reasoning-gym as a task, with a stand-in for the package."""

from __future__ import annotations

from typing import Any

import pytest

from airls_ray.tasks.base import Problem
from airls_ray.tasks.families.reasoning_gym import ReasoningGym
from tests.unit.gym_fakes import stand_in


class Doubles:
    """Asks for the double of a seed; a seed above 99 cannot be drawn."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, _: int) -> dict[str, Any]:
        if 99 < self.seed < 12345:
            raise ValueError("no such entry")
        return {"question": f"2*{self.seed}=?", "answer": str(2 * self.seed), "metadata": {}}

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        return float(int(answer) == int(entry["answer"]))


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> ReasoningGym:
    stand_in(monkeypatch, lambda name, size, seed: Doubles(seed), ("doubles",))
    return ReasoningGym("doubles")


def asked(index: int) -> Problem:
    return Problem("", f"2*{index}=?", "", (), {"index": index})


def test_a_response_that_the_scorer_raises_on_is_wrong(task: ReasoningGym) -> None:
    said = ("<answer>14</answer>", "<answer>15</answer>", "<answer>fourteen</answer>")
    assert [task.grade(asked(7), one) for one in said] == [(1.0, "14"), (0.0, "15"), (0.0, "fourteen")]


def test_an_entry_that_cannot_be_drawn_is_no_wrong_response(task: ReasoningGym) -> None:
    with pytest.raises(ValueError, match="no such entry"):
        task.grade(asked(200), "<answer>400</answer>")
