"""What may be named in `supervised_prm.step_loss`. Imports no PyTorch: the driver looks at the kind."""

from __future__ import annotations

from functools import partial

from airls_ray.doors import Kind
from airls_ray.own_code import Rule, keywords_of, read_rule

OF_STEPS = ("logits", "labels", "weights", "step_rows", "positions", "normaliser", "config", "solutions")
"""What a step loss may take: see `airls_ray.objectives.step_loss.known_to`. `solutions` costs a pass without
gradients before each update, and makes updates of whole problems."""

STEP_LOSS = Kind(
    name="step loss",
    protocol=(
        f"a function of keywords among {', '.join(OF_STEPS)} that returns the share of a micro-batch in the "
        "loss and a dictionary of sums over its steps"
    ),
    package="airls_ray.objectives.step_losses",
    attribute="loss",
    example="mean_squared_error",
    make=partial(read_rule, known=OF_STEPS),
)
"""The loss of a PRM from labels (`supervised_prm.step_loss`)."""


def takes_solutions(loss: Rule) -> bool:
    """Whether a step loss compares whole solutions with each other: it names them, and is not open to all."""
    return "solutions" in keywords_of(loss.function, {}).named
