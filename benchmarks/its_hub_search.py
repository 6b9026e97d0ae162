"""Run by its_hub's own Python: its algorithms over an OpenAI-compatible server, with a plain PRM.

All problems are searched side by side (`asyncio.gather`), which is more than its own scripts do.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import exp
from typing import Any

from its_hub.api import AbstractOutcomeRewardModel, AbstractProcessRewardModel
from its_hub.core.algorithms.beam_search import BeamSearch
from its_hub.core.algorithms.bon import BestOfN
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel
from its_hub.core.lms.step_generation import StepGeneration
from its_hub.core.orchestrator import LMOrchestrator
from whole_pass_prm import WholePassPRM, answer_jobs


class Policy(OpenAICompatibleLanguageModel):
    """Shows the end of sequence in the text: its_hub knows the end of a response by it."""

    def _prepare_request_data(self, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        data: dict[str, Any] = super()._prepare_request_data(*arguments, **keywords)
        data["skip_special_tokens"] = False
        data["include_stop_str_in_output"] = True
        return data


class Scores(AbstractOutcomeRewardModel, AbstractProcessRewardModel):
    """The PRM as its_hub wants it, of whole responses and of prefixes; one pass at a time, in a thread."""

    def __init__(self, prm: WholePassPRM, *, mean: bool) -> None:
        """`mean`: scores are the mean probability of a token, else that of the response."""
        self._prm = prm
        self._mean = mean
        self._thread = ThreadPoolExecutor(1)

    def score(self, messages: Any, steps: Any = None, **_: Any) -> list[float]:
        """Return scores in [0, 1] of conversations, or of responses (`steps`) to one prompt."""
        if steps is None:
            asked = [(talk[0].content, talk[1].content) for talk in messages]
        else:
            asked = [(messages, text) for text in steps]
        prompts = [self._prm.ids(prompt) for prompt, _ in asked]
        found = self._prm.log_probs(prompts, [self._prm.ids(text) for _, text in asked])
        return [exp(total / max(tokens, 1) if self._mean else total) for total, tokens in found]

    async def ascore(self, messages: Any, steps: Any = None, **_: Any) -> list[float]:
        """See `score`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.score, messages, steps)


def main() -> None:
    """Answer jobs with the settings of the JSON object in the first argument."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    job = json.loads(sys.argv[1])
    prm = WholePassPRM(job["prm"])
    end = prm.tokenizer.eos_token
    policy = Policy(job["endpoint"], "none", "policy", temperature=1.0, max_completion_tokens=job["tokens"])
    # A response that ends with the stop token loses it before it is scored, and an end that costs nothing
    # comes too early: without its last letter the token is found all the same, and stays.
    stop = end[:-1]
    steps = StepGeneration(
        job["steps"], job["step_end"], stop, temperature=1.0, include_stop_str_in_output=True
    )
    width, expansion = job["width"], job["expansion"]
    algorithms = {
        "best_of_n": BestOfN(Scores(prm, mean=False), LMOrchestrator(max_concurrency=-1)),
        "beam": BeamSearch(steps, Scores(prm, mean=False), width // expansion),
        "particle_filter": ParticleFiltering(steps, Scores(prm, mean=True)),
    }

    async def all_of(name: str, prompts: Sequence[str]) -> list[Any]:
        found = await asyncio.gather(*(algorithms[name].ainfer(policy, one, width) for one in prompts))
        await policy.close()
        return found

    def search(name: str, prompts: Sequence[str]) -> list[str]:
        return [str(one["content"]).removesuffix(end) for one in asyncio.run(all_of(name, prompts))]

    answer_jobs(search, prm)


if __name__ == "__main__":
    main()
