"""Rollouts with each step coloured by its PRM score beside its true correctness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from airls_ray.report.data import number
from airls_ray.report.markup import fill

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
    return fill("examples.html", buttons=_buttons(shown), cards=[_card(example) for example in shown])


def _buttons(examples: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Kinds among which one may choose, and their names; empty where all are of one."""
    kinds = {"all": "all"}
    for example in examples:
        policy = str(example.get("policy", ""))
        if policy in ("trained", "base"):
            kinds[policy] = f"{policy} policy"
        kinds |= {"right": "right answers"} if _is_right(example) else {"wrong": "wrong answers"}
    order = ("all", "trained", "base", "right", "wrong")
    return {kind: kinds[kind] for kind in order if kind in kinds} if len(kinds) > 2 else {}


def _is_right(example: Mapping[str, Any]) -> bool:
    return (number(example.get("outcome")) or 0.0) >= 0.5


def _card(example: Mapping[str, Any]) -> dict[str, Any]:
    outcome, right = number(example.get("outcome")), _is_right(example)
    badge = "not graded" if outcome is None else f"outcome {outcome}"
    if outcome in (0.0, 1.0):
        badge = "✓ right answer" if right else "✗ wrong answer"
    steps = example.get("steps")
    steps = [step for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []
    return {
        "policy": str(example.get("policy") or ""),
        "side": "right" if right else "wrong",
        "badge": badge,
        "prompt": example.get("prompt"),
        "answer": example.get("answer"),
        "steps": [_step(position, step) for position, step in enumerate(steps[:_MOST_STEPS], start=1)],
        "more": len(steps) - _MOST_STEPS,
    }


def _step(position: int, step: Mapping[str, Any]) -> dict[str, Any]:
    score, truth = number(step.get("score")), step.get("truth")
    sign, name, spoken = _TRUTH.get(truth if isinstance(truth, bool) else None, _TRUTH[None])
    said = "no PRM score" if score is None else f"PRM score {score:.3f}"
    return {
        "colour": None if score is None else score_colour(score),
        "said": f"step {position}: {said}, truth: {spoken}",
        "score": "" if score is None else f"{score:.2f}",
        "text": str(step.get("text", "")).strip("\n"),
        "truth": name,
        "sign": sign,
        "spoken": spoken,
    }


def score_colour(score: float) -> str:
    """Return the CSS colour of a score: orange below 0.5, blue above, stronger the further from it."""
    strength = min(1.0, abs(score - 0.5) * 2.0)
    side = "--high" if score >= 0.5 else "--low"
    return f"color-mix(in srgb,var({side}) {round(100 * strength)}%,transparent)"
