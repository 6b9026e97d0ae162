"""A problem sampler of the user's own is tried in a process of its own, which a deadline ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from airls_ray import trial
from airls_ray.config import load_config
from airls_ray.console.progress import QuietProgress
from airls_ray.data.check_sampler import try_sampler
from airls_ray.errors import DoorError, RunError

OWN = """
import os, time
print("to standard output")
def first(candidates, count): return list(range(count))
def leaves(candidates, count): os._exit(3)
def none_of_them(candidates, count): return []
def hangs(candidates, count): time.sleep(60)
"""


def attempt(own: Path, name: str) -> None:
    settings = [f"train.problem_sampler={own}:{name}", "train.problems_per_iteration=2"]
    try_sampler(load_config(None, settings), QuietProgress())


def test_what_is_right_passes(own: Path) -> None:
    attempt(own, "first")


def test_one_that_ends_its_process_does_not_end_the_driver(own: Path) -> None:
    with pytest.raises(RunError, match="the trial of leaves failed"):
        attempt(own, "leaves")


def test_what_no_sampler_is_to_blame_for_alone_is_a_sentence_too(own: Path) -> None:
    with pytest.raises(DoorError, match="has chosen 0 problems of the 2"):
        attempt(own, "none_of_them")


def test_one_that_hangs_is_ended(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_SECONDS", 8.0)
    with pytest.raises(DoorError, match=r"train\.problem_sampler: hangs did not get through a trial"):
        attempt(own, "hangs")
