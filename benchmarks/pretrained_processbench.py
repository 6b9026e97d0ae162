"""Heads on a pretrained model against the step labels of people: ProcessBench's solutions of GSM8K."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pretrained_heads import Head
    from pretrained_states import Question


def measure(heads: dict[str, list[Head]], questions: list[Question], files: list[Path]) -> dict[str, Any]:
    """F1 of the first wrong step, its threshold chosen on the other half, and AUROC of the steps up to it.

    Args:
        heads: of each objective, one a split; figures and bounds of intervals are the means of theirs.
        questions: with one solution each.
        files: of those that have states, in the same order.
    """
    import numpy as np
    import torch

    known = {file.stem: file for file in files}
    found = [(one, known[f"{one.number:05d}"]) for one in questions if f"{one.number:05d}" in known]
    loaded = [torch.load(file, weights_only=True)[0] for _, file in found]
    states = torch.cat([one["states"].float() for one in loaded])
    sizes = [len(one["states"]) for one in loaded]
    errors = np.array([question.solutions[0].first_error for question, _ in found])
    control = torch.cat([one["step_log_probs"] for one in loaded]).exp().double().numpy()
    figures: dict[str, Any] = {"log_prob": _figures(control, sizes, errors)}
    for name, ones in heads.items():
        each = [_figures(head(states).sigmoid().double().numpy(), sizes, errors) for head in ones]
        figures[name] = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
    return {"solutions": len(found), "wrong": int((errors >= 0).sum()), "prms": figures}


def _figures(scores: NDArray[np.float64], sizes: list[int], errors: NDArray[np.int64]) -> dict[str, float]:
    import numpy as np

    from airls_ray.evaluation.prm_metrics.processbench import Traces, measure_first_errors
    from airls_ray.evaluation.ranking import auroc

    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.arange(len(sizes))
    traces = Traces(scores, offsets, errors, np.full(len(sizes), "gsm8k"), rows)
    tuned = measure_first_errors(traces)["subsets"]["gsm8k"]["tuned"]
    position = np.arange(len(scores)) - np.repeat(offsets[:-1], sizes)
    error = np.repeat(errors, sizes)
    judged = (error < 0) | (position <= error)  # nobody labelled what comes after the first wrong step
    right = (error < 0) | (position < error)
    return {
        "f1": tuned["f1"],
        "low": tuned["low"],
        "high": tuned["high"],
        "step_auroc": auroc(scores[judged], right[judged]),
    }
