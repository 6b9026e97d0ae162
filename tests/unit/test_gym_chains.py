"""Step truth of reasoning-gym's puzzles by replay: small puzzles by hand, and brute force over all ways."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from typing import Any

import pytest

from airls_ray.tasks.gym import moves
from airls_ray.tasks.gym.chains import chain_of
from airls_ray.tasks.gym.moves import Hanoi, hanoi_distances
from airls_ray.tasks.gym.numbers import calculations_of, countdown_trace, reaches


def truth(dataset: str, metadata: dict[str, Any], steps: list[str], **entry: Any) -> list[bool] | None:
    return chain_of(dataset).truth({"metadata": metadata, **entry}, steps)


JUGS = {"puzzle": {"jug_capacities": [3, 5], "target": 4}}


def test_a_move_of_jugs_is_right_while_it_leads_to_something_new() -> None:
    solved = ["fill B", "pour B->A", "empty A", "pour B->A", "fill B", "pour B->A"]
    written = [f"{part}," for part in json.dumps(solved).split(",")]
    written[-1] = written[-1].rstrip(",")
    assert truth("jugs", JUGS, written) == [True] * 6
    assert truth("jugs", JUGS, [*written, ' "fill A"]']) == [True] * 6 + [False]  # behind the target
    assert truth("jugs", JUGS, ["fill A", "empty A", "fill B"]) == [True, False, False]
    assert truth("jugs", JUGS, ["fill A", "fill A"]) == [True, False]
    for wrong in ("empty A", "fill C", "pour A->C", "fill a", "dance", "pour A->A"):
        assert truth("jugs", JUGS, [wrong]) == [False]


def test_a_move_of_hanoi_is_right_if_it_lies_on_a_shortest_way() -> None:
    given = {"num_disks": 2, "num_pegs": 3, "start_peg": 1, "target_peg": 3}
    way = [
        "Move disk 1 from Peg 1 to Peg 2",
        "Move disk 2 from Peg 1 to Peg 3",
        "Move disk 1 from Peg 2 to Peg 3",
    ]
    assert truth("tower_of_hanoi", given, way) == [True] * 3
    assert truth("tower_of_hanoi", given, ["Move disk 1 from Peg 1 to Peg 3"]) == [
        False
    ]  # legal, not shortest
    assert truth("tower_of_hanoi", given, ["Move disk 2 from Peg 1 to Peg 3"]) == [False]  # lies under 1
    assert truth("tower_of_hanoi", given, ["Move disk 1 from Peg 2 to Peg 3"]) == [False]  # is not there
    assert truth("tower_of_hanoi", given, [way[0], "Move disk 2 from Peg 1 to Peg 2"]) == [True, False]


@pytest.mark.parametrize("disks", range(1, 8))
def test_the_least_moves_of_three_pegs_are_those_of_the_formula(disks: int) -> None:
    assert hanoi_distances(disks, 3, 3)[(1,) * disks] == 2**disks - 1


def test_four_pegs_need_fewer_moves() -> None:
    # Frame-Stewart, proven least for four pegs (Bousch 2014): 1, 3, 5, 9, 13, 17, 25.
    assert [hanoi_distances(disks, 4, 2)[(1,) * disks] for disks in range(1, 6)] == [1, 3, 5, 9, 13]


LOCK = {
    "buttons": [
        {"name": "A", "type": "subtract", "value": 2, "active_state": "green"},
        {"name": "B", "type": "add", "value": 2, "active_state": "any"},
        {"name": "C", "type": "multiply", "value": 2, "active_state": "red"},
    ],
    "initial_state": "red",
    "initial_value": 0,
    "target_value": 6,
    "solution_path": ["B", "B", "B"],
}


def pressed(names: tuple[str, ...]) -> int | None:
    """By hand: the number behind presses that are all allowed."""
    value, light = 0, "red"
    for name in names:
        if (name == "A" and light != "green") or (name == "C" and light != "red"):
            return None
        value = value - 2 if name == "A" else value + 2 if name == "B" else value * 2
        light = "green" if light == "red" else "red"
    return value


def test_a_press_is_right_while_the_shortest_length_can_be_kept() -> None:
    for names in product("ABC", repeat=3):
        for end in range(1, 4):
            begun = names[:end]
            right = any(pressed((*begun, *rest)) == 6 for rest in product("ABC", repeat=3 - end))
            found = truth("quantum_lock", LOCK, [f"{name} →" for name in begun])
            assert found is not None and found[-1] == right, begun
    assert truth("quantum_lock", LOCK, ["B", "B", "B", "B"]) == [True, True, True, False]
    assert truth("quantum_lock", LOCK, ["D"]) == [False]


@pytest.mark.parametrize(
    ("expression", "numbers", "steps", "value"),
    [
        ("94*4 - 61 - 6", [94, 4, 61, 6], ["94*4=376", "376-61=315", "315-6=309"], 309),
        ("(2 + 3)*(7 - 9)", [2, 3, 7, 9], ["2+3=5", "7-9=-2", "5*-2=-10"], -10),
        ("8/2", [8, 2], ["8/2=4"], 4),
    ],
)
def test_an_expression_is_a_chain_of_calculations(
    expression: str, numbers: list[int], steps: list[str], value: int
) -> None:
    assert calculations_of(expression) == (numbers, steps, value)


@pytest.mark.parametrize(
    "expression", ["7/2", "2**9", "-3+1", "x+1", "2+", "1.5+1", "f(2)", "9/0", "1" + "+1" * 9999]
)
def test_what_is_no_calculation_of_integers_has_no_chain(expression: str) -> None:
    assert calculations_of(expression) is None


def test_calculations_keep_to_the_numbers_left_and_to_the_target() -> None:
    given = {"numbers": [2, 3, 7], "target": 13, "expression": "2*3+7"}
    assert countdown_trace({"metadata": given}) == "2*3=6\n6+7=13\n2*3+7"
    assert truth("countdown", given, ["2*3=6\n", "6+7=13\n", "2*3+7"]) == [True] * 3
    assert truth("countdown", given, ["7 + 6 = 13"]) == [False]  # there is no 6 yet
    assert truth("countdown", given, ["2*3=7"]) == [False]
    assert truth("countdown", given, ["2+3=5"]) == [False]  # 5 and 7 give no 13
    assert truth("countdown", given, ["2*3=6", "6+7=13", "13"]) == [True, True, False]
    assert truth("countdown", given, ["2*3=6", "7+3*2", "1+1=2"]) == [True, True, False]


def test_what_can_be_reached_is_found_by_trying_every_expression() -> None:
    found = set()
    for a, b, c in ((2, 3, 5), (3, 2, 5), (2, 5, 3), (5, 2, 3), (3, 5, 2), (5, 3, 2)):
        for one, other in product("+-*/", repeat=2):
            for text in (f"({a}{one}{b}){other}{c}", f"{a}{one}({b}{other}{c})"):
                calculated = calculations_of(text)
                found |= {calculated[2]} if calculated else set()
    assert {target for target in range(-40, 60) if reaches((2, 3, 5), target)} == found


def test_recorded_states_must_follow_each_other() -> None:
    given = {"states": ["abc", "abd", "xbd"]}
    assert truth("string_manipulation", given, ["abd\n", "xbd"]) == [True, True]
    assert truth("string_manipulation", given, ["xbd"]) == [False]
    assert truth("string_manipulation", given, ["abd", "xbd", "xbd"]) == [True, True, False]
    assert truth("string_manipulation", {"states": ["abc"]}, ["abc"]) == [True]  # no rule changes it


def test_after_a_wrong_step_nothing_is_right() -> None:
    assert truth("jugs", JUGS, ["dance", "fill A"]) == [False, False]


@pytest.mark.parametrize(
    ("dataset", "response", "answer"),
    [
        ("jugs", 'So: ["fill A"] it is', '["fill A"]'),
        ("jugs", '<answer>["fill A"]</answer>', '["fill A"]'),
        ("jugs", "", None),
        ("countdown", "2*3=6\n2*3+7\n", "2*3+7"),
        ("countdown", " \n", None),
        ("gsm_symbolic", "a\n#### 288", "288"),
        ("gsm_symbolic", "<answer>5</answer> then 7", "5"),
        ("chain_sum", "<answer> 3</answer>", "3"),
        ("chain_sum", " 4 ", "4"),
    ],
)
def test_the_answer_of_a_response(dataset: str, response: str, answer: str | None) -> None:
    assert chain_of(dataset).answer(response) == answer


def test_of_other_data_sets_nothing_is_known_of_steps() -> None:
    assert chain_of("chain_sum").truth({}, ["a"]) is None


def test_a_walk_does_not_move_on_a_move_that_is_none() -> None:
    walk = Hanoi({"metadata": {"num_disks": 1, "num_pegs": 3, "start_peg": 1, "target_peg": 3}})
    assert not walk.take("Move disk 1 from Peg 2 to Peg 3") and walk.take("Move disk 1 from Peg 1 to Peg 3")


@pytest.mark.parametrize("found", ["CAT,DAT,DOT", "CAT,COT,DOT"])
def test_a_ladder_is_the_first_of_the_shortest_whichever_the_package_found(
    found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, list[str]] = {}
    for word in ("DOT", "DAT", "COT", "CAT", "COG", "DOG"):
        for place in range(3):
            words.setdefault(f"{word[:place]}?{word[place + 1 :]}", []).append(word)
    monkeypatch.setattr(moves, "known_words", lambda length: words)
    moves.ladder_distances.cache_clear()
    entry = {"question": "?", "answer": found, "metadata": {"start_word": "CAT", "end_word": "DOT"}}
    settled = chain_of("word_ladder").settled(entry)
    moves.ladder_distances.cache_clear()
    assert settled == {**entry, "answer": "CAT,COT,DOT"}


def test_word_ladders_are_the_same_in_every_process() -> None:
    pytest.importorskip("reasoning_gym")
    program = (
        "from itertools import islice\n"
        "from airls_ray.config import Config\n"
        "from airls_ray.tasks import make_task\n"
        "task = {'name': 'reasoning_gym', 'options': {'dataset': 'word_ladder', 'compact': True}}\n"
        "made = make_task(Config(task=task).task)\n"
        "print([(one.problem_id, one.traces) for one in islice(made.problems('train', 0), 20)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
            capture_output=True, text=True, timeout=120,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
