"""The browser of rollouts: a form, and the data that `browser.js` filters, sorts and draws."""

from __future__ import annotations

from collections.abc import Iterable

from airls_ray.report.examples import key_to_colours
from airls_ray.report.markup import Child, Markup, data_script, element, join
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
    return element(
        "div",
        key_to_colours() if found.has("scores") or found.has("truths") else None,
        _form(found),
        element("p", class_="count", role="status", aria_live="polite"),
        element("div", class_="cards"),
        element(
            "nav",
            element("button", "back", type="button", data_turn="-1"),
            element("button", "next", type="button", data_turn="1"),
            class_="buttons",
            aria_label="pages of rollouts",
        ),
        element("noscript", element("p", "The rollouts are drawn by the page's script, which is off here.")),
        data_script(data),
        class_="browser",
    )


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


def _form(found: BrowsedRollouts) -> Markup:
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
    outcomes = [("", "all"), ("right", "right"), ("wrong", "wrong"), *_ungraded(found)]
    return element(
        "form",
        _select("source", "iteration", _sources(found)),
        _select("outcome", "outcome", outcomes),
        _select("disagreement", "disagreement", [("", "all"), *wanted]) if wanted else None,
        _input("threshold", "a score is high from", "number", value="0.5", min="0", max="1", step="any")
        if wanted
        else None,
        _input("problem", "problem contains", "search", value=""),
        _input("shortest", "tokens from", "number", min="0", step="1"),
        _input("longest", "to", "number", min="0", step="1"),
        _select("sort", "sorted", sorts),
        _select("size", "a page", [(str(size), str(size)) for size in (SIZES[1], SIZES[0], *SIZES[2:])]),
        element("button", "reset", type="reset"),
        class_="filters",
    )


def _sources(found: BrowsedRollouts) -> Options:
    kinds = [source["kind"] for source in found.sources]
    several = [("", "all")]
    if "iteration" in kinds and "samples" in kinds:
        several += [("iteration", "all iterations"), ("samples", "all test samples")]
    return [*several, *((str(at), str(source["name"])) for at, source in enumerate(found.sources))]


def _ungraded(found: BrowsedRollouts) -> Options:
    return [("none", "not graded")] if any("outcome" not in row for row in found.rows) else []


def _select(name: str, label: str, options: Options) -> Markup:
    choices = [element("option", text, value=value) for value, text in options]
    return _labelled(label, element("select", choices, name=name))


def _input(name: str, label: str, kind: str, **attributes: str) -> Markup:
    return _labelled(label, element("input", name=name, type=kind, **attributes))


def _labelled(label: str, field: Child) -> Markup:
    return element("label", join(element("span", label), field))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
