"""Rows of PRM800K (arXiv 2305.20050): solutions whose steps people rated, with alternatives at each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WRONG = -1
"""Rating of a wrong step; 1 is right, 0 neither helps nor harms."""
_USELESS = ("bad_problem", "give_up")


def rated_steps(label: Any) -> list[tuple[str, int | None]]:
    """Return text and rating of the steps that were gone on from, up to the first wrong one.

    Where nobody went on (an error was found), the first alternative of that step ends the list.

    Args:
        label: the row's field `label`; of another shape: no step.
    """
    found: list[tuple[str, int | None]] = []
    steps = label.get("steps") if isinstance(label, Mapping) else None
    for step in steps or ():
        taken = _taken(step)
        if taken is None or not taken.get("text"):
            break
        found.append((taken["text"], taken.get("rating")))
        if found[-1][1] == WRONG:
            break
    return found


def right_solution(label: Any) -> str | None:
    """Return the steps of a solution that reaches its end without a wrong one, a line each; else None."""
    if not isinstance(label, Mapping) or label.get("finish_reason") != "solution":
        return None
    given, steps = label.get("steps") or (), rated_steps(label)
    went_on = all(isinstance(step, Mapping) and _chosen(step) is not None for step in given)
    right = len(steps) == len(given) and all(rating != WRONG for _, rating in steps)
    return "\n".join(text for text, _ in steps) or None if went_on and right else None


def labelled_steps(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a row as one with `problem`, `steps`, `labels` and `finished`; None where it rates no step.

    Steps rated 1 and 0 are right, as in the paper's own PRM; without a rating: null. `finished`: whether the
    last of these steps is known to end the solution.
    """
    label, question = row.get("label"), row.get("question")
    steps = rated_steps(label)
    if not steps or not isinstance(question, Mapping) or not isinstance(label, Mapping):
        return None
    if label.get("finish_reason") in _USELESS:
        return None
    return {
        "problem": question.get("problem"),
        "steps": [text for text, _ in steps],
        "labels": [None if rating is None else rating != WRONG for _, rating in steps],
        "finished": len(steps) == _length(question, label),
    }


def _length(question: Mapping[str, Any], label: Mapping[str, Any]) -> int | None:
    """How many steps the whole solution has: phase 2 rated solutions that were there before; else None."""
    before = question.get("pre_generated_steps")
    if isinstance(before, list):
        return len(before)
    return len(label.get("steps") or ()) if label.get("finish_reason") == "solution" else None


def _taken(step: Any) -> Mapping[str, Any] | None:
    """The alternative that was gone on from, or the first where none was."""
    if not isinstance(step, Mapping):
        return None
    options = step.get("completions") or ()
    return _chosen(step) or (options[0] if options and step.get("chosen_completion") is None else None)


def _chosen(step: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The alternative that was gone on from: one of the model's, or a rater's own."""
    number, options = step.get("chosen_completion"), step.get("completions") or ()
    if number is None:
        return step.get("human_completion")
    return options[number] if 0 <= number < len(options) else None
