"""A PRM objective of your own: the discriminator of AIRL-S with a hinge in the place of the cross-entropy.

`own_objective.yaml` trains with it. An objective gets the values f of a micro-batch's actions (steps or
tokens), the policy's log-probabilities of them, and their weights on either side. It returns its share of the
loss, and sums for the metrics.
"""

import torch
from torch import Tensor

from airls_ray.config.schema import PRMConfig
from airls_ray.prm.objective import Actions


class Hinge:
    """Steps of traces should be worth more than `margin`, those of the policy less than `-margin`."""

    # What it declares is read without running the file: literals alone. All have defaults
    # (airls_ray/prm/objective_traits.py).
    base = "policy"  # log_base is the policy's
    weighs = "action"  # every step of a side weighs the same

    def __init__(self, config: PRMConfig, margin: float = 1.0) -> None:
        """`config` is the section `prm`; the rest are its options."""
        self.margin = margin

    def loss(self, actions: Actions) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of weight times hinge; the weights of each side sum to 1/2 over the whole update."""
        logits = actions.f - actions.log_base
        expert = actions.expert_weights * torch.relu(self.margin - logits)
        policy = actions.policy_weights * torch.relu(self.margin + logits)
        return (expert + policy).sum(), {
            "expert_right": (actions.expert_weights * (logits > 0)).sum(),
            "policy_right": (actions.policy_weights * (logits < 0)).sum(),
        }

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """Sums over all ranks as metrics; without this method each is shown as it is, as `prm/NAME`."""
        return {
            "prm/expert_accuracy": 2 * sums["expert_right"],
            "prm/policy_accuracy": 2 * sums["policy_right"],
        }
