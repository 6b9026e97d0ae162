"""The search that follows a plan: it does what the plan's search does alone, and its probe is paid for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from airls_ray.cli import main as cli
from airls_ray.config import load_config
from airls_ray.config.load import with_absolute_paths
from airls_ray.config.search_section import SearchConfig
from airls_ray.errors import ConfigError, DataError
from airls_ray.evaluation.steps import Aggregate
from airls_ray.search.auto import Auto, Choice
from airls_ray.search.beam import Beam
from airls_ray.search.best_of_n import BestOfN
from airls_ray.search.driver import SearchDriver, run_searches
from airls_ray.search.journal import Journal, key_of
from airls_ray.search.ledger import Limits
from airls_ray.search.live import DriverSettings, Search, SearchProblem
from airls_ray.search.records import Run, Verdict, make_record
from airls_ray.search.registry import algorithm_of, make_searcher, ready_searches
from airls_ray.search.scoring import LogProbScorer
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import SearchState, Want
from airls_ray.seeding import derive_seed
from tests.unit.search_fakes import FakeTree, run
from tests.unit.test_compute_plan import searched
from tests.unit.test_search_driver import Words, blank, problems

READY = ready_searches()


def searched_with_seeds_of_prefixes(searcher: Searcher) -> SearchState:
    """Children depend on the prefix and on how many of their sort it had before, not on the round."""
    tree, seen = FakeTree(max_steps=6), Counter[str]()
    state = searcher.start(0)
    while asks := searcher.ask(state):
        for ask in asks:
            prefix = state.response(ask.want.node)
            key = f"{prefix} {ask.want.whole}"
            seed = derive_seed(0, key) + seen[key]
            seen[key] += ask.want.count
            searcher.tell(state, ask.ticket, tree.answer(state, replace(ask, seed=seed)))
        for node in state.finished():
            state.answers.setdefault(node, str(sum(state.response(node)) % 3))
    return state


def answers_of(searcher: Searcher, state: SearchState) -> list[tuple[list[int], float]]:
    weights = searcher.vote_weights(state)
    return [(state.response(leaf), pytest.approx(weights[leaf])) for leaf in searcher.leaves(state)]


def follow(*choices: tuple[float, Searcher], probe: int = 4) -> Auto:
    return Auto(tuple(Choice(up_to, one, "best") for up_to, one in choices), probe)


@pytest.mark.parametrize("name", READY)
def test_after_the_probe_it_is_the_search_that_it_chose(name: str) -> None:
    """The same responses with the same weights as that search alone, whose samples are the probe's."""
    inner = make_searcher(name, SearchConfig(), 16, "prod")
    alone, auto = searched_with_seeds_of_prefixes(inner), follow((1.0, inner))
    found = searched_with_seeds_of_prefixes(auto)
    assert len(inner.leaves(alone)) > 2
    assert answers_of(auto, found) == answers_of(inner, alone)


WHOLE = ("best_of_n", "adaptive_consistency", "instance_adaptive")
"""Searches that sample whole responses from the root."""


@pytest.mark.parametrize("name", READY)
def test_samples_of_the_probe_are_taken_over_by_searches_of_whole_responses_alone(name: str) -> None:
    inner = make_searcher(name, SearchConfig(), 16, "prod")
    alone = searched_with_seeds_of_prefixes(inner)
    found = searched_with_seeds_of_prefixes(follow((1.0, inner)))
    more = len(found.nodes) - len(alone.nodes)
    assert more == (0 if name in WHOLE else 4)


@dataclass
class Watcher(Searcher):
    """Asks twice and keeps what it saw of the round between."""

    first: Want
    aggregate: Aggregate = "last"

    def plan(self, state: SearchState) -> list[Want]:
        if not state.rounds:
            return [self.first]
        state.data["seen"] = [state.last, sorted(state.answers), state.rounds]
        return []


@pytest.mark.parametrize(("whole", "last"), [(True, [1, 2, 3, 4, 5, 6]), (False, [1, 2, 3, 4, 5, 6])])
def test_the_chosen_search_sees_its_own_round_and_answers(whole: bool, last: list[int]) -> None:
    state = searched_with_seeds_of_prefixes(follow((1.0, Watcher(Want(0, 6, whole=whole)))))
    shown = state.data["data"]["seen"]
    assert (shown[0], shown[2]) == (last, 1)
    finished = [node - (0 if whole else 4) for node in state.finished()]
    assert shown[1] == [node for node in finished if node > 0]


