"""Scorers of the user's own, tried and used in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airls_ray.cli.main import run as command_line
from airls_ray.console.progress import QuietProgress
from airls_ray.errors import DoorError
from airls_ray.search.try_scorer import try_scorer
from tests.unit.endpoint_fakes import Digits, FakePolicy, served
from tests.unit.test_own_scorer import EXAMPLES, config_of, write_task
from tests.unit.test_own_scorer import own as own  # a fixture


def test_a_trial_is_in_a_process_of_its_own(own: Path) -> None:
    for name in ("digits", "many", "asked"):
        try_scorer(config_of(f"{own}:{name}").search.scorer, QuietProgress())
    with pytest.raises(DoorError, match=r"own\.py:nan returned nan for step 1"):
        try_scorer(config_of(f"{own}:nan").search.scorer, QuietProgress())
    try_scorer(config_of("prm").search.scorer, QuietProgress())  # which is not tried


def test_the_command_over_an_endpoint_takes_a_search_and_a_scorer_of_ones_own(
    own: Path, tmp_path: Path
) -> None:
    example = EXAMPLES / "own_search.py"
    names = [f"search.algorithms=[best_of_n, '{example}:Greedy']", f"search.scorer={own}:digits"]
    output = tmp_path / "out"
    with served(FakePolicy()) as url:
        command = ["search", str(write_task(tmp_path)), *names, "--endpoint", url, "--output", str(output)]
        assert command_line(command) == 0
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert {(one["algorithm"], one["scorer"]) for one in lines} == {
        ("best_of_n", "digits"),
        ("Greedy", "digits"),
    }
    for line in lines:
        for one in line["candidates"]:
            assert one["scores"] == pytest.approx([Digits.one(step) for step in one["steps"]])
    assert json.loads((output / "summary.json").read_text())["scorer"] == "digits"
    kept = {(one["kind"], one["name"]) for one in json.loads((output / "doors.json").read_text())}
    assert kept == {("search", f"{example}:Greedy"), ("scorer", f"{own}:digits")}
