"""A search and a scorer of your own.

A search says what to expand next (`airls-ray list search`); a scorer gives each step a score in [0, 1]
(`airls-ray list scorer`). `own_search.yaml` names both. The scorer needs nothing but texts, so that it works
over any server: `airls_ray.search_endpoint(url, problems, consistent, algorithm="beam")`.
"""

from __future__ import annotations

import re

from airls_ray.search.tree import ROOT, SearchState, Want

EQUATION = re.compile(r"(\d+)\s*([-+*])\s*(\d+)\s*=\s*(-?\d+)")


class Greedy:
    """A search: `width` first steps, and then `width` continuations of the best prefix, until one is over."""

    def __init__(self, width: int) -> None:
        self.width = width

    def plan(self, state: SearchState) -> list[Want]:
        """Return what to expand next; nothing ends the search."""
        if not state.rounds:
            return [Want(ROOT, self.width)]
        best = max(state.last, key=lambda node: state.log_score(node, "prod"))
        return [] if state.nodes[best].finished else [Want(best, self.width)]


def consistent(steps: list[str], modulus: int = 0) -> list[float]:
    """A scorer: a step with a wrong equation scores 0.1, one with right ones 0.9, and others 0.5.

    Args:
        steps: of a response, whole or begun.
        modulus: equations hold modulo this; 0: as they stand.
    """
    return [_score(step, modulus) for step in steps]


def _score(step: str, modulus: int) -> float:
    found = [_holds(*one.groups(), modulus=modulus) for one in EQUATION.finditer(step)]
    return 0.5 if not found else 0.9 if all(found) else 0.1


def _holds(left: str, sign: str, right: str, result: str, *, modulus: int) -> bool:
    a, b = int(left), int(right)
    difference = {"+": a + b, "-": a - b, "*": a * b}[sign] - int(result)
    return difference % modulus == 0 if modulus else difference == 0
