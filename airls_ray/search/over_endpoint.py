"""A search whose policy is an OpenAI-compatible endpoint: no Ray, no cluster, no configuration file.

problems -> EndpointSampler (/v1/completions) -> PRM, which reads texts -> the best response of each
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from airls_ray.config.door_section import ScorerConfig
from airls_ray.config.load import load_config
from airls_ray.config.schema import Config, PRMConfig
from airls_ray.config.search_section import AbstainConfig, AlgorithmName
from airls_ray.config.task_sections import FileTaskConfig
from airls_ray.errors import ConfigError, DataError
from airls_ray.evaluation.abstention import is_sure, vote_share
from airls_ray.evaluation.endpoint import Connection
from airls_ray.evaluation.steps import Aggregate, ScoreKind
from airls_ray.prm.folder import FILE as PROJECT_FILE
from airls_ray.prm.folder import read_prm_form
from airls_ray.prm.in_search import ScoresTexts, TextSearchScorer
from airls_ray.search.driver import SearchDriver, run_searches
from airls_ray.search.endpoint_sampler import EndpointSampler
from airls_ray.search.ledger import Limits
from airls_ray.search.live import DriverSettings, Search, SearchProblem
from airls_ray.search.own_scorer import open_own
from airls_ray.search.records import Leaf, chances, choose
from airls_ray.search.registry import algorithm_of, make_searcher
from airls_ray.seeding import derive_seed
from airls_ray.tasks import make_task
from airls_ray.tasks.base import WrapsPrompts
from airls_ray.tasks.math_grader import read_response
from airls_ray.text.character_codec import CharacterCodec, Codec
from airls_ray.text.messages import Message
from airls_ray.text.steps import rule_of
from airls_ray.truncation import Truncation


@dataclass(frozen=True)
class Candidate:
    """A finished response of a search."""

    response: str
    """Its text."""
    steps: tuple[str, ...]
    """The same in steps; joined they are the response."""
    scores: tuple[float, ...]
    """Of the PRM, one for each step, in [0, 1]."""
    score: float
    """Of the whole, by `search.aggregate`."""
    log_prob: float
    """Log-probability of its tokens by the endpoint, in nats; 0 where that gives none."""
    answer: str | None
    """What the task's grader, or else that for mathematics, reads as its answer; None: nothing."""
    finish: Literal["stop", "length"]
    """Whether it ended by itself, or no tokens (or steps) were left."""


@dataclass(frozen=True)
class SearchResult:
    """What the search of one problem found."""

    problem: str
    """Its text."""
    best: Candidate | None
    """The chosen response; None: none was finished."""
    candidates: tuple[Candidate, ...]
    """All finished responses, oldest first."""
    costs: Mapping[str, float]
    """The ledger of the search (`airls_ray.search.ledger`): generations, policy_tokens, seconds and more."""
    sure: bool = True
    """Whether `best` reaches what `search.abstain` asks for; not where there is none."""
    chances: tuple[float, ...] = ()
    """Of each candidate to be chosen, with sum 1: those that tie share it; `best` is the oldest of them."""

    @property
    def response(self) -> str:
        """Text of the chosen response; empty where there is none."""
        return "" if self.best is None else self.best.response


ReadAnswers = Callable[[Sequence[tuple[int, str]]], Sequence[str | None]]
"""Numbers of problems and responses to them, to the answers that a grader reads there."""


@dataclass(frozen=True)
class TextForm:
    """How a problem becomes the prompt, and where steps end."""

    prompt_template: str = "{prompt}"
    """Words around the problem, which stands at `{prompt}`."""
    system_prompt: str = ""
    """Said before; empty: nothing."""
    steps: str | Mapping[str, Any] = "delimiter"
    """What ends a step, as `task.steps` has it."""
    step_delimiter: str = "\n\n"
    """For `delimiter`."""

    def sections(self) -> dict[str, Any]:
        """As the section `task`; its files are never read."""
        form = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"task": {"name": "file", "train_file": "unread", "test_file": "unread", **form}}


