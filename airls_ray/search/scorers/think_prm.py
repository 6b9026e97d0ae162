"""ThinkPRM (arXiv 2504.16828): a chain of thought boxes a verdict on each step; the mean over K chains.

Form and reading are those of the authors' program (mukhal/ThinkPRM: `utils/helper.py`, and the filter of
`LongThoughtCritiqueDataset` in `dataset/prm_dataset.py`). Their search reads one P(Yes) for the whole prefix:
that is `think_prm_outcome`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from airls_ray.critics.critic import Critic, Form, Question, Questions, Vote
from airls_ray.critics.reply import Reply

INSTRUCTION = (
    "Review and critique each step in the proposed solution to determine whether each step is correct. "
    "If the solution is incomplete, only verify the provided steps."
)
BEGUN = "Let's verify step by step:"
_NUMBER = re.compile(r"^\s*Step \d+:\s*")
_BOXED = re.compile(r"\\boxed\{\s*(correct|incorrect)\s*\}")
_PLAIN = re.compile(r"\\text\{([^}]*)\}")


def prompt(problem: str, steps: Sequence[str], instruction: str) -> str:
    """Return the user's turn: problem, steps with their numbers from 1, instruction."""
    numbered = [f"Step {number}: {_NUMBER.sub('', step).strip()}" for number, step in enumerate(steps, 1)]
    solution = "\n".join(numbered)
    return (
        "You are given a math problem and a proposed step-by-step solution:\n\n"
        f"[Math Problem]\n\n{problem}\n\n[Solution]\n\n{solution}\n\n{instruction}"
    )


def questions(problem: str, steps: Sequence[str], instruction: str) -> Questions:
    """Ask once of all steps, and stop where a chain goes on to a step that does not exist."""
    turns = (("user", prompt(problem, steps, instruction)),)
    yield Question(turns, tuple(range(len(steps))), BEGUN, (f"Step {len(steps) + 1}:",))


def read(reply: Reply, steps: int) -> Vote:
    """Return 1.0 for each step that is called correct, else 0.0.

    A chain says a verdict on every step, or ends with the first wrong one; the steps behind that are wrong,
    too. Any other number of verdicts cannot be read.
    """
    text = _PLAIN.sub(r"\1", reply.text).partition(f"Step {steps + 1}:")[0]
    found = [float(verdict == "correct") for verdict in _BOXED.findall(text)]
    stopped = 0.0 in found and found.index(0.0) == len(found) - 1
    if len(found) > steps or (len(found) < steps and not stopped):
        return None
    return found + [0.0] * (steps - len(found))


class ThinkPRM(Critic):
    """Four chains at temperature 0.4, as in the authors' recipe of parallel scaling."""

    form = Form(questions, read, INSTRUCTION, votes=4, temperature=0.4, max_tokens=8192, log_probs=False)


SCORER = ThinkPRM
