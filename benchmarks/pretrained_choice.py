"""How often the choice among stored solutions of a question is right, by every head and control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pretrained_heads import OBJECTIVES, Head, Steps, fit
from pretrained_states import REFERENCE

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from airls_ray.console.progress import Progress

LAYERS = (10, 20, 30)
DECAYS = (1e-2, 1e-1, 1.0)
AGGREGATES = ("mean", "min", "prod", "last")
SPLITS = 3
KEYS = ("auroc", "auroc_within", "auroc_within_generator")
"""Within a question: what a choice sees. Within a generator: whether it knows more than the author."""

Values = dict[tuple[str, int], "NDArray[np.float64]"]
"""By way of choosing and number of solutions: right or not [splits, questions], nan where not held out."""


def measure(
    steps: Steps, learned: Sequence[str], among: Sequence[str], sizes: Sequence[int], progress: Progress
) -> tuple[dict[str, Any], dict[str, list[Head]]]:
    """Figures of every objective and control; a question counts as the mean of its held-out splits.

    `sizes`: among how many of the solutions of `among` is chosen; the last one is all of them.
    """
    import torch

    questions = int(steps.question.max()) + 1
    by = {
        name: torch.tensor([one in names for one in steps.generator])
        for name, names in (("learned", (*learned, REFERENCE)), ("among", among))
    }
    values: Values = {}
    chosen: dict[str, list[Any]] = {name: [] for name in OBJECTIVES}
    heads: dict[str, list[Head]] = {name: [] for name in OBJECTIVES}
    within: dict[str, list[float]] = {}
    with progress.track("Heads", SPLITS * len(OBJECTIVES)) as bar:
        for split in range(SPLITS):
            order = torch.randperm(questions, generator=torch.Generator().manual_seed(split))
            parts = {
                "held_out": order[: questions // 2],
                "validation": order[questions // 2 :][: questions // 8],
            }
            parts["learn"] = order[questions // 2 + questions // 8 :]
            rows = {name: torch.isin(steps.question, part) for name, part in parts.items()}
            rows["learn"] &= by["learned"]
            rows["validation"] &= by["learned"]
            rows["held_out"] &= by["among"]
            scores = {"policy_log_prob": steps.log_prob.double().numpy()}
            for name in OBJECTIVES:
                best, scores[name], head = _best(steps, rows, name, split)
                chosen[name].append(best)
                heads[name].append(head)
                bar.advance(1)
            _add(steps, rows["held_out"], scores, sizes, values, within)
    figures: dict[str, Any] = {"settings": chosen, "choice": {}}
    most = sizes[-1]
    for name in dict.fromkeys(name for name, _ in values):
        figures["choice"][name] = with_interval(values[name, most]) | {
            key: float(np.nanmean(within[f"{key}/{name}"])) for key in KEYS if f"{key}/{name}" in within
        }
        curve = {str(size): with_interval(values[name, size]) for size in sizes[:-1]}
        figures["choice"][name] |= {"among": curve} if curve else {}
    for name in OBJECTIVES:
        for other, control in (("chance", "mean"), ("log_prob", "policy_log_prob")):
            gain = with_interval(values[name, most] - values[control, most])
            figures["choice"][name][f"above_{other}"] = gain
    return figures, heads


def _best(
    steps: Steps, rows: dict[str, torch.Tensor], objective: str, seed: int
) -> tuple[dict[str, Any], NDArray[np.float64], Head]:
    """The setting whose choice is right most often on the validation questions, its scores [N], its head."""
    from airls_ray.evaluation.ranking import auroc_within

    used = rows["learn"]
    found: list[tuple[tuple[float, float], dict[str, Any], NDArray[np.float64], Head]] = []
    part = (rows["validation"] & ~steps.reference).numpy()
    for layer in range(len(LAYERS)):
        for decay in DECAYS:
            head = fit(steps, used, layer, decay, objective, seed)
            outputs = head(steps.states).double().numpy()
            for how in AGGREGATES:
                scores = _aggregate(outputs, steps.solution.numpy(), how)
                right = _chosen_right(steps, part, scores)
                within = auroc_within(scores[part], steps.right.numpy()[part], steps.question.numpy()[part])
                setting = {
                    "layer": LAYERS[layer],
                    "decay": decay,
                    "aggregate": how,
                    "validation": float(right),
                }
                found.append(((float(right), within), setting, scores, head))
    _, setting, scores, head = max(found, key=lambda one: one[0])
    return setting, scores, head


def _aggregate(outputs: NDArray[np.float64], solution: NDArray[np.int64], how: str) -> NDArray[np.float64]:
    """A solution's log-score from its sentences' log sigmoid [N]."""
    from airls_ray.evaluation.steps import aggregate_log_scores

    offsets = np.concatenate([[0], np.cumsum(np.bincount(solution))])
    return aggregate_log_scores(-np.logaddexp(0.0, -outputs), offsets, how)  # type: ignore[arg-type]


def _chosen_right(steps: Steps, part: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Share of questions whose best-scored solution is right."""
    from airls_ray.evaluation.ranking import best_of_k

    rows = part.nonzero()[0].reshape(len(np.unique(steps.question.numpy()[part])), -1)
    right = steps.right.numpy()[rows].astype(float)
    return float(best_of_k(scores[rows], right, rows.shape[1]).mean())


