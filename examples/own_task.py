"""A task of your own: which of three numbers is the largest. `own_task.yaml` trains on it."""

from __future__ import annotations

from random import Random
from typing import Any


class Largest:
    """Prompt `7 2 9 >`, response `7 2 7;7 9 9;`: the larger of two, then of that and the third."""

    step_delimiter = ";"

    def __init__(self, numbers: int = 10) -> None:
        """All numbers lie in [0, numbers)."""
        self.numbers = numbers

    def vocabulary(self) -> list[str]:
        """The tokens of a model made from nothing; leave this out to train a model that you have."""
        return [*map(str, range(self.numbers)), " ", ">", ";"]

    def problem(self, rng: Random) -> dict[str, Any]:
        """Draw a problem; the hash of its prompt decides whether it is one for training or for the test."""
        a, b, c = (rng.randrange(self.numbers) for _ in range(3))
        first = max(a, b)
        trace = f"{a} {b} {first};{first} {c} {max(first, c)};"
        return {"prompt": f"{a} {b} {c} >", "answer": max(a, b, c), "traces": trace}

    def grade(self, problem: Any, response: str) -> tuple[float, str | None]:
        """Judge the last number of the last step; it is also what a majority is counted of."""
        words = response.replace(";", " ").split()
        answer = words[-1] if words and response.endswith(";") else None
        return float(answer == problem.answer), answer

    def step_truth(self, problem: Any, steps: list[str]) -> list[bool]:
        """Whether each step is the one that the numbers of the prompt ask for."""
        a, b, c = map(int, problem.prompt.rstrip(" >").split())
        right = [f"{a} {b} {max(a, b)};", f"{max(a, b)} {c} {max(a, b, c)};"]
        return [number < len(right) and step == right[number] for number, step in enumerate(steps)]