def test_a_bin_narrower_than_the_probe_keeps_what_is_paid() -> None:
    auto = follow((1.0, BestOfN(2)), probe=4)
    state = run(auto)
    assert (len(auto.leaves(state)), state.rounds) == (4, 1)


@pytest.mark.parametrize(
    ("score", "width"),
    [(0.0, 5), (0.25, 5), (0.26, 6), (0.5, 6), (0.75, 7), (1.0, 7)],
)
def test_the_bin_is_the_first_whose_easiest_problem_is_at_least_as_easy(score: float, width: int) -> None:
    auto = follow((0.25, BestOfN(5)), (0.5, BestOfN(6)), (0.625, BestOfN(7)))
    auto = replace(auto, aggregate="last")
    state = run(auto, score=lambda response: score)
    assert len(auto.leaves(state)) == width


def test_difficulty_is_the_mean_score_of_the_probe_alone() -> None:
    for seed in range(20):
        auto = Auto((Choice(0.5, BestOfN(9), "best"), Choice(1.0, BestOfN(12), "best")), 6, "mean")
        state = run(auto, seed=seed)
        scores = [np.mean(state.step_scores(node)) for node in range(1, 7)]
        assert len(auto.leaves(state)) == (9 if np.mean(scores) <= 0.5 else 12)


@pytest.mark.parametrize("name", [name for name in READY if name != "adaptive_consistency"])
def test_a_saved_state_goes_on_in_any_order_of_answers(name: str) -> None:
    """The fake reads no answers, which one of them needs."""
    auto = follow((1.0, make_searcher(name, SearchConfig(), 8, "prod")))
    plain, saved = run(auto), run(auto, save=True)
    assert json.dumps(plain.to_json()) == json.dumps(saved.to_json())
    assert run(auto, shuffle=1).to_json() == plain.to_json()


def test_the_ledger_has_the_probe_and_the_search() -> None:
    def tokens(searcher: Searcher) -> tuple[int, int]:
        driver = SearchDriver(Words(), LogProbScorer(), blank, DriverSettings())
        [found] = run_searches(searcher, problems(1), driver)
        sampled = sum(len(node.tokens) for node in found.state.nodes)
        assert found.ledger.policy_tokens == sampled
        return found.ledger.generations, sampled

    assert tokens(follow((1.0, BestOfN(16))))[0] == 16
    probe, beam = tokens(BestOfN(4)), tokens(Beam(8))
    both = tokens(follow((1.0, Beam(8))))
    assert both[0] > beam[0] and both[1] > probe[1]


def test_a_search_that_is_stopped_after_its_probe_answers_by_it() -> None:
    driver = SearchDriver(Words(), LogProbScorer(), blank, DriverSettings(limits=Limits(generations=4)))
    auto = follow((1.0, Beam(8)))
    [found] = run_searches(auto, problems(1), driver)
    assert found.stopped_by == "generations"
    assert auto.leaves(found.state) == [1, 2, 3, 4] == list(auto.vote_weights(found.state))


def plan_file(folder: Path, rows: list[Any], **more: Any) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"difficulty": "score", "axis": "flops", "budgets": rows, **more}))
    return path


def row(budget: float, *bins: tuple[str, int, float]) -> dict[str, Any]:
    named = [{"algorithm": name, "width": width, "up_to": up_to} for name, width, up_to in bins]
    return {"budget": budget, "accuracy": 0.5, "one_for_all": 0.5, "bins": named}


ROWS = [
    row(10.0, ("beam", 4, 0.5), ("best_of_n", 4, 1.0)),
    row(20.0, ("beam", 8, 0.5), ("adaptive_consistency", 4, 1.0)),
    row(90.0, ("beam", 8, 0.5), ("rebase", 16, 1.0)),
]


def settings(plan: Path | None, **more: Any) -> SearchConfig:
    return SearchConfig.model_validate({"auto": {"plan": plan, **more}})


