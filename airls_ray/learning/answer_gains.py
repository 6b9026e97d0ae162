"""How much each step raises the policy's probability of the right answer; credit transforms may ask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from airls_ray.config.schema import LearnerConfig
from airls_ray.data.schemas import ROLLOUTS
from airls_ray.learning.alone_logprobs import mean_logprobs
from airls_ray.learning.engine import TrainEngine
from airls_ray.tensors import to_packed


def answer_gains(
    engine: TrainEngine,
    rollouts: pa.Table,
    answers: Sequence[Sequence[int]],
    intro: Sequence[int],
    learner: LearnerConfig,
    *,
    temperature: float,
    pad_id: int,
    context_tokens: int,
) -> Tensor:
    """Return p_t - p_{t-1} of every step t but the last; p = exp(mean log pi(answer | steps to t, intro)).

    As in IGPO (arXiv 2510.14967; its authors' `generation.py`). Every beginning is a row of its own, so a
    response of T steps costs about T / 2 passes over it; collective.

    Args:
        engine: this rank's engine, its module a `PolicyModule`.
        rollouts: ROLLOUTS, the same on every rank.
        answers: tokens of each rollout's right answer; without any its gains are 0.
        intro: tokens between a step and the answer.
        learner: micro-batches and layout.
        temperature: the sampler's.
        pad_id: padding token.
        context_tokens: most tokens of beginning, intro and answer. The gain of a step behind which they would
            be more is 0: the model may have no positions for them.

    Returns:
        float64 [S], in [-1, 1], 0 at the last step of a rollout. The same on every rank.
    """
    table, owners, steps = _beginnings(rollouts, answers, intro, context_tokens)
    gains = torch.zeros(to_packed(rollouts["step_ends"]).values.numel(), dtype=torch.float64)
    if not table.num_rows:
        return gains
    means = mean_logprobs(engine, table, learner, temperature=temperature, pad_id=pad_id)
    rises = means.exp().diff()
    within = owners[1:] == owners[:-1]
    gains[steps[:-1][within]] = rises[within]
    return gains


def _beginnings(
    rollouts: pa.Table, answers: Sequence[Sequence[int]], intro: Sequence[int], context_tokens: int
) -> tuple[pa.Table, Tensor, Tensor]:
    """The answers as responses to each beginning that leaves them room: the prompt alone, and with the steps
    to each but the last.

    Returns:
        A table of the columns that a forward pass reads; its rows' rollouts, and the steps that come next (of
        all steps), int64 [rows].
    """
    prompts: list[NDArray[np.int32]] = []
    owners: list[int] = []
    steps: list[int] = []
    first = 0
    columns = [rollouts[name].to_pylist() for name in ("prompt", "response", "step_ends")]
    for row, (prompt, response, ends) in enumerate(zip(*columns, strict=True)):
        room = context_tokens - len(prompt) - len(intro) - len(answers[row])
        for number, end in enumerate([0, *ends[:-1]] if len(answers[row]) and len(ends) > 1 else []):
            if end > room:
                break
            prompts.append(np.array([*prompt, *response[:end], *intro], np.int32))
            owners.append(row)
            steps.append(first + number)
        first += len(ends)
    responses = [list(answers[row]) for row in owners]
    values = {"prompt": prompts, "response": responses, "step_ends": [[len(one)] for one in responses]}
    table = pa.table({name: pa.array(column, ROLLOUTS.field(name).type) for name, column in values.items()})
    return table, torch.tensor(owners, dtype=torch.int64), torch.tensor(steps, dtype=torch.int64)
