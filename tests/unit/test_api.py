"""The door for Python: what it takes, what it answers, and that its examples are true."""

from __future__ import annotations

import doctest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import airls_ray
import airls_ray.api
import airls_ray.run_api
from airls_ray.config import Config
from airls_ray.config.load import dump_config, load_config
from airls_ray.errors import ConfigError, DataError, ModelError
from airls_ray.prm.items import StepText
from airls_ray.run_api import read_settings
from tests.unit.endpoint_fakes import FakePolicy, served
from tests.unit.prm_folders import qwen_prm


class Counts:
    """Scores a step by its number."""

    def __init__(self) -> None:
        self.asked: list[StepText] = []

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        self.asked += items
        return [[at / 10 for at in range(len(item.steps))] for item in items]

    def fits(self, item: StepText) -> bool:
        return True

    def cut_last_step(self, item: StepText, tokens: int) -> StepText | None:
        return None


def test_the_examples_are_true() -> None:
    results = [doctest.testmod(module) for module in (airls_ray.api, airls_ray.run_api)]
    assert sum(one.failed for one in results) == 0
    assert sum(one.attempted for one in results) >= 4


def test_the_examples_of_the_documentation_are_true() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "python.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert (failed, tried) == (0, 3)


@pytest.mark.parametrize("name", airls_ray.__all__)
def test_every_name_is_there_and_listed(name: str) -> None:
    assert getattr(airls_ray, name) is not None
    assert name in dir(airls_ray)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        airls_ray.trian  # noqa: B018


# ---------------------------------------------------------------------------------------- settings
def test_sections_and_paths_replace_what_a_file_says(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train: {iterations: 7, checkpoint_every: 3}\nmethod: rloo\n")
    given: dict[str, Any] = {"train": {"iterations": 5}, "rollout.temperature": 0.5, "method": "grpo"}
    config = read_settings(str(path), given)
    assert (config.train.iterations, config.train.checkpoint_every) == (5, 3)
    assert (config.rollout.temperature, config.method.outcome_advantage) == (0.5, "grpo")


def test_a_mapping_is_a_configuration() -> None:
    assert read_settings({"task": "countdown"}, {"task.numbers": 4}) == load_config(
        None, ["task=countdown", "task.numbers=4"]
    )


def test_a_run_folder_is_used_where_it_stands(tmp_path: Path) -> None:
    run = tmp_path / "moved"
    run.mkdir()
    dump_config(Config(name="before"), run / "config.yaml")
    config = read_settings(run, {"method": "grpo"})
    assert (config.output / config.name, config.method.name) == (run, "grpo")
    assert config.method.step_weight == 0.0  # of grpo, nothing left of the method before


def test_a_configuration_that_is_loaded_is_taken_as_it_is() -> None:
    config = Config(seed=3)
    assert read_settings(config, {}) is config
    with pytest.raises(ConfigError, match=r"a configuration that is loaded takes no settings \(seed\)"):
        read_settings(config, {"seed": 4})


def test_an_unknown_setting_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"did you mean train\.iterations\?"):
        airls_ray.train({}, train={"iteratons": 5})


def test_a_search_of_a_run_without_a_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no checkpoint to search with"):
        airls_ray.search_task({}, output=tmp_path, name="none")


def test_without_ray_training_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"train needs Ray, which is not installed: pip install"):
        airls_ray.train({})


# -------------------------------------------------------------------------------------------- PRMs
def test_a_prm_scores_the_steps_of_a_solution() -> None:
    scorer = Counts()
    prm = airls_ray.PRM(scorer, "folder")
    assert prm.score("What?", ["a", "b", "c"]) == [0.0, 0.1, 0.2]
    assert prm.score_many([("What?", ["a"]), ("And?", ["a", "b"])], finished=False) == [[0.0], [0.0, 0.1]]
    assert [(item.problem, item.finished) for item in scorer.asked] == [
        ("What?", True),
        ("What?", False),
        ("And?", False),
    ]


def test_a_text_is_no_list_of_steps() -> None:
    with pytest.raises(DataError, match="steps of solution 2 must be a list of texts"):
        airls_ray.PRM(Counts(), "folder").score_many([("What?", ["a"]), ("And?", "It is so.")])


def test_a_prm_folder_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        airls_ray.load_prm(tmp_path / "nowhere")


def test_load_prm_gives_the_scores_of_the_scorer(own_folder: Any) -> None:
    from airls_ray.prm.load import load_step_scorer

    folder, _ = own_folder()
    steps = ["1+2=3;", "3+3=6;"]
    expected = load_step_scorer(folder, device="cpu").score([StepText("1+2+3=", steps)])[0]
    assert airls_ray.load_prm(folder, device="cpu").score("1+2+3=", steps) == expected


@pytest.mark.parametrize("algorithm", ["best_of_n", "beam"])
def test_a_search_over_an_endpoint_scores_as_the_published_prm_does(algorithm: Any, tmp_path: Path) -> None:
    qwen_prm(tmp_path)
    prm = airls_ray.load_prm(tmp_path, device="cpu")
    with served(FakePolicy()) as url:
        [found] = airls_ray.search_endpoint(url, ["What is it?"], prm, algorithm=algorithm, budget=4)
    assert len({one.score for one in found.candidates}) > 1
    for one in found.candidates:
        assert one.scores == pytest.approx(prm.score("What is it?", one.steps), abs=1e-5)


# ------------------------------------------------------------------------------------------ grades
def test_a_grade_says_outcome_answer_and_reason() -> None:
    assert airls_ray.grade("0.5", "So it is \\boxed{\\frac{1}{2}}.").outcome == 1.0
    assert airls_ray.grade("0.5", "I do not know.").answer is None


def test_a_grade_is_of_texts() -> None:
    numbers: Any = (1, 2)
    with pytest.raises(DataError, match=r"^answer must be text \(str\), but is of type int$"):
        airls_ray.grade(*numbers)
    with pytest.raises(DataError, match=r"^response must be text \(str\), but is of type int$"):
        airls_ray.grade("1", numbers[1])


def test_a_grader_that_does_not_exist_is_one_sentence() -> None:
    wrong: Any = "maths"
    with pytest.raises(ConfigError, match=r"grader 'maths' .did you mean 'math'\?\): there are exact, math"):
        airls_ray.grade("1", "1", grader=wrong)
