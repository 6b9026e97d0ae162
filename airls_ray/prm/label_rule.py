"""What may be named in `supervised_prm.labels`: a function of keywords that labels the steps of rollouts.

A rule sees all N rollouts of some problems, with S steps in all that lie rollout by rollout in their order.
What it takes says whether it needs completions: for one that takes none of `OF_COMPLETIONS` and `OF_SEARCH`
none are sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airls_ray.doors import Kind
from airls_ray.own_code import Rule, read_rule

if TYPE_CHECKING:
    import numpy as np

OF_COMPLETIONS = ("values", "completions", "correct")
"""Of the prefix that ends with each step. `values`, float64 [S] from 0 to 1: share of its completions that
are correct, 0 where it has none since it fills the response; at a last step, where nothing is left to
complete, the outcome. `completions` and `correct`, int64 [S]: how many there are, and how many of them are
correct; 0 at a last step."""
OF_SEARCH = ("first_errors",)
"""int64 [N]: the first wrong step of a rollout, found by binary search; the number of its steps where there
is none, -1 where no rollout of the problem is right (`airls_ray.prm.first_errors`). For a rule that takes it
the prefixes that the search visits are the only ones with completions; `values` is 0 at others."""
OF_OUTCOMES = ("outcomes", "groups", "step_rows", "positions", "last")
"""`outcomes`, float64 [N] from 0 to 1; `groups`, int64 [N]: problem of each rollout; `step_rows`, int64
[S]: rollout of each step; `positions`, int64 [S]: its place there, from 0; `last`, bool [S]: whether it ends
it."""


@dataclass(frozen=True)
class LabelRule:
    """A label rule with its options."""

    rule: Rule

    @property
    def needs_completions(self) -> bool:
        """Whether prefixes must be completed for it."""
        return not {*OF_COMPLETIONS, *OF_SEARCH}.isdisjoint(self.rule.names)

    @property
    def needs_search(self) -> bool:
        """Whether these are the prefixes that a search for the first wrong step visits, instead of all."""
        return not set(OF_SEARCH).isdisjoint(self.rule.names)

    def __call__(self, known: Mapping[str, np.ndarray]) -> Any:
        """Return the labels [S] by what is known, nan where a step has none."""
        return self.rule(known)


def make_label_rule(found: Any, options: Mapping[str, Any]) -> LabelRule:
    """Return a function as a label rule.

    Raises:
        DoorError: it is no function, or takes something else; the text follows its name.
    """
    return LabelRule(read_rule(found, options, (*OF_COMPLETIONS, *OF_SEARCH, *OF_OUTCOMES)))


LABEL_RULE = Kind(
    name="label rule",
    protocol=(
        f"a function of keywords among {', '.join((*OF_COMPLETIONS, *OF_SEARCH, *OF_OUTCOMES))} (NumPy "
        "arrays) that returns an array with a label from 0 to 1 for each step, nan for none; completions are "
        "sampled if it takes one of the first four, and where a search visits if it takes the fourth"
    ),
    package="airls_ray.prm.label_rules",
    attribute="label",
    example="math_shepherd_hard",
    make=make_label_rule,
)
"""How steps are labelled by completions and outcomes (`supervised_prm.labels`)."""
