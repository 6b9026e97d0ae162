"""R-PRM (arXiv 2503.21295): an analysis of each step ends in Yes or No; P(Yes), the mean over K analyses.

Fields, sampling and reading are those of the authors' program (NJUNLP/R-PRM: `get_critique_prompt` and
`get_reward` in `src/reward-guide-search/code/`), the instruction is in words of our own: for their model give
theirs (`src/prompts/GenPRM/`) as `instruction`. Each step is asked of by itself, with those before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from airls_ray.critics.critic import Critic, Form, Question, Questions, Vote
from airls_ray.critics.reply import Reply, verdict_probability

INSTRUCTION = (
    "You are an excellent math teacher. Judge whether the Now Step is correct, given the question and the "
    "Previous Steps. First analyse in this order:\n"
    "**Previous Steps Analysis**: what each of them does, and whether it holds.\n"
    "**Now Step Analysis**: what it does, and which part of the question it is about.\n"
    "**Data Source Analysis**: where each value in it comes from, and whether it is taken over rightly.\n"
    "**Consistency Analysis**: whether it agrees with the Previous Steps and with itself.\n"
    "**Calculation Analysis**: check every calculation in it, for example by the reverse operation.\n"
    "Then write a conclusion. The step is wrong if there is any error in it. End with the line "
    '"Verification: Is the step correct (Yes/No)? X", where X is either Yes or No.'
)
_FIRST = "Since the Now Step is the first step, there are no Previous Steps."
_VERDICT = re.compile(r"Is the step correct \(Yes/No\)\?\s*(Yes|No)\b")


def prompt(problem: str, before: Sequence[str], step: str, instruction: str) -> str:
    """Return the user's turn for a step and those before it."""
    previous = "\n".join(one.strip() for one in before) or _FIRST
    return (
        f"{instruction}\n\nQuestion: {problem}\nPrevious Steps: {previous}\nNow Step: {step.strip()}\n"
        "Please carefully analyze the correctness of the Now Step.\nReply: "
    )


def questions(problem: str, steps: Sequence[str], instruction: str) -> Questions:
    """Ask of one step after the other."""
    for at, step in enumerate(steps):
        yield Question((("user", prompt(problem, steps[:at], step, instruction)),), (at,))


def read(reply: Reply, steps: int) -> Vote:
    """Return P(Yes) of the first verdict."""
    found = verdict_probability(reply, _VERDICT)
    return None if found is None else [found] * steps


class RPRM(Critic):
    """Ten analyses at temperature 0.95 and top_p 0.95, as in the authors' search."""

    form = Form(questions, read, INSTRUCTION, votes=10, temperature=0.95, max_tokens=3072, top_p=0.95)


SCORER = RPRM
