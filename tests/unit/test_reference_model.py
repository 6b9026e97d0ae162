"""A reference model that is not the policy's start (`reference.path`): what it must be, where it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.train.launch import _sources
from actors.train.launch_checks import base_policy, run_inputs
from airls_ray.config import load_config
from airls_ray.config.load import with_absolute_paths
from airls_ray.config.resume import check_resume
from airls_ray.config.schema import Config
from airls_ray.errors import ModelError, RunError
from airls_ray.planning.plan import make_plan
from tests.tiny import make_text_policy
from tests.unit.test_distillation import text_model


def settings(*overrides: str) -> Config:
    return load_config(None, ["method=grpo", "method.kl_coefficient=0.1", *overrides])


@pytest.mark.parametrize("path", [None, "other"])
@pytest.mark.parametrize("resumed", [False, True])
def test_the_reference_server_reads_the_model_that_is_named(
    tmp_path: Path, path: str | None, resumed: bool
) -> None:
    """The policy's start otherwise, also at a resume."""
    named = [] if path is None else [f"reference.path={tmp_path / path}"]
    (tmp_path / "other").mkdir()
    found = _sources(settings(*named), "base", tmp_path / "checkpoint" if resumed else None)
    assert found.reference == ("base" if path is None else str(tmp_path / "other"))


def test_its_memory_is_that_of_its_own_size() -> None:
    """As much as that of a run whose policy is that model."""
    plan = make_plan(
        settings("model.path=Qwen/Qwen2.5-1.5B-Instruct", "reference.path=Qwen/Qwen2.5-7B-Instruct")
    )
    same = make_plan(settings("model.path=Qwen/Qwen2.5-7B-Instruct"))
    assert plan.memory["reference server"] == same.memory["reference server"]
    assert plan.memory["policy learner"].total < same.memory["policy learner"].total
    unknown = make_plan(settings("model.path=Qwen/Qwen2.5-1.5B-Instruct", "reference.path=nobody/nothing"))
    assert unknown.unknown is not None and "nobody/nothing" in unknown.unknown


@pytest.mark.parametrize(
    ("overrides", "looked_at"), [(["method.kl_coefficient=0.1"], True), (["method.kl_coefficient=0"], False)]
)
def test_one_that_numbers_tokens_otherwise_is_refused_where_it_is_used(
    tmp_path: Path, overrides: list[str], looked_at: bool
) -> None:
    policy, other = make_text_policy(tmp_path / "policy"), text_model(tmp_path / "other", tokens=262)
    config = settings(f"model.path={policy}", f"reference.path={other}", *overrides)
    assert ("reference.path" in run_inputs(config, str(policy))) == looked_at
    if not looked_at:
        assert base_policy(config) == str(policy)
        return
    with pytest.raises(
        ModelError, match=r"the reference model .*other has another tokenizer than the policy"
    ):
        base_policy(config)


def test_a_resume_keeps_it_unless_it_is_known_to_be_the_same() -> None:
    before, now = settings("reference.path=one/model"), settings("reference.path=another/model")
    with pytest.raises(RunError, match=r"reference\.path was one/model and is another/model"):
        check_resume(before, now)
    assert list(check_resume(before, now, {"reference.path"})) == ["reference.path"]


def test_its_path_names_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    assert with_absolute_paths(settings("reference.path=other")).reference.path == str(tmp_path / "other")
    assert with_absolute_paths(settings("reference.path=a/hub")).reference.path == "a/hub"
