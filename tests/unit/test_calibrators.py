"""Calibrations against scipy's isotonic regression and a linear program; budgets by hand; the search."""

from __future__ import annotations

from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.optimize import isotonic_regression, linprog

from airls_ray.cli import main as cli
from airls_ray.config import load_config
from airls_ray.config.door_section import ScorerConfig
from airls_ray.config.load import with_absolute_paths
from airls_ray.config.search_section import SearchConfig
from airls_ray.errors import DataError
from airls_ray.evaluation.calibrators import (
    adaptive_budget,
    fit_records,
    isotonic,
    isotonic_quantile,
    read_calibrator,
    samples_of,
    write_calibrator,
)
from airls_ray.search.instance_adaptive import InstanceAdaptive
from airls_ray.search.journal import Journal, key_of
from airls_ray.search.registry import make_searcher
from tests.unit.search_fakes import run
from tests.unit.search_fakes import run as run_search
from tests.unit.test_search_records import record


@pytest.mark.parametrize(("count", "levels"), [(1, 9), (12, 5), (300, 40), (5000, 10**9)])
def test_isotonic_is_that_of_scipy(count: int, levels: int) -> None:
    rng = np.random.default_rng(count)
    scores = rng.integers(0, levels, count) / levels
    values = (rng.random(count) < scores).astype(float)
    corners, found = isotonic(scores, values)
    means = np.array([values[scores == corner].mean() for corner in corners])
    weights = np.array([(scores == corner).sum() for corner in corners])
    np.testing.assert_allclose(found, isotonic_regression(means, weights=weights).x, atol=1e-12)


def pinball(values: np.ndarray, found: np.ndarray, level: float) -> float:
    return float(np.where(values > found, level * (values - found), (1 - level) * (found - values)).sum())


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_a_quantile_has_the_least_pinball_loss_of_a_linear_program(seed: int, level: float) -> None:
    """Variables: the function at each corner, and how far each value lies above and below it."""
    rng = np.random.default_rng(seed)
    scores, values = rng.integers(0, 12, 60) / 12, rng.integers(0, 9, 60) / 8
    corners, found = isotonic_quantile(scores, values, level)
    assert (np.diff(found) >= 0).all()
    m, n = len(corners), len(values)
    at = np.searchsorted(corners, scores)
    equal = np.hstack([np.eye(m)[at], np.eye(n), -np.eye(n)])
    rising = np.hstack([(np.eye(m) - np.eye(m, k=1))[:-1], np.zeros((m - 1, 2 * n))])
    costs = np.concatenate([np.zeros(m), np.full(n, level), np.full(n, 1 - level)])
    best = linprog(costs, A_ub=rising, b_ub=np.zeros(m - 1), A_eq=equal, b_eq=values, bounds=(0, None))
    assert pinball(values, found[at], level) == pytest.approx(best.fun, abs=1e-9)


def test_low_quantiles_lie_below_high_ones_and_about_so_many_values() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(4000)
    values = 0.25 + scores / 2 + rng.normal(0, 0.05, 4000)
    low, high = (isotonic_quantile(scores, values, level)[1] for level in (0.1, 0.9))
    assert (low <= high).all()
    ordered = values[np.argsort(scores)]
    assert np.mean(ordered < low) == pytest.approx(0.1, abs=0.02)
    assert np.mean(ordered <= high) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(("p", "c"), [(0.5, 0.99), (0.1, 0.95), (0.9, 0.99), (0.03, 0.5), (0.3, 0.0)])
def test_budgets_are_the_first_that_are_sure_enough(p: float, c: float) -> None:
    found = adaptive_budget(p, c)
    assert found == max(1, ceil(log(1 - c) / log(1 - p)))
    assert 1 - (1 - p) ** found >= c - 1e-12
    assert found == 1 or 1 - (1 - p) ** (found - 1) < c


def test_budgets_of_certain_and_of_hopeless_problems_are_finite() -> None:
    assert adaptive_budget(1.0, 0.99) == 1
    assert adaptive_budget(0.0, 0.99) == adaptive_budget(1e-4, 0.99) == 46050


def records(count: int = 40) -> list[dict[str, Any]]:
    """Problem i of `count` is solved by a share i / count of its eight responses, and scores i / count."""
    made = []
    for at in range(count):
        one = record(at)
        leaves = [
            {**one["leaves"][0], "score": at / count, "outcome": float(n < 8 * at / count)} for n in range(8)
        ]
        made.append({**one, "leaves": leaves})
    return made


def test_records_of_a_search_teach_the_success_of_a_score() -> None:
    found = fit_records(records(), "isotonic")
    assert (found.problems, found.pilot, found.level) == (40, 4, None)
    for at in range(40):
        assert found(at / 40) == pytest.approx(ceil(8 * at / 40) / 8)
    assert found(0.0) == found(-1.0) == 0.0 and found(2.0) == found(39 / 40)
    assert found(0.5 / 40) == pytest.approx(1 / 16)  # half way between 0 and 1/8


def test_a_score_is_of_the_first_responses_and_a_success_of_all() -> None:
    one = record(0)
    values = [(0.2, 1.0), (0.4, 0.0), (0.9, 1.0), (0.9, 1.0)]
    leaves = [{**one["leaves"][0], "score": score, "outcome": right} for score, right in values]
    found = fit_records([{**one, "leaves": leaves}], "quantile", 0.5, pilot=2)
    assert found.scores == pytest.approx((0.3,)) and found.successes == (0.75,)


