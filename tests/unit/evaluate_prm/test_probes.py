"""Responses without content, and critics in the place of a PRM's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airls_ray.cli import main as cli
from airls_ray.evaluation.prm_metrics.probes import PROBES, false_positives
from airls_ray.prm.items import StepText
from tests.unit.critic_fakes import FakeCritic, steps_of
from tests.unit.endpoint_fakes import served
from tests.unit.evaluate_prm.fakes import KeywordScorer, run, solutions, summary_of, write


def test_shares_of_false_positives_by_hand() -> None:
    found = false_positives({":": [0.5, 0.4, 0.0], "Solution": [0.9, 0.1, 0.7]}, 0.5)
    assert found["responses"][":"] == {
        "false_positives": pytest.approx(1 / 3),
        "mean_score": pytest.approx(0.3),
    }
    assert found["responses"]["Solution"]["false_positives"] == pytest.approx(2 / 3)
    assert found["mean"]["false_positives"] == pytest.approx(0.5)
    assert (found["worst"], found["any"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_shares_of_false_positives_of_many_problems_equal_loops() -> None:
    rng = np.random.default_rng(3)
    scores = {probe: rng.random(5000).tolist() for probe in PROBES}
    found = false_positives(scores, 0.8)
    for probe, values in scores.items():
        assert found["responses"][probe]["false_positives"] == sum(one >= 0.8 for one in values) / 5000
    fooled = sum(any(scores[probe][at] >= 0.8 for probe in PROBES) for at in range(5000))
    assert found["any"] == fooled / 5000 and found["worst"] <= found["any"]


class Fooled(KeywordScorer):
    """Calls every opening with a colon right."""

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        self.asked += items
        return [[0.8 if ":" in step else self.values.get(step, 0.1) for step in item.steps] for item in items]


def test_a_prm_is_probed_at_the_first_problems(tmp_path: Path, load: Any, capsys: Any) -> None:
    scorer = Fooled()
    load(scorer)
    data = write(tmp_path / "a.jsonl", solutions())
    assert run(data, "--prm", "p", "--probes", 5, "--output", tmp_path / "out") == 0
    found = summary_of(tmp_path / "out")["probes"]
    assert {name for name, one in found["responses"].items() if one["false_positives"] == 1.0} == {
        ":",
        "Thought process:",
    }
    assert found["mean"]["false_positives"] == pytest.approx(2 / len(PROBES)) and found["worst"] == 1.0
    probed = [item for item in scorer.asked if item.steps[0] in PROBES]
    assert len(probed) == 5 * len(PROBES) and {one.problem for one in probed} == {
        f"problem {n}" for n in range(5)
    }
    printed = capsys.readouterr().out
    assert "Responses without content to 5 problems" in printed and "'Thought process:'" in printed


# ----------------------------------------------------------------------------------------------- critics
def judge(body: dict[str, Any], index: int) -> str:
    """Finds the steps that say `bad`, and cannot judge a colon."""
    lines = body["messages"][0]["content"].split("[Solution]")[1].splitlines()
    steps = [line for line in lines if line.startswith("Step ")]
    assert len(steps) == steps_of(body)
    if any(line.endswith(": :") for line in steps):
        return "?"
    return " ".join(f"\\boxed{{{'incorrect' if 'bad' in line else 'correct'}}}" for line in steps)


def test_a_critic_is_measured_and_probed_and_its_replies_are_counted(tmp_path: Path, capsys: Any) -> None:
    data = write(tmp_path / "a.jsonl", solutions())
    with served(FakeCritic(judge)) as url:
        options = ("--prm", "think_prm", "--endpoint", url, "--votes", 2, "--probes", 3)
        assert run(data, *options, "--output", tmp_path / "out") == 0
    summary = summary_of(tmp_path / "out")
    assert summary["first_error"]["mean"]["f1"] == 1.0
    assert summary["probes"]["responses"][":"]["mean_score"] == 0.5  # without a vote
    assert summary["probes"]["responses"]["."] == {"false_positives": 1.0, "mean_score": 1.0}
    printed = " ".join(capsys.readouterr().err.split())
    replies = 2 * (12 + 3 * len(PROBES))
    assert f"{replies} replies of the endpoint" in printed and "6 of them unreadable" in printed
    assert f"3 of {12 + 3 * len(PROBES)} solutions have a step without a vote" in printed


def test_a_critic_scores_a_file(tmp_path: Path, capsys: Any) -> None:
    source = write(tmp_path / "in.jsonl", [{"problem": "Is it?", "steps": ["good", "bad"], "id": 7}])
    with served(FakeCritic(judge)) as url:
        command = ["score", "think_prm", str(source), str(tmp_path / "out.jsonl"), "--endpoint", url]
        assert cli.run(command) == 0
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert row == {"problem": "Is it?", "steps": ["good", "bad"], "id": 7, "scores": [1.0, 0.0]}
    assert "2 steps of 1 solutions scored by think_prm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prm", "think_prn", "--endpoint", "http://127.0.0.1:9/v1"], "did you mean 'think_prm'?"),
        (["--prm", "prm", "--endpoint", "http://127.0.0.1:9/v1"], "PRM: prm takes no option 'endpoint'"),
        (["--prm", "think_prm", "--endpoint", "nowhere"], "takes the address of a server as endpoint"),
        (["--prm", "think_prm", "--votes", "2"], "give its address by --endpoint"),
        (["--prm", "p", "--endpoint", "http://x", "--form", "marker"], "leave one of them out"),
        (["--prm", "p", "--endpoint", "http://x", "--partial-tokens", "3"], "leave it out with --endpoint"),
        (["--probes", "3"], "--endpoint and --probes need --prm"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    tmp_path: Path, capsys: Any, options: list[str], said: str
) -> None:
    data = write(tmp_path / "a.jsonl", solutions(scores=[0.9, 0.9, 0.9]))
    assert run(data, *options, "--output", tmp_path / "out") == 2
    assert said in " ".join(capsys.readouterr().err.split())
