from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import airls_ray
from airls_ray.config.load import load_config
from airls_ray.config.named import refuse_names, without_names
from airls_ray.critics.critic import mean_vote
from airls_ray.critics.reply import Reply
from airls_ray.errors import ConfigError, DoorError
from airls_ray.prm.items import StepText
from airls_ray.search.own_scorer import open_own
from airls_ray.search.scorers.think_prm import INSTRUCTION, prompt, questions, read
from tests.unit.critic_fakes import FakeCritic, scorer, steps_of
from tests.unit.endpoint_fakes import FakePolicy, served

ITEM = StepText("What is 2 + 3 * 4?", ("3 * 4 = 12.", "Step 2: 2 + 12 = 14.\n\n", "So 15."))


def chain(*verdicts: str, end: str = "") -> str:
    """A chain in the published form."""
    said = [f"Step {at}: Let me see. The step is \\boxed{{{one}}}\n" for at, one in enumerate(verdicts, 1)]
    return "".join(said) + end


# ------------------------------------------------------------------------------------------- template
def test_the_prompt_numbers_steps_once_and_ends_with_the_instruction() -> None:
    assert prompt(ITEM.problem, ITEM.steps, INSTRUCTION) == (
        "You are given a math problem and a proposed step-by-step solution:\n\n"
        "[Math Problem]\n\nWhat is 2 + 3 * 4?\n\n"
        "[Solution]\n\nStep 1: 3 * 4 = 12.\nStep 2: 2 + 12 = 14.\nStep 3: So 15.\n\n"
        "Review and critique each step in the proposed solution to determine whether each step is correct. "
        "If the solution is incomplete, only verify the provided steps."
    )


def test_one_question_is_about_all_steps_and_stops_before_one_that_is_not_there() -> None:
    (question,) = questions(ITEM.problem, ITEM.steps, "Judge.")
    assert question.steps == (0, 1, 2)
    assert question.begun == "Let's verify step by step:" and question.stop == ("Step 4:",)


# --------------------------------------------------------------------------------------------- reader
@pytest.mark.parametrize(
    ("text", "vote"),
    [
        (chain("correct", "correct", "incorrect"), [1.0, 1.0, 0.0]),
        (chain("correct", "correct", "correct", end="</think>\nIs the solution correct? Yes"), [1.0] * 3),
        (chain("correct", "incorrect"), [1.0, 0.0, 0.0]),  # a chain may end at the first wrong step
        (chain("incorrect"), [0.0, 0.0, 0.0]),
        (chain("incorrect", "correct", "correct"), [0.0, 1.0, 1.0]),  # or judge every step
        (chain("\\text{correct}", "\\text{correct}", "\\text{incorrect}"), [1.0, 1.0, 0.0]),
        (
            chain("correct", "correct", "correct", "incorrect"),
            [1.0] * 3,
        ),  # of a fourth step that is not there
        (chain("correct", "correct"), None),  # nothing of the third
        (chain("incorrect", "correct"), None),
        ("The sum is \\boxed{14}. I find no mistake.", None),
        ("\\boxed{correct} " * 4, None),
        ("", None),
    ],
)
def test_verdicts_are_read_up_to_the_first_wrong_step(text: str, vote: list[float] | None) -> None:
    assert read(Reply(text), 3) == vote


def test_the_mean_vote_of_many_chains_equals_a_loop() -> None:
    rng = np.random.default_rng(0)
    votes = [
        None if rng.random() < 0.3 else rng.integers(0, 2, 40).astype(float).tolist() for _ in range(2000)
    ]
    kept = [vote for vote in votes if vote is not None]
    wanted = [sum(vote[at] for vote in kept) / len(kept) for at in range(40)]
    assert mean_vote(votes, 40) == pytest.approx(wanted, abs=1e-12)
    assert mean_vote([None, None], 3) is None


# ------------------------------------------------------------------------------------------- endpoint
def test_chains_are_averaged_an_unreadable_one_is_a_vote_less() -> None:
    said = [
        chain("correct", "correct", "incorrect"),
        chain("correct", "incorrect"),
        "I do not know.",
        chain("correct", "correct", "correct"),
    ]
    critic = FakeCritic(lambda body, index: said[index])
    with served(critic) as url:
        assert scorer("think_prm", url).score([ITEM]) == [[1.0, pytest.approx(2 / 3), pytest.approx(1 / 3)]]
    (asked,) = critic.asked
    assert (asked["n"], asked["temperature"], asked["max_tokens"]) == (4, 0.4, 8192)
    assert asked["messages"][1] == {"role": "assistant", "content": "Let's verify step by step:"}
    assert asked["continue_final_message"] and not asked["add_generation_prompt"]
    assert asked["stop"] == ["Step 4:"] and "logprobs" not in asked


def test_a_server_of_single_choices_is_asked_until_there_are_k_with_other_seeds() -> None:
    critic = FakeCritic(lambda body, index: chain("correct"), most_choices=1)
    with served(critic) as url:
        scorer("think_prm", url, votes=3, prefill=False).score([StepText("Is it?", ("Yes.",))])
    assert [one["n"] for one in critic.asked] == [3, 2, 1]
    assert len({one["seed"] for one in critic.asked}) == 3
    assert all(len(one["messages"]) == 1 and "continue_final_message" not in one for one in critic.asked)


