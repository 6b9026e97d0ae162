"""The processes of a search, and the models that they load."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.cluster import cluster, processes
from actors.cluster.cluster import Demand
from actors.cluster.starting import wait_for_start
from actors.rollout.elastic_fleet import ElasticFleet
from actors.rollout.rollout_pool import RolloutPool
from actors.rollout.workers import make_fleet, wait_for_workers, without_adapters
from actors.search.search_parts import OracleScorer, PoolGenerator, ScorerGroup, is_prm_of_ours
from actors.train.start import start_verifier
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.config.schema import Config
from airls_ray.console.progress import Progress
from airls_ray.evaluation.steps import Aggregate
from airls_ray.models.check import check_model_folder
from airls_ray.planning.shapes import shape_of_path
from airls_ray.prm.folder import read_prm_form
from airls_ray.prm.forms import check_search_models, check_search_score, choose_form
from airls_ray.search.ledger import Limits
from airls_ray.search.live import DriverSettings
from airls_ray.search.scoring import LogProbScorer
from airls_ray.search.scoring import StepScorer as AnyScorer
from airls_ray.text.codec import TextCodec
from airls_ray.text.tokenizer_files import require_same_tokens
from airls_ray.truncation import Truncation


@dataclass(frozen=True)
class SearchParts:
    """What all searches of a command share."""

    config: Config
    codec: TextCodec
    problems: pa.Table
    generator: PoolGenerator
    pool: RolloutPool
    fleet: ElasticFleet
    scorer: AnyScorer
    verifier: VerifierHandle
    settings: DriverSettings
    aggregate: Aggregate

    def close(self) -> None:
        """End all actors."""
        self.verifier.close()
        self.fleet.close()
        if isinstance(self.scorer, ScorerGroup):
            self.scorer.close()


def check_models(config: Config, policy: Path, prm: Path | None) -> Config:
    """Check that the folders are whole and fit each other; returns the configuration with the PRM's form.

    Raises:
        ConfigError: the scorer is the PRM, but none is given.
        ModelError: a folder is missing, broken, or the two do not fit.
    """
    check_search_models(config, policy, prm)
    info = check_model_folder(policy)
    config = with_prm_form(config, prm)
    if prm is not None and config.search.scorer.needs == "prm" and is_prm_of_ours(prm):
        check_model_folder(prm, vocab_size=info.vocab_size, vocab_of=f"the policy {policy}")
        require_same_tokens(policy, prm)
    return config


def with_prm_form(config: Config, prm: Path | None) -> Config:
    """Return the configuration with the form of the given PRM.

    Raises:
        ModelError: the folder is no PRM of a known form.
    """
    if config.search.scorer.needs != "prm" or prm is None:
        return config
    if is_prm_of_ours(prm):
        config = config.model_copy(update={"prm": read_prm_form(prm, config.prm)})
        check_search_score(config, prm)
        return config
    choose_form(prm)
    return config


def start(
    config: Config, policy: Path, prm: Path | None, problems: pa.Table, codec: TextCodec, progress: Progress
) -> SearchParts:
    """Start rollout workers, verifier and scorers side by side; one that dies later is replaced.

    Raises:
        UserError: one of them cannot start; all are ended.
    """
    search = config.search

    def start_scorer(number: int, name: str = "") -> Any:
        arguments = (str(number), config, str(policy), None if prm is None else str(prm))
        return processes.start_actor(
            "actors.search.search_parts:StepScorer", name, search.resources, *arguments, keep=True
        )

    def restart_scorer() -> Any:
        scorer = start_scorer(0)
        cluster.fetch(scorer.start.remote(), config.ray.start_deadline_seconds, "starting a step scorer")
        return scorer

    needs = search.scorer.needs
    with_prm, of_actors = needs == "prm", needs in ("prm", "texts")
    asked = [
        Demand("rollout worker", config.rollout.resources, config.rollout.min_workers),
        Demand("verifier", config.verifier.resources),
    ]
    asked += [Demand("step scorer", search.resources, search.scorers)] if of_actors else []
    cluster.require_resources(asked, config.ray.resources_deadline_seconds)
    with ExitStack() as unless_up:
        # The cluster may outlive this search, and would keep the room of what did start.
        fleet = make_fleet(without_adapters(config), str(policy), progress, None)
        unless_up.callback(fleet.close)
        fleet.step(busy=())
        judge = start_verifier(config, str(policy))
        unless_up.callback(processes.kill, judge)
        scorers = [start_scorer(n, f"scorer-{n}") for n in range(search.scorers if of_actors else 0)]
        for started in scorers:
            unless_up.callback(processes.kill, started)
        starting = {
            "verifier": [judge.start.remote()],
            "step scorer": [scorer.start.remote() for scorer in scorers],
        }
        wait_for_start(starting, config.ray.start_deadline_seconds, progress)
        wait_for_workers(fleet, config)
        unless_up.pop_all()
    deadline, attempts = config.train.deadline_seconds, config.failures.attempts
    pool = RolloutPool(fleet, config.rollout.deadline_seconds, config.failures)
    verifier = VerifierHandle(judge, deadline, lambda: start_verifier(config, str(policy)), attempts)
    scorer: AnyScorer = LogProbScorer()
    if of_actors:
        ours = with_prm and prm is not None and is_prm_of_ours(prm)
        kind = config.prm.score_kind if ours else "probability"
        scorer = ScorerGroup(scorers, deadline, restart_scorer, attempts, kind)
    elif needs == "truth":
        scorer = OracleScorer(verifier, problems)
    settings = DriverSettings(
        temperature=search.temperature,
        truncation=Truncation.of(search),
        overlap=search.overlap,
        max_steps=search.max_steps,
        limits=Limits(**search.limits),
        policy_parameters=_parameters(policy, config),
        scorer_parameters=_parameters(prm, config) if with_prm and prm is not None else 0,
    )
    return SearchParts(
        config=config,
        codec=codec,
        problems=problems,
        generator=PoolGenerator(pool),
        pool=pool,
        fleet=fleet,
        scorer=scorer,
        verifier=verifier,
        settings=settings,
        aggregate=search.aggregate or config.prm.search_aggregate,
    )


def _parameters(folder: Path, config: Config) -> int:
    shape = shape_of_path(str(folder), config.model.context_tokens)
    return 0 if isinstance(shape, str) else shape.parameters