@dataclass(frozen=True)
class Scoring:
    """A PRM or another scorer of texts, and how its scores are to be read."""

    load: Callable[[], ScoresTexts]
    """Gives the PRM; called when all else is checked."""
    name: str = "prm"
    """What results call it."""
    kind: ScoreKind = "probability"
    aggregate: Aggregate = "prod"


def scoring_of(load: Callable[[], ScoresTexts], path: Path | str) -> Scoring:
    """Read a PRM's scores as its folder says; another's are probabilities, multiplied."""
    if not (Path(path) / PROJECT_FILE).is_file():
        return Scoring(load)
    form = read_prm_form(Path(path), PRMConfig())
    return Scoring(load, kind=form.score_kind, aggregate=form.search_aggregate)


def scoring_by_name(named: ScorerConfig) -> Scoring:
    """Return the user's scorer that `search.scorer` names, made and tried.

    Raises:
        ConfigError: it is none of the user's own.
        DoorError: it does not open, raises, or does not return a score for each step.
    """
    if named.needs != "texts":
        raise ConfigError(
            f"a search over an endpoint is guided by a PRM or by a scorer of your own, and search.scorer is "
            f"{named.name}: give --prm with search.scorer=prm, or set search.scorer=file.py:NAME"
        )
    own = open_own(named)
    own.try_out()
    return Scoring(lambda: own, named.shown)


def search_by_endpoint(
    connection: Connection,
    problems: Sequence[str],
    scoring: Scoring,
    *,
    algorithm: AlgorithmName,
    budget: int,
    form: TextForm,
    tokenizer: Path | str | None,
    chat: bool,
    chat_template_kwargs: Mapping[str, Any],
    max_response_tokens: int,
    seed: int,
    settings: Mapping[str, Any],
    histories: Sequence[Sequence[Message]] | None = None,
    read: ReadAnswers | None = None,
) -> list[SearchResult]:
    """Search every problem; see `airls_ray.search_endpoint` for the arguments.

    `histories`: the turns before each problem, which the PRM is not given; `read`: reads answers, for votes
    (None: the grader for mathematics).

    Raises:
        ConfigError: a setting is unknown or wrong, or an endpoint cannot do what the algorithm needs.
        DataError: a problem is blank, or has turns before it that cannot be written.
        RunError: the endpoint cannot be reached, refuses, or does not say what is needed.
    """
    search = {**settings, "algorithms": [algorithm], "budgets": [budget]}
    model = {"prompt_template": "chat" if chat else "plain", "chat_template_kwargs": chat_template_kwargs}
    config = load_config({**form.sections(), "model": model, "search": search, "seed": seed})
    if isinstance(problems, str):  # whose characters would be the problems
        raise DataError("problems must be a list of texts, but is one text (str)")
    for number, problem in enumerate(problems, 1):
        if not problem.strip():
            raise DataError(f"problem {number} is blank: leave it out")
    if tokenizer is None and scoring.kind == "token_mean":
        raise ConfigError(
            "this PRM scores by the mean over a step's tokens, which a search by text does not know: give "
            "the policy's tokenizer"
        )
    if chat and tokenizer is None:
        raise ConfigError("chat=True puts problems into the model's chat template: give its tokenizer")
    codec = _codec(config, tokenizer)
    searcher = make_searcher(algorithm, config.search, budget, config.search.aggregate or scoring.aggregate)
    if searcher.looks_ahead:
        raise ConfigError("an endpoint looks no steps ahead: take beam, or another algorithm than lookahead")
    scorer = TextSearchScorer(scoring.load(), codec, scoring.kind)
    assert isinstance(config.task, FileTaskConfig)
    sampler = EndpointSampler(
        connection,
        codec,
        config.task.steps.rule(config.task.step_delimiter).stop,
        max_response_tokens,
        config.search.max_step_tokens,
    )
    answers_in = read or _mathematics(codec)

    def read_for_driver(of: Sequence[SearchProblem], responses: Sequence[Sequence[int]]) -> list[str | None]:
        rows = zip(of, responses, strict=True)
        return list(answers_in([(one.number, codec.decode(response)) for one, response in rows]))

    driver = SearchDriver(sampler, scorer, codec.is_blank, _driver_settings(config), read_for_driver)
    turns = [()] * len(problems) if histories is None else histories
    asked = [
        SearchProblem(at, str(at), tuple(codec.encode_prompt(*one)), derive_seed(seed, "search", at), one[0])
        for at, one in enumerate(zip(problems, turns, strict=True))
    ]
    live = config.search.live_problems
    searches = [
        search
        for start in range(0, len(asked), live)
        for search in run_searches(searcher, asked[start : start + live], driver)
    ]
    found = [search.searcher.leaves(search.state) for search in searches]
    texts = [
        (search.problem.number, codec.decode(search.state.response(node)))
        for search, nodes in zip(searches, found, strict=True)
        for node in nodes
    ]
    answers = iter(answers_in(texts))
    return [
        _result(search, [next(answers) for _ in nodes], codec, config)
        for search, nodes in zip(searches, found, strict=True)
    ]


