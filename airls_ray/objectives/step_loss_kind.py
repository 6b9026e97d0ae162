"""What may be named in `supervised_prm.step_loss`. Imports no PyTorch: the driver looks at the kind."""

from __future__ import annotations

from functools import partial

from airls_ray.doors import Kind
from airls_ray.own_code import read_rule

OF_STEPS = ("logits", "labels", "weights", "step_rows", "positions", "normaliser", "config")
"""What a step loss may take: see `airls_ray.objectives.step_loss.known_to`."""

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
