"""The control: a step's probability under the policy that sampled it; it costs nothing."""

from airls_ray.search.scorer_kind import Scorer

SCORER = Scorer("log_probs")
