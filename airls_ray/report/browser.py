"""The browser of rollouts: a form, and the data that `browser.js` filters, sorts and draws."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from airls_ray.report.markup import data_script, fill
from airls_ray.report.rollout_rows import BrowsedRollouts

SIZES = (10, 20, 50)
"""Rollouts a page; the second is the first choice."""

Options = Iterable[tuple[str, str]]
"""Values and texts."""

_DISAGREEMENTS = {
    "step": "PRM and truth of a step",
    "step_high": "wrong step scored high",
    "step_low": "right step scored low",
    "outcome": "PRM and outcome",
    "outcome_high": "wrong answer, every step scored high",
    "outcome_low": "right answer, a step scored low",
}


def render_browser(found: BrowsedRollouts) -> Markup | None:
    """Return the form, the place of the rollouts and their data; None if there are none."""
    if not found.rows:
        return None
    data = {
        "sources": [source["name"] for source in found.sources],
        "kinds": [source["kind"] for source in found.sources],
        "prompts": found.prompts,
        "rewards": found.rewards,
        "rollouts": found.rows,
    }
    coloured = found.has("scores") or found.has("truths")
    return fill("browser.html", coloured=coloured, data=data_script(data), **_choices(found))


def browser_intro(found: BrowsedRollouts) -> str:
    """Return what of the run's rollouts is there and what is not."""
    shown, stored = len(found.rows), found.stored
    iterations = sum(source["kind"] == "iteration" for source in found.sources)
    parts = [f"{_counted(iterations, 'stored iteration')} and the test samples"]
    if iterations == len(found.sources):
        parts = [_counted(iterations, "stored iteration")]
    elif not iterations:
        parts = ["The test samples"]
    text = f"{parts[0]}: {_counted(stored, 'rollout')}."
    if shown < stored:
        text += (
            f" They are too much for one file, so {shown:,} of them are here: as many of each iteration "
            f"and policy, drawn with seed {found.seed}."
        )
    lacking = [name for field, name in (("scores", "PRM score"), ("truths", "truth")) if not found.has(field)]
    if lacking:
        text += f" No step has a {' or a '.join(lacking)}."
    scored = {row["source"] for row in found.rows if "scores" in row}
    if scored and scored != {row["source"] for row in found.rows}:
        names = [str(source["name"]) for at, source in enumerate(found.sources) if at not in scored]
        text += f" No PRM scores are kept of {names[0]}"
        text += "." if len(names) == 1 else f" and {len(names) - 1} more."
    return text


def _choices(found: BrowsedRollouts) -> dict[str, Options]:
    """What the form lets one choose, by name."""
    scores, truths = found.has("scores"), found.has("truths")
    judged = scores and any("outcome" in row for row in found.rows)
    wanted = [
        (value, text)
        for value, text in _DISAGREEMENTS.items()
        if (judged if value.startswith("outcome") else scores and truths)
    ]
    sorts = [("stored", "as stored"), ("latest", "latest iteration first")]
    if scores:
        sorts += [("trace_high", "trace score, highest first"), ("trace_low", "trace score, lowest first")]
    if scores and truths:
        sorts.append(("step_gap", "PRM furthest from the truth"))
    if judged:
        sorts.append(("outcome_gap", "PRM furthest from the outcome"))
    sorts += [("long", "longest first"), ("short", "shortest first")]
    if found.has("logs"):
        sorts += [("likely", "most probable first"), ("unlikely", "least probable first")]
    sorts += [(f"reward_{at}", f"{name}, highest first") for at, name in enumerate(found.rewards)]
    return {
        "sources": _sources(found),
        "outcomes": [("", "all"), ("right", "right"), ("wrong", "wrong"), *_ungraded(found)],
        "disagreements": wanted,
        "sorts": sorts,
        "sizes": [(str(size), str(size)) for size in (SIZES[1], SIZES[0], *SIZES[2:])],
    }


def _sources(found: BrowsedRollouts) -> Options:
    kinds = [source["kind"] for source in found.sources]
    several = [("", "all")]
    if "iteration" in kinds and "samples" in kinds:
        several += [("iteration", "all iterations"), ("samples", "all test samples")]
    return [*several, *((str(at), str(source["name"])) for at, source in enumerate(found.sources))]


def _ungraded(found: BrowsedRollouts) -> Options:
    return [("none", "not graded")] if any("outcome" not in row for row in found.rows) else []


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