def choices(
    steps: Steps, part: NDArray[np.bool_], scores: NDArray[np.float64], sizes: Sequence[int]
) -> Mapping[str, Mapping[int, NDArray[np.float64]]]:
    """Ways of choosing among so many of each question's solutions: way, size, right or not [questions].

    Every question has as many solutions in `part` [N], and they stand beside each other.
    """
    from airls_ray.evaluation.steps import relative_weights
    from airls_ray.evaluation.voting import best_of_n_values

    at = part.nonzero()[0]
    rows = at.reshape(len(np.unique(steps.question.numpy()[at])), -1)
    answers = [[steps.answers[row] for row in question] for question in rows.tolist()]
    logs = scores[rows]
    weights = relative_weights(logs)
    return best_of_n_values(logs, steps.right.numpy()[rows].astype(float), answers, sizes, weights=weights)


def _add(
    steps: Steps,
    held_out: torch.Tensor,
    scores: dict[str, NDArray[np.float64]],
    sizes: Sequence[int],
    values: Values,
    within: dict[str, list[float]],
) -> None:
    """Add a split: a row of choices for its held-out questions, and its AUROCs."""
    from airls_ray.evaluation.ranking import auroc, auroc_within

    part = (held_out & ~steps.reference).numpy()
    questions, right = steps.question.numpy()[part], steps.right.numpy()[part]
    generators = np.array(steps.generator)
    shares = {
        one: steps.right.numpy()[~held_out.numpy() & (generators == one)].mean()
        for one in set(generators[part])
    }
    best = max(sorted(shares), key=lambda one: float(shares[one]))
    scores = {**scores, "one_generator": (generators == best).astype(np.float64)}
    names = list(dict.fromkeys(questions.tolist()))
    for name, found in scores.items():
        ways = choices(steps, part, found, sizes)
        taken = {name: ways["best_of_n"]}
        if name == "policy_log_prob":
            taken |= {way: ways[way] for way in ("mean", "majority", "oracle")}
        if name in OBJECTIVES:
            taken[f"vote by {name}"] = ways["weighted"]
        for way, curve in taken.items():
            for size, each in curve.items():
                row = np.full((1, int(steps.question.max()) + 1), np.nan)
                row[0, names] = each
                values[way, size] = np.concatenate([values.get((way, size), row[:0]), row])
        figures = {
            "auroc": auroc(found[part], right),
            "auroc_within": auroc_within(found[part], right, questions),
            "auroc_within_generator": auroc_within(found[part], right, generators[part]),
        }
        for key, value in figures.items():
            within.setdefault(f"{key}/{name}", []).append(value)


def with_interval(table: NDArray[np.float64]) -> dict[str, float]:
    """Mean over the questions that were held out at least once, and its 95 % interval."""
    from airls_ray.evaluation.ranking import confidence_interval

    means = np.nanmean(table[:, np.isfinite(table).any(0)], 0)
    low, high = confidence_interval(means)
    return {"right": float(means.mean()), "low": low, "high": high}
