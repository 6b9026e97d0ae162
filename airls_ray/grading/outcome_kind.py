"""What may be named in `method.outcomes`: a function of keywords that gives rollouts their outcomes anew."""

from __future__ import annotations

from functools import partial

from airls_ray.doors import Kind
from airls_ray.own_code import read_rule

OF_ANSWERS = ("answers", "groups", "problem_ids", "details", "lengths", "truncated")
"""What an outcome rule may take, of all N rollouts of an iteration. `answers`: canonical answers, None for
none (a list); `groups`: problem of each, int64 [N]; `problem_ids` and `details`: of these problems (lists of
texts and of dictionaries); `lengths`: response tokens, int64 [N]; `truncated`: bool [N]. No outcome of a
grader: a rule is for want of one."""

OUTCOME_RULE = Kind(
    name="outcome rule",
    protocol=(
        f"a function of keywords among {', '.join(OF_ANSWERS)} (lists and NumPy arrays) that returns an "
        "outcome from 0 to 1 for each rollout"
    ),
    package="airls_ray.grading.outcome_rules",
    attribute="outcomes",
    example="vote",
    make=partial(read_rule, known=OF_ANSWERS),
)
"""What rollouts learn from in place of the grader's outcome (`method.outcomes`)."""
