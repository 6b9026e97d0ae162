"""The endpoint's HTTP layer on a scripted sampler: shared ticks, true usage, streams, every error."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
import types
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from jinja2.exceptions import TemplateError
from starlette.applications import Starlette

from airls_ray.cli import main as cli
from airls_ray.config.schema import ArithmeticTaskConfig, Config, CountdownTaskConfig, FileTaskConfig
from airls_ray.data.schemas import CONTINUATIONS
from airls_ray.errors import ConfigError
from airls_ray.search.beam import Beam
from airls_ray.search.best_of_n import BestOfN
from airls_ray.search.driver import DriverSettings, SearchDriver
from airls_ray.search.early_rejection import EarlyRejection
from airls_ray.search.scoring import LogProbScorer
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import Node, SearchState
from airls_ray.serving.answers import Canonical, pieces
from airls_ray.serving.app import make_app
from airls_ray.serving.cap import Capped
from airls_ray.serving.errors import ApiError
from airls_ray.serving.prompts import PromptEncoder
from airls_ray.serving.requests import ChatRequest, parse
from airls_ray.serving.search_queue import SearchQueue
from airls_ray.serving.service import SearchService
from airls_ray.serving.token import check_exposure, digest, read_token
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem
from airls_ray.text import TextCodec, build_tokenizer
from tests.unit.search_fakes import run

END, DIGITS, SEMICOLON = 1, range(2, 12), 16
"""Tokens of arithmetic's vocabulary: <pad>, <eos>, 0..9, + - * = ;"""
STEP = (None, 12, None, 15, None, SEMICOLON)
"""Form of a step, `a+b=c;`: None is a digit."""
PROMPT = "7+3*4="
WAIT_SECONDS = 10.0


@dataclass
class Chains:
    """Samples `steps` steps `a+b=c;` of random digits, the last with the end of sequence."""

    steps: int = 3
    digits: int = 10
    """How many of the ten are drawn."""
    calls: list[list[str]] = field(default_factory=list)
    """Problems of the rows of each call."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """All that was asked."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """All that was answered, in order."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Calls wait until it is set."""
    error: Exception | None = None

    def expand(self, expansions: pa.Table, owners: Sequence[int]) -> pa.Table:
        asked = expansions.to_pylist()
        self.calls.append([row["problem_id"] for row in asked])
        self.rows += asked
        assert self.gate.wait(WAIT_SECONDS)
        if self.error is not None:
            raise self.error
        found = [
            self.sample(number, row, index)
            for number, row in enumerate(asked)
            for index in range(row["count"])
        ]
        self.samples += found
        return pa.Table.from_pylist(found, schema=CONTINUATIONS)

    def sample(self, number: int, row: dict[str, Any], index: int) -> dict[str, Any]:
        seed = [row["seed"] + index] if row["temperature"] > 0 else []
        tokens: list[int] = []
        while not tokens or (row["whole"] and tokens[-1] != END):
            tokens += self.step([*row["prompt"], *row["response"], *tokens], row, len(tokens), seed)
        finish = "stop" if tokens[-1] == END else "step"
        if row["max_tokens"] is not None and len(tokens) > row["max_tokens"]:
            tokens, finish = tokens[: row["max_tokens"]], "length" if row["whole"] else "partial"
        ends = [at + 1 for at, token in enumerate(tokens) if token == SEMICOLON]
        if not ends or tokens[ends[-1] :] not in ([], [END]):
            ends.append(len(tokens))
        ends[-1] = len(tokens)
        return {
            "expansion": number,
            "index": index,
            "tokens": tokens,
            "logprobs": [-0.01 * token for token in tokens],
            "step_ends": ends,
            "finish": finish,
            "ahead": [],
            "ahead_ends": [],
            "sampled": len(tokens),
        }

    def step(self, seen: list[int], row: dict[str, Any], new: int, seed: list[int]) -> list[int]:
        """What is left of the step under way, and the end of sequence after the last."""
        response = seen[len(row["prompt"]) :]
        draw = np.random.default_rng([*seed, *seen])
        begun = len(response) % len(STEP)
        tokens = [
            form if form is not None else DIGITS[int(draw.integers(self.digits))] for form in STEP[begun:]
        ]
        last = (len(response) + len(tokens)) // len(STEP) == self.steps
        return [*tokens, END] if last else tokens


