"""The task's step truth and outcome: an upper bound."""

from airls_ray.search.scorer_kind import Scorer

SCORER = Scorer("truth")
