"""An objective as the configuration names it: opened, made for an update, and checked if it is the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airls_ray.config.method_doors import ObjectiveConfig
from airls_ray.config.prm_sections import PRMConfig
from airls_ray.errors import DoorError
from airls_ray.objectives.own_loss import CheckedLoss
from airls_ray.own_code import call_own, shown
from airls_ray.prm.objective import FRAME_SUMS, ObjectiveClass, PRMObjective, RowSums
from airls_ray.prm.objective_traits import ObjectiveTraits


class NamedObjective:
    """An objective for one update."""

    def __init__(self, named: ObjectiveConfig, traits: ObjectiveTraits, config: PRMConfig) -> None:
        """Open and make it.

        Args:
            named: the setting.
            traits: what its source declares.
            config: of the PRM.

        Raises:
            DoorError: it does not open, cannot be made, or is not what its source declares.
        """
        self._door, self._where = named.door(), named.where
        opened: ObjectiveClass = named.open()
        try:
            self._made: PRMObjective = self._call(opened.make, config, traits)
        except DoorError as error:
            said = str(error)
            raise DoorError(
                said if said.startswith(self._where) else f"{self._where}: {named.name} {said}"
            ) from error
        self.loss = CheckedLoss(self._door, self._where, self._made.loss, FRAME_SUMS)
        """Of a micro-batch (`Actions`): the loss, and sums."""

    def prepare(self, sums: RowSums) -> None:
        """Take what the pass before saw."""
        self._call(self._made.prepare, sums)

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """Turn the sums over all ranks into `prm/...`.

        Raises:
            DoorError: what came out are no numbers with names.
        """
        found: dict[str, float] = self._call(self._made.metrics, sums)
        if self._door.source == "built-in":
            return found
        numbers = isinstance(found, dict) and all(
            isinstance(name, str) and isinstance(one, bool | int | float) for name, one in found.items()
        )
        if not numbers:
            raise DoorError(
                f"{self._where}: {self._door.name} returned {shown(found)} as metrics, and it must be a "
                "dictionary of names and numbers"
            )
        return {name: float(value) for name, value in found.items()}

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._door.source == "built-in":
            return function(*arguments)
        return call_own(self._door, self._where, function, *arguments)


def accuracies_of(metrics: dict[str, float], objective: str) -> tuple[float, float]:
    """Return both class accuracies, by which `prm.accuracy_ceiling` skips updates.

    Raises:
        DoorError: the objective does not measure them.
    """
    names = ("prm/expert_accuracy", "prm/policy_accuracy")
    lacking = [name for name in names if name not in metrics]
    if lacking:
        raise DoorError(
            f"prm.accuracy_ceiling reads {lacking[0]}, which the metrics of the objective {objective} lack: "
            "return it from metrics(sums), or set prm.accuracy_ceiling=1"
        )
    return metrics[names[0]], metrics[names[1]]