@dataclass
class Endpoint:
    """All parts of one."""

    app: Starlette
    service: SearchService
    queue: SearchQueue
    chains: Chains
    codec: TextCodec

    def post(self, path: str = "/v1/completions", **given: Any) -> httpx.Response:
        [reply] = self.post_all([given], path)
        return reply

    def post_all(
        self, bodies: Sequence[dict[str, Any]], path: str = "/v1/completions"
    ) -> list[httpx.Response]:
        """All at once, in one event loop."""

        async def send(client: httpx.AsyncClient) -> list[httpx.Response]:
            return await asyncio.gather(*(client.post(path, json=fields(path, body)) for body in bodies))

        return self.talk(send)

    def talk(self, act: Callable[[httpx.AsyncClient], Awaitable[Any]], **options: Any) -> Any:
        async def inside() -> Any:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://endpoint", **options
            ) as client:
                return await act(client)

        return asyncio.run(inside())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.talk(lambda client: client.get(path), headers=headers)


def fields(path: str, given: dict[str, Any]) -> dict[str, Any]:
    asks = {"messages": [{"role": "user", "content": PROMPT}]} if "chat" in path else {"prompt": PROMPT}
    return {name: value for name, value in {"model": "tiny", **asks, **given}.items() if value != "absent"}


Make = Callable[..., Endpoint]


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
        chat: Any = None,
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
        driver = SearchDriver(sampler, LogProbScorer(), codec.is_blank, settings)
        queue = SearchQueue(driver, config.serve.max_live, config.serve.max_queue)
        prompts = PromptEncoder(codec, chat)
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


async def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < WAIT_SECONDS
        await asyncio.sleep(0.001)


def responses(endpoint: Endpoint) -> list[str]:
    """Texts of all whole responses that were sampled."""
    return [endpoint.codec.decode(sample["tokens"]) for sample in endpoint.chains.samples]


def probability(tokens: Sequence[int]) -> float:
    """Score of a response under LogProbScorer with `prod`."""
    return exp(-0.01 * sum(tokens))


# ------------------------------------------------------------------------------------- command
def test_the_command_passes_what_was_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []
    module = types.ModuleType("actors.serve")
    vars(module)["run_serve"] = lambda config, *given: seen.append((config.serve.max_live, *given))
    monkeypatch.setitem(sys.modules, "actors.serve", module)
    file = tmp_path / "experiment.yaml"
    file.write_text("serve: {max_live: 3}\n")
    assert cli.run(["serve", str(file), "--policy", "p"]) == 0
    options = ["--prm", "r", "--host", "::1", "--port", "80", "--token-file", "t"]
    assert cli.run(["serve", str(file), "serve.max_live=5", "--policy", "p", *options]) == 0
    assert seen == [
        (3, Path("p"), None, "127.0.0.1", 8000, None),
        (5, Path("p"), Path("r"), "::1", 80, Path("t")),
    ]


# ------------------------------------------------------------------------------------- replies
def test_a_completion_has_the_form_of_openai(make: Make) -> None:
    reply = make().post()
    assert reply.status_code == 200
    body = reply.json()
    assert body["object"] == "text_completion"
    assert body["model"] == "tiny"
    [choice] = body["choices"]
    assert choice.keys() == {"index", "text", "logprobs", "finish_reason"}
    assert choice["finish_reason"] == "stop"


def test_a_chat_completion_has_the_form_of_openai(make: Make) -> None:
    body = make().post("/v1/chat/completions").json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert body["choices"][0]["message"]["content"].count(";") == 3


def test_chat_and_completion_search_the_same(make: Make) -> None:
    endpoint = make()
    text = endpoint.post(seed=5).json()["choices"][0]["text"]
    assert endpoint.post("/v1/chat/completions", seed=5).json()["choices"][0]["message"]["content"] == text


