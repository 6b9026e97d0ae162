"""Critics, tried and used by commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airls_ray.cli.main import run as command_line
from airls_ray.console.progress import QuietProgress
from airls_ray.errors import DoorError
from airls_ray.search.try_scorer import try_scorer
from tests.unit.critic_fakes import FakeCritic, steps_of
from tests.unit.endpoint_fakes import Digits, FakePolicy, served
from tests.unit.test_own_scorer import config_of, write_task


def judge(body: dict[str, Any], index: int) -> str:
    """Calls steps right whose last digit is above 4."""
    lines = body["messages"][0]["content"].split("[Solution]")[1].splitlines()
    steps = [line for line in lines if line.startswith("Step ")]
    assert len(steps) == steps_of(body)
    return " ".join(f"\\boxed{{{'' if Digits.one(one) > 0.4 else 'in'}correct}}" for one in steps)


def test_a_trial_in_a_process_of_its_own_asks_the_endpoint() -> None:
    with served(FakeCritic(judge)) as url, served(FakeCritic(lambda body, index: "Hello")) as other:
        try_scorer(config_of(named(url)).search.scorer, QuietProgress())
        with pytest.raises(DoorError, match=r"^search\.scorer: think_prm can read no verdict in what"):
            try_scorer(config_of(named(other)).search.scorer, QuietProgress())


def test_the_command_searches_by_a_critic_and_counts_its_replies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    with served(FakePolicy()) as policy, served(FakeCritic(judge)) as critic:
        scorer = f"search.scorer={json.dumps(named(critic))}"
        command = ["search", str(write_task(tmp_path)), scorer, "--endpoint", policy, "--output", str(output)]
        assert command_line(command) == 0
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert {line["scorer"] for line in lines} == {"think_prm"}
    for line in lines:
        for one in line["candidates"]:
            wanted = [float(Digits.one(step) > 0.4) for step in one["steps"]]
            assert one["scores"] == wanted
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "think_prm: 16 replies of the endpoint" in printed
    )  # two problems of four responses, two votes each
    assert "0 of 8 solutions have a step without a vote" in printed


def named(url: str) -> dict[str, Any]:
    return {"name": "think_prm", "options": {"endpoint": url, "votes": 2}}
