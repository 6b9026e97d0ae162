"""What happens to a request between its parsing and its reply: checks, a search, an answer."""

from __future__ import annotations

import secrets
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from airls_ray.config.schema import Config
from airls_ray.config.search_section import AlgorithmName, AnswerRule
from airls_ray.errors import ConfigError, DataError
from airls_ray.evaluation.steps import Aggregate
from airls_ray.prm.forms import MIXED_WITH_THE_POLICY
from airls_ray.search.driver import SearchDriver
from airls_ray.search.live import Search, SearchProblem
from airls_ray.search.registry import ALGORITHMS, make_searcher
from airls_ray.search.searcher import Searcher
from airls_ray.seeding import derive_seed
from airls_ray.serving.answers import Answer, Canonical, before, choose_answers, end_of
from airls_ray.serving.cap import Capped
from airls_ray.serving.errors import bad_request, too_many, unknown_model
from airls_ray.serving.metrics import Metrics
from airls_ray.serving.prompts import PromptEncoder
from airls_ray.serving.requests import ChatRequest, CompletionRequest
from airls_ray.serving.search_queue import QueueFullError, SearchQueue
from airls_ray.text.codec import TextCodec
from airls_ray.truncation import Truncation

_GREEDY_BELOW = 1e-5
"""Temperatures below it are greedy to the engine."""


@dataclass(frozen=True)
class Job:
    """A request that is checked: everything that its search needs."""

    problem: str
    """Text of the problem."""
    prompt: tuple[int, ...]
    searcher: Searcher
    algorithm: AlgorithmName
    budget: int
    rule: AnswerRule
    aggregate: Aggregate
    temperature: float
    seed: int
    """As given, or drawn."""
    max_policy_tokens: int | None
    count: int
    """Answers that are wanted."""
    stops: tuple[str, ...]
    truncation: Truncation

    def rule_of(self, search: Search) -> AnswerRule:
        """How the answer of its search is chosen."""
        return self.searcher.answer_rule(search.state) or self.rule