def test_the_best_response_is_the_answer(make: Make) -> None:
    endpoint = make()
    body = endpoint.post(search={"algorithm": "best_of_n", "budget": 8}).json()
    best = max(endpoint.chains.samples, key=lambda sample: probability(sample["tokens"]))
    assert body["choices"][0]["text"] == endpoint.codec.decode(best["tokens"])
    assert body["search"]["score"] == pytest.approx(probability(best["tokens"]))
    assert body["search"]["finished_responses"] == 8


@pytest.mark.parametrize("algorithm", ["best_of_n", "beam", "dvts", "early_rejection"])
def test_usage_is_what_was_sampled(make: Make, algorithm: str) -> None:
    endpoint = make()
    body = endpoint.post(search={"algorithm": algorithm, "budget": 6}).json()
    sampled = sum(sample["sampled"] for sample in endpoint.chains.samples)
    assert body["usage"] == {
        "prompt_tokens": 6, "completion_tokens": sampled, "total_tokens": 6 + sampled
    }  # fmt: skip
    assert body["search"]["ledger"]["policy_tokens"] == sampled
    assert body["search"]["ledger"]["generations"] == len(endpoint.chains.samples)


def test_without_options_the_configuration_decides(make: Make) -> None:
    endpoint = make(search={"algorithms": ["beam", "best_of_n"], "budgets": [3, 5]})
    report = endpoint.post().json()["search"]
    assert (report["algorithm"], report["budget"], report["answer"]) == ("beam", 3, "best")


def test_models_names_the_one_that_is_served(make: Make) -> None:
    body = make().get("/v1/models").json()
    assert [model["id"] for model in body["data"]] == ["tiny"]


# ------------------------------------------------------------------------------ shared ticks
def test_requests_that_wait_share_a_tick(make: Make) -> None:
    endpoint = make(is_open=False)
    chains, queue = endpoint.chains, endpoint.queue

    async def act(client: httpx.AsyncClient) -> list[httpx.Response]:
        def post(**more: Any) -> asyncio.Task[httpx.Response]:
            return asyncio.ensure_future(client.post("/v1/completions", json=fields("", more)))

        first = post(search={"algorithm": "best_of_n"})
        await until(lambda: len(chains.calls) == 1)
        others = [post(search={"algorithm": "best_of_n"}), post(search={"algorithm": "beam"}), post()]
        await until(lambda: queue.counts() == (1, 3))
        chains.gate.set()
        return await asyncio.gather(first, *others)

    replies = endpoint.talk(act)
    assert [reply.status_code for reply in replies] == [200] * 4
    assert [len(set(call)) for call in chains.calls[:2]] == [1, 3]


def test_no_more_searches_are_live_than_allowed(make: Make) -> None:
    endpoint = make(serve={"max_live": 2})
    endpoint.post_all([{"search": {"algorithm": "beam", "budget": 4}}] * 5)
    assert max(len(set(call)) for call in endpoint.chains.calls) == 2
    assert len({problem for call in endpoint.chains.calls for problem in call}) == 5


def test_an_answer_does_not_depend_on_the_requests_beside_it(make: Make) -> None:
    bodies = [{"seed": seed, "search": {"algorithm": "beam", "budget": 6}} for seed in range(4)]
    together = [reply.json()["choices"] for reply in make().post_all(bodies)]
    assert together == [make().post(**body).json()["choices"] for body in bodies]
    assert len({choices[0]["text"] for choices in together}) == 4


def test_the_seed_that_was_drawn_gives_the_same_answer_again(make: Make) -> None:
    endpoint = make()
    body = endpoint.post().json()
    assert endpoint.post(seed=body["search"]["seed"]).json()["choices"] == body["choices"]


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 0.5), ({"temperature": 0.25}, 0.25), ({"temperature": 0}, 0)]
)
def test_the_temperature_is_the_requests_or_the_configurations(
    make: Make, given: dict[str, float], expected: float
) -> None:
    endpoint = make(search={"temperature": 0.5})
    endpoint.post(**given)
    assert {row["temperature"] for row in endpoint.chains.rows} == {expected}


