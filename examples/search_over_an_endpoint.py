"""Search with a PRM over a policy that somebody else serves: no Ray, no configuration, no training.

    vllm serve Qwen/Qwen2.5-Math-7B-Instruct
    python examples/search_over_an_endpoint.py http://127.0.0.1:8000/v1 Qwen/Qwen2.5-Math-PRM-7B \
        Qwen/Qwen2.5-Math-7B-Instruct

The third argument is the policy's tokenizer: with it prefixes go back to the server as the tokens that it
sampled, and problems go through the chat template. Without it all goes as text.
"""

from __future__ import annotations

import sys

import airls_ray
from airls_ray.api import ScoresSteps

PROBLEMS = {
    "What is 12 * 13? Give the answer in \\boxed{}.": "156",
    "How many primes are below 20? Give the answer in \\boxed{}.": "8",
}


def compare(url: str, prm: str | ScoresSteps, tokenizer: str | None = None, budget: int = 16) -> None:
    """Print how many problems Best-of-N and beam search solve, and what they cost."""
    if isinstance(prm, str):
        prm = airls_ray.load_prm(prm)  # once for both
    for algorithm in ("best_of_n", "beam"):
        found = airls_ray.search_endpoint(
            url,
            list(PROBLEMS),
            prm,
            algorithm=algorithm,
            budget=budget,
            tokenizer=tokenizer,
            chat=tokenizer is not None,
        )
        right = sum(airls_ray.grade(PROBLEMS[one.problem], one.response).outcome for one in found)
        tokens = sum(one.costs["policy_tokens"] for one in found)
        print(f"{algorithm}: {right:.0f} of {len(found)} right, {tokens:.0f} tokens")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python examples/search_over_an_endpoint.py URL PRM [TOKENIZER]")
    compare(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else None)
