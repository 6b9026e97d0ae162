"""The list of settings: all of them, each with what a configuration takes and what its docstring says."""

from __future__ import annotations

import pytest

from airls_ray.cli import main as cli
from airls_ray.config import Config, load_config
from airls_ray.config.explain import known_keys
from airls_ray.config.settings_list import all_settings, find_settings
from airls_ray.errors import ConfigError


def test_every_setting_is_there_once_with_a_meaning() -> None:
    names = [one.name for one in all_settings()]
    assert len(names) == len(set(names))
    assert not [key for key in known_keys() if not any(f"{key}.".startswith(f"{name}.") for name in names)]
    assert not [one.name for one in all_settings() if not one.meaning]


def test_a_default_is_what_an_override_takes() -> None:
    names = {one.name for one in all_settings()}
    whole = [
        one
        for one in all_settings()
        if not one.name.startswith("task.") and one.name.rpartition(".")[0] not in names  # of a name
    ]
    assert load_config(None, [f"{one.name}={one.default}" for one in whole]) == Config()


def test_the_list_says_type_default_and_first_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", "settings", "ROLLOUT.TEMPERATURE"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "rollout.temperature: number above 0, by default 1.0",
        "    Sampling temperature; the learner's log-probabilities use the same.",
    ]


def test_a_word_finds_names_and_descriptions() -> None:
    found = {one.name for one in find_settings("temperature")}
    assert {"rollout.temperature", "self_train.balance.problems"} <= found
    assert len(find_settings()) == len(all_settings())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("temprature", r"did you mean (rollout|search)\.temperature\?"),
        ("num_generations", r"TRL's num_generations is train\.rollouts_per_problem here"),
        ("qqqq", "airls-ray list settings prints all"),
    ],
)
def test_a_word_that_nothing_has_is_a_sentence(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"no setting has '{word}' .*{said}"):
        find_settings(word)


def test_the_types_are_words() -> None:
    kinds = {one.name: one.kind for one in all_settings()}
    assert kinds["prm.label_smoothing"] == "number at least 0 and below 0.5"
    assert (
        kinds["method.accuracy_band"]
        == "[number at least 0 and at most 1, number at least 0 and at most 1] | null"
    )
    assert kinds["method.policy_loss"] == "name of a policy loss"
    assert kinds["method.outcome_terms"] == "list: name of an outcome term"
    assert kinds["model.dtype"] == "float32 | bfloat16"
    assert {"arithmetic", "countdown", "file", "code"} <= set(kinds["task.name"].split(" | "))
