"""Label rules of the user's own and their trial; how a configuration names rules and step losses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.commands.prm_labels import label_settings
from airls_ray.cli.main import run
from airls_ray.config import load_config
from airls_ray.config.load import dump_config, load_run_config
from airls_ray.config.named import find_doors
from airls_ray.config.schema import Config
from airls_ray.config.supervised_section import LabelRuleConfig
from airls_ray.errors import ConfigError, DoorError
from airls_ray.learning.try_step_labels import try_label_rule, try_step_loss
from airls_ray.prm.label_rule import LabelRule
from airls_ray.prm.step_labels import (
    Completions,
    distinct_prefixes,
    label_steps,
    rule_record,
)
from airls_ray.prm.step_labels import known_to as known_to_rule
from tests.unit.test_own_step_losses import loss_by, steps_of

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = """
import numpy as np

def gain(values, positions, last, scale=1.0):
    before = np.where(positions > 0, np.roll(values, 1), 0.5)
    return np.where(last, np.nan, 0.5 + 0.5 * scale * (values - before))
def first_error(correct, last, outcomes, step_rows, positions):
    good = np.where(last, outcomes[step_rows] > 0.5, correct > 0)
    wrong = (~good).cumsum()
    before = np.where(positions > 0, np.roll(wrong, 1), wrong - ~good)
    start = np.zeros(len(outcomes), int)
    start[step_rows[positions == 0]] = before[positions == 0]
    return (wrong == start[step_rows]).astype(float)
def of_groups(outcomes, groups, step_rows):
    return (np.bincount(groups, outcomes) / np.bincount(groups))[groups][step_rows]
def in_place(values):
    values[:] = 0.0
    return values
def raises(values): return {}["x"]
def a_list(values): return values.tolist()
def texts(values): return np.array(["good"] * len(values))
def short(values): return values[1:]
def above(values): return values + 1.5
def ratio(values, positions):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(positions > 0, 1 / values, 1.0)
def needs_more(values, threshold): return values
class Rule: pass
def hangs(values):
    while True: pass
"""


# ---------------------------------------------------------------------------------- label rules
ROLLOUTS = pa.table(
    {
        "problem_id": ["a", "a", "b"],
        "prompt": [[9]] * 3,
        "response": [[1, 2, 3, 4], [1, 5], [6]],
        "step_ends": [[1, 2, 3, 4], [1, 2], [1]],
        "outcome": [1.0, 0.0, 1.0],
    }
)
VALUES = (0.75, 0.0, 0.25)
"""Of the prefixes [1], [1, 2] and [1, 2, 3], with four completions each."""


def labels_by(rule: LabelRuleConfig) -> list[list[float | None]]:
    opened: LabelRule = rule.open()
    correct = np.array([int(4 * value) for value in VALUES])
    completed = distinct_prefixes(ROLLOUTS), Completions(np.full(3, 4), correct)
    known = known_to_rule(ROLLOUTS, completed if opened.needs_completions else None)
    labels: list[list[float | None]] = label_steps(rule, known).to_pylist()
    return labels


def test_a_rule_of_a_file_labels_by_what_it_names_and_its_options(own: Path) -> None:
    """Progress by hand: 1/2 + scale (value - value before) / 2, and no label at a last step."""
    rule = LabelRuleConfig(name=f"{own}:gain", options={"scale": 0.5})
    assert labels_by(rule) == [[0.5625, 0.3125, 0.5625, None], [0.5625, None], [None]]


def test_labels_of_a_search_for_the_first_error_need_no_more_than_a_rule(own: Path) -> None:
    """OmegaPRM's: all before the first prefix without a correct completion is good, all from there bad."""
    assert labels_by(LabelRuleConfig(name=f"{own}:first_error")) == [
        [1.0, 0.0, 0.0, 0.0],
        [1.0, 0.0],
        [1.0],
    ]


def test_what_a_rule_takes_says_whether_completions_are_sampled(own: Path) -> None:
    needs = {
        name: LabelRuleConfig(name=name).open().needs_completions
        for name in ("outcome", "math_shepherd_hard", "math_shepherd_soft", f"{own}:of_groups", f"{own}:gain")
    }
    assert list(needs.values()) == [False, True, True, False, True]
    assert labels_by(LabelRuleConfig(name=f"{own}:of_groups")) == [[0.5] * 4, [0.5] * 2, [1.0]]


