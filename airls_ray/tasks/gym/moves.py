"""Replays of puzzles that are solved by moves: jugs, tower_of_hanoi, quantum_lock, word_ladder."""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

Entry = Mapping[str, Any]
State = TypeVar("State")


class Jugs:
    """A solution may be of any length, so a move is right if it brings the jugs to what they were not before.

    From every state the target can be reached, since jugs can be emptied. Behind the target nothing is right.
    """

    _MOVE = re.compile(r"\W*(?:(fill|empty) ([A-Z])|pour ([A-Z])->([A-Z]))\W*")

    def __init__(self, entry: Entry) -> None:
        """Begin with empty jugs."""
        puzzle = entry["metadata"]["puzzle"]
        self._sizes, self._target = list(puzzle["jug_capacities"]), puzzle["target"]
        self._now = (0,) * len(self._sizes)
        self._seen = {self._now}

    @property
    def levels(self) -> tuple[int, ...]:
        """What each jug holds now, in litres."""
        return self._now

    def take(self, step: str) -> bool:
        """Make a move."""
        match = self._MOVE.fullmatch(step.strip().strip("[]"))
        if match is None or self._target in self._now:
            return False
        verb, jug, giver, taker = match.groups()
        named = [ord(name) - ord("A") for name in (jug, giver, taker) if name is not None]
        if max(named) >= len(self._sizes):
            return False
        after = list(self._now)
        if verb is None:
            i, j = named
            poured = min(after[i], self._sizes[j] - after[j])
            after[i] -= poured
            after[j] += poured
        else:
            after[named[0]] = self._sizes[named[0]] if verb == "fill" else 0
        self._now = tuple(after)
        new = self._now not in self._seen
        self._seen.add(self._now)
        return new


def jugs_solvable(entry: Entry) -> bool:
    """Whether the package found moves (`["No solution"]` else)."""
    return "No solution" not in entry["answer"]


class Hanoi:
    """The full score is for the least number of moves, so each must lie on a shortest way."""

    _MOVE = re.compile(r"Move disk (\d+) from Peg (\d+) to Peg (\d+)\.?")

    def __init__(self, entry: Entry) -> None:
        """Begin with all disks on one peg."""
        given = entry["metadata"]
        self._pegs = given["num_pegs"]
        # The peg of each disk, the smallest first.
        self._now = (given["start_peg"],) * given["num_disks"]
        self._distances = hanoi_distances(given["num_disks"], self._pegs, given["target_peg"])

    def take(self, step: str) -> bool:
        """Make a move."""
        match = self._MOVE.fullmatch(step.strip())
        if match is None:
            return False
        disk, giver, taker = map(int, match.groups())
        after = dict(hanoi_moves(self._now, self._pegs)).get((disk, giver, taker))
        if after is None:
            return False
        nearer = self._distances[after] < self._distances[self._now]
        self._now = after
        return nearer


def hanoi_moves(now: tuple[int, ...], pegs: int) -> Iterator[tuple[tuple[int, int, int], tuple[int, ...]]]:
    """Yield every legal move (disk from 1, from, to) and the pegs of the disks behind it."""
    for peg in range(1, pegs + 1):
        disk = next((one for one, at in enumerate(now) if at == peg), None)
        if disk is None:
            continue
        for other in range(1, pegs + 1):
            if other != peg and all(at != other for at in now[:disk]):  # no smaller one lies there
                yield (disk + 1, peg, other), (*now[:disk], other, *now[disk + 1 :])


@lru_cache(maxsize=64)
def hanoi_distances(disks: int, pegs: int, target: int) -> Mapping[tuple[int, ...], int]:
    """Return the least number of moves from every state to all disks on `target`; moves can be undone."""
    return _distances((target,) * disks, lambda now: (to for _, to in hanoi_moves(now, pegs)))


