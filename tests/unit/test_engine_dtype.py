"""The data type of an engine."""

from __future__ import annotations

import pytest

from actors.rollout import vllm_engine


@pytest.mark.parametrize(
    ("on_cpu", "asked", "found"),
    [(True, "auto", "float32"), (False, "auto", "bfloat16"), (True, "bfloat16", "bfloat16")],
)
def test_auto_is_float32_on_a_cpu_alone(
    monkeypatch: pytest.MonkeyPatch, on_cpu: bool, asked: str, found: str
) -> None:
    monkeypatch.setattr(vllm_engine, "_on_cpu", lambda: on_cpu)
    assert vllm_engine._resolve_dtype(asked, "bfloat16") == found
