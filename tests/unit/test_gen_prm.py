from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from airls_ray.critics.python_tool import code_in
from airls_ray.errors import DoorError
from airls_ray.prm.items import StepText
from airls_ray.search.scorers import gen_prm
from airls_ray.search.scorers.gen_prm import INSTRUCTION, OUTPUT, VERIFY, analysed, closed, questions, read
from tests.unit.critic_fakes import FakeCritic, reply, scorer, verdict_token
from tests.unit.endpoint_fakes import served

ITEM = StepText("How much?", ("2 + 3 = 5.\n\n", "So 6."))
JUDGED = "</verify>\n<output>\n**Judgement**: $\\boxed{"


def judged(yes: float, no: float) -> Any:
    """The end of a reply in the published form."""
    return reply(JUDGED, verdict_token("Yes" if yes > no else "No", yes, no), "}$\n</output>\n")


class FakePython:
    """Keeps what it is asked to run, and writes how many pieces that were."""

    asked: ClassVar[list[list[str]]] = []

    def run(self, pieces: Sequence[str]) -> str:
        self.asked.append(list(pieces))
        return f"ran {len(pieces)}"


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    FakePython.asked = []
    monkeypatch.setattr(gen_prm, "PythonTool", FakePython)
    return FakePython.asked


# -------------------------------------------------------------------------------- template and reader
def test_steps_are_turns_of_one_conversation_behind_the_critiques_before() -> None:
    asked = questions(ITEM.problem, ITEM.steps, INSTRUCTION)
    first, second = next(asked), asked.send("<analyze> fine </analyze>")
    assert first.turns == (("system", INSTRUCTION), ("user", "Question: How much?\n\n2 + 3 = 5."))
    assert first.begun == "<analyze>\nLet's analyze the Paragraph 1 step by step: "
    assert second.turns == (
        *first.turns,
        ("assistant", "<analyze> fine </analyze>"),
        ("user", "So 6."),
    )
    assert "Paragraph 2" in second.begun and (first.steps, second.steps) == ((0,), (1,))


def test_the_boxed_verdict_is_read() -> None:
    assert read(judged(0.3, 0.1), 1) == [pytest.approx(0.75)]
    assert read(reply("{", verdict_token("No", 0.0, 0.9), "}$"), 1) == [pytest.approx(0.001 / 0.901)]
    assert read(reply("Yes, it is \\boxed{5}"), 1) is None


@pytest.mark.parametrize("kept", ["</analyze>\n", ""])
def test_what_a_server_stops_at_may_be_kept_or_cut(kept: str) -> None:
    assert analysed(f"<analyze>\nIt adds.\n{kept}") == "<analyze>\nIt adds.\n</analyze>\n"
    for text in ("a = 1\nprint(a)", "a = 1\nprint(a)\n```", "a = 1\nprint(a)\n```\n"):
        assert closed(VERIFY + text) == VERIFY + "a = 1\nprint(a)\n```\n"


def test_pieces_of_code_are_found_in_order() -> None:
    assert code_in("x\n```python\na = 1\n```\n[Code Output]\n\n```\n1\n```\n```python\n\nb\n```") == [
        "a = 1",
        "b",
    ]


# ---------------------------------------------------------------------------------------------- stages
def says(body: dict[str, Any], index: int) -> Any:
    """Analyses, runs one program, and finds the second step wrong."""
    begun = body["messages"][-1]["content"]
    step = 1 + (len(body["messages"]) > 3)
    if "</analyze>" not in begun:
        return reply(f"it adds in {step}.\n</analyze>\n")
    if "[Code Output]" not in begun:
        return reply(f"print({step})\n```\n")
    return judged(0.6, 0.2) if step == 1 else judged(0.1, 0.4)


def test_code_is_run_and_its_output_is_told_before_the_verdict(python: list[list[str]]) -> None:
    critic = FakeCritic(says)
    with served(critic) as url:
        assert scorer("gen_prm", url, votes=1).score([ITEM]) == [[pytest.approx(0.75), pytest.approx(0.2)]]
    assert python == [["print(1)"], ["print(1)", "print(2)"]]  # in the namespace of the steps before
    begun = [one["messages"][-1]["content"] for one in critic.asked]
    head = "<analyze>\nLet's analyze the Paragraph 1 step by step: it adds in 1.\n</analyze>\n" + VERIFY
    assert begun[1] == head
    assert begun[2] == head + "print(1)\n```\n[Code Output]\n\n```\nran 1\n```\n"
    assert [one["stop"] for one in critic.asked[:2]] == [["</analyze>\n"], ["\n```\n", "</output>\n"]]
    critique = critic.asked[3]["messages"][2]["content"]
    assert critique.startswith(begun[2]) and critique.endswith("\\boxed{Yes}$\n</output>\n")


def test_behind_three_programs_a_reply_is_judged_by_its_analysis(python: list[list[str]]) -> None:
    def endless(body: dict[str, Any], index: int) -> Any:
        begun = body["messages"][-1]["content"]
        if begun.endswith(OUTPUT):
            return reply("{", verdict_token("No", 0.2, 0.6), "}$\n</output>\n")
        return says(body, index) if "</analyze>" not in begun else reply("print(0)\n```\n")

    critic = FakeCritic(endless)
    with served(critic) as url:
        assert scorer("gen_prm", url, votes=1).score([StepText("How?", ("a.",))]) == [[pytest.approx(0.25)]]
    assert [len(pieces) for pieces in python] == [1, 2, 3]
    assert critic.asked[-1]["messages"][-1]["content"].endswith("it adds in 1.\n</analyze>\n" + OUTPUT)


def test_without_a_tool_the_model_writes_the_output_itself(python: list[list[str]]) -> None:
    def alone(body: dict[str, Any], index: int) -> Any:
        return says(body, index) if "</analyze>" not in body["messages"][-1]["content"] else judged(0.6, 0.2)

    critic = FakeCritic(alone)
    with served(critic) as url:
        found = scorer("gen_prm", url, votes=3, execute=False).score([ITEM])
    assert found == [[pytest.approx(0.75)] * 2] and not python
    assert len(critic.asked) == 2 * 3 * 2 and len({one["seed"] for one in critic.asked}) == 6
    with pytest.raises(DoorError, match=r"gen_prm takes no option 'exec' \(did you mean 'execute'\?\)"):
        scorer("gen_prm", "http://127.0.0.1:9/v1", exec=False)