def test_what_a_rule_changes_in_place_stays_with_it(own: Path) -> None:
    known = known_to_rule(ROLLOUTS, (distinct_prefixes(ROLLOUTS), Completions(np.full(3, 4), np.full(3, 4))))
    before = known["values"].copy()
    assert label_steps(LabelRuleConfig(name=f"{own}:in_place"), known).to_pylist() == [
        [0.0] * 4,
        [0.0] * 2,
        [0.0],
    ]
    assert np.array_equal(known["values"], before)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", r"raises KeyError: 'x' \(own\.py line \d+\)"),
        (
            "a_list",
            r"returned \[.* \(list\), and it must be an array of 14 numbers, one for each of the steps",
        ),
        ("texts", "returned an array of <U4, and it must be an array of 14 numbers"),
        ("short", r"returned an array of shape \[13\], and it must be an array of 14 numbers"),
        ("above", r"returned 2 for number 0 of the steps, and a label must lie from 0 to 1 \(nan: none\)"),
        ("ratio", r"returned inf for number \d+ of the steps, and a label must lie from 0 to 1"),
        ("needs_more", "takes 'threshold', which nobody gives it"),
        ("Rule", "is a class, and it must be a function"),
        ("hangs", r"raises TimeoutError: it has not returned within 0\.5 s"),
    ],
)
def test_the_trial_of_a_rule_finds_what_is_wrong(
    own: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setattr("airls_ray.learning.try_method.CALL_SECONDS", 0.5 if name == "hangs" else 60.0)
    with pytest.raises(DoorError, match=rf"^supervised_prm\.labels: .*own\.py:{name} {said}") as caught:
        try_label_rule(LabelRuleConfig(name=f"{own}:{name}"))
    assert "\n" not in str(caught.value)


def test_a_wrong_plain_name_is_said_when_the_configuration_is_read() -> None:
    with pytest.raises(ConfigError, match=r"no label rule 'outcom' \(did you mean 'outcome'\?\)"):
        load_config(None, ["supervised_prm.labels=outcom"])
    with pytest.raises(ConfigError, match=r"no step loss 'crossentropy' \(did you mean 'cross_entropy'\?\)"):
        load_config(None, ["supervised_prm.step_loss=crossentropy"])


# ------------------------------------------------------------------------------- configurations
def section(**fields: Any) -> Config:
    return Config.model_validate({"supervised_prm": fields})


def test_a_configuration_is_written_with_the_name_alone_where_that_is_all(own: Path) -> None:
    """As those of before, which still read; with options it is a section."""
    text = dump_config(section(labels="math_shepherd_hard"))
    assert "  labels: math_shepherd_hard\n" in text and "  step_loss: cross_entropy\n" in text
    whole = section(labels={"name": f"{own}:gain", "options": {"scale": 0.5}}).model_dump(mode="json")
    assert whole["supervised_prm"]["labels"]["options"] == {"scale": 0.5}
    assert Config.model_validate(whole).supervised_prm.labels.options == {"scale": 0.5}


def test_train_looks_names_of_train_prm_up_and_loads_them_not(own: Path) -> None:
    named = section(labels=f"{own}:gain", step_loss=f"{own}:short")
    assert find_doors(named) == []
    assert [one.name for one in find_doors(named, "supervised_prm.step_loss")] == [f"{own}:short"]
    assert [one.kind for one in find_doors(named, "supervised_prm")] == ["label rule", "step loss"]
    with pytest.raises(DoorError, match=r"supervised_prm\.labels: there is no file .*none\.py"):
        find_doors(section(labels=f"{own.with_name('none.py')}:gain"))


def test_a_run_folder_that_names_a_rule_is_refused_unless_trusted(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump_config(section(labels=f"{own}:gain", step_loss=f"{own}:pqm"), tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"names code of its own \(.*own\.py:gain\).*--trust"):
        load_run_config(tmp_path, trust=False)
    assert run(["train-prm", str(tmp_path), "--steps", str(own), "--policy", "p"]) == 2
    assert "own.py:gain), which would run here" in " ".join(capsys.readouterr().err.split())
    assert load_run_config(tmp_path, trust=True).supervised_prm.labels.name == f"{own}:gain"
    none_opened = load_run_config(tmp_path).supervised_prm
    assert (none_opened.labels.name, none_opened.step_loss.name) == ("math_shepherd_soft", "cross_entropy")


def test_labels_of_another_rule_are_told_apart_by_options_and_by_what_the_file_says(
    tmp_path: Path, own: Path
) -> None:
    """A built-in rule is recorded as it was before there were others."""
    assert label_settings(section(labels="outcome"), "policy")["labels"] == "outcome"
    assert label_settings(section(labels="outcome"), "policy")["completions"] == 0
    assert label_settings(section(labels=f"{own}:of_groups"), "policy")["completions"] == 0
    assert label_settings(section(labels=f"{own}:gain"), "policy")["completions"] == 8

    def record(text: str, options: Mapping[str, Any]) -> Any:
        path = tmp_path / "own.py"
        path.write_text(text)
        return rule_record(LabelRuleConfig(name=f"{path}:gain", options=dict(options)))

    first = record(OWN, {})
    assert first == record(OWN, {})
    assert first not in (record(OWN + "\n", {}), record(OWN, {"scale": 0.5}))


# -------------------------------------------------------------------------------------- example
def test_the_example_passes_the_trial_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(EXAMPLES / "own_step_labels.yaml")
    try_step_loss(config.supervised_prm.step_loss, config.prm)
    try_label_rule(config.supervised_prm.labels)


def test_the_example_by_hand() -> None:
    """Least share 0.75 of the value before, which is 0.5 (1 of the second problem) at the start."""
    named = load_config(EXAMPLES / "own_step_labels.yaml").supervised_prm
    assert labels_by(named.labels) == [[1.0, 0.0, 1.0, 1.0], [1.0, 0.0], [1.0]]
    # Good 0.3, -0.5, 0.2 against bad 1.0, -2.0 by a margin of 2, a mean over six pairs; no pair elsewhere.
    pairs = [2 - (good - bad) for good in (0.3, -0.5, 0.2) for bad in (1.0, -2.0)]
    wanted = sum(max(pair, 0.0) for pair in pairs) / 6 / 3
    assert loss_by(named.step_loss, steps_of(slice(None))) == pytest.approx(wanted)
