"""Rollouts with each step coloured by its PRM score beside its true correctness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airls_ray.report.data import number
from airls_ray.report.markup import Markup, element, join

MOST_EXAMPLES = 40
"""A page shows no more, however many the file holds."""
_MOST_STEPS = 200
_TRUTH = {
    True: ("✓", "right", "is right"),
    False: ("✗", "wrong", "is wrong"),
    None: ("·", "unknown", "unknown"),
}


def render_examples(examples: Sequence[Mapping[str, Any]]) -> Markup:
    """Return the key to the colours, the buttons that choose among the rollouts, and the rollouts."""
    shown = [example for example in examples if isinstance(example, Mapping)][:MOST_EXAMPLES]
    return join(
        key_to_colours(),
        _buttons(shown),
        element("div", [_card(example) for example in shown], class_="cards"),
    )


def key_to_colours() -> Markup:
    """Return the sentence that says what the colours and the marks of steps mean."""
    return element(
        "p",
        "PRM score ",
        element("span", "0", class_="edge"),
        element(
            "span", class_="scale", role="img", aria_label="from orange at 0 over none at 0.5 to blue at 1"
        ),
        element("span", "1", class_="edge"),
        " · truth of the step, which the training never sees: ",
        element("b", "✓", class_="right"),
        " right, ",
        element("b", "✗", class_="wrong"),
        " wrong, · not known",
        class_="key",
    )


def _buttons(examples: Sequence[Mapping[str, Any]]) -> Markup | None:
    kinds = {"all": "all"}
    for example in examples:
        policy = str(example.get("policy", ""))
        if policy in ("trained", "base"):
            kinds[policy] = f"{policy} policy"
        kinds |= {"right": "right answers"} if _is_right(example) else {"wrong": "wrong answers"}
    if len(kinds) < 3:
        return None
    order = [kind for kind in ("all", "trained", "base", "right", "wrong") if kind in kinds]
    buttons = [
        element("button", kinds[kind], type="button", data_show=kind, aria_pressed=str(kind == "all").lower())
        for kind in order
    ]
    return element("div", buttons, class_="buttons")


def _is_right(example: Mapping[str, Any]) -> bool:
    return (number(example.get("outcome")) or 0.0) >= 0.5


def _card(example: Mapping[str, Any]) -> Markup:
    outcome, policy = number(example.get("outcome")), str(example.get("policy") or "")
    right = _is_right(example)
    badge = (
        ("✓ right answer" if right else "✗ wrong answer") if outcome in (0.0, 1.0) else f"outcome {outcome}"
    )
    steps = example.get("steps")
    steps = [step for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []
    rows = [_step(position, step) for position, step in enumerate(steps[:_MOST_STEPS], start=1)]
    more = len(steps) - _MOST_STEPS
    return element(
        "article",
        element(
            "header",
            element(
                "span", badge if outcome is not None else "not graded", class_="right" if right else "wrong"
            ),
            element("span", f"{policy} policy" if policy else None, class_="policy"),
        ),
        element("pre", example.get("prompt"), class_="prompt"),
        element("ol", rows, class_="steps"),
        element("p", f"and {more} more steps") if more > 0 else None,
        element("p", "expected answer ", element("code", example.get("answer")), class_="answer"),
        data_kinds=f"all {policy if policy in ('trained', 'base') else ''} {'right' if right else 'wrong'}",
    )


def _step(position: int, step: Mapping[str, Any]) -> Markup:
    score, truth = number(step.get("score")), step.get("truth")
    sign, class_, spoken = _TRUTH.get(truth if isinstance(truth, bool) else None, _TRUTH[None])
    said = (
        f"step {position}: {'no PRM score' if score is None else f'PRM score {score:.3f}'}, truth: {spoken}"
    )
    return element(
        "li",
        element("span", "" if score is None else f"{score:.2f}", class_="score"),
        element("pre", str(step.get("text", "")).strip("\n")),
        element("b", sign, class_=f"truth {class_}", role="img", aria_label=spoken),
        style=None if score is None else f"background:{score_colour(score)}",
        title=said,
    )


def score_colour(score: float) -> str:
    """Return the CSS colour of a score: orange below 0.5, blue above, stronger the further from it."""
    strength = min(1.0, abs(score - 0.5) * 2.0)
    side = "--high" if score >= 0.5 else "--low"
    return f"color-mix(in srgb,var({side}) {round(100 * strength)}%,transparent)"
