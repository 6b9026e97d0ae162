"""Credit of your own: what is done to step rewards, what is added to a rollout's, which rollouts teach.

Each is a function of the tensors that it names (`airls-ray list "credit transform"`, `list "outcome term"`,
`list "row filter"` say which there are); the rest are its options. `own_credit.yaml` trains with all three.
"""

import torch
from torch import Tensor


def until_the_first_mistake(rewards: Tensor, step_rows: Tensor, threshold: float = 0.0) -> Tensor:
    """A credit transform: steps behind the first one of their rollout that is below `threshold` get 0."""
    wrong = (rewards < threshold).long()
    before = wrong.cumsum(0) - wrong  # mistakes before a step, in this rollout and in those above it
    rows = int(step_rows.max()) + 1 if step_rows.numel() else 0
    above = torch.zeros(rows, dtype=torch.long)
    above = above.scatter_reduce(0, step_rows, before, "amin", include_self=False)
    return torch.where(before > above[step_rows], torch.zeros_like(rewards), rewards)


def brevity(outcomes: Tensor, lengths: Tensor, max_response_tokens: int) -> Tensor:
    """An outcome term: a right answer is worth more the fewer tokens it took."""
    return outcomes * (1 - lengths / max_response_tokens)


def finished(truncated: Tensor) -> Tensor:
    """A row filter: responses that were cut off teach nothing."""
    return ~truncated