def widths(searcher: Searcher) -> list[int]:
    assert isinstance(searcher, Auto)
    return [getattr(choice.searcher, "width", 0) for choice in searcher.choices]


@pytest.mark.parametrize(
    ("width", "budget", "found"),
    [(16, None, [8, 16]), (8, None, [8, 4]), (4, None, [4, 4]), (16, 20.0, [8, 4]), (16, 15.0, [4, 4])],
)
def test_the_largest_budget_that_width_and_settings_allow_is_followed(
    tmp_path: Path, width: int, budget: float | None, found: list[int]
) -> None:
    config = settings(plan_file(tmp_path, ROWS), budget=budget)
    assert widths(make_searcher("auto", config, width, "prod")) == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "there is no plan"),
        (lambda path: path.write_text("[1]"), "is no plan"),
        (lambda path: path.write_text("{"), "is no plan"),
        (lambda path: plan_file(path.parent, ROWS, difficulty="success"), "sorts problems by success"),
        (lambda path: plan_file(path.parent, ROWS, scorer="oracle"), "for the scorer oracle"),
        (lambda path: plan_file(path.parent, []), "no row with searches of width up to 8"),
        (lambda path: plan_file(path.parent, [row(1, ("auto", 4, 1.0))]), "names the search 'auto'"),
        (lambda path: plan_file(path.parent, [row(1, ("Mine", 4, 1.0))]), "names the search 'Mine'"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_one_sentence(tmp_path: Path, change: Any, said: str) -> None:
    path = plan_file(tmp_path, ROWS)
    change(path)
    with pytest.raises(DataError, match=said):
        make_searcher("auto", settings(path), 8, "prod")


def test_without_a_plan_it_says_so_and_is_not_among_all() -> None:
    with pytest.raises(
        ConfigError, match=r"write one by `airls-ray plan-search`, and set search\.auto\.plan"
    ):
        make_searcher("auto", SearchConfig(), 8, "prod")
    assert "auto" not in READY


@pytest.mark.parametrize(("given", "rule"), [(None, "majority"), ("weighted", "weighted")])
def test_a_record_is_answered_as_the_chosen_search_answers(
    tmp_path: Path, given: str | None, rule: str
) -> None:
    """Two of three responses say b; the best says a."""
    plan = plan_file(tmp_path, [row(1, ("adaptive_consistency", 3, 1.0))])
    config = SearchConfig.model_validate({"auto": {"plan": plan}, "answer": given})
    searcher = make_searcher("auto", config, 3, "prod")
    state = run(searcher, score=lambda response: 0.5)
    search = Search(SearchProblem(0, "p", (1,), 0), searcher, state)
    verdicts = [Verdict(answer, 0.0, ["x"]) for answer in ("a", "b", "b")]
    record = make_record(search, searcher, Run("auto", "prm", 3, 0, "best"), "prod", verdicts)
    assert (record["rule"], record["answer"]) == (rule, "b")


def test_a_plan_of_the_command_is_followed(tmp_path: Path) -> None:
    """Easy problems go to Best-of-N, hard ones to beam search (`test_compute_plan.searched`)."""
    journal = Journal(tmp_path / "search", {}, resume=False)
    journal.add(searched())
    table = journal.write_parquet([key_of(one) for one in searched()])
    plan = tmp_path / "plan.yaml"
    assert cli.run(["plan-search", str(table), "--output", str(plan), "--bins", "2"]) == 0
    searcher = make_searcher("auto", settings(plan), 4, "last")
    hard, easy = (run(searcher, score=lambda response, at=at: at / 12) for at in (4, 7))
    assert len(easy.nodes) == 1 + 4 and len(hard.nodes) > 1 + 4
    assert algorithm_of("auto").answer == "best"
    with pytest.raises(DataError, match="for the scorer prm"):
        other = SearchConfig.model_validate({"auto": {"plan": plan}, "scorer": "policy_log_prob"})
        make_searcher("auto", other, 4, "last")


def test_a_run_folder_names_the_plan_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths(load_config(None, ["search.auto.plan=plan.yaml"]))
    assert config.search.auto.plan == tmp_path / "plan.yaml"
