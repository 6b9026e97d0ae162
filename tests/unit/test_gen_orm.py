from __future__ import annotations

import re
from collections.abc import Callable
from math import exp, log
from typing import Any

import numpy as np
import pytest

from airls_ray.critics.reply import Reply, Token, verdict_probability
from airls_ray.prm.items import StepText
from airls_ray.search.scorers import gen_orm, think_prm_outcome
from airls_ray.search.scorers.gen_orm import INSTRUCTION, prompt
from tests.unit.critic_fakes import FakeCritic, reply, scorer, verdict_token
from tests.unit.endpoint_fakes import served

ITEM = StepText("What is 2 + 3 * 4?\n", ("3 * 4 = 12.\n\n", "So 14."))
ASKED = " Each step holds.\n\nVerification: Is the answer correct (Yes/No)?"
YES = re.compile(r"Right\? (Yes|No)")


# ---------------------------------------------------------------------------------- P(Yes) in a reply
@pytest.mark.parametrize(
    ("token", "least", "none"),
    [
        (verdict_token(" Yes", 0.6, 0.2), 0.75, 0.75),
        (verdict_token(" No", 0.1, 0.9), 0.1, 0.1),
        (verdict_token(" Yes", 0.9, 0.0), 0.9 / 0.901, 1.0),  # No is at most as probable as the least listed
        (verdict_token(" No", 0.0, 0.9), 0.001 / 0.901, 0.0),
        (Token(" Yes", ((" Yes", log(0.5)), ("yes", log(0.1)), ("No", log(0.2)))), 0.75, 0.75),
        (Token(" Yes", ()), 1.0, 1.0),
        (Token(" No", ((" Maybe", -0.1),)), 0.0, 0.0),
    ],
)
def test_p_yes_is_that_of_the_two_at_the_verdict(token: Token, least: float, none: float) -> None:
    said = reply("Yes No Yes. Right?", token, " So Right? Yes")
    assert verdict_probability(said, YES) == pytest.approx(least, abs=1e-12)
    assert verdict_probability(said, YES, unlisted="none") == pytest.approx(none, abs=1e-12)


def test_the_verdict_is_found_among_thousands_of_tokens_of_any_cut() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        before = " ".join(rng.choice(["Yes", "No", "so", "é"], size=3000)) + " Right? "
        cuts = np.sort(rng.choice(len(before), size=1500, replace=False))
        parts = [before[a:b] for a, b in zip([0, *cuts], [*cuts, len(before)], strict=True) if b > a]
        share = float(rng.uniform(0.01, 0.8))
        tokens = [Token(part, (("Yes", -5.0), ("No", -9.0))) for part in parts]
        tokens += [
            verdict_token("Yes", share, 0.15),
            *(Token(" Right? No", (("No", -0.1),)) for _ in range(9)),
        ]
        said = Reply("".join(token.text for token in tokens), tokens)
        assert verdict_probability(said, YES) == pytest.approx(share / (share + 0.15), abs=1e-12)


def test_without_log_probabilities_or_a_verdict_the_text_alone_counts() -> None:
    assert verdict_probability(Reply("Right? No, Right? Yes"), YES) == 0.0
    assert verdict_probability(Reply("Right? Perhaps"), YES) is None
    assert verdict_probability(Reply("Yes"), YES) is None


# -------------------------------------------------------------------------------------------- systems
def test_the_prompt_of_gen_orm() -> None:
    assert prompt(ITEM.problem, ITEM.steps, INSTRUCTION) == (
        "You are a math teacher. Grade the solution, verifying correctness step by step.\n"
        "At the end of Solution verification, when you give your final grade, write it in the form "
        '"Verification: Is the answer correct (Yes/No)? X", where X is either Yes or No.\n\n'
        "[Math Problem]\nWhat is 2 + 3 * 4?\n\n[Solution]\n3 * 4 = 12.\n\nSo 14.\n"
    )


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (gen_orm.read, ASKED),
        (think_prm_outcome.read, " The step is \\boxed{correct}\n</think>\nIs the solution correct?"),
    ],
)
def test_a_reply_in_the_published_form_gives_p_yes(read: Callable[[Reply, int], Any], text: str) -> None:
    assert read(reply(text, verdict_token(" No", 0.25, 0.5)), 1) == [pytest.approx(1 / 3)]
    assert read(reply(text), 1) is None and read(reply("Yes"), 1) is None


@pytest.mark.parametrize(("name", "votes"), [("gen_orm", 10), ("think_prm_outcome", 4)])
def test_the_last_step_has_the_mean_of_k_chains_and_the_others_one(name: str, votes: int) -> None:
    shares = [(0.8, 0.2), (0.1, 0.3), (0.5, 0.5)]
    text = ASKED + "\nIs the solution correct?"

    def says(body: dict[str, Any], index: int) -> Reply:
        verdict = verdict_token(" Yes", *shares[index % 3])
        if name == "gen_orm":
            return reply(ASKED, verdict)
        return reply(text, verdict)

    critic = FakeCritic(says)
    with served(critic) as url:
        assert scorer(name, url, votes=3).score([ITEM]) == [[1.0, pytest.approx((0.8 + 0.25 + 0.5) / 3)]]
        scorer(name, url).score([ITEM])
    assert critic.asked[0]["logprobs"] and critic.asked[0]["top_logprobs"] == 20
    assert critic.asked[1]["n"] == votes


def test_log_probabilities_come_through_the_endpoint_as_they_are() -> None:
    said = reply(ASKED, Token(" Yes", ((" Yes", -0.25), (" No", -1.75))))
    with served(FakeCritic(lambda body, index: said)) as url:
        ((score,),) = scorer("gen_orm", url, votes=2).score([StepText("Is it?", ("Yes.",))])
    assert score == pytest.approx(1 / (1 + exp(-1.5)), abs=1e-9)  # the softmax of the two
