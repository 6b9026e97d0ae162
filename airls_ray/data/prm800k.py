"""Rows of PRM800K (arXiv 2305.20050): solutions whose steps people rated, with alternatives at each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WRONG = -1
"""Rating of a wrong step; 1 is right, 0 neither helps nor harms."""
_ANSWER = "# Answer"
"""Heads the answer, in the last step of a solution."""
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
    last of these steps gives the solution's answer.
    """
    label, question = row.get("label"), row.get("question")
    steps = rated_steps(label)
    if not steps or not isinstance(question, Mapping) or not isinstance(label, Mapping):
        return None
    if label.get("finish_reason") in _USELESS:
        return None
    return _solution(question, [text for text, _ in steps], [rating for _, rating in steps])


def labelled_alternatives(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rated steps that nobody went on from, each behind the steps before it, which have no label.

    Of the rows that `labelled_steps` reads. In the first phase of the data nearly all wrong steps are such.
    """
    if labelled_steps(row) is None:
        return
    question, before = row["question"], list[str]()
    for step, (text, _) in zip(row["label"]["steps"], rated_steps(row["label"]), strict=False):
        for option in step.get("completions") or ():
            if option is _taken(step) or not option.get("text") or option.get("rating") is None:
                continue
            ratings = [*[None] * len(before), option["rating"]]
            yield _solution(question, [*before, option["text"]], ratings)
        before.append(text)


def _solution(question: Mapping[str, Any], steps: list[str], ratings: Sequence[int | None]) -> dict[str, Any]:
    return {
        "problem": question.get("problem"),
        "steps": steps,
        "labels": [None if rating is None else rating != WRONG for rating in ratings],
        "finished": _ANSWER in steps[-1],
    }


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
