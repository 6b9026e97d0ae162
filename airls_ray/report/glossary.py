"""The terms of a report, a sentence each: in the page's glossary and behind its headings."""

from __future__ import annotations

from markupsafe import Markup

from airls_ray.report.markup import element

GLOSSARY = {
    "Rollout": "A response that the policy sampled for a problem.",
    "Outcome": "Whether the answer of a response is right (1) or wrong (0); the mean is the accuracy.",
    "PRM": "Process reward model: gives every step of a response a score, here from 0 (bad) to 1 (good).",
    "Step": "A piece of a response, such as a line or an equation, that is scored by itself.",
    "Truth of a step": "Whether the task says that the step is right; it measures the PRM alone.",
    "Trace": "A whole response with all of its steps.",
    "Trace score": "The scores of a response's steps in one number, aggregated as the search does it.",
    "Step AUROC": "Chance that a right step has a higher score than a wrong one: 0.5 is guessing.",
    "Trace AUROC": "Chance that a right response has a higher score than a wrong one.",
    "Within problems": "The AUROC among the responses (or steps) of one problem, mean over problems: a "
    "choice sees these alone. Over all, a scorer also gains by knowing which problems are hard.",
    "First-error F1": "Harmonic mean of two accuracies: the first wrong step found in wrong responses, "
    "and none reported in right ones.",
    "One sample": "Accuracy of a single sampled response, the base line of every search.",
    "Greedy": "The response that takes the most probable token at every place.",
    "Best of N": "Of N responses the one with the highest score is taken.",
    "Majority": "Of N responses the most frequent answer is taken; no score is needed.",
    "Weighted vote": "Of N responses the answer with the largest sum of scores is taken.",
    "Oracle": "Right if any of the N responses is: no way to choose among them can do better.",
    "Policy log-probability": "Sum of the logarithms of the probabilities that the policy gave the tokens; "
    "as a score it is the control that a PRM has to beat.",
    "Discriminator accuracy": "How well the PRM tells steps of reference solutions from those of the policy.",
    "PRM reward": "What the PRM pays the policy for a step in training.",
    "Effective sample size": "How many rollouts the importance weights amount to; at 1, one decides.",
    "Importance weight": "Probability of a response under one model over that under the one that sampled it.",
    "Staleness": "Policy updates between the weights that sampled a rollout and those that learn from it.",
    "Clip share": "Share of tokens whose importance weight left the range that the policy loss follows.",
    "KL": "Kullback-Leibler divergence: how far the policy is from another model, in nats a token.",
    "Entropy": "How undecided the policy is about the next token, in nats; near 0 it always says the same.",
    "Gradient norm": "Length of the policy's gradient before it is clipped.",
    "Response length": "Tokens of a response.",
    "Solved problems": "Share of problems that any of their rollouts solves: what a search could find.",
    "Groups without variance": "Share of problems whose rollouts all have one outcome: they teach nothing.",
    "Warm-up": "First iterations, in which the PRM learns and the policy does not yet.",
    "Evaluation": "Accuracy on held-out problems that is measured during the training.",
    "Reward": "What a reward function of the task said of a response, beside the outcome.",
}  # fmt: skip
"""Sentences by term."""

_HEADINGS = {
    "KL to the reference": "KL",
    "Policy entropy": "Entropy",
    "PRM loss and entropy": "Entropy",
    "Trained policy": "Best of N",
    "Base policy": "Best of N",
    "Accuracy on test problems": "Outcome",
    "Scores against the truth": "Truth of a step",
    "PRM logits": "PRM",
    "PRM outputs": "PRM",
    "PRM values": "PRM",
    "Rollouts": "Rollout",
    "best of N by PRM": "Best of N",
    "majority vote": "Majority",
}
_LOWER = {term.lower(): term for term in GLOSSARY}


def meaning(heading: str) -> str | None:
    """Return the sentence on a heading, with its term where that is another; None if there is none."""
    first = heading.partition(":")[0]
    for text in (heading, first):
        if text in _HEADINGS:
            return f"{_HEADINGS[text]}: {GLOSSARY[_HEADINGS[text]]}"
        if text.lower() in _LOWER:
            return GLOSSARY[_LOWER[text.lower()]]
    return None


def render_glossary() -> Markup:
    """Return all terms with their sentences."""
    parts = [(element("dt", term), element("dd", sentence)) for term, sentence in GLOSSARY.items()]
    return element("dl", parts, class_="glossary")