class SearchService:
    """One policy, one queue of searches; knows no HTTP."""

    def __init__(
        self,
        config: Config,
        model: str,
        codec: TextCodec,
        prompts: PromptEncoder,
        driver: SearchDriver,
        queue: SearchQueue,
        aggregate: Aggregate,
        canonical: Canonical,
    ) -> None:
        """`aggregate`: where a request does not say; `model`: the name that requests must give.

        Raises:
            ConfigError: the default algorithm or budget is one that no request may ask for.
        """
        self.model = model
        self.config = config
        self.queue = queue
        self._codec = codec
        self._prompts = prompts
        self._driver = driver
        self._aggregate = aggregate
        self._canonical = canonical
        self._numbers = count()
        self.metrics = Metrics()
        queue.left = self._count_tokens
        check_defaults(config)

    def prepare(self, request: CompletionRequest | ChatRequest) -> list[Job]:
        """Check a request; returns a job for each of its prompts.

        Raises:
            ApiError: (404) another model; (400) a field is beyond what is served, or the prompt does not fit.
        """
        if request.model is not None:
            self.require_model(request.model)
        prompts = self._prompts.encode(request)
        if len(prompts) > self.queue.most:
            raise bad_request(
                f"there are {len(prompts)} prompts, and at most {self.queue.most} can be live or waiting "
                "here: send fewer at once",
                "prompt",
            )
        return [self._job(request, problem, prompt) for problem, prompt in prompts]

    def require_model(self, name: str) -> None:
        """Check that a model is the one that is served.

        Raises:
            ApiError: (404) it is another one.
        """
        if name != self.model:
            raise unknown_model(name, self.model)

    def _job(self, request: CompletionRequest | ChatRequest, problem: str, prompt: tuple[int, ...]) -> Job:
        options, search = request.search, self.config.search
        if options.answer is not None:
            search = search.model_copy(update={"answer": options.answer})
        algorithm, budget = self._algorithm(options.algorithm), options.budget or search.budgets[0]
        if budget > self.config.serve.max_budget:
            most = self.config.serve.max_budget
            raise bad_request(f"search.budget must be at most {most} here, but is {budget}", "search.budget")
        if request.n > budget:
            raise bad_request(
                f"n is {request.n}, but a search of budget {budget} has no more responses than that: raise "
                "search.budget or lower n",
                "n",
            )
        temperature = search.temperature if request.temperature is None else request.temperature
        if temperature < _GREEDY_BELOW and budget > 1:
            raise bad_request(
                f"temperature {temperature:g} gives the same response every time, and a search of budget "
                f"{budget} needs different ones: leave temperature out, or set search.budget to 1",
                "temperature",
            )
        self._require_temperature(temperature)
        aggregate = options.aggregate or self._aggregate
        try:
            searcher = make_searcher(algorithm, search, budget, aggregate)
        except ValueError as error:
            raise bad_request(f"search.budget: {error}", "search.budget") from error
        except (ConfigError, DataError) as error:
            raise bad_request(f"search.algorithm: {error}", "search.algorithm") from error
        longest = self._longest(searcher.looks_ahead, request, len(prompt))
        return Job(
            problem=problem,
            prompt=prompt,
            searcher=Capped(searcher, longest),
            algorithm=algorithm,
            budget=budget,
            rule=search.answer or ALGORITHMS[algorithm].answer,
            aggregate=aggregate,
            temperature=temperature,
            seed=secrets.randbits(31) if request.seed is None else request.seed,
            max_policy_tokens=options.max_policy_tokens,
            count=request.n,
            stops=request.stop,
            truncation=Truncation(
                search.top_p if request.top_p is None else request.top_p,
                max(search.top_k if request.top_k is None else request.top_k, 0),
                search.min_p if request.min_p is None else request.min_p,
            ),
        )

    def _require_temperature(self, asked: float) -> None:
        """A PRM that is read with the policy has one temperature, for which it was trained."""
        score, trained = self.config.prm.search_score, self.config.rollout.temperature
        if self.config.search.scorer.needs == "prm" and score in MIXED_WITH_THE_POLICY and asked != trained:
            raise bad_request(
                f"the PRM here (search_score={score}) is read with the policy at temperature {trained:g}: "
                "leave temperature out",
                "temperature",
            )

    def submit(self, job: Job) -> Future[Search]:
        """Put a job's search into the queue.

        Raises:
            ApiError: (429) it is full.
        """
        number = next(self._numbers)
        try:
            return self.queue.submit(partial(self._begin, job, number))
        except QueueFullError as error:
            raise too_many(self.queue.most) from error

    def answer(self, job: Job, search: Search) -> list[Answer]:
        """Choose among the responses of a job's search; a vote may wait for the graders."""
        answers = choose_answers(
            search, job.problem, job.rule_of(search), job.aggregate, self._codec, self._canonical,
            vote=self.config.search.vote, count=job.count, stops=job.stops,
        )  # fmt: skip
        self.metrics.search()
        return answers

    def _count_tokens(self, search: Search) -> None:
        ledger = search.ledger
        self.metrics.spent(len(search.problem.prompt), ledger.policy_tokens, ledger.prm_tokens)

    def _begin(self, job: Job, number: int) -> Search:
        """Start a job's search; equal seeds give equal searches, whatever is searched beside them."""
        seed = derive_seed(job.seed, "serve")
        search = self._driver.start(
            job.searcher, SearchProblem(number, f"request-{number}", job.prompt, seed, job.problem)
        )
        search.temperature, search.truncation = job.temperature, job.truncation
        if job.stops:
            search.end_of = end_of(job.stops, self._codec)
            search.without_end = before(job.stops, self._codec)
        if job.max_policy_tokens is not None:
            most = min(job.max_policy_tokens, search.limits.policy_tokens or float("inf"))
            search.limits = replace(search.limits, policy_tokens=most)
        return search

    def _algorithm(self, given: str | None) -> AlgorithmName:
        own = (name for name in self.config.search.algorithms if name in ALGORITHMS)
        name = given or next(own, "best_of_n")
        if name not in ALGORITHMS:
            known = ", ".join(ALGORITHMS)
            raise bad_request(
                f"search.algorithm must be one of {known}, but is {name[:100]!r}", "search.algorithm"
            )
        return name

    def _longest(self, looks_ahead: bool, request: CompletionRequest | ChatRequest, prompt: int) -> int:
        """Longest response, such that the engine's context holds whatever a search may try."""
        own, context = self.config.rollout.max_response_tokens, self.config.model.context_tokens
        most = request.longest or own
        if most > own:
            raise bad_request(
                f"max_tokens is {most}, but a response has at most {own} tokens here "
                "(rollout.max_response_tokens): lower it or leave it out",
                "max_completion_tokens" if getattr(request, "max_completion_tokens", None) else "max_tokens",
            )
        room = own if looks_ahead else most  # which looks beyond the cap
        if prompt + room > context:
            raise bad_request(
                f"the prompt has {prompt} tokens, and with {room} of a response it does not fit into the "
                f"context of {context}: shorten it or lower max_tokens",
                "messages" if isinstance(request, ChatRequest) else "prompt",
                "context_length_exceeded",
            )
        return most


def check_defaults(config: Config) -> None:
    """Check what requests get that ask for nothing special.

    Raises:
        ConfigError: a search setting is none that can be served.
    """
    scorer = config.search.scorer
    if scorer.needs == "truth":
        raise ConfigError(
            f"search.scorer={scorer.name} needs known answers, which requests do not have: use prm or "
            "policy_log_prob"
        )
    if config.search.budgets[0] > config.serve.max_budget:
        raise ConfigError(
            f"search.budgets begins with {config.search.budgets[0]}, but serve.max_budget is "
            f"{config.serve.max_budget}: raise the second or lower the first"
        )
