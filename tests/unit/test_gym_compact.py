"""Puzzles of reasoning-gym in few tokens: their questions, solutions and the truth of steps, by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airls_ray.tasks.gym.compact import COMPACT

JUGS = {
    "answer": json.dumps(["fill B", "pour B->A"]),
    "metadata": {"puzzle": {"jug_capacities": [3, 5], "target": 2}},
}
LOCK = {
    "metadata": {
        "initial_value": 0,
        "initial_state": "red",
        "target_value": 6,
        "buttons": [
            {"name": "A", "type": "add", "value": 3, "active_state": "any"},
            {"name": "B", "type": "subtract", "value": 2, "active_state": "red"},
            {"name": "C", "type": "multiply", "value": 2, "active_state": "green"},
        ],
        "solution_path": ["A", "C"],
    }
}
LADDER = {"answer": "CAT,COT,DOT", "metadata": {"start_word": "CAT", "end_word": "DOT"}}
ENTRIES: dict[str, dict[str, Any]] = {"jugs": JUGS, "quantum_lock": LOCK, "word_ladder": LADDER}


@pytest.mark.parametrize(
    ("dataset", "prompt", "trace"),
    [
        ("jugs", "3,5=2:", "fB0,5;pBA3,2;"),
        ("quantum_lock", "0r>6|A+3a,B-2r,C*2g:", "A3g;C6r;"),
        ("word_ladder", "CAT>DOT:", "CAT;COT;DOT;"),
    ],
)
def test_questions_and_solutions_are_made_of_the_tokens_alone(dataset: str, prompt: str, trace: str) -> None:
    form, entry = COMPACT[dataset], ENTRIES[dataset]
    assert (form.prompt(entry), form.trace(entry)) == (prompt, trace)
    assert set(prompt + trace) <= set(form.tokens) and len(set(form.tokens)) == len(form.tokens)


@pytest.mark.parametrize(
    ("dataset", "response", "answer"),
    [
        ("jugs", "fB0,5;pBA3,2;", '["fill B", "pour B->A"]'),
        ("jugs", "fB9,9;", '["fill B"]'),  # a wrong level does not change the moves
        ("jugs", "fB0,5;x;", None),
        ("jugs", "", None),
        ("quantum_lock", "A3g;C6r;", "A → C"),
        ("quantum_lock", "A3g;6r;", None),
        ("word_ladder", "CAT;COT;DOT;", "CAT,COT,DOT"),
        ("word_ladder", ";", None),
    ],
)
def test_the_package_judges_the_moves_of_a_response(dataset: str, response: str, answer: str | None) -> None:
    assert COMPACT[dataset].answer(response) == answer


@pytest.mark.parametrize(
    ("dataset", "steps", "truth"),
    [
        ("jugs", ["fB0,5;", "pBA3,2;"], [True, True]),
        ("jugs", ["fB0,4;", "pBA3,2;"], [False, False]),  # not what the jugs hold
        ("jugs", ["fB0,5;", "eB0,0;"], [True, False]),  # as at the beginning
        ("jugs", ["fC0,5;"], [False]),
        ("jugs", ["fB;"], [False]),
        ("quantum_lock", ["A3g;", "C6r;"], [True, True]),
        ("quantum_lock", ["A3g;", "A6r;"], [True, True]),  # as short, on another way
        ("quantum_lock", ["A3r;", "C6r;"], [False, False]),  # the light is green
        ("quantum_lock", ["B-2g;", "C-4r;"], [False, False]),  # two presses no longer do
        ("quantum_lock", ["A3g;", "C5r;"], [True, False]),
    ],
)
def test_a_step_is_right_if_the_move_is_and_what_it_says(
    dataset: str, steps: list[str], truth: list[bool]
) -> None:
    assert COMPACT[dataset].truth(ENTRIES[dataset], steps) == truth


def test_a_puzzle_without_a_solution_is_known() -> None:
    unsolvable = {**JUGS, "answer": '["No solution"]'}
    assert [COMPACT["jugs"].solvable(one) for one in (JUGS, unsolvable)] == [True, False]
