"""How good a PRM is: the published step benchmarks, calibration, biases, and search by its scores.

processbench  first wrong step, by subsets      prmbench    every step of changed solutions
calibration   is the score a probability?       biases      length, place, partial steps
best_of_n     accuracy against samples          measure     all but the last, of labelled rows
"""

from airls_ray.evaluation.prm_metrics.best_of_n import SampleScores, sample_values, summarise_values
from airls_ray.evaluation.prm_metrics.biases import (
    drift_slope,
    flawed_but_right,
    length_correlation,
    lowest_at_last,
    partial_rank_correlation,
    step_drift,
)
from airls_ray.evaluation.prm_metrics.calibration import (
    brier_score,
    expected_calibration_error,
    reliability_table,
)
from airls_ray.evaluation.prm_metrics.measure import measure_step_rows
from airls_ray.evaluation.prm_metrics.prmbench import ChangedSolutions, measure_prmbench
from airls_ray.evaluation.prm_metrics.processbench import Traces, cross_fitted, measure_first_errors

__all__ = [
    "ChangedSolutions",
    "SampleScores",
    "Traces",
    "brier_score",
    "cross_fitted",
    "drift_slope",
    "expected_calibration_error",
    "flawed_but_right",
    "length_correlation",
    "lowest_at_last",
    "measure_first_errors",
    "measure_prmbench",
    "measure_step_rows",
    "partial_rank_correlation",
    "reliability_table",
    "sample_values",
    "step_drift",
    "summarise_values",
]
