"""Any settings on the command line: a configuration, or one sentence."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from airls_ray.config import load_config
from airls_ray.config.load import dump_config
from airls_ray.config.schema import Config
from airls_ray.errors import ConfigError
from tests.fuzz.budget import FEW


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All keys of a section and of those in it."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, f"{prefix}{name}.")
    return found


names = st.one_of(
    st.sampled_from([*keys(Config), "task.name", "task.train_file", "method.name", "method.prm_objective"]),
    st.text(st.sampled_from("abc._ =\ud800"), max_size=6),
)
VALUES = [
    "null", "true", "0", "-1", "1", "3", "1e9", ".nan", ".inf", "2024-13-45", "2024-01-02", "grpo", "airl_s",
    "countdown", "file", "[1,2]", "{}", "{a: 1}", "[", "!!int x", "!!float x", "!!timestamp x", "!!binary é",
    "!!python/object:os.system", "&a [*a]", "*a", "~", "''", '"\\ud800"', "1:30", "0x10", "1_000", "=", "<<",
    "{<<: 1}", "{[1]: 2}", "{1: 2}", "[" * 400 + "]" * 400, "9" * 5000,
]  # fmt: skip
plain = st.one_of(
    st.sampled_from(VALUES),
    st.text(st.characters(exclude_categories=()), max_size=8),
    st.integers().map(str),
    st.floats().map(str),
)
overrides = st.lists(st.one_of(st.builds("{}={}".format, names, plain), plain), max_size=3)


def is_a_configuration_or_a_sentence(given_overrides: list[str]) -> None:
    try:
        config = load_config(None, given_overrides)
    except ConfigError as error:
        assert str(error) and "\n" not in str(error)
        return
    assert dump_config(config)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:20])
@pytest.mark.parametrize("key", ["seed", "name", "task", "search.limits"])
def test_odd_values_are_a_configuration_or_a_sentence(key: str, value: str, tmp_path: Path) -> None:
    is_a_configuration_or_a_sentence([f"{key}={value}"])
    (tmp_path / "a.yaml").write_text(f"{key.partition('.')[0]}: {value}\n", encoding="utf-8")
    with suppress(ConfigError):
        load_config(tmp_path / "a.yaml")


@given(overrides)
@settings(FEW, max_examples=150)
def test_overrides_are_a_configuration_or_a_sentence(given_overrides: list[str]) -> None:
    is_a_configuration_or_a_sentence(given_overrides)
