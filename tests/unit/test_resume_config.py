"""Which settings a resume may change, and what is said about the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from airls_ray.config import Config
from airls_ray.config.load import dump_config
from airls_ray.config.resume import (
    BY_CONTENT,
    MAY_CHANGE,
    MAY_NOT,
    changes,
    check_resume,
    describe,
    may_change,
    read_run_config,
)
from airls_ray.errors import RunError
from airls_ray.runs.storage import without_credentials


def config(**sections: Any) -> Config:
    return Config.model_validate(sections)


def fields(section: type[BaseModel], above: str = "") -> set[str]:
    """Dotted names of all fields and sections, of every form of the task."""
    found: set[str] = set()
    for name, field in section.model_fields.items():
        found.add(f"{above}{name}")
        options = [field.annotation, *get_args(field.annotation)]
        for option in [*options, *(inner for one in options for inner in get_args(one))]:
            if isinstance(option, type) and issubclass(option, BaseModel):
                found |= fields(option, f"{above}{name}.")
    return found


def test_the_lists_name_fields_that_exist() -> None:
    assert not (MAY_CHANGE | MAY_NOT | BY_CONTENT) - fields(Config)


@pytest.mark.parametrize(
    "field",
    [
        "train.iterations", "train.evaluate_every", "train.patience",
        "train.checkpoint_every", "train.keep_best", "train.storage", "output",
        "rollout.min_workers", "rollout.deadline_seconds", "rollout.engine.kv_cache_gib", "ray.address",
        "train.deadline_seconds", "policy.tokens_per_microbatch",
        "prm.learner.resources.gpus", "search.budgets", "verifier.processes",
    ],
)  # fmt: skip
def test_what_changes_no_figure_may_change(field: str) -> None:
    assert may_change(field)


@pytest.mark.parametrize(
    "field",
    [
        "seed", "task.name", "task.modulus", "model.context_tokens", "model.dtype", "method.name",
        "method.prm_objective", "method.kl_coefficient", "prm.parameterisation", "prm.replay_iterations",
        "prm.warmup_iterations", "policy.learning_rate", "policy.ranks", "prm.learner.zero_stage",
        "train.problems_per_iteration", "train.rollouts_per_problem", "rollout.temperature",
        "train.evaluation.samples", "rollout.engine.dtype", "search.samples", "no.such.field",
    ],
)  # fmt: skip
def test_what_changes_figures_may_not(field: str) -> None:
    assert not may_change(field)


def test_wrong_changes_are_named_with_both_values_and_the_fine_ones_apart() -> None:
    before = config(seed=1, train={"rollouts_per_problem": 4})
    now = config(seed=2, train={"rollouts_per_problem": 8, "iterations": 99})
    with pytest.raises(RunError) as caught:
        check_resume(before, now)
    sentence = str(caught.value)
    assert "seed was 1 and is 2, train.rollouts_per_problem was 4 and is 8; set back" in sentence
    assert "(train.iterations changed too, which is fine)" in sentence


def test_fine_changes_are_returned() -> None:
    changed = check_resume(config(), config(train={"iterations": 99}, output="elsewhere"))
    assert changed == {"output": ("runs", "elsewhere"), "train.iterations": (60, 99)}
    assert describe({"train.storage": (None, "s3://a")}) == "train.storage was not set and is s3://a"


def test_how_to_evaluate_may_change_until_something_was_evaluated() -> None:
    more = {"evaluate_every": 5, "evaluation": {"samples": 8}}
    assert set(check_resume(config(), config(train=more))) == {
        "train.evaluate_every", "train.evaluation.samples",
    }  # fmt: skip
    with pytest.raises(RunError, match=r"train\.evaluation\.samples was 4 and is 8"):
        check_resume(config(train={"evaluate_every": 5}), config(train=more))


def test_a_path_may_change_only_where_the_content_is_known_to_be_the_same() -> None:
    before, now = config(model={"path": "owner/a"}), config(model={"path": "owner/b"})
    with pytest.raises(RunError, match=r"model\.path was owner/a and is owner/b"):
        check_resume(before, now)
    assert set(check_resume(before, now, {"model.path"})) == {"model.path"}


def test_another_task_differs_in_all_its_own_fields() -> None:
    changed = changes(config(task="arithmetic"), config(task="countdown"))
    assert changed["task.name"] == ("arithmetic", "countdown")
    assert changed["task.modulus"][1] is None


def test_an_older_run_lacks_fields_that_have_their_defaults_now(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    text = dump_config(config(seed=3))
    assert "  keep_best: 0\n" in text
    file.write_text(text.replace("  keep_best: 0\n", ""))
    assert read_run_config(file) == config(seed=3)


def test_a_run_of_a_version_with_other_fields_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("train: {steps: 3}\n")
    with pytest.raises(RunError, match=r"setting that this version does not take \(train\.steps\)"):
        read_run_config(file)
    file.write_text("{")
    with pytest.raises(RunError, match="missing or broken"):
        read_run_config(file)


def test_credentials_are_not_written_to_the_run_folder() -> None:
    secret = config(train={"storage": "s3://KEY:se/cr?et@bucket/runs?region=x"})
    assert without_credentials(secret).train.storage == "s3://bucket/runs"
    assert without_credentials(config()) == config()
