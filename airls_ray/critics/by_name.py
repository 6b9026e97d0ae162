"""A critic as a PRM of `airls-ray score` and `evaluate-prm`: named as `search.scorer` names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from airls_ray.config.door_section import ScorerConfig
from airls_ray.errors import ConfigError, DoorError
from airls_ray.prm.items import StepText, refuse_blank_steps
from airls_ray.search.own_scorer import open_own


class _Named(ScorerConfig):
    where: ClassVar[str] = "PRM"


class CriticScorer:
    """Implements `airls_ray.prm.items.StepScorer`."""

    def __init__(self, name: str, endpoint: str, model: str | None = None, votes: int | None = None) -> None:
        """Open the critic and try it on made-up solutions.

        Args:
            name: a built-in critic, or one of the user's own that takes these options.
            endpoint: its address.
            model: name there; None: the one that is served.
            votes: replies to each question; None: as its authors.

        Raises:
            DoorError: there is no critic of that name, nobody answers, or no reply can be read.
        """
        given: dict[str, Any] = {"endpoint": endpoint, "model": model, "votes": votes}
        options = {key: value for key, value in given.items() if value is not None}
        try:
            named = _Named(name=name, options=options)
            self._own = open_own(named)
        except DoorError as error:
            raise DoorError(f"{error} (with --endpoint PRM names a critic: airls-ray list scorer)") from error
        self._own.try_out()

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        """See `StepScorer.score`."""
        for item in items:
            refuse_blank_steps(item)
        return self._own.score(items)

    def fits(self, item: StepText) -> bool:
        """True: what the endpoint refuses scores neutral, and is counted."""
        return True

    def cut_last_step(self, item: StepText, tokens: int) -> StepText | None:
        """Raise a ConfigError: nobody knows the tokens of a model behind an address."""
        raise ConfigError("--partial-tokens counts the tokens of a PRM here: leave it out with --endpoint")

    def told(self) -> str:
        """Return what became of the requests, in a line; empty where the critic keeps no count."""
        return self._own.told()
