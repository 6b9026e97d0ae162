"""Searches of the user's own: how they are named, and that they search as the built-in ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airls_ray.config import load_config
from airls_ray.config.load import dump_config, load_run_config, with_absolute_paths
from airls_ray.config.search_section import SearchConfig, built_in_searches, search_label
from airls_ray.errors import ConfigError, DoorError
from airls_ray.search.registry import ALGORITHMS, algorithm_of, make_searcher, own_searches
from tests.unit.search_fakes import run

OWN = """
from airls_ray.search.tree import ROOT, Want
def once(state, width):
    return [] if state.rounds else [Want(ROOT, width, whole=True)]
class Twice:
    answer = "majority"
    def __init__(self, width, config): self.width = width - len(config.budgets)
    def plan(self, state):
        return [Want(ROOT, self.width, whole=True)] if state.rounds < 2 else []
def nothing(state, width): return []
def numbers(state, width): return [1, 2]
def none_of_it(state, width): return [Want(ROOT, 0)]
def raises(state, width): return {}["x"]
def other(tree, width): return []
class NoPlan:
    def __init__(self, width): pass
class Voted(Twice):
    answer = "vote"
number = 3
"""


def leaves(name: str, width: int = 4) -> list[list[int]]:
    searcher = make_searcher(name, SearchConfig(), width, "prod")
    state = run(searcher)
    return [state.response(leaf) for leaf in searcher.leaves(state)]


def test_a_function_of_three_lines_searches_as_the_built_in_one(own: Path) -> None:
    assert leaves(f"{own}:once") == leaves("best_of_n") and len(leaves("best_of_n")) == 4


def test_a_class_need_not_be_a_searcher_and_names_its_answer_rule(own: Path) -> None:
    assert len(leaves(f"{own}:Twice")) == 2 * 3
    assert algorithm_of(f"{own}:Twice").answer == "majority"


def test_the_built_ins_are_the_files_of_a_folder() -> None:
    assert list(ALGORITHMS) == built_in_searches() and len(ALGORITHMS) >= 10


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", r"plans \[\] for its first round"),
        ("numbers", r"plans \[1, 2\] for its first round"),
        ("none_of_it", "plans a first round that cannot be"),
        ("raises", r"raises as it is made: KeyError: 'x' \(own\.py line 13\)"),
        ("other", "takes tree, width, and it must take state and width"),
        ("NoPlan", r"is a class without `plan\(state\)`"),
        (
            "Voted",
            "has the answer rule 'vote', and there are best, majority, weighted, hybrid, reward_frequency",
        ),
        ("number", "is 3, which is neither a class nor a function"),
    ],
)
def test_what_is_no_search_is_one_sentence(own: Path, name: str, said: str) -> None:
    with pytest.raises(DoorError, match=rf"search\.algorithms: .*own\.py:{name} {said}"):
        algorithm_of(f"{own}:{name}")


def test_an_unknown_name_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(
        ConfigError, match=r"no search 'rebas' \(did you mean 'rebase'\?\): there are ab_mcts"
    ):
        load_config(None, ["search.algorithms=[rebas]"])


def test_two_searches_of_one_label_are_refused() -> None:
    with pytest.raises(ConfigError, match="must not name anything twice"):
        load_config(None, ["search.algorithms=[a.py:mine, b.py:mine]"])
    assert search_label("/some/where/own.py:mine") == "mine" and search_label("beam") == "beam"
    assert search_label("own.py:beam") == "own.py:beam"  # or it would be taken for the built-in one


def test_what_was_loaded_can_be_recorded(own: Path) -> None:
    (door,) = own_searches(["beam", f"{own}:once"])
    assert door.text == OWN and door.version.startswith("sha256:")


def folder_with(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    config = load_config(None, [f"search.algorithms=[{','.join(names)}]"])
    dump_config(with_absolute_paths(config), folder / "config.yaml")
    return folder


def test_a_run_folders_own_search_needs_trust(tmp_path: Path, own: Path) -> None:
    name = f"{own}:once"
    folder = folder_with(tmp_path, "beam", name)
    with pytest.raises(ConfigError, match="names code of its own"):
        load_run_config(folder, trust=False)
    given: dict[Any, list[str]] = {
        trust: load_run_config(folder, trust=trust).search.algorithms for trust in (True, None)
    }
    assert given == {True: ["beam", name], None: ["beam"]}
