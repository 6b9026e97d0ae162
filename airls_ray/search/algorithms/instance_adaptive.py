"""Best-of-N whose N is the problem's own, by its chance of success (IAS, arXiv 2506.09338)."""

from airls_ray.config.search_section import SearchConfig
from airls_ray.errors import DataError
from airls_ray.evaluation.calibrators import read_calibrator
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.algorithm import Algorithm
from airls_ray.search.instance_adaptive import InstanceAdaptive


def build(config: SearchConfig, width: int, how: Aggregate) -> InstanceAdaptive:
    """Return the search with at most the given width; a calibration brings its own pilot.

    Raises:
        DataError: the calibration cannot be read, or is of another scorer's scores.
    """
    adaptive = config.instance_adaptive
    if adaptive.calibration is None:
        return InstanceAdaptive(width, adaptive.pilot, adaptive.confidence, aggregate=how)
    found = read_calibrator(adaptive.calibration)
    if found.scorer not in ("", config.scorer.shown):
        raise DataError(
            f"{adaptive.calibration} says what the scores of {found.scorer} mean, and search.scorer is "
            f"{config.scorer.shown}: calibrate it"
        )
    return InstanceAdaptive(width, found.pilot, adaptive.confidence, found, how)


ALGORITHM = Algorithm("instance-adaptive Best-of-N", "best", build)