def _codec(config: Config, tokenizer: Path | str | None) -> Codec:
    """Of the policy's tokens, or without a tokenizer of text."""
    task = make_task(config.task)
    assert isinstance(config.task, FileTaskConfig) and isinstance(task, WrapsPrompts)
    if tokenizer is None:
        wrap = task.wrap
        return CharacterCodec(lambda problem: "\n\n".join(filter(None, wrap(problem))), rule_of(task))
    from airls_ray.text.codec import TextCodec

    return TextCodec.for_model(config.model, tokenizer, task)


def _driver_settings(config: Config) -> DriverSettings:
    search = config.search
    limits = Limits(**search.limits)
    cut = Truncation.of(search)
    return DriverSettings(
        search.temperature, search.max_steps, limits, truncation=cut, overlap=search.overlap
    )


def _mathematics(codec: Codec) -> ReadAnswers:
    """What the grader for mathematics reads."""

    def read(asked: Sequence[tuple[int, str]]) -> list[str | None]:
        found = [read_response(codec.open_thought + response) for _, response in asked]
        return [None if one is None else one.name for one in found]

    return read


def _result(search: Search, answers: Sequence[str | None], codec: Codec, config: Config) -> SearchResult:
    """`answers`: of the searcher's leaves."""
    searcher = search.searcher
    state, how = search.state, searcher.aggregate
    nodes, weights = searcher.leaves(state), searcher.vote_weights(state)
    candidates = []
    for node, answer in zip(nodes, answers, strict=True):
        tokens = state.response(node)
        candidates.append(
            Candidate(
                response=codec.decode(tokens),
                steps=tuple(codec.step_texts(tokens, state.step_ends(node))),
                scores=tuple(state.step_scores(node)),
                score=state.value(node, how),
                log_prob=state.log_prob(node),
                answer=answer,
                finish="stop" if state.nodes[node].finish == "stop" else "length",
            )
        )
    leaves = [
        Leaf(node, state.log_score(node, how), weights[node], one.log_prob, one.answer, 0.0)
        for node, one in zip(nodes, candidates, strict=True)
    ]
    rule = (
        config.search.answer
        or searcher.answer_rule(state)
        or algorithm_of(config.search.algorithms[0]).answer
    )
    vote = config.search.vote
    chosen = choose(leaves, rule, vote)
    best = None if chosen is None else candidates[chosen]
    shares = tuple(chances(leaves, rule, vote).tolist()) if leaves else ()
    sure = best is not None and _is_sure(best, candidates, config.search.abstain)
    return SearchResult(search.problem.text, best, tuple(candidates), search.ledger.figures(), sure, shares)


def _is_sure(best: Candidate, candidates: Sequence[Candidate], abstain: AbstainConfig) -> bool:
    share = vote_share(best.answer, [one.answer for one in candidates])
    return bool(is_sure(np.array(share), np.array(best.score), abstain.vote_share, abstain.score))
