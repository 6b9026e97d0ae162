"""GenORM (arXiv 2510.00492): a chain grades the whole solution; P(Yes) of its verdict, mean over K chains.

Form, sampling and reading are those of the authors' program (db-Lee/Multi-RM: `generative/prompt_formats.py`,
`generative/reward_model.py`), which counts an unreadable chain as 0.5 where here it is a vote less. It is
GenRM-CoT of arXiv 2408.15240 with a longer chain. The last step scores P(Yes) / (P(Yes) + P(No)), the others
1: product, minimum and last are the score of the whole. A search by steps judges prefixes, which the product
counts again and again: set `search.aggregate=last` there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from airls_ray.critics.critic import Critic, Form, Question, Questions, Vote
from airls_ray.critics.reply import Reply, verdict_probability

INSTRUCTION = (
    "You are a math teacher. Grade the solution, verifying correctness step by step.\n"
    "At the end of Solution verification, when you give your final grade, write it in the form "
    '"Verification: Is the answer correct (Yes/No)? X", where X is either Yes or No.'
)
BEGUN = "Let's verify step by step:"
_VERDICT = re.compile(r"Verification: Is the answer correct \(Yes/No\)\?\s*(Yes|No)\b")


def prompt(problem: str, steps: Sequence[str], instruction: str) -> str:
    """Return the user's turn: instruction, problem, steps with blank lines between them."""
    solution = "\n\n".join(step.strip() for step in steps)
    return f"{instruction}\n\n[Math Problem]\n{problem.strip()}\n\n[Solution]\n{solution}\n"


def questions(problem: str, steps: Sequence[str], instruction: str) -> Questions:
    """Ask once of the whole solution."""
    yield Question((("user", prompt(problem, steps, instruction)),), (len(steps) - 1,), BEGUN)


def read(reply: Reply, steps: int) -> Vote:
    """Return P(Yes) of the verdict: 1 or 0 where only one of the two is among the most probable tokens."""
    found = verdict_probability(reply, _VERDICT, unlisted="none")
    return None if found is None else [found] * steps


class GenORM(Critic):
    """Ten chains at temperature 0.6, as the authors have it."""

    form = Form(questions, read, INSTRUCTION, votes=10, temperature=0.6, max_tokens=8192)


SCORER = GenORM
