"""How much the fuzz tests draw: a fixed corpus, the same in every run, small enough for every change."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

FEW = settings(
    max_examples=200,
    deadline=None,  # each reading has its own, which the tests measure where it matters
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
