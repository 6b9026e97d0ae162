"""What may be named in `method.policy_loss`. Imports no PyTorch: the driver looks at the kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airls_ray.doors import Kind
from airls_ray.errors import DoorError
from airls_ray.own_code import keywords_of

if TYPE_CHECKING:
    from torch import Tensor

    from airls_ray.config.method_section import MethodConfig
    from airls_ray.objectives.policy_loss import PolicyLossInputs, PolicyNormaliser

_GIVEN = ("inputs", "config", "normaliser")


@dataclass(frozen=True)
class PolicyLoss:
    """A policy loss with its options."""

    function: Callable[..., Any]
    options: Mapping[str, Any]

    def __call__(
        self, inputs: PolicyLossInputs, config: MethodConfig, normaliser: PolicyNormaliser
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the micro-batch's share of the update's loss, and sums over its tokens, detached."""
        result: tuple[Tensor, dict[str, Tensor]] = self.function(
            inputs=inputs, config=config, normaliser=normaliser, **self.options
        )
        return result


def make_loss(found: Any, options: Mapping[str, Any]) -> PolicyLoss:
    """Return a function as a policy loss.

    Raises:
        DoorError: it takes other arguments; the text follows its name.
    """
    keywords = keywords_of(found, options)
    named = keywords.named
    missing = [name for name in _GIVEN if name not in named and not keywords.takes_all]
    strange = [
        name
        for name, one in named.items()
        if name not in _GIVEN and name not in options and one.default is one.empty
    ]
    if missing or strange:
        raise DoorError(f"takes {', '.join(named) or 'nothing'}, and it must take {', '.join(_GIVEN)}")
    return PolicyLoss(found, options)


POLICY_LOSS = Kind(
    name="policy loss",
    protocol=(
        "a function (inputs, *, config, normaliser) of a micro-batch that returns its share of the loss and "
        "a dictionary of sums over its tokens"
    ),
    package="airls_ray.objectives.policy_losses",
    attribute="loss",
    example="clipped",
    make=make_loss,
)
"""The policy's loss (`method.policy_loss`)."""