def test_too_few_responses_are_one_sentence() -> None:
    with pytest.raises(DataError, match="no record has 9 finished responses"):
        fit_records(records(), "isotonic", pilot=9)


def test_only_the_widest_samples_are_learned_from() -> None:
    widths = [("beam", 64), ("best_of_n", 4), ("best_of_n", 16), ("best_of_n", 16)]
    rows = [{"algorithm": name, "budget": width, "leaves": []} for name, width in widths]
    assert samples_of(rows) == rows[2:]
    with pytest.raises(DataError, match="no record is of best_of_n"):
        samples_of(rows[:1])


def test_scores_of_several_scorers_are_refused() -> None:
    rows = [{"algorithm": "best_of_n", "budget": 4, "scorer": name} for name in ("prm", "policy_log_prob")]
    with pytest.raises(DataError, match=r"several scorers \(policy_log_prob, prm\)"):
        samples_of(rows)


def test_a_calibration_of_another_scorer_is_refused(tmp_path: Path) -> None:
    write_calibrator(fit_records(records(), "isotonic"), tmp_path / "c.json")
    config = settings(tmp_path / "c.json").model_copy(update={"scorer": ScorerConfig(name="policy_log_prob")})
    with pytest.raises(DataError, match=r"the scores of prm mean, and search\.scorer is policy_log_prob"):
        make_searcher("instance_adaptive", config, 16, "last")


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    found = fit_records(records(), "quantile", 0.2)
    write_calibrator(found, tmp_path / "c.json")
    assert read_calibrator(tmp_path / "c.json") == found


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "there is no calibration"), ("{", "is no calibration"), ('{"scores": [1]}', "is no calibration")],
)
def test_another_file_is_one_sentence(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "c.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=said):
        make_searcher("instance_adaptive", settings(path), 16, "prod")


def settings(path: Path, **more: Any) -> SearchConfig:
    return SearchConfig.model_validate({"instance_adaptive": {"calibration": path, **more}})


@pytest.mark.parametrize(("score", "wanted"), [(0.9, 4), (0.5, 7), (0.1, 16), (0.0, 16)])
def test_a_search_samples_as_many_as_its_score_asks_for(score: float, wanted: int) -> None:
    """ln(0.01) / ln(1 - p): 2 at 0.9 (the pilot of four is there already), 7 at 0.5, 44 at 0.1."""
    searcher = InstanceAdaptive(16, aggregate="last")
    state = run(searcher, score=lambda response: score)
    assert len(searcher.leaves(state)) == wanted
    assert state.rounds == (1 if wanted == 4 else 2)


def test_it_takes_the_mean_of_the_pilot() -> None:
    for seed in range(5):
        state = run(InstanceAdaptive(64, pilot=6, confidence=0.999, aggregate="mean"), seed=seed)
        mean = np.mean([state.value(node, "mean") for node in state.finished()[:6]])
        assert len(state.finished()) == max(6, min(64, ceil(log(0.001) / log(1 - mean))))


def test_the_command_writes_beside_the_prm_and_a_search_reads_it(tmp_path: Path, capsys: Any) -> None:
    journal = Journal(tmp_path / "search", {}, resume=False)
    journal.add(records())
    table = journal.write_parquet([key_of(one) for one in records()])
    folder = tmp_path / "prm"
    folder.mkdir()
    asked = ["calibrate", str(table), "--output", str(folder), "--method", "isotonic", "--pilot", "3"]
    assert cli.run(asked) == 0
    assert (
        "40 problems; scores from 0.000 to 0.975 mean a success of 0.000 to 1.000" in capsys.readouterr().out
    )
    searcher = make_searcher("instance_adaptive", settings(folder / "calibration.json"), 16, "last")
    state = run(searcher, score=lambda response: 0.5)  # half of the problems' responses are right there
    assert len(searcher.leaves(state)) == 7
    assert isinstance(searcher, InstanceAdaptive) and searcher.pilot == 3


def test_a_file_of_another_kind_is_one_sentence(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "x.parquet"
    path.write_text("no")
    assert cli.run(["calibrate", str(path), "--output", str(tmp_path / "c.json")]) == 2
    assert "cannot be read as records of a search" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["calibrate", "--output", "c.json"], ["plan-search"]])
def test_a_missing_file_and_one_without_records_are_one_line(
    command: list[str], tmp_path: Path, capsys: Any
) -> None:
    pq.write_table(pa.table({"problem_id": ["a"], "scores": [[0.5]]}), tmp_path / "samples.parquet")
    for name, said in (
        ("gone.parquet", f"Error: there is no file {tmp_path}/gone.parquet.\n"),
        (
            "samples.parquet",
            f"Error: {tmp_path}/samples.parquet holds no records of a search: it has no column "
            "'algorithm'.\n",
        ),
    ):
        assert cli.run([command[0], str(tmp_path / name), *command[1:]]) == 2
        assert capsys.readouterr().err == said


def test_a_run_folder_names_the_file_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(None, ["search.instance_adaptive.calibration=c.json"])
    assert with_absolute_paths(config).search.instance_adaptive.calibration == tmp_path / "c.json"


def test_the_pilot_is_no_larger_than_the_width() -> None:
    state = run_search(InstanceAdaptive(2, pilot=4, aggregate="last"), score=lambda response: 0.5)
    assert len(state.finished()) == 2


def test_a_problem_with_just_so_many_responses_teaches() -> None:
    assert fit_records(records(), "isotonic", pilot=8).problems == 40
