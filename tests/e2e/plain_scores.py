"""Step scores of a log-probability PRM by one plain pass, written apart from the code under test."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch


def plain_step_scores(
    module: Any, prompt: Sequence[int], response: Sequence[int], ends: Sequence[int]
) -> list[float]:
    """Of every step the geometric mean of its tokens' probabilities under phi (temperature 1)."""
    tokens = torch.tensor([[*prompt, *response]])
    with torch.no_grad():
        logits = module.model(input_ids=tokens).logits[0, :-1].double()
    log_phi = torch.log_softmax(logits, -1).gather(1, tokens[0, 1:, None]).squeeze(1)[len(prompt) - 1 :]
    return [float(log_phi[start:end].mean().exp()) for start, end in pairwise([0, *ends])]