# ------------------------------------------------------------------------------------- limits
@pytest.mark.parametrize("algorithm", ["best_of_n", "beam", "dvts", "early_rejection", "lookahead"])
@pytest.mark.parametrize("most", [1, 6, 8, 12])
def test_a_response_is_no_longer_than_max_tokens(make: Make, algorithm: str, most: int) -> None:
    endpoint = make(Chains(steps=3))
    body = endpoint.post(max_tokens=most, search={"algorithm": algorithm}).json()
    [choice] = body["choices"]
    assert len(endpoint.codec.encode_prompt(choice["text"])) == most
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    "searcher",
    [BestOfN(5), Beam(6, 2), Beam(6, 3, lookahead=2), EarlyRejection(6, 2, tokens=1)],
    ids=["best_of_n", "beam", "lookahead", "early_rejection"],
)
class TestCap:
    def test_a_cap_that_is_never_reached_changes_nothing(self, searcher: Searcher) -> None:
        assert run(Capped(searcher, 10_000), seed=3) == run(searcher, seed=3)

    def test_responses_that_reach_the_cap_end_there(self, searcher: Searcher) -> None:
        state = run(Capped(searcher, 4), seed=3, step_tokens=3, max_steps=9)
        lengths = {node: len(state.response(node)) for node in state.finished()}
        assert max(lengths.values()) == 4
        cut = [node for node, length in lengths.items() if state.nodes[node].finish == "length"]
        assert cut
        assert all(lengths[node] == 4 for node in cut)


