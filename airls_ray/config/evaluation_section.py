"""Settings of the evaluation during training."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from airls_ray.config.base import StrictModel


class EvaluationConfig(StrictModel):
    """The held-out problems on which a run is evaluated while it learns, the same ones each time."""

    problems: PositiveInt = 100
    """Test problems (all, where there are fewer)."""
    skip: NonNegativeInt = 0
    """Test problems before them that are left out: with the number of `search.problems` the problems that
    choose the best checkpoint or end the run are not those of the final figures."""
    samples: Literal[1, 2, 4, 8, 16, 32, 64] = 4
    """Samples of each problem."""
    temperature: PositiveFloat | None = None
    """Sampling temperature; null: that of the rollouts. Their `top_p`, `top_k` and `min_p` hold always."""
    greedy: bool = False
    """Also give each problem one greedy response (evaluation/greedy)."""