class QuantumLock:
    """The full score is for the shortest sequence, so the rest of it must still do."""

    def __init__(self, entry: Entry) -> None:
        """Begin at the first number and light."""
        given = entry["metadata"]
        self._buttons = {one["name"]: one for one in given["buttons"]}
        self._target = given["target_value"]
        self._now = (given["initial_value"], given["initial_state"])
        self._left = len(given["solution_path"])

    @property
    def now(self) -> tuple[int, str]:
        """The number and the light."""
        return self._now

    def take(self, step: str) -> bool:
        """Press a button."""
        after = self._press(self._now, step.strip().strip("→").strip())
        self._left -= 1
        if after is None or self._left < 0:
            return False
        self._now = after
        return self._reaches(after, self._left)

    def _press(self, now: tuple[int, str], name: str) -> tuple[int, str] | None:
        button = self._buttons.get(name)
        if button is None or button["active_state"] not in (now[1], "any"):
            return None
        value, by = now[0], button["value"]
        value = {"add": value + by, "subtract": value - by, "multiply": value * by}[button["type"]]
        return value, "green" if now[1] == "red" else "red"

    def _reaches(self, now: tuple[int, str], presses: int) -> bool:
        reached = {now}
        for _ in range(presses):
            pressed = (self._press(one, name) for one in reached for name in self._buttons)
            reached = {one for one in pressed if one is not None}
        return any(value == self._target for value, _ in reached)


class WordLadder:
    """Each word is a known one that differs from the last in a letter, and leads on to the end."""

    def __init__(self, entry: Entry) -> None:
        """Begin before the first word, which must be the given one."""
        given = entry["metadata"]
        self._start, self._end = given["start_word"], given["end_word"]
        self._distances = ladder_distances(self._end)
        self._said: list[str] = []

    def take(self, step: str) -> bool:
        """Say a word."""
        word = step.strip().strip(",").strip().upper()
        if self._said and (self._said[-1] == self._end or word in self._said):
            return False
        right = word == self._start if not self._said else _differ_in_one(self._said[-1], word)
        self._said.append(word)
        return right and word in self._distances


@lru_cache(maxsize=256)
def ladder_distances(end: str) -> Mapping[str, int]:
    """Return the package's words from which `end` can be reached by changing a letter at a time, with the
    changes that it takes."""
    return _distances(end, ladder_neighbours)


def ladder_neighbours(word: str) -> Iterator[str]:
    """Yield the package's words that differ from `word` in a letter at most."""
    words = known_words(len(word))
    for place in range(len(word)):
        yield from words.get(word[:place] + "?" + word[place + 1 :], ())


def with_first_ladder(entry: Entry) -> Entry:
    """Return an entry with the first of its shortest ladders by the alphabet.

    The package takes the one that it finds first in a set, which is another one in each process: problems
    would have other names and traces after a resume.
    """
    now, end = entry["metadata"]["start_word"], entry["metadata"]["end_word"]
    left, ladder = ladder_distances(end), [now]
    while now != end:
        now = min(word for word in ladder_neighbours(now) if left[word] < left[now])
        ladder.append(now)
    return {**entry, "answer": ",".join(ladder)}


@lru_cache(maxsize=8)
def known_words(length: int) -> Mapping[str, list[str]]:
    """Return the package's words of a length by their patterns with one letter left open."""
    data: Any = importlib.import_module("reasoning_gym.algorithmic.word_ladder").WordLadderDataset
    found: dict[str, list[str]] = {}
    for word in sorted(data._load_words_from_csv(length, length)[length]):
        for place in range(length):
            found.setdefault(word[:place] + "?" + word[place + 1 :], []).append(word)
    return found


def _differ_in_one(one: str, other: str) -> bool:
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) == 1


def _distances(start: State, neighbours: Callable[[State], Iterator[State]]) -> dict[State, int]:
    """Breadth first."""
    found = {start: 0}
    queue = deque([start])
    while queue:
        now = queue.popleft()
        for other in neighbours(now):
            if other not in found:
                found[other] = found[now] + 1
                queue.append(other)
    return found
