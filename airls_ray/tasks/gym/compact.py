"""Data sets of reasoning-gym in a few tokens, so that a model made from nothing can learn them.

The problems, their solutions and the verdicts are the package's own. The question is written in its bare
numbers and names, and a move also says what it leads to, as a worked solution does: such a step is right if
the move is (`airls_ray.tasks.gym.moves`) and what it says is true. The verdict looks at the moves alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_uppercase, digits

from airls_ray.tasks.gym.chains import Chain, Entry
from airls_ray.tasks.gym.moves import Jugs, QuantumLock, WordLadder, jugs_solvable, with_first_ladder
from airls_ray.tasks.gym.states import Walk

END = ";"
"""What ends a step."""
_SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}
_JUG_MOVE = re.compile(r"([fe])([A-Z])|p([A-Z])([A-Z])")
_LEVELS = re.compile(r"(\d+(?:,\d+)*);?")


def steps_of(response: str) -> list[str]:
    """Return the steps without what ends them."""
    return [one for one in response.split(END) if one.strip()]


# ------------------------------------------------------------------------------------------- jugs
class CompactJugs:
    """`fA3,0,0;`: fill A, after which the jugs hold 3, 0 and 0; `eA`: empty A; `pAC`: pour A into C."""

    def __init__(self, entry: Entry) -> None:
        """Begin with empty jugs."""
        self._walk = Jugs(entry)

    def take(self, step: str) -> bool:
        """Make a move, and say the levels behind it."""
        move = jug_move(step)
        if move is None or not self._walk.take(move):
            return False
        stated = _LEVELS.fullmatch(_JUG_MOVE.sub("", step.strip(), count=1))
        return stated is not None and tuple(map(int, stated[1].split(","))) == self._walk.levels


def jug_move(step: str) -> str | None:
    """Return the move at the beginning of a step in the package's words; None: there is none."""
    match = _JUG_MOVE.match(step.strip())
    if match is None:
        return None
    verb, jug, giver, taker = match.groups()
    return f"pour {giver}->{taker}" if verb is None else f"{'fill' if verb == 'f' else 'empty'} {jug}"


def _jugs_prompt(entry: Entry) -> str:
    puzzle = entry["metadata"]["puzzle"]
    return f"{','.join(map(str, puzzle['jug_capacities']))}={puzzle['target']}:"


def _jugs_trace(entry: Entry) -> str:
    walk, steps = Jugs(entry), []
    for move in json.loads(entry["answer"]):
        walk.take(move)
        verb, _, rest = move.partition(" ")
        steps.append(f"{verb[0]}{rest.replace('->', '')}{','.join(map(str, walk.levels))}{END}")
    return "".join(steps)


def _jugs_answer(response: str) -> str | None:
    moves = [jug_move(step) for step in steps_of(response)]
    return json.dumps(moves) if moves and None not in moves else None


# ----------------------------------------------------------------------------------- quantum_lock
class CompactLock:
    """`B-2g;`: press B, after which the number is -2 and the light green."""

    def __init__(self, entry: Entry) -> None:
        """Begin at the first number and light."""
        self._walk = QuantumLock(entry)

    def take(self, step: str) -> bool:
        """Press a button, and say the number and the light behind it."""
        text = step.strip().rstrip(END)
        return self._walk.take(text[:1]) and text[1:] == _shown(*self._walk.now)


def _shown(value: int, light: str) -> str:
    return f"{value}{light[0]}"


def _lock_prompt(entry: Entry) -> str:
    given = entry["metadata"]
    buttons = ",".join(
        f"{one['name']}{_SIGNS[one['type']]}{one['value']}{one['active_state'][0]}"
        for one in given["buttons"]
    )
    return f"{_shown(given['initial_value'], given['initial_state'])}>{given['target_value']}|{buttons}:"


def _lock_trace(entry: Entry) -> str:
    walk, steps = QuantumLock(entry), []
    for name in entry["metadata"]["solution_path"]:
        walk.take(name)
        steps.append(f"{name}{_shown(*walk.now)}{END}")
    return "".join(steps)


def _lock_answer(response: str) -> str | None:
    names = [step.strip()[0] for step in steps_of(response)]
    return " → ".join(names) if names and all(name in "ABC" for name in names) else None


# ------------------------------------------------------------------------------------ word_ladder
class _WithoutEnd:
    """`CORD;`: the next word, beginning with the first, which is given."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk

    def take(self, step: str) -> bool:
        return self._walk.take(step.strip().rstrip(END))


def _ladder_prompt(entry: Entry) -> str:
    return f"{entry['metadata']['start_word']}>{entry['metadata']['end_word']}:"


def _ladder_walk(entry: Entry) -> Walk:
    return _WithoutEnd(WordLadder(entry))


def _ladder_trace(entry: Entry) -> str:
    return "".join(f"{word.strip()}{END}" for word in entry["answer"].split(","))


def _ladder_answer(response: str) -> str | None:
    return ",".join(word.strip() for word in steps_of(response)) or None


@dataclass(frozen=True)
class Compact(Chain):
    """How a data set's solutions, and its questions, are written in few tokens."""

    delimiter: str = END
    prompt: Callable[[Entry], str] = str
    """The question."""
    tokens: tuple[str, ...] = ()
    """All that questions and solutions are made of."""


COMPACT: dict[str, Compact] = {
    "jugs": Compact(
        trace=_jugs_trace,
        answer=_jugs_answer,
        solvable=jugs_solvable,
        walk=CompactJugs,
        prompt=_jugs_prompt,
        tokens=(*digits, *ascii_uppercase, *"fep,=:", END),
    ),
    "quantum_lock": Compact(
        trace=_lock_trace,
        answer=_lock_answer,
        walk=CompactLock,
        prompt=_lock_prompt,
        tokens=(*digits, *"ABCrga+-*>|,:", END),
    ),
    "word_ladder": Compact(
        trace=_ladder_trace,
        answer=_ladder_answer,
        settled=with_first_ladder,
        walk=_ladder_walk,
        prompt=_ladder_prompt,
        tokens=(*ascii_uppercase, *">:", END),
    ),
}
"""By the data set."""
