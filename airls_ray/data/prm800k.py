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
    for step in _list(label.get("steps")) if isinstance(label, Mapping) else ():
        taken = _taken(step)
        if taken is None or not _text(taken):
            break
        found.append((_text(taken), _rating(taken)))
        if found[-1][1] == WRONG:
            break
    return found


def right_solution(label: Any) -> str | None:
    """Return the steps of a solution that reaches its end without a wrong one, a line each; else None."""
    if not isinstance(label, Mapping) or label.get("finish_reason") != "solution":
        return None
    given, steps = _list(label.get("steps")), rated_steps(label)
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
        for option in _list(step.get("completions")):
            if option is not _taken(step) and _text(option) and _rating(option) is not None:
                ratings = [*[None] * len(before), _rating(option)]
                yield _solution(question, [*before, _text(option)], ratings)
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
    options = _list(step.get("completions"))
    return _chosen(step) or (options[0] if options and step.get("chosen_completion") is None else None)


def _chosen(step: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The alternative that was gone on from: one of the model's, or a rater's own."""
    number, options = step.get("chosen_completion"), _list(step.get("completions"))
    if number is None:
        return step.get("human_completion")
    # Tables of numbers that may be null have floats.
    at = int(number) if isinstance(number, float) and number.is_integer() else number
    return options[at] if isinstance(at, int) and 0 <= at < len(options) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(option: Any) -> str:
    """The text of an alternative; empty where it has none."""
    text = option.get("text") if isinstance(option, Mapping) else None
    return text if isinstance(text, str) else ""


def _rating(option: Mapping[str, Any]) -> int | None:
    rating = option.get("rating")
    return int(rating) if isinstance(rating, int | float) and rating in (WRONG, 0, 1) else None
