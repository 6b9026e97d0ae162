"""Settings of `airls-ray serve`. Which search answers a request that does not say: the `search` section."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from airls_ray.config.base import StrictModel


class ServeConfig(StrictModel):
    """The endpoint whose answers come from search."""

    max_live: PositiveInt = 32
    """Searches that run at once: their wishes are merged into one call of the engines and one of the
    scorers."""
    max_queue: NonNegativeInt = 128
    """Requests that wait for a place among them; more are refused (429)."""
    deadline_seconds: PositiveFloat = 120.0
    """Longest time of a request, its wait included; then its search is dropped (504)."""
    max_budget: PositiveInt = 256
    """Largest width N that a request may ask for."""
    max_body_bytes: PositiveInt = 1_000_000
    """Longest body of a request (413)."""
    close_seconds: PositiveFloat = 2.0
    """How long requests under way may go on when the endpoint is ended."""
