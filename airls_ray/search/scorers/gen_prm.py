"""GenPRM (arXiv 2504.00891): analyses each step, checks it by Python that is run, then Yes or No; mean of K.

Form, stages and reading are those of the authors' program (RyanLiu112/GenPRM,
`src/prm_evaluation/genprm_inference.py`): <analyze>, then <verify> with code whose output is told, at most
three times, then <output>. Steps are turns of one conversation, which goes on from the first reply to each.
An unreadable reply is a vote less, where the authors count 0.5.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from airls_ray.critics.critic import Critic, Form, Question, Questions, Vote
from airls_ray.critics.python_tool import PythonTool, code_in
from airls_ray.critics.reply import Reply, verdict_probability

INSTRUCTION = (
    "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
)
ANALYZE = "<analyze>\nLet's analyze the Paragraph {number} step by step: "
VERIFY = "<verify>\nLet's use python code to find any potential error:\n```python\n"
OUTPUT = "<output>\n**Judgement**: $\\boxed"
RUNS = 3
"""Programs of one reply; behind them it is judged by the analysis alone."""
_VERDICT = re.compile(r"\{(Yes|No)\}", re.IGNORECASE)
_END = "</output>\n"


def questions(problem: str, steps: Sequence[str], instruction: str) -> Questions:
    """Ask of one step after the other, each behind the critiques of those before it."""
    turns: tuple[tuple[str, str], ...] = (("system", instruction),)
    for at, step in enumerate(steps):
        user = step.strip() if at else f"Question: {problem}\n\n{step.strip()}"
        turns = (*turns, ("user", user))
        critique = yield Question(turns, (at,), ANALYZE.format(number=at + 1))
        turns = (*turns, ("assistant", critique))


def read(reply: Reply, steps: int) -> Vote:
    """Return P(Yes) of the boxed verdict in the last part of a reply."""
    found = verdict_probability(reply, _VERDICT)
    return None if found is None else [found] * steps


def analysed(text: str) -> str:
    """Return a reply up to the end of its analysis, whether a server keeps what it stops at or not."""
    return text.partition("</analyze>")[0] + "</analyze>\n"


def closed(text: str) -> str:
    """Return a reply whose last piece of code has its end, whether a server keeps what it stops at or not."""
    text = text.rstrip()
    return f"{text}\n" if text.endswith("```") else f"{text}\n```\n"


class GenPRM(Critic):
    """Four replies at temperature 0.6 and top_p 0.95; the authors take one, or eight."""

    form = Form(questions, read, INSTRUCTION, votes=4, temperature=0.6, max_tokens=2048, top_p=0.95)

    def __init__(
        self,
        endpoint: str,
        model: str | None = None,
        votes: int | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        instruction: str | None = None,
        deadline_seconds: float = 600.0,
        seed: int = 0,
        execute: bool = True,
    ) -> None:
        """See `Critic`; replies always begin with the form's own words.

        Args:
            endpoint: one that goes on from the begun last message (vLLM, SGLang).
            model: see `Critic`, as the others.
            votes: K.
            temperature: of the replies.
            max_tokens: of one part of a reply.
            instruction: in the place of the form's own words.
            deadline_seconds: of one call.
            seed: of the samples.
            execute: run the code; false: the model makes up what it writes.

        Raises:
            DoorError: as of `Critic`, or there is no sandbox.
        """
        super().__init__(
            endpoint, model, votes, temperature, max_tokens, instruction, True, deadline_seconds, seed
        )
        self._python = PythonTool() if execute else None

    def _replies(self, question: Question, count: int, seed: int) -> list[tuple[str, Reply]]:
        """One reply, in its stages."""
        part = self._next(question, question.begun, seed, "</analyze>\n")
        head = analysed(question.begun + part.text)
        text = head + VERIFY
        if self._python is None:
            part = self._next(question, text, seed, _END)
            return [(text + part.text, part)]
        pieces = [one for role, said in question.turns if role == "assistant" for one in code_in(said)]
        for _ in range(RUNS):
            part = self._next(question, text, seed, "\n```\n", _END)
            text += part.text
            if _VERDICT.search(part.text) or "</output>" in part.text:
                return [(text, part)]
            text = closed(text)
            pieces += code_in(text)[-1:]
            text += f"[Code Output]\n\n```\n{self._python.run(pieces)}\n```\n"
        part = self._next(question, head + OUTPUT, seed, _END)
        return [(head + OUTPUT + part.text, part)]

    def _next(self, question: Question, text: str, seed: int, *stop: str) -> Reply:
        return self._parts(replace(question, stop=stop), text, 1, seed)[0]


SCORER = GenPRM
