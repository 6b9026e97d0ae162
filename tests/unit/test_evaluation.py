"""The evaluation during training: its figures and their names, best checkpoint and early stop by them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.train import evaluate, loop
from actors.train.evaluate import Samples, finish_run
from actors.train.tracking import LoopState
from airls_ray.config import Config, load_config
from airls_ray.data.schemas import GRADES, STEP_SCORES
from airls_ray.errors import ConfigError
from airls_ray.evaluation.scorers import SearchResult, _spread, measure_evaluation
from airls_ray.runs.best_metric import best_metric_warning, check_best_metric, evaluation_names
from airls_ray.runs.early_stop import early_stop
from airls_ray.runs.run_folder import RunFolder
from tests.tiny import make_rollouts

BY_ACCURACY = {"best_metric": "evaluation/accuracy", "keep_best": 1, "evaluate_every": 2}


def config(method: str = "airl_s", task: str = "arithmetic", **train: Any) -> Config:
    sections: dict[str, Any] = {"method": method, "train": train}
    if task == "file":
        sections["task"] = {"name": "file", "train_file": "a.jsonl", "test_file": "b.jsonl"}
    return Config.model_validate(sections)


# -------------------------------------------------------------------------------------------------- figures
def two_problems() -> tuple[pa.Table, pa.Table, pa.Table]:
    """Two problems with two samples of one step: right and wrong, then wrong and right.

    Their log-probabilities are -1, -3, -1, -2, and the PRM gives 0.9, 0.2, 0.3, 0.8.
    """
    table = make_rollouts(2, 2, steps=1)
    for name, values in {
        "response": [[2]] * 4,
        "step_ends": [[1]] * 4,
        "logprobs": [[-1.0], [-3.0], [-1.0], [-2.0]],
    }.items():
        place, field = table.schema.get_field_index(name), table.schema.field(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    right = [True, False, False, True]
    grades = pa.table(
        {
            "outcome": np.array(right, dtype=np.float32),
            "answer": ["1", "2", "3", "4"],
            "step_truth": pa.array([[one] for one in right], GRADES.field("step_truth").type),
        }
    )
    scores = [[0.9], [0.2], [0.3], [0.8]]
    parts = pa.table({"rewards": scores, "values": scores, "scores": scores}).cast(STEP_SCORES)
    return table, grades, parts


def test_the_figures_of_two_problems_are_those_found_by_hand() -> None:
    found = measure_evaluation(*two_problems(), config())
    assert {name: found[f"evaluation/{name}"] for name in ("accuracy", "search/oracle")} == {
        "accuracy": 0.5,
        "search/oracle": 1.0,
    }
    assert found["evaluation/search/best_of_n"] == found["evaluation/search/weighted"] == 1.0
    assert found["evaluation/search/majority"] == 0.5  # ties count half
    assert found["evaluation/search/policy_log_prob"] == 0.5  # right on the first problem alone
    assert found["evaluation/prm/trace_auroc"] == found["evaluation/prm/step_auroc"] == 1.0
    assert found["evaluation/prm/trace_auroc_within"] == found["evaluation/prm/step_auroc_within"] == 1.0
    # Right -1 and -2, wrong -3 and -1: of the four pairs two are in order, one ties, one is not.
    assert found["evaluation/policy_log_prob/trace_auroc"] == 2.5 / 4
    assert found["evaluation/policy_log_prob/trace_auroc_within"] == 0.5  # one pair of each problem


def test_steps_of_unknown_truth_are_left_out() -> None:
    rollouts, grades, scores = two_problems()
    truth = pa.array([[True], [False], None, [True]], GRADES.field("step_truth").type)
    grades = grades.set_column(grades.schema.get_field_index("step_truth"), "step_truth", truth)
    found = measure_evaluation(rollouts, grades, scores, config())
    assert found["evaluation/prm/step_auroc"] == 1.0  # 0.9 and 0.8 against 0.2
    assert found["evaluation/policy_log_prob/step_auroc"] == 1.0  # -1 and -2 against -3; all four: 2.5 / 4
    assert "evaluation/prm/first_error_f1" not in found


def test_an_outcome_between_0_and_1_counts_as_it_is() -> None:
    rollouts, grades, scores = two_problems()
    grades = grades.set_column(0, "outcome", pa.array([0.5, 0.0, 0.0, 0.75], pa.float32()))
    assert measure_evaluation(rollouts, grades, scores, config())["evaluation/accuracy"] == 0.3125


@pytest.mark.parametrize("method", ["airl_s", "grpo"])
@pytest.mark.parametrize("task", ["arithmetic", "file"])
def test_the_names_that_are_promised_are_those_that_are_measured(method: str, task: str) -> None:
    rollouts, grades, scores = two_problems()
    if task == "file":  # which does not know the truth of steps
        truth = pa.nulls(4, GRADES.field("step_truth").type)
        grades = grades.set_column(grades.schema.get_field_index("step_truth"), "step_truth", truth)
    asked = config(method, task, evaluate_every=1)
    measured = measure_evaluation(rollouts, grades, scores if asked.uses_prm else None, asked)
    assert measured.keys() == set(evaluation_names(asked))
    with_greedy = config(method, task, evaluate_every=1, evaluation={"greedy": True})
    assert set(evaluation_names(with_greedy)) - measured.keys() == {"evaluation/greedy"}


def test_evaluations_follow_every_few_iterations_and_the_last_but_not_the_warm_up() -> None:
    asked = Config.model_validate(
        {"prm": {"warmup_iterations": 4}, "train": {"iterations": 6, "evaluate_every": 3}}
    )
    assert [number for number in range(1, 11) if asked.evaluates_after(number)] == [6, 9, 10]
    alone = Config.model_validate(
        {"prm": {"warmup_iterations": 4}, "train": {"iterations": 0, "evaluate_every": 3}}
    )
    assert [number for number in range(1, 5) if alone.evaluates_after(number)] == [3, 4]
    assert not any(config(iterations=4).evaluates_after(number) for number in range(1, 20))


def test_the_loop_evaluates_after_the_sync_and_leaves_the_engines_as_the_sync_left_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []

    def told(name: str, answer: Any = None) -> Any:
        return lambda *_: called.append(name) or answer

    parts: Any = SimpleNamespace(
        problems=SimpleNamespace(position=0, learns=False),
        prm=None,
        policy=SimpleNamespace(update=told("update", {})),
        sync=SimpleNamespace(push=told("sync")),
        pool=SimpleNamespace(forget_prefixes=told("forget"), take_metrics=dict),
        verifier=SimpleNamespace(call=lambda *_: {"rollout/response_tokens": 1.0}),
    )
    monkeypatch.setattr(loop, "gather", lambda *_: (None, [], None, []))
    monkeypatch.setattr(loop, "learn_and_score", lambda *_: ({}, []))
    monkeypatch.setattr(loop, "evaluate_now", told("evaluate", {"evaluation/accuracy": 0.5}))
    asked, seen = config("grpo", evaluate_every=2), []

    class Told:
        stage = staticmethod(lambda _: None)

        def record(self, state: LoopState, metrics: dict[str, float], **_: Any) -> LoopState:
            seen.append(metrics.get("evaluation/accuracy"))
            return state

    state, tracker = LoopState(), Told()
    for _ in range(2):
        state = loop.run_iteration(parts, asked, state, tracker, warmup=False)  # type: ignore[arg-type]
    assert called == ["update", "sync", "update", "sync", "evaluate", "forget"]
    assert seen == [None, 0.5]


# --------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"best_metric": "evaluation/acuracy"}, "no metric of this run.*such as evaluation/accuracy"),
        ({"best_metric": "eval/accuracy"}, "no metric of this run.*such as evaluation/accuracy"),
        ({"best_metric": "evaluation/greedy"}, "no metric of this run"),
        ({"best_metric": "evaluation/accuracy", "evaluate_every": 0}, "train.evaluate_every is 0"),
        ({"best_metric": "evaluation/acuracy", "keep_best": 0, "patience": 2}, "no metric of this run"),
    ],
)
def test_a_metric_that_can_never_be_is_refused_with_the_nearest(changes: Any, sentence: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^train\.best_metric is '{changes['best_metric']}', .*{sentence}"
    ):
        check_best_metric(config(**{**BY_ACCURACY, **changes}))


@pytest.mark.parametrize(("method", "task"), [("grpo", "arithmetic"), ("airl_s", "file")])
def test_what_only_another_method_or_task_can_measure_is_refused(method: str, task: str) -> None:
    by_steps = {**BY_ACCURACY, "best_metric": "evaluation/prm/step_auroc"}
    check_best_metric(config(**by_steps))
    with pytest.raises(ConfigError, match="no metric of this run"):
        check_best_metric(config(method, task, **by_steps))


@pytest.mark.parametrize(
    "task",
    [
        {"name": "own.py:Puzzles"},
        {"name": "mixture", "parts": [{"task": {"name": "countdown"}}]},
    ],
)
def test_a_task_that_may_know_the_truth_of_steps_may_be_judged_by_them(task: dict[str, Any]) -> None:
    train = {**BY_ACCURACY, "best_metric": "evaluation/prm/step_auroc"}
    check_best_metric(Config.model_validate({"method": "airl_s", "task": task, "train": train}))


def test_other_metrics_are_left_to_the_first_iteration_that_has_them() -> None:
    check_best_metric(config(keep_best=1, best_metric="policy/entropi"))
    check_best_metric(config(best_metric="no such"))  # nothing depends on it


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["train.evaluate_every=0"], "train.patience=2 counts evaluations, and train.evaluate_every is 0"),
        (["train.best_metric=outcome/mean"], "by train.best_metric, which is outcome/mean: set it to"),
    ],
)
def test_patience_needs_evaluations_and_one_of_their_metrics(changes: list[str], sentence: str) -> None:
    given = ["train.patience=2", "train.evaluate_every=5", "train.best_metric=evaluation/accuracy"]
    load_config(None, given)
    with pytest.raises(ConfigError, match=sentence):
        load_config(None, [*given, *changes])


@pytest.mark.parametrize(("every", "said"), [(10, False), (40, False), (7, True)])
def test_evaluations_and_checkpoints_that_never_meet_are_told(every: int, said: bool) -> None:
    warning = best_metric_warning(config(**{**BY_ACCURACY, "evaluate_every": every, "checkpoint_every": 20}))
    assert (warning is not None) == said  # 60 iterations: 20 and 7 meet after 140


# ---------------------------------------------------------------------------------------------- early stop
def lines(*accuracies: float | None) -> list[dict[str, Any]]:
    """An evaluation after every second iteration."""
    found: list[dict[str, Any]] = []
    for number, value in enumerate(accuracies, start=1):
        found += [{"iteration": 2 * number - 1}, {"iteration": 2 * number, "evaluation/accuracy": value}]
    return found


def test_the_run_ends_when_patience_evaluations_brought_no_better_value() -> None:
    asked = config(**BY_ACCURACY, patience=2)
    assert early_stop(asked, []) is None
    assert early_stop(asked, lines(0.5, 0.6, 0.55)) is None
    assert early_stop(asked, lines(0.5, 0.6, 0.55, 0.7)) is None
    stop = early_stop(asked, lines(0.5, 0.6, 0.55, 0.6))  # as good is not better
    assert stop is not None
    assert (stop.iteration, stop.best_iteration, stop.best, stop.evaluations) == (8, 4, 0.6, 2)
    assert stop.sentence == (
        "Stopped early after iteration 8: evaluation/accuracy was best at iteration 4 (0.6), and 2 "
        "evaluations since then brought no better one"
    )


def test_an_evaluation_without_the_metric_counts_as_none() -> None:
    asked = config(**BY_ACCURACY, patience=2)
    assert early_stop(asked, lines(0.6, None, 0.5, None)) is None
    assert early_stop(asked, lines(0.6, None, 0.5, None, 0.4)) is not None


def test_a_run_that_is_at_its_end_did_not_stop_early() -> None:
    falling = lines(0.6, 0.5, 0.4)
    assert early_stop(config("grpo", **BY_ACCURACY, patience=2, iterations=6), falling) is None
    assert early_stop(config("grpo", **BY_ACCURACY, patience=2, iterations=7), falling) is not None
    assert early_stop(config(**BY_ACCURACY), falling) is None  # no patience asked for


@pytest.mark.parametrize(("accuracies", "early"), [((0.6, 0.5, 0.4), True), ((0.4, 0.5, 0.6), False)])
def test_the_summary_says_that_and_why_the_run_ended_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accuracies: tuple[float, ...], early: bool
) -> None:
    measured = {"scorers": {}, "search": SearchResult({}, 0, 0), "examples": []}
    monkeypatch.setattr(evaluate, "measure_samples", lambda *_: measured)
    monkeypatch.setattr("airls_ray.report.write_report", lambda _: None)
    run, asked = RunFolder(tmp_path), config(**BY_ACCURACY, patience=2)
    for line in lines(*accuracies):
        run.log_metrics(line.pop("iteration"), line)
    samples = Samples("trained", pa.table({"a": [1]}), [], None, {"sampled": 0.5, "greedy": 0.5})
    parts: Any = SimpleNamespace(prm=None, verifier=None, kernels={})
    base = Samples("base", samples.problems, [], None, samples.accuracy)
    finish_run(parts, asked, run, LoopState(iteration=6), base, samples, {})
    summary = json.loads(run.summary_file.read_text())
    assert ("stopped_early" in summary) == early
    if early:
        stopped = summary["stopped_early"]
        assert (stopped["iteration"], stopped["best_iteration"], stopped["best"]) == (6, 2, 0.6)
        assert stopped["sentence"].startswith("Stopped early after iteration 6: evaluation/accuracy was best")


def test_the_spread_of_scores_is_that_within_problems() -> None:
    """Two problems of which one is easy to the PRM: nothing tells the rollouts of either apart."""
    groups = np.array([0, 0, 1, 1])
    assert _spread(np.array([0.9, 0.9, 0.1, 0.1]), np.arange(5), groups) == pytest.approx(0.0, abs=1e-12)
    assert _spread(np.array([0.4, 0.2, 0.1, 0.1]), np.arange(5), groups) == pytest.approx((0.1 + 0.0) / 2)
