"""Heads on a pretrained model against PRM800K: which of several next steps is right, as people rated them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrained_heads import Head, fit_labels
from pretrained_states import Question, Solution

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

FILE = Path("prm800k", "phase1_test.jsonl")
LABELLED = "step labels"
"""Name of the heads that learn the ratings of other problems of this file: the upper bound."""


@dataclass(frozen=True)
class Rated:
    """All rated steps, one after the other; S of them. Alternatives at one place form a group."""

    states: torch.Tensor
    """[S, layers, hidden]."""
    right: NDArray[np.bool_]
    """[S]: rated 1 or 0, as in the paper's own PRM."""
    group: NDArray[np.int64]
    """[S]: the place, a problem and the steps before."""
    problem: NDArray[np.int64]
    """[S]."""
    log_prob: NDArray[np.float64]
    """[S], mean over the step's tokens, nats."""


def read(folder: Path) -> list[Question]:
    """The rated solutions and alternatives of each problem; empty where the file is not there."""
    from airls_ray.data.step_files import step_rows
    from airls_ray.errors import DataError

    if not (folder / FILE).is_file():
        return []
    found: dict[str, list[Solution]] = {}
    texts: dict[str, str] = {}
    for row in step_rows(folder / FILE, alternatives=True):
        if isinstance(row, DataError):
            raise row
        steps = [f"{step}\n" for step in row.steps]
        ends = tuple(accumulate(map(len, steps)))
        one = Solution("prm800k", "".join(steps), None, False, ends, labels=row.labels)
        texts[row.problem_id] = row.problem.strip()
        found.setdefault(row.problem_id, []).append(one)
    return [Question(at, texts[name], tuple(ones)) for at, (name, ones) in enumerate(found.items())]


def load(questions: list[Question], files: list[Path]) -> Rated:
    """The rated steps of the problems that have states; each step of a place once."""
    import numpy as np
    import torch

    known = {file.stem: file for file in files}
    rows: list[tuple[torch.Tensor, bool, tuple[int, str], float]] = []
    for question in questions:
        file = known.get(f"{question.number:05d}")
        if file is None:
            continue
        seen = set()
        for solution, found in zip(question.solutions, torch.load(file, weights_only=True), strict=True):
            starts = (0, *solution.step_ends[:-1])
            for step, (start, end) in enumerate(zip(starts, solution.step_ends, strict=True)):
                label, text = solution.labels[step], solution.text[:end]
                if label is not None and text not in seen:
                    seen.add(text)
                    place = (question.number, solution.text[:start])
                    rows.append((found["states"][step], label, place, float(found["step_log_probs"][step])))
    states, right, places, log_prob = zip(*rows, strict=True)
    groups = {place: at for at, place in enumerate(dict.fromkeys(places))}
    return Rated(
        torch.stack(states).float(),
        np.array(right),
        np.array([groups[place] for place in places]),
        np.array([number for number, _ in places]),
        np.array(log_prob),
    )


def measure(
    heads: dict[str, list[Head]], rated: Rated, layers: int, decays: tuple[float, ...], splits: int
) -> tuple[dict[str, Any], list[Head]]:
    """Figures of the controls, of heads that saw none of these problems, and of heads on half their labels.

    Args:
        heads: of each objective, one a split; figures are the means of theirs.
        rated: the steps.
        layers: of the states.
        decays: among which a labelled head's is chosen, with its layer, on a quarter of the problems.
        splits: halves of the problems for the labelled heads.

    Returns:
        The figures, and the labelled heads of each split.
    """
    import numpy as np

    everything = np.ones(len(rated.right), dtype=bool)
    parts = {"log_prob": [(rated.log_prob, everything)]}
    for name, ones in heads.items():
        parts[name] = [(head(rated.states).double().numpy(), everything) for head in ones]
    labelled = [_labelled(rated, layers, decays, split) for split in range(splits)]
    parts[LABELLED] = [(head(rated.states).double().numpy(), held_out) for head, held_out in labelled]
    figures: dict[str, Any] = {
        "problems": len(np.unique(rated.problem)),
        "steps": len(rated.right),
        "wrong": int((~rated.right).sum()),
        "prms": {name: _mean([_figures(rated, *one) for one in found]) for name, found in parts.items()},
    }
    return figures, [head for head, _ in labelled]


def _labelled(
    rated: Rated, layers: int, decays: tuple[float, ...], split: int
) -> tuple[Head, NDArray[np.bool_]]:
    """The head of the layer and decay that are best on validation problems, and the steps held out [S]."""
    import numpy as np

    from airls_ray.evaluation.ranking import auroc

    problems = np.unique(rated.problem)
    order = np.random.default_rng(split).permutation(problems)
    half, quarter = len(order) // 2, len(order) // 8
    held_out, validation, learn = (
        np.isin(rated.problem, part)
        for part in (order[:half], order[half : half + quarter], order[half + quarter :])
    )
    found = []
    for layer in range(layers):
        for decay in decays:
            head = fit_labels(rated.states[learn], rated.right[learn], layer, decay, split)
            scores = head(rated.states[validation]).double().numpy()
            found.append((auroc(scores, rated.right[validation]), head))
    return max(found, key=lambda one: one[0])[1], held_out


def _figures(rated: Rated, scores: NDArray[np.float64], part: NDArray[np.bool_]) -> dict[str, float]:
    """AUROCs, and how often the best-scored step of a place is right, where some are and some are not."""
    import numpy as np

    from airls_ray.evaluation.ranking import auroc, auroc_within, confidence_interval

    scores, right = scores[part], rated.right[part]
    group, problem = rated.group[part], rated.problem[part]
    choices: dict[int, list[float]] = {}
    chances: dict[int, list[float]] = {}
    for place in np.unique(group):
        at = np.flatnonzero(group == place)
        if 0 < right[at].sum() < len(at):
            best = at[scores[at] == scores[at].max()]
            choices.setdefault(int(problem[at[0]]), []).append(float(right[best].mean()))
            chances.setdefault(int(problem[at[0]]), []).append(float(right[at].mean()))
    means = np.array([np.mean(one) for one in choices.values()])
    low, high = confidence_interval(means)
    return {
        "auroc": auroc(scores, right),
        "auroc_within": auroc_within(scores, right, group),
        "right": float(means.mean()),
        "low": low,
        "high": high,
        "chance": float(np.mean([np.mean(one) for one in chances.values()])),
    }


def _mean(each: list[dict[str, float]]) -> dict[str, float]:
    return {key: sum(one[key] for one in each) / len(each) for key in each[0]}
