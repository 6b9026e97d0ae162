"""top_p, top_k and min_p: checked, passed to whoever samples, and never in the log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from actors.commands.evaluate_outputs import _settings as evaluation_settings
from actors.commands.prm_labels import label_settings
from actors.learn.sft_state import _settings as sft_settings
from actors.rollout.engine import Request, Sample, Sampling
from actors.rollout.expansion import expand
from actors.rollout.rollout_worker import RolloutRequest, RolloutWorker
from actors.rollout.sampling import training_request
from actors.rollout.vllm_sampler import return_whole_logprobs
from actors.search.search import _settings as search_settings
from actors.train.evaluate import draw
from airls_ray.config.load import load_config
from airls_ray.config.resume import may_change
from airls_ray.config.schema import ArithmeticTaskConfig, Config
from airls_ray.data.problems import ProblemStream
from airls_ray.data.schemas import PROBLEMS
from airls_ray.errors import ConfigError
from airls_ray.planning.warnings import missing_settings, truncated_rollouts
from airls_ray.search.best_of_n import BestOfN
from airls_ray.search.driver import SearchDriver, run_searches
from airls_ray.search.live import DriverSettings
from airls_ray.search.scoring import LogProbScorer
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer
from airls_ray.truncation import WHOLE, Truncation
from tests.fakes import FakeEngine
from tests.unit.endpoint_fakes import FakePolicy
from tests.unit.test_search_driver import Words, blank, problems
from tests.unit.test_search_over_endpoint import search

TASK = ArithmeticTaskConfig(operations=3)
CUT = {"top_p": 0.5, "top_k": 7, "min_p": 0.25}


def config_of(section: str = "rollout", **more: Any) -> Config:
    return Config.model_validate({section: CUT, **more})


# ------------------------------------------------------------------------------- configuration
@pytest.mark.parametrize("section", ["rollout", "search"])
@pytest.mark.parametrize(
    "override", ["top_p=0", "top_p=1.1", "top_k=-2", "top_k=1.5", "min_p=-0.1", "min_p=1.01", "top_p=.nan"]
)
def test_a_value_outside_its_range_is_one_sentence(section: str, override: str) -> None:
    with pytest.raises(ConfigError, match=f"^{section}.{override.partition('=')[0]} must be "):
        load_config(None, [f"{section}.{override}"])


@pytest.mark.parametrize("override", ["top_p=1", "top_k=0", "top_k=-1", "min_p=0.0"])
def test_by_default_nothing_is_left_out(override: str) -> None:
    for section in ("rollout", "search"):
        config = load_config(None, [f"{section}.{override}"])
        assert Truncation.of(getattr(config, section)) == WHOLE
    assert WHOLE.off and not WHOLE.given()
    assert not Truncation(min_p=0.1).off and Truncation(min_p=0.1).given() == {"min_p": 0.1}


@pytest.mark.parametrize("name", [f"{section}.{name}" for section in ("rollout", "search") for name in CUT])
def test_a_resume_may_not_change_it(name: str) -> None:
    assert not may_change(name)


def test_settings_that_older_files_hold_have_it_only_where_it_is_set(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for settings, section in (
        (lambda config: search_settings(config, tmp_path, None, PROBLEMS.empty_table())["search"], "search"),
        (evaluation_settings, "search"),
        (lambda config: label_settings(config, str(tmp_path)), "rollout"),
        (lambda config: sft_settings(config)["rollout"], "rollout"),
    ):
        plain, cut = settings(Config()), settings(config_of(section))
        assert not set(CUT) & set(plain)
        assert {name: cut[name] for name in CUT} == CUT


def test_training_on_truncated_rollouts_is_said_at_the_start() -> None:
    [said] = truncated_rollouts(config_of())
    assert said.startswith("with rollout.top_p=0.5, rollout.top_k=7, rollout.min_p=0.25 the rollouts lack")
    assert said in missing_settings(config_of(), None)
    assert not list(truncated_rollouts(config_of("search")))
    assert not list(truncated_rollouts(config_of(train={"iterations": 0})))


# ------------------------------------------------------------------------------- to the engine
class Recorder(FakeEngine):
    """Remembers how it was asked to sample."""

    def __init__(self, eos: int) -> None:
        super().__init__(12, eos)
        self.asked: list[Truncation] = []

    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[list[Sample]]:
        self.asked.append(sampling.truncation)
        return super().generate(prompts, seeds, sampling)

    def run(self, requests: Sequence[Request]) -> list[list[Sample]]:
        self.asked += [request.truncation for request in requests]
        return super().run(requests)


@pytest.mark.parametrize("loop", [{}, {"interruptible": True}])
def test_rollouts_are_sampled_as_the_configuration_says(tmp_path: Path, loop: dict[str, Any]) -> None:
    build_tokenizer(make_task(TASK), tmp_path)
    more: dict[str, Any] = {"train": {"max_staleness": 1}} if loop else {}
    config = Config.model_validate(
        {"task": TASK, "rollout": CUT | loop, "method": {"name": "grpo", "importance_cap": 2.0}, **more}
    )
    worker = RolloutWorker("rollout-0", config, str(tmp_path), lambda _, __, eos: Recorder(eos[0]))
    worker.start()
    engine: Any = worker._engine
    table = ProblemStream(make_task(TASK), "train", seed=1).take(2)
    request = training_request(config, 0)
    worker.generate(table, [0, 1], request)
    assert set(engine.asked) == {Truncation(**CUT)}
    engine.asked.clear()
    worker.generate(table, [0, 1], RolloutRequest(1, 0.0, 0, ()))
    assert set(engine.asked) == {WHOLE}


def test_a_search_is_sampled_as_its_driver_says(tmp_path: Path) -> None:
    class Asked(Words):
        rows: list[dict[str, Any]] = []  # noqa: RUF012

        def expand(self, expansions: Any, owners: Sequence[int]) -> Any:
            self.rows += expansions.to_pylist()
            return super().expand(expansions, owners)

    for given, expected in ((Truncation(**CUT), (0.5, 7, 0.25)), (WHOLE, (1.0, 0, 0.0))):
        words = Asked()
        words.rows = []
        settings = DriverSettings(truncation=given)
        run_searches(BestOfN(4), problems(2), SearchDriver(words, LogProbScorer(), blank, settings))
        assert {(row["top_p"], row["top_k"], row["min_p"]) for row in words.rows} == {expected}


def test_samples_of_an_evaluation_are_truncated_and_greedy_responses_are_not() -> None:
    class Asked:
        def __init__(self) -> None:
            self.requests: list[RolloutRequest] = []

        def generate(self, problems: Any, request: RolloutRequest) -> list[Any]:
            self.requests.append(request)
            return []

    sampler: Any = Asked()
    table = ProblemStream(make_task(TASK), "train", seed=1).take(2)
    request = RolloutRequest(4, 0.7, 0, (), truncation=Truncation(**CUT))
    list(draw(sampler, table, lambda start: request, 2, greedy=True))
    sampled, greedy = sampler.requests
    assert (sampled.truncation, greedy.truncation) == (Truncation(**CUT), WHOLE)
    assert (sampled.temperature, greedy.temperature) == (0.7, 0.0)


def test_an_expansion_is_sampled_as_its_row_says(tmp_path: Path) -> None:
    from airls_ray.data.schemas import EXPANSIONS, rows_to_table

    build_tokenizer(make_task(TASK), tmp_path)
    codec = TextCodec.from_folder(tmp_path, make_task(TASK))
    wish = ("p", [5, 6], [], 1, True, None, 0, 1.0, 0, 0.5, 7, 0.25)
    engine = Recorder(codec.eos_id)
    expand(engine, codec, rows_to_table([wish], EXPANSIONS), 20, 20)
    assert engine.asked == [Truncation(**CUT)]


def test_a_policy_behind_an_endpoint_is_asked_in_words_of_vllm() -> None:
    policy = FakePolicy()
    search(policy, top_p=0.9, top_k=7, min_p=0.1)
    assert {(body["top_p"], body["top_k"], body["min_p"]) for body in policy.asked} == {(0.9, 7, 0.1)}


# ------------------------------------------------------------------------------- log-probabilities
LOGITS = torch.tensor([[2.0, 1.0, 0.0, -3.0], [0.5, 0.0, -0.5, 1.0]])


class StateSampler:
    """What of vLLM's sampler V2 is used: per slot states on the host, and `sample`, which gives the logits
    that it drew from."""

    def __init__(self, top_k: Sequence[int], min_p: Sequence[float], temperature: float) -> None:
        self.top_k = np.array(top_k)
        self.temperature = temperature
        self.sampling_states = SimpleNamespace(
            min_p=SimpleNamespace(np=np.array(min_p)),
            get_top_k_top_p=self.limits,
            apply_temperature=lambda logits, rows, slots: logits.div_(self.temperature),
        )

    def limits(self, rows: Any, slots: Any) -> tuple[Any, Any]:
        cut = (self.top_k[slots] < LOGITS.shape[1]).any()
        return (torch.tensor(self.top_k[slots]) if cut else None), None

    def sample(
        self,
        logits: torch.Tensor,
        expanded_idx_mapping: Any,
        idx_mapping: Any,
        idx_mapping_np: Any,
        *more: Any,
        return_logprobs: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = logits.clone() / self.temperature
        for row, slot in enumerate(idx_mapping_np):
            worst = drawn[row].sort(descending=True).values[self.top_k[slot] :]
            drawn[row][torch.isin(drawn[row], worst)] = -torch.inf
        logits.fill_(0.0)  # as a sampler that works in place
        return drawn.argmax(-1), drawn


@pytest.mark.parametrize(("top_k", "min_p"), [([2, 4], [0.0, 0.0]), ([4, 4], [0.5, 0.0])])
def test_the_sampler_of_the_second_runner_gives_the_logits_of_all_tokens(
    top_k: list[int], min_p: list[float]
) -> None:
    sampler = StateSampler(top_k, min_p, 0.5)
    worker = SimpleNamespace(model_runner=SimpleNamespace(sampler=sampler))
    return_whole_logprobs(worker)
    return_whole_logprobs(worker)  # once is enough
    rows = torch.arange(2)
    sampled, given = sampler.sample(LOGITS.clone(), rows, rows, np.arange(2), 1, 2, return_logprobs=True)
    assert sampled.tolist() == [0, 3]
    assert torch.equal(given, LOGITS / 0.5)
    _, drawn = sampler.sample(LOGITS.clone(), rows, rows, np.arange(2), 1, 2)
    assert torch.isinf(drawn).any() == (top_k == [2, 4])  # nobody asked for log-probabilities


def test_where_all_tokens_can_be_drawn_the_sampler_is_as_it_was() -> None:
    sampler = StateSampler([4, 4], [0.0, 0.0], 0.5)
    rows, marks = torch.arange(2), []
    original = sampler.sample
    sampler.sample = lambda *given, **named: marks.append(1) or original(*given, **named)  # type: ignore[method-assign,func-returns-value]
    return_whole_logprobs(SimpleNamespace(model_runner=SimpleNamespace(sampler=sampler)))
    sampler.sampling_states.apply_temperature = None
    sampler.sample(LOGITS.clone(), rows, rows, np.arange(2), 1, 2, return_logprobs=True)
    assert marks == [1]


def test_a_sampler_that_nobody_knows_is_refused() -> None:
    sampler = SimpleNamespace(sample=lambda: None)
    with pytest.raises(TypeError, match="a sampler of types is not known"):
        return_whole_logprobs(SimpleNamespace(model_runner=SimpleNamespace(sampler=sampler)))
