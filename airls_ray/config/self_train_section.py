"""Settings of `airls-ray self-train`: rounds of search, warm start and PRM training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from airls_ray.config.base import StrictModel
from airls_ray.config.model_sections import Probability


class BalanceConfig(StrictModel):
    """B-STaR (arXiv 2412.17256): every round chooses temperature and threshold by the balance score, the mean
    over some problems of min(n' / n*, 1) n' / n, of n responses above the threshold n' being right."""

    temperatures: list[PositiveFloat] = Field(default_factory=list)
    """Temperatures of the search to choose from, each of which is tried in every round; empty: none is
    chosen, and `search.temperature` and `self_train.threshold` hold."""
    thresholds: Annotated[list[Probability], Field(min_length=1)] = Field(
        default_factory=lambda: [0.0, 0.25, 0.5, 0.75]
    )
    """[C] Thresholds to choose from; they cost nothing."""
    wished: PositiveInt = 8
    """[P] n*: right responses of a problem that are enough."""
    problems: PositiveInt = 64
    """[C] Training problems that are searched at each temperature to choose."""


class SelfTrainConfig(StrictModel):
    """`airls-ray self-train` (ReST-MCTS*, arXiv 2406.03816): a search on training problems gives traces, the
    policy learns them (`sft`, all of `sft.iterations`), and the PRM learns from it."""

    rounds: PositiveInt = 2
    """How often."""
    problems: PositiveInt = 512
    """Training problems that every round searches, the same ones, by the one of `search.algorithms` and of
    `search.budgets`."""
    threshold: Probability = 0.0
    """Least score of a right response by the PRM (`search.scorer`) for it to be a trace."""
    traces_per_problem: PositiveInt = 8
    """Most traces of a problem: different ones, the highest scores first."""
    policy_from: Literal["first", "newest"] = "first"
    """The policy that a round's warm start begins with: that of the command, so that nothing adds up but
    better traces, or that of the round before."""
    prm: Literal["values", "completions", "none"] = "values"
    """What the PRM learns from after the policy. `values` [P]: of the round's search the values of steps by
    their distance to a right answer; take `supervised_prm.step_loss=mean_squared_error` for them.
    `completions`: rollouts of the new policy, labelled by `supervised_prm.labels`. `none`: it stays."""
    balance: BalanceConfig = BalanceConfig()
    """Choice of temperature and threshold in every round."""
