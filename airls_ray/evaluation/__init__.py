"""Measures of scores and of search, in NumPy; imports without torch."""

from airls_ray.evaluation.ranking import auroc, auroc_within, best_of_k, confidence_interval, correlation
from airls_ray.evaluation.steps import aggregate_steps
from airls_ray.evaluation.voting import best_of_n_curve, best_of_n_values, vote, vote_curve

__all__ = [
    "aggregate_steps",
    "auroc",
    "auroc_within",
    "best_of_k",
    "best_of_n_curve",
    "best_of_n_values",
    "confidence_interval",
    "correlation",
    "vote",
    "vote_curve",
]
