"""An endpoint over chains of arithmetic that fakes engine and PRM: fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airls_ray.config.schema import ArithmeticTaskConfig, Config
from airls_ray.search.driver import SearchDriver
from airls_ray.search.live import DriverSettings
from airls_ray.search.scoring import LogProbScorer, StepScorer
from airls_ray.serving.answers import Canonical, reader
from airls_ray.serving.app import make_app
from airls_ray.serving.prompts import PromptEncoder
from airls_ray.serving.search_queue import SearchQueue
from airls_ray.serving.service import SearchService
from airls_ray.serving.token import digest
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer
from tests.unit.serving.fakes import Chains, Endpoint, Make


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    task = make_task(ArithmeticTaskConfig(operations=3))
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(task, folder)
    return TextCodec.from_folder(folder, task)


@pytest.fixture
def make(codec: TextCodec) -> Iterator[Make]:
    """Make an endpoint; its queue ends with the test."""
    queues: list[SearchQueue] = []
    opened: list[Chains] = []

    def build(
        chains: Chains | None = None,
        canonical: Canonical = lambda problem, responses: [None] * len(responses),
        token: str | None = None,
        is_open: bool = True,
        mend: Callable[[], bool] | None = None,
        scorer: StepScorer | None = None,
        **sections: dict[str, Any],
    ) -> Endpoint:
        sampler = chains or Chains()
        if is_open:
            sampler.gate.set()
        tree: dict[str, Any] = {
            "model": {"context_tokens": 64},
            "rollout": {"max_response_tokens": 40},
            "search": {"scorer": "policy_log_prob", "budgets": [4]},
        }
        for name, section in sections.items():
            tree[name] = {**tree.get(name, {}), **section}
        config = Config.model_validate(tree)
        settings = DriverSettings(temperature=config.search.temperature)
        driver = SearchDriver(sampler, scorer or LogProbScorer(), codec.is_blank, settings, reader(canonical))
        queue = SearchQueue(driver, config.serve.max_live, config.serve.max_queue, mend)
        prompts = PromptEncoder(codec)
        service = SearchService(config, "tiny", codec, prompts, driver, queue, "prod", canonical)
        queue.start()
        queues.append(queue)
        opened.append(sampler)
        app = make_app(service, None if token is None else digest(token))
        return Endpoint(app, service, queue, sampler, codec)

    yield build
    for queue, sampler in zip(queues, opened, strict=True):
        queue.close()
        sampler.gate.set()