def test_max_policy_tokens_ends_a_search_with_what_it_has(make: Make) -> None:
    endpoint = make()
    options = {"algorithm": "beam", "budget": 4, "max_policy_tokens": 30}
    body = endpoint.post(search=options).json()
    assert body["search"]["stopped_by"] == "policy_tokens"
    assert len(endpoint.chains.calls) == 2  # 4 x 6 tokens each round
    assert body["search"]["finished_responses"] == 0
    [choice] = body["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["text"].count(";") == 2


# -------------------------------------------------------------------------------------- votes
@pytest.mark.parametrize("rule", ["majority", "weighted"])
def test_a_vote_is_over_the_answers_that_are_read(make: Make, codec: TextCodec, rule: str) -> None:
    asked: list[str] = []

    def first_digit(problem: str, given: Sequence[Sequence[int]]) -> list[str | None]:
        asked.append(problem)
        return [codec.decode(response)[0] for response in given]

    for seed in range(5):
        endpoint = make(Chains(digits=3), first_digit)
        options = {"algorithm": "best_of_n", "budget": 16, "answer": rule}
        body = endpoint.post(seed=seed, search=options).json()
        votes: dict[str, float] = defaultdict(float)
        for sample in endpoint.chains.samples:
            weight = 1.0 if rule == "majority" else probability(sample["tokens"])
            votes[codec.decode(sample["tokens"])[0]] += weight
        assert body["choices"][0]["text"][0] == max(votes, key=lambda digit: votes[digit])
    assert asked == [PROMPT] * 5


def test_where_no_answer_can_be_read_a_vote_is_over_the_last_steps(make: Make) -> None:
    endpoint = make(Chains(digits=2))
    body = endpoint.post(search={"algorithm": "best_of_n", "budget": 32, "answer": "majority"}).json()
    steps = Counter(text.split(";")[-2] for text in responses(endpoint))
    assert steps.most_common(1)[0][1] > 2
    assert body["choices"][0]["text"].split(";")[-2] == steps.most_common(1)[0][0]


def test_the_best_needs_no_reading_of_answers(make: Make) -> None:
    def never(problem: str, given: Sequence[Sequence[int]]) -> list[str | None]:
        raise AssertionError

    assert make(canonical=never).post(search={"answer": "best"}).status_code == 200


@pytest.mark.parametrize(
    ("task", "prompt", "response", "answer"),
    [
        (ArithmeticTaskConfig(operations=1), "7+3=", "7+3=0;", "0"),
        (CountdownTaskConfig(numbers=3), "2,3,4,20:", "3+2=5,5*4=20", "2+3=5,4*5=20"),
        (FileTaskConfig(train_file="a", test_file="b", grader="exact"), "?", "so\n#### 12", "12"),
        (FileTaskConfig(train_file="a", test_file="b", grader="math"), "?", r"so \boxed{12}", "12"),
    ],
    ids=["arithmetic", "countdown", "exact", "math"],
)
def test_graders_read_an_answer_without_knowing_the_right_one(
    task: Any, prompt: str, response: str, answer: str
) -> None:
    assert make_task(task).grade(Problem("", prompt, ""), response).answer == answer


# ------------------------------------------------------------------------------------ streams
def events(reply: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of all events; the last line must end the stream."""
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_stream_is_the_whole_answer_step_by_step(make: Make) -> None:
    endpoint = make()
    whole = endpoint.post(seed=3).json()["choices"][0]["text"]
    chunks = events(endpoint.post(seed=3, stream=True))
    texts = [chunk["choices"][0]["text"] for chunk in chunks]
    assert texts == [*(step + ";" for step in whole.split(";")[:-1]), ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_chat_stream_begins_with_the_role(make: Make) -> None:
    endpoint = make()
    whole = endpoint.post("/v1/chat/completions", seed=3).json()["choices"][0]["message"]["content"]
    deltas = [
        chunk["choices"][0]["delta"]
        for chunk in events(endpoint.post("/v1/chat/completions", seed=3, stream=True))
    ]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == whole
    assert deltas[-1] == {}


def test_the_usage_is_streamed_when_it_is_asked_for(make: Make) -> None:
    endpoint = make()
    usage = endpoint.post(seed=3).json()["usage"]
    *_, last = events(endpoint.post(seed=3, stream=True, stream_options={"include_usage": True}))
    assert (last["choices"], last["usage"]) == ([], usage)
    assert all("usage" not in chunk for chunk in events(endpoint.post(seed=3, stream=True)))


def test_a_stream_that_cannot_be_has_the_status_of_its_error(make: Make) -> None:
    endpoint = make(Chains(error=RuntimeError("no memory")))
    assert endpoint.post(stream=True).status_code == 500


def test_a_stream_does_not_cut_a_character(codec: TextCodec) -> None:
    class Bytes:
        def decode(self, tokens: Sequence[int]) -> str:
            return bytes(tokens).decode("utf-8", errors="replace")

    text = "x é; y ✓ z"
    tokens = tuple(text.encode())
    for cut in range(1, len(tokens)):
        state = SearchState(0, [Node(-1), Node(0, tokens, step_ends=(cut, len(tokens)), finish="stop")])
        found = pieces(state, 1, Bytes())  # type: ignore[arg-type]
        assert "".join(found) == text


# ------------------------------------------------------------------------------- wrong requests
WRONG: list[tuple[dict[str, Any], int, str | None]] = [
    ({"model": "gpt-9"}, 404, "model"),
    ({"model": None}, 400, "model"),
    ({"prompt": "absent"}, 400, "prompt"),
    ({"prompt": ["7+3=", "1+1="]}, 400, "prompt"),
    ({"prompt": ""}, 400, "prompt"),
    ({"prompt": "what is 7+3?"}, 400, "prompt"),
    ({"prompt": "7" * 65}, 400, "prompt"),
    ({"n": 2}, 400, "n"),
    ({"n": True}, 400, "n"),
    ({"best_of": 4}, 400, "best_of"),
    ({"logprobs": 0}, 400, "logprobs"),
    ({"logprobs": True}, 400, "logprobs"),
    ({"tools": [{"type": "function"}]}, 400, "tools"),
    ({"stop": "\n"}, 400, "stop"),
    ({"top_p": 0.9}, 400, "top_p"),
    ({"frequency_penalty": 0.1}, 400, "frequency_penalty"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
    ({"response_format": {"type": "json_object"}}, 400, "response_format"),
    ({"echo": True}, 400, "echo"),
    ({"temprature": 1}, 400, "temprature"),
    ({"temperature": 2.5}, 400, "temperature"),
    ({"temperature": "1"}, 400, "temperature"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"seed": "x"}, 400, "seed"),
    ({"stream": 1}, 400, "stream"),
    ({"search": {"algorithm": "magic"}}, 400, "search.algorithm"),
    ({"search": {"budget": 257}}, 400, "search.budget"),
    ({"search": {"budget": 0}}, 400, "search.budget"),
    ({"search": {"answer": "first"}}, 400, "search.answer"),
    ({"search": {"width": 4}}, 400, "search.width"),
]


@pytest.mark.parametrize(("given", "status", "param"), WRONG, ids=[str(given) for given, _, _ in WRONG])
def test_a_wrong_request_is_refused_by_the_name_of_the_field(
    make: Make, given: dict[str, Any], status: int, param: str | None
) -> None:
    endpoint = make()
    reply = endpoint.post(**given)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert not endpoint.chains.calls


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "7+3=",
        [{"role": "assistant", "content": PROMPT}],
        [{"role": "tool", "content": PROMPT}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}],
    ],
    ids=["none", "text", "assistant", "tool", "image", "system without a template"],
)
def test_wrong_messages_are_refused(make: Make, messages: Any) -> None:
    reply = make().post("/v1/chat/completions", messages=messages)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith("messages")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000], ids=repr)
def test_a_body_that_is_no_object_is_refused(make: Make, body: bytes) -> None:
    endpoint = make()
    reply = endpoint.talk(lambda client: client.post("/v1/completions", content=body))
    assert reply.status_code == 400


def test_fields_that_change_nothing_are_taken(make: Make) -> None:
    neutral = {
        "n": 1, "best_of": 1, "logprobs": None, "tools": [], "top_p": 1.0, "stop": None, "echo": False,
        "presence_penalty": 0, "user": "me", "metadata": {"a": "b"}, "stream_options": None,
    }  # fmt: skip
    assert make().post(**neutral).status_code == 200
    assert make().post("/v1/chat/completions", logprobs=False, max_completion_tokens=6).status_code == 200


def test_lookahead_needs_room_for_the_longest_response(make: Make) -> None:
    endpoint = make(model={"context_tokens": 41})
    assert endpoint.post(max_tokens=6).status_code == 200
    reply = endpoint.post(max_tokens=6, search={"algorithm": "lookahead"})
    assert reply.json()["error"]["code"] == "context_length_exceeded"


def test_unknown_paths_and_methods_have_a_body_of_openai(make: Make) -> None:
    endpoint = make()
    for path, status in (("/v1/embeddings", 404), ("/v1/completions", 405)):
        reply = endpoint.get(path)
        assert reply.status_code == status
        assert path in reply.json()["error"]["message"]


# ------------------------------------------------------------------------------- chat templates
class Template:
    """A tokenizer with a chat template that wants no system message."""

    def apply_chat_template(self, turns: list[dict[str, str]], **options: Any) -> list[int]:
        if turns[0]["role"] == "system":
            raise TemplateError("no system messages")
        assert options == {"add_generation_prompt": True, "return_dict": False}
        return [len(turn["content"]) for turn in turns]


def conversation(*turns: tuple[str, Any]) -> ChatRequest:
    messages = [{"role": role, "content": content} for role, content in turns]
    return parse(ChatRequest, json.dumps({"model": "tiny", "messages": messages}).encode())


def test_turns_go_through_the_chat_template(codec: TextCodec) -> None:
    parts = [{"type": "text", "text": "1+1"}, {"type": "text", "text": "="}]
    asked = conversation(("user", "7+3="), ("assistant", "7+3=0;"), ("user", parts))
    assert PromptEncoder(codec, Template()).encode(asked) == ("1+1=", (4, 6, 4))


def test_what_a_template_refuses_is_the_clients_mistake(codec: TextCodec) -> None:
    with pytest.raises(ApiError, match="no system messages") as caught:
        PromptEncoder(codec, Template()).encode(conversation(("system", "x"), ("user", "1+1=")))
    assert caught.value.status == 400


# -------------------------------------------------------------------------------------- tokens
def test_v1_wants_the_token_and_health_does_not(make: Make) -> None:
    endpoint = make(token="open-sesame")
    assert endpoint.get("/v1/models").status_code == 401
    assert endpoint.get("/v1/models", authorization="Bearer open-sesam").status_code == 401
    assert endpoint.get("/v1/models", authorization="open-sesame").status_code == 401
    assert endpoint.get("/v1/models", authorization="Basic open-sesame").status_code == 401
    assert endpoint.get("/v1/models", authorization="Bearer open-sesame").status_code == 200
    assert endpoint.get("/health").status_code == 200


def test_a_request_without_the_token_is_refused_before_its_body_is_read(make: Make) -> None:
    endpoint = make(token="open-sesame")
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(endpoint.app(scope("/v1/completions"), receive, send))
    assert sent[0]["status"] == 401


def test_tokens_are_in_no_log(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint = make(Chains(error=RuntimeError("broken")), token="open-sesame")
    endpoint.get("/v1/models", authorization="Bearer wrong-token")
    headers = {"authorization": "Bearer open-sesame"}
    endpoint.talk(lambda client: client.post("/v1/completions", json=fields("", {})), headers=headers)
    assert "broken" in caplog.text
    assert "open-sesame" not in caplog.text
    assert "wrong-token" not in caplog.text


def test_a_token_comes_from_a_file_or_else_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    environment = {"AIRLS_RAY_TOKEN": "from-environment", "HOME": "/"}
    assert read_token(file, dict(environment)) == digest("from-file")
    assert read_token(None, environment) == digest("from-environment")
    assert environment == {"HOME": "/"}  # child processes must not inherit it
    assert read_token(None, environment) is None


@pytest.mark.parametrize("content", ["", " \n", "two words", "gehëim"])
def test_a_token_that_cannot_be_sent_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(ConfigError, match="one token"):
        read_token(file, {})


def test_other_machines_are_served_with_a_token_only() -> None:
    check_exposure("127.0.0.1", None)
    check_exposure("localhost", None)
    check_exposure("::1", None)
    check_exposure("0.0.0.0", digest("x"))
    for host in ("0.0.0.0", "::", "192.168.0.7", "127.example.org"):
        with pytest.raises(ConfigError, match="--token-file"):
            check_exposure(host, None)


@pytest.mark.parametrize(
    "sections", [{"search": {"scorer": "oracle"}}, {"serve": {"max_budget": 3}}], ids=["oracle", "budget"]
)
def test_settings_that_cannot_be_served_are_refused_at_the_start(
    make: Make, sections: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        make(**sections)


# ------------------------------------------------------------------------------- overload and failures
def test_a_long_body_is_refused(make: Make) -> None:
    endpoint = make(serve={"max_body_bytes": 200})
    reply = endpoint.post(user="x" * 200)
    assert reply.status_code == 413
    assert "200 bytes" in reply.json()["error"]["message"]

    async def chunks() -> Any:
        for _ in range(1000):
            yield b"x"

    assert endpoint.talk(lambda client: client.post("/v1/completions", content=chunks())).status_code == 413


def test_beyond_the_queue_requests_are_refused(make: Make) -> None:
    endpoint = make(is_open=False, serve={"max_live": 1, "max_queue": 1})

    async def act(client: httpx.AsyncClient) -> list[httpx.Response]:
        body = fields("", {})
        tasks = []
        for number in range(2):
            tasks.append(asyncio.ensure_future(client.post("/v1/completions", json=body)))
            await until(lambda count=number: sum(endpoint.queue.counts()) > count)
        refused = await client.post("/v1/completions", json=body)
        endpoint.chains.gate.set()
        return [refused, *await asyncio.gather(*tasks)]

    refused, *served = endpoint.talk(act)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert [reply.status_code for reply in served] == [200, 200]


def test_a_search_that_misses_its_deadline_is_dropped(make: Make) -> None:
    endpoint = make(is_open=False, serve={"deadline_seconds": 0.05})

    async def act(client: httpx.AsyncClient) -> httpx.Response:
        body = fields("", {"search": {"algorithm": "beam"}})
        reply = await client.post("/v1/completions", json=body)
        endpoint.chains.gate.set()
        await until(lambda: endpoint.queue.counts() == (0, 0))
        return reply

    reply = endpoint.talk(act)
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "deadline_exceeded"
    assert len(endpoint.chains.calls) == 1


def test_a_request_that_waits_in_vain_is_never_searched(make: Make) -> None:
    endpoint = make(is_open=False, serve={"deadline_seconds": 0.05, "max_live": 1})
    replies = endpoint.post_all([{}] * 3)
    assert [reply.status_code for reply in replies] == [504] * 3
    endpoint.chains.gate.set()
    asyncio.run(until(lambda: endpoint.queue.counts() == (0, 0)))
    assert len(endpoint.chains.calls) == 1


def scope(path: str) -> dict[str, Any]:
    return {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [], "http_version": "1.1", "scheme": "http", "root_path": "", "client": None,
    }  # fmt: skip


@pytest.mark.parametrize("how", ["disconnect", "cancel"])
def test_a_client_that_goes_takes_its_search_along(make: Make, how: str) -> None:
    """`cancel` is what Ray Serve's replica does, `disconnect` what a server of ASGI says."""
    endpoint = make(is_open=False)
    chains = endpoint.chains

    async def act() -> None:
        gone = asyncio.Event()
        body = json.dumps(fields("", {"search": {"algorithm": "beam"}})).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        request = asyncio.ensure_future(endpoint.app(scope("/v1/completions"), receive, send))
        await until(lambda: len(chains.calls) == 1)
        if how == "cancel":
            request.cancel()
        gone.set()
        await asyncio.wait({request})
        chains.gate.set()
        await until(lambda: endpoint.queue.counts() == (0, 0))

    asyncio.run(act())
    assert len(chains.calls) == 1


def test_a_failing_engine_fails_its_requests_and_the_health(make: Make) -> None:
    endpoint = make(Chains(error=RuntimeError("device /dev/secret lost")))
    assert endpoint.get("/health").status_code == 200
    for reply in endpoint.post_all([{}, {}]):
        assert reply.status_code == 500
        assert reply.json()["error"]["type"] == "server_error"
        assert "secret" not in reply.text
    assert endpoint.get("/health").status_code == 503
    assert endpoint.get("/health").json()["live"] == 0


def test_health_comes_back_with_the_engine(make: Make) -> None:
    endpoint = make(Chains(error=RuntimeError("lost")))
    assert endpoint.post().status_code == 500
    endpoint.chains.error = None
    assert endpoint.post().status_code == 200
    assert endpoint.get("/health").json() == {"status": "ok", "live": 0, "waiting": 0}


def test_a_grader_that_fails_fails_its_request_alone(make: Make) -> None:
    def broken(problem: str, given: Sequence[Sequence[int]]) -> list[str | None]:
        raise RuntimeError("no grader")

    endpoint = make(canonical=broken)
    assert endpoint.post(search={"answer": "majority"}).status_code == 500
    assert endpoint.get("/health").status_code == 200


def test_who_waits_when_the_endpoint_ends_is_told(make: Make) -> None:
    endpoint = make(is_open=False, serve={"max_live": 1})

    async def act(client: httpx.AsyncClient) -> list[httpx.Response]:
        tasks = [asyncio.ensure_future(client.post("/v1/completions", json=fields("", {}))) for _ in range(2)]
        await until(lambda: endpoint.queue.counts() == (1, 1))
        endpoint.queue.close()
        endpoint.chains.gate.set()
        return await asyncio.gather(*tasks)

    assert sorted(reply.status_code for reply in endpoint.talk(act)) == [200, 500]
