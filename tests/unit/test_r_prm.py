from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from airls_ray.critics.reply import Reply
from airls_ray.prm.items import StepText
from airls_ray.search.scorers.r_prm import INSTRUCTION, prompt, questions, read
from tests.unit.critic_fakes import FakeCritic, reply, scorer, verdict_token
from tests.unit.endpoint_fakes import served

STEPS = ("3 * 4 = 12.\n\n", "2 + 12 = 14.\n\n", "So 15.")
ASKED = "**Now Step Analysis**: it adds.\nConclusion: Verification: Is the step correct (Yes/No)?"


def test_a_prompt_has_the_steps_before_and_the_first_says_that_there_are_none() -> None:
    assert prompt("How much?", STEPS[:2], STEPS[2], "Judge.") == (
        "Judge.\n\nQuestion: How much?\nPrevious Steps: 3 * 4 = 12.\n2 + 12 = 14.\nNow Step: So 15.\n"
        "Please carefully analyze the correctness of the Now Step.\nReply: "
    )
    first = prompt("How much?", (), STEPS[0], INSTRUCTION)
    assert "Previous Steps: Since the Now Step is the first step, there are no Previous Steps.\n" in first
    assert '"Verification: Is the step correct (Yes/No)? X"' in first


def test_each_step_is_asked_of_by_itself() -> None:
    asked = list(questions("How much?", STEPS, "Judge."))
    assert [one.steps for one in asked] == [(0,), (1,), (2,)]
    assert [one.turns[0][1].count("12.") for one in asked] == [1, 1, 1]
    assert "14" not in asked[0].turns[0][1] and "15" not in asked[1].turns[0][1]


def test_the_first_verdict_of_an_analysis_is_read() -> None:
    said = reply(ASKED, verdict_token(" No", 0.15, 0.45), "; Is the step correct (Yes/No)? Yes")
    assert read(said, 1) == [pytest.approx(0.25)]
    assert read(reply("The answer is Yes."), 1) is None
    assert read(Reply("Is the step correct (Yes/No)? It is"), 1) is None


def test_scores_are_means_over_k_analyses_of_each_step() -> None:
    rng = np.random.default_rng(2)
    shares = rng.uniform(0.05, 0.9, size=(40, 3, 10))

    def says(body: dict[str, Any], index: int) -> Reply:
        user = body["messages"][0]["content"]
        problem = int(user.partition("Question: number ")[2].partition("?")[0])
        step = user.count("step of number") - 1
        if index == 9 and problem % 2:
            return reply("I cannot say.")
        yes = float(shares[problem, step, index])
        return reply(ASKED, verdict_token(" Yes", yes, 0.1))

    critic = FakeCritic(says)
    items = [
        StepText(f"number {at}?", tuple(f"{step} is a step of number" for step in range(3)))
        for at in range(40)
    ]
    with served(critic) as url:
        found = scorer("r_prm", url).score(items)
        prefixes = [StepText(one.problem, one.steps[:2], finished=False) for one in items]
        assert scorer("r_prm", url).score(prefixes) == [one[:2] for one in found]
    for problem, row in enumerate(found):
        for step, score in enumerate(row):
            kept = shares[problem, step, : 9 if problem % 2 else 10]
            assert score == pytest.approx(float(np.mean(kept / (kept + 0.1))), abs=1e-9)
    assert (critic.asked[0]["temperature"], critic.asked[0]["top_p"]) == (0.95, 0.95)


def test_a_child_asks_of_its_new_step_alone() -> None:
    critic = FakeCritic(lambda body, index: reply(ASKED, verdict_token(" Yes", 0.5, 0.5)))
    with served(critic) as url:
        judge = scorer("r_prm", url, votes=1)
        for end in (1, 2, 3):
            judge.score([StepText("How much?", STEPS[:end], finished=end == 3)])
    assert len(critic.asked) == 3
