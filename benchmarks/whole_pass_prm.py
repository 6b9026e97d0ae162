"""A log-probability PRM as a plain loop has it: every prefix whole, in padded batches, nothing kept.

Runs in this environment and in others' (`its_hub_search.py`): it needs PyTorch and transformers alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS = 64
"""Of one pass."""
Search = Callable[[str, Sequence[str]], list[str]]
"""An algorithm's name and the prompts, to the chosen response of each."""


class WholePassPRM:
    """Mean log-probabilities of responses under a causal language model, in float32."""

    def __init__(self, folder: str, temperature: float = 1.0) -> None:
        """Load model and tokenizer; `temperature` divides the logits."""
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._temperature = temperature
        self.computed_tokens = 0
        """That went through the model since the start, padding included."""

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text, without special ones."""
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    def log_probs(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
    ) -> list[tuple[float, int]]:
        """Return each response's log-probability behind its prompt in nats, and its number of tokens."""
        found: list[tuple[float, int]] = []
        for at in range(0, len(responses), ROWS):
            found += self._batch(prompts[at : at + ROWS], responses[at : at + ROWS])
        return found

    @torch.inference_mode()
    def _batch(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
    ) -> list[tuple[float, int]]:
        rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        places = torch.arange(longest)
        lengths = torch.tensor([[len(row)] for row in rows])
        starts = torch.tensor([[len(prompt)] for prompt in prompts])
        logits = self._model(input_ids=ids, attention_mask=(places < lengths).long()).logits
        logs = (logits[:, :-1] / self._temperature).log_softmax(dim=-1)
        tokens = logs.gather(-1, ids[:, 1:, None]).squeeze(-1)
        of_response = (places[1:] >= starts) & (places[1:] < lengths)
        sums = (tokens * of_response).sum(dim=1, dtype=torch.float64)
        self.computed_tokens += ids.numel()
        return list(zip(sums.tolist(), of_response.sum(dim=1).tolist(), strict=True))


def answer_jobs(search: Search, prm: WholePassPRM) -> None:
    """Say that this process is ready, and answer jobs on its standard input, one JSON object a line, until it
    ends: the chosen responses, the seconds and the tokens that the PRM computed."""
    print("peer", json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        before, start = prm.computed_tokens, time.perf_counter()
        texts = search(job["algorithm"], job["prompts"])
        seconds = time.perf_counter() - start
        answer = {"seconds": seconds, "texts": texts, "scored_tokens": prm.computed_tokens - before}
        print("peer", json.dumps(answer), flush=True)