def test_without_a_vote_a_step_is_neutral_and_the_solution_is_counted() -> None:
    def says(body: dict[str, Any], index: int) -> str | None:
        if "long" in body["messages"][0]["content"]:
            return None  # HTTP 400
        return "Hm." if "odd" in body["messages"][0]["content"] else chain(*["correct"] * steps_of(body))

    with served(FakeCritic(says)) as url:
        found = scorer("think_prm", url, votes=2)
        items = [StepText("odd?", ("a.", "b.")), StepText("plain?", ("c.",)), StepText("too long?", ("d.",))]
        assert found.score(items) == [[0.5, 0.5], [1.0], [0.5]]
        counts = found._text_rule.rule.function.__self__.counts
    wanted = {"solutions": 3, "neutral": 2, "replies": 4, "unreadable": 2, "refused": 1}
    assert dict(counts) == wanted


def test_a_request_that_fails_is_neutral_until_a_call_gets_no_answer_at_all() -> None:
    def says(body: dict[str, Any], index: int) -> str | None:
        return None if "gone" in body["messages"][0]["content"] else chain("correct")

    gone, there = StepText("gone?", ("a.",)), StepText("there?", ("b.",))
    with served(FakeCritic(says, status=404)) as url:
        judge = scorer("think_prm", url, votes=1)
        assert judge.score([gone, there]) == [[0.5], [1.0]]
        with pytest.raises(DoorError, match=r"think_prm raises RunError: the endpoint .* did not answer"):
            judge.score([gone])


def test_questions_and_seeds_do_not_depend_on_the_other_solutions_and_are_asked_once() -> None:
    critic = FakeCritic(lambda body, index: chain(*["correct"] * steps_of(body)))
    items = [StepText(f"problem {at}?", ("a.", f"b {at}.")) for at in range(300)]
    with served(critic) as url:
        first = scorer("think_prm", url, votes=1)
        first.score(items)
        first.score(items)
        seeds = {one["messages"][0]["content"]: one["seed"] for one in critic.asked}
        assert len(critic.asked) == len(seeds) == 300
        critic.asked.clear()
        scorer("think_prm", url, votes=1).score(items[7:8])
    assert seeds[critic.asked[0]["messages"][0]["content"]] == critic.asked[0]["seed"]


# ---------------------------------------------------------------------------------------- before a run
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "is made with 'endpoint', which nobody gives it: give it in options"),
        ({"endpoint": "localhost:8000"}, "takes the address of a server as endpoint .* not 'localhost:8000'"),
        ({"endpoint": "http://127.0.0.1:9/v1", "votes": 0}, "takes votes of at least 1, not 0"),
        (
            {"endpoint": "http://127.0.0.1:9/v1", "vote": 2},
            r"takes no option 'vote' \(did you mean 'votes'\?\)",
        ),
    ],
)
def test_a_wrong_option_is_one_sentence(options: dict[str, Any], said: str) -> None:
    config = load_config({"search": {"scorer": {"name": "think_prm", "options": options}}})
    with pytest.raises(DoorError, match=rf"^search\.scorer: think_prm {said}"):
        open_own(config.search.scorer)


def test_a_trial_says_that_nobody_answers_or_that_nothing_can_be_read() -> None:
    with served(FakeCritic(lambda body, index: "Hello there")) as url:
        with pytest.raises(
            DoorError, match=r"think_prm can read no verdict in what .* such as 'Hello there'"
        ):
            scorer("think_prm", url).try_out()
        bad = FakeCritic(lambda body, index: None, status=404)
        with served(bad) as other, pytest.raises(DoorError, match=r"think_prm raises RunError: the endpoint"):
            scorer("think_prm", other, model="m").try_out()


def test_an_address_in_a_run_folder_needs_trust() -> None:
    address = "http://example.org/v1"
    config = load_config({"search": {"scorer": {"name": "think_prm", "options": {"endpoint": address}}}})
    with pytest.raises(ConfigError, match=f"names code of its own .{address}."):
        refuse_names(config, {}, "this run folder")
    refuse_names(config, {"search": {"scorer": {"name": "think_prm"}}}, "this run folder")
    assert without_names(config, {}).search.scorer.name == "prm"


# ----------------------------------------------------------------------------------------- in a search
def test_a_search_over_an_endpoint_takes_what_the_critic_likes() -> None:
    def says(body: dict[str, Any], index: int) -> str:
        """Steps that give an even digit are right."""
        steps = body["messages"][0]["content"].partition("[Solution]")[2].partition("Review")[0]
        digits = [int(line[-2]) for line in steps.replace("}", "").splitlines() if line.startswith("Step")]
        return chain(*["correct" if digit % 2 == 0 else "incorrect" for digit in digits])

    with served(FakePolicy()) as policy, served(FakeCritic(says)) as critic:
        named = {"name": "think_prm", "options": {"endpoint": critic, "votes": 1}}
        found = airls_ray.search_endpoint(policy, ["What is it?"], scorer=named, algorithm="beam", budget=16)
    (best,) = [one.best for one in found]
    assert best is not None and best.score == 1.0 and int(best.answer or "1") % 2 == 0


OWN = """
from airls_ray.critics.critic import Critic, Form, Question

def questions(problem, steps, instruction):
    yield Question((("user", f"{instruction} {problem} {steps[-1]}"),), (len(steps) - 1,))

class Marks(Critic):
    form = Form(questions, lambda reply, steps: [int(reply.text) / 10], "Mark:", 2, 1.0, 5, log_probs=False)
"""


def test_a_critic_of_ones_own_is_a_form(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    critic = FakeCritic(lambda body, index: "74"[index])
    with served(critic) as url:
        assert scorer(f"{tmp_path / 'own.py'}:Marks", url).score([ITEM]) == [[1.0, 1.0, pytest.approx(0.55)]]
    assert critic.asked[0]["messages"] == [{"role": "user", "content": "Mark: What is 2 + 3 * 4? So 15."}]
