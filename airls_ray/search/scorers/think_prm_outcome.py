"""ThinkPRM (arXiv 2504.16828) as its search reads it: P(Yes) that the solution is correct, over K chains.

Form of `think_prm`. The authors' program (mukhal/ThinkPRM, `prm/thinkprm_api.py`) cuts a chain off and
appends "Is the solution correct?"; here its own last line is read, with which the chains of the training end.
The last step scores P(Yes) / (P(Yes) + P(No)), the others 1, as with `gen_orm`: a search by steps needs
`search.aggregate=last`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from airls_ray.critics.critic import Critic, Form, Question, Questions, Vote
from airls_ray.critics.reply import Reply, verdict_probability
from airls_ray.search.scorers.think_prm import BEGUN, INSTRUCTION, prompt

_VERDICT = re.compile(r"Is the solution correct\?\s*(Yes|No)\b", re.IGNORECASE)


def questions(problem: str, steps: Sequence[str], instruction: str) -> Questions:
    """Ask once of the whole solution."""
    yield Question((("user", prompt(problem, steps, instruction)),), (len(steps) - 1,), BEGUN)


def read(reply: Reply, steps: int) -> Vote:
    """Return P(Yes) of the verdict."""
    found = verdict_probability(reply, _VERDICT)
    return None if found is None else [found] * steps


class ThinkPRMOutcome(Critic):
    """Four chains at temperature 0.4, as in the authors' recipe of parallel scaling."""

    form = Form(questions, read, INSTRUCTION, votes=4, temperature=0.4, max_tokens=8192)


SCORER = ThinkPRMOutcome
