"""Run as a process of its own: searches as a plain script has them, after search-and-learn's loops.

One `vllm.LLM`, as our rollout workers have it. At every step all live prefixes of all problems are one call
of `LLM.generate`, and all new prefixes are scored whole.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whole_pass_prm import WholePassPRM


@dataclass(frozen=True)
class Prefix:
    """A prefix of a response."""

    problem: int
    tokens: tuple[int, ...] = ()
    over: bool = False
    total: float = 0.0
    """Log-probability of the PRM, in nats."""

    @property
    def log_odds(self) -> float:
        """Of the mean probability of a token."""
        mean = exp(self.total / max(len(self.tokens), 1))
        clipped = min(max(mean, 1e-7), 1 - 1e-7)
        return log(clipped / (1 - clipped))


class PlainSearch:
    """Policy, PRM and the three algorithms."""

    def __init__(self, job: dict[str, Any], prm: WholePassPRM) -> None:
        """Start the engine with the settings of `job`."""
        from vllm import LLM

        self._job = job
        self._prm = prm
        self._random = random.Random(0)
        self._llm: Any = LLM(model=job["policy"], **job["engine"])

    def search(self, name: str, prompts: Sequence[str]) -> list[str]:
        """Return the chosen response to each prompt."""
        self._llm.reset_prefix_cache()
        self._prompts = [self._prm.ids(prompt) for prompt in prompts]
        found = {"best_of_n": self._best_of_n, "beam": self._beam, "particle_filter": self._filter}[name]()
        best = [max(paths, key=lambda path: path.total) for paths in found]
        return [self._prm.tokenizer.decode(path.tokens, skip_special_tokens=True) for path in best]

    def _best_of_n(self) -> list[list[Prefix]]:
        roots = [Prefix(problem) for problem in range(len(self._prompts))]
        paths = self._scored(self._continued(roots, self._job["width"], by_step=False))
        return self._by_problem(paths)

    def _beam(self) -> list[list[Prefix]]:
        width, expansion = self._job["width"], self._job["expansion"]
        paths = self._first_steps(width)
        for _ in range(self._job["steps"] - 1):
            over = [path for path in paths if path.over]
            kept = [path for group in self._by_problem(paths) for path in kept_of(group, width, expansion)]
            if not kept:
                break
            paths = over + self._scored(self._continued(kept, expansion))
        return self._by_problem(paths)

    def _filter(self) -> list[list[Prefix]]:
        width = self._job["width"]
        paths = self._first_steps(width)
        for _ in range(self._job["steps"] - 1):
            drawn = []
            for group in self._by_problem(paths):
                most = max(path.log_odds for path in group)
                weights = [exp(path.log_odds - most) for path in group]
                drawn += self._random.choices(group, weights, k=width)
            live = [path for path in drawn if not path.over]
            if not live:
                break
            paths = [path for path in drawn if path.over] + self._scored(self._continued(live, 1))
        return self._by_problem(paths)

    def _first_steps(self, width: int) -> list[Prefix]:
        roots = [Prefix(problem) for problem in range(len(self._prompts))]
        return self._scored(self._continued(roots, width))

    def _by_problem(self, paths: Sequence[Prefix]) -> list[list[Prefix]]:
        groups: list[list[Prefix]] = [[] for _ in self._prompts]
        for path in paths:
            groups[path.problem].append(path)
        return groups

    def _continued(self, paths: Sequence[Prefix], count: int, *, by_step: bool = True) -> list[Prefix]:
        """Sample `count` continuations of each path, by a step or to the end."""
        from vllm import SamplingParams

        ends = {self._prm.tokenizer.eos_token_id}
        stops = [*ends, *self._prm.ids(self._job["step_end"])] if by_step else [*ends]
        most = self._job["tokens"]
        parameters = [
            SamplingParams(
                n=count, temperature=1.0, max_tokens=most - len(path.tokens), stop_token_ids=stops,
                detokenize=False,
            )
            for path in paths
        ]  # fmt: skip
        asked = [{"prompt_token_ids": [*self._prompts[path.problem], *path.tokens]} for path in paths]
        answers = self._llm.generate(asked, parameters, use_tqdm=False)
        found = []
        for path, answer in zip(paths, answers, strict=True):
            for sample in answer.outputs:
                tokens = (*path.tokens, *sample.token_ids)
                found.append(Prefix(path.problem, tokens, tokens[-1] in ends or len(tokens) >= most))
        return found

    def _scored(self, paths: Sequence[Prefix]) -> list[Prefix]:
        """The paths with the PRM's word on each, whole."""
        prompts = [self._prompts[path.problem] for path in paths]
        totals = self._prm.log_probs(prompts, [path.tokens for path in paths])
        return [
            Prefix(path.problem, path.tokens, path.over, total)
            for path, (total, _) in zip(paths, totals, strict=True)
        ]


def kept_of(paths: Sequence[Prefix], width: int, expansion: int) -> list[Prefix]:
    """Return the live prefixes of a problem that a beam continues; what is over takes its place."""
    live = sorted((path for path in paths if not path.over), key=lambda path: -path.total)
    return live[: (width - (len(paths) - len(live))) // expansion]


def main() -> None:
    """Answer jobs with the settings of the JSON object in the first argument."""
    job = json.loads(sys.argv[1])
    os.environ.update(job["environment"])
    from whole_pass_prm import WholePassPRM, answer_jobs

    prm = WholePassPRM(job["prm"])
    answer_jobs(PlainSearch(job, prm).search, prm)


if __name__ == "__main__":
    main()
