"""The PRM that is given (--prm) or the run's latest."""

from airls_ray.search.scorer_kind import Scorer

SCORER = Scorer("prm")
