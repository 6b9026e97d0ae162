"""What may be named in `method.step_transforms`, `outcome_terms` and `row_filters`: functions of keywords.

Imports no PyTorch: the driver looks at these kinds, and the learners call what they name (`own.py`).
"""

from __future__ import annotations

from functools import partial

from airls_ray.doors import Kind
from airls_ray.own_code import read_rule

OF_STEPS = ("rewards", "step_rows", "groups", "outcomes", "learns", "answer_gains")
"""What a credit transform may take: float [S] (0 where neither a PRM nor a reward gives steps any), int64
[S], int64 [N], float [N], bool [N], and a function: of the text between a step and the right answer, float
[S], how much each step but the last raises the answer's probability. Where a transform calls it, it costs a
pass of the policy over every beginning of every response."""
OF_ROLLOUTS = ("outcomes", "groups", "lengths", "truncated")
"""What a rule for rollouts may take: float [N], int64 [N], int64 [N], bool [N]."""
OF_PRM = ("rewards", "step_rows")
"""What only a PRM gives."""
OF_SCORED = (*OF_ROLLOUTS, *OF_PRM)
"""What a row filter may take: as above, and where a PRM has scored the rollouts float [S] and int64 [S]."""
OF_OUTCOMES = (*OF_SCORED, "unanswered", "max_response_tokens", "mean_logprobs", "mean_logprobs_alone")
"""What an outcome term may take: as above, bool [N], a number, and float [N] of the policy: the mean
log-probability of a response's tokens behind its problem, and behind an empty one. The last costs a pass of
the policy, which is made where a term needs it (has no default for it)."""

TRANSFORM = Kind(
    name="credit transform",
    protocol=(
        f"a function of keywords among {', '.join(OF_STEPS)} (tensors) that returns the rewards anew, one "
        "for each step"
    ),
    package="airls_ray.credit.transforms",
    attribute="transform",
    example="min_form",
    make=partial(read_rule, known=OF_STEPS),
)
"""What is done to the rewards of steps before their baseline (`method.step_transforms`)."""

TERM = Kind(
    name="outcome term",
    protocol=(
        f"a function of keywords among {', '.join(OF_OUTCOMES)} (tensors) that returns a number for each "
        "rollout"
    ),
    package="airls_ray.credit.terms",
    attribute="term",
    example="overlong",
    make=partial(read_rule, known=OF_OUTCOMES),
)
"""What is added to the reward of a rollout (`method.outcome_terms`)."""

FILTER = Kind(
    name="row filter",
    protocol=(
        f"a function of keywords among {', '.join(OF_SCORED)} (tensors) that returns for each rollout "
        "whether it is learned from"
    ),
    package="airls_ray.credit.filters",
    attribute="keep",
    example="accuracy_band",
    make=partial(read_rule, known=OF_SCORED),
)
"""Which rollouts are learned from (`method.row_filters`)."""
