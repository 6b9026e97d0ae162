"""`airls-ray serve` as users run it, and OpenAI's own client before it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from airls_ray.config.schema import PRMConfig
from airls_ray.prm.folder import write_prm_form
from tests.e2e.conftest import (
    REPOSITORY,
    assert_refused,
    base_config,
    command,
    environment,
    make_policy,
    write_config,
)

START_SECONDS = 300.0
END_SECONDS = 60.0
TOKEN = "open-sesame"
MODEL = "tiny-policy"
PROMPT = "1+2*3="
STEPS = re.compile(r"(\d[-+*]\d=\d;)*")


@dataclass
class Endpoint:
    """The running command."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    def client(self, key: str = TOKEN, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=key, max_retries=0, **options)

    def health(self) -> dict[str, Any]:
        return httpx.get(f"{self.address}/health", timeout=30).json()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A configuration, a policy that knows the form of the answers, and a PRM of the same weights."""
    folder = tmp_path_factory.mktemp("serve")
    policy, prm = make_policy(folder / MODEL, updates=60), folder / "prm"
    shutil.copytree(policy, prm)
    write_prm_form(PRMConfig(), prm)
    config = base_config(policy, folder, serve={"max_live": 4}, search={"budgets": [4]})
    return write_config(config, folder), policy, prm


@pytest.fixture(scope="module")
def endpoint(
    folders: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    config, policy, prm = folders
    port = free_port()
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command("serve", config, "--policy", policy, "--prm", prm, "--port", port),
            cwd=REPOSITORY,
            env=environment(AIRLS_RAY_TOKEN=TOKEN),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # as a terminal does, so that Ctrl-C reaches all of its group
            # A shell's background job ignores Ctrl-C, and so would all that a test starts in one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    found = Endpoint(process, f"http://127.0.0.1:{port}", log)
    try:
        wait_until(lambda: "Serving model" in log.read_text() or process.poll() is not None, START_SECONDS)
        assert process.poll() is None, log.read_text()
        yield found
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(END_SECONDS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def ask(client: openai.OpenAI, seed: int) -> str:
    return client.completions.create(model=MODEL, prompt=PROMPT, seed=seed).choices[0].text


def tokens_of(prompt: str) -> list[int]:
    """Arithmetic's tokens, by their places."""
    words = ["<pad>", "<eos>", *"01234+-*=;"]
    return [words.index(word) for word in prompt]


def workers(endpoint: Endpoint) -> list[int]:
    """Processes of the rollout workers."""
    children = psutil.Process(endpoint.process.pid).children(recursive=True)
    return sorted(one.pid for one in children if any("RolloutWorker" in word for word in one.cmdline()))


def test_a_completion_is_searched(endpoint: Endpoint) -> None:
    options = {"search": {"algorithm": "beam", "budget": 8}}
    done = endpoint.client().completions.create(model=MODEL, prompt=PROMPT, seed=1, extra_body=options)
    assert STEPS.match(done.choices[0].text)
    report = done.model_extra["search"]
    assert (report["algorithm"], report["budget"], report["scorer"]) == ("beam", 8, "prm")
    assert report["finished_responses"] == 8
    assert 0.0 < report["score"] <= 1.0
    assert done.usage.prompt_tokens == len(PROMPT)
    assert done.usage.completion_tokens == report["ledger"]["policy_tokens"] > len(done.choices[0].text)
    assert report["ledger"]["prm_tokens"] > 0


def test_a_seed_gives_the_same_answer_again(endpoint: Endpoint) -> None:
    client = endpoint.client()
    texts = [
        client.completions.create(model=MODEL, prompt=PROMPT, seed=seed).choices[0].text
        for seed in (7, 7, 8, 9, 10, 11)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_a_chat_is_voted_on_by_the_tasks_answers(endpoint: Endpoint) -> None:
    done = endpoint.client().chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": PROMPT}],
        seed=1,
        extra_body={"search": {"algorithm": "best_of_n", "budget": 16, "answer": "majority"}},
    )
    assert done.choices[0].message.role == "assistant"
    assert STEPS.fullmatch(done.choices[0].message.content)  # only whole chains have an answer
    assert done.choices[0].finish_reason == "stop"


def test_a_stream_has_the_text_of_the_reply(endpoint: Endpoint) -> None:
    client = endpoint.client()
    asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "seed": 3}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage


def test_concurrent_requests_are_all_answered(endpoint: Endpoint) -> None:
    client = endpoint.client()

    def ask(seed: int) -> str:
        return client.completions.create(model=MODEL, prompt=PROMPT, seed=seed).choices[0].text

    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(ask, range(12)))
    assert together[5] == ask(5)
    assert endpoint.health() == {"status": "ok", "live": 0, "waiting": 0}


def test_errors_are_those_of_the_client(endpoint: Endpoint) -> None:
    client = endpoint.client()
    with pytest.raises(openai.AuthenticationError):
        endpoint.client("wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="tiny-policy"):
        client.completions.create(model="other", prompt=PROMPT)
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=PROMPT, n=5)
    assert caught.value.param == "n"
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_what_clients_send_beside_a_prompt_is_honoured(endpoint: Endpoint) -> None:
    client = endpoint.client()
    prompts = [PROMPT, "3+1-2="]
    done = client.completions.create(
        model=MODEL, prompt=prompts, n=2, stop=[";"], top_p=0.95, seed=1, extra_body={"top_k": 5}
    )
    assert [choice.index for choice in done.choices] == [0, 1, 2, 3]
    assert all(";" not in choice.text and choice.finish_reason == "stop" for choice in done.choices)
    assert len(done.model_extra["search"]) == 2
    by_tokens = client.completions.create(model=MODEL, prompt=tokens_of(PROMPT), seed=7)
    assert by_tokens.choices[0].text == ask(client, 7)
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": PROMPT}], n=2, stop=";", stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}
    assert all(chunk.usage is None for chunk in chunks[:-1]) and chunks[-1].usage.total_tokens > 0


def test_a_greedy_request_of_a_wide_search_is_refused_and_costs_no_worker(endpoint: Endpoint) -> None:
    client = endpoint.client()
    before = workers(endpoint)
    with pytest.raises(openai.BadRequestError, match="temperature 0 gives the same response"):
        client.completions.create(model=MODEL, prompt=PROMPT, temperature=0)
    greedy = client.completions.create(
        model=MODEL, prompt=PROMPT, temperature=0, extra_body={"search": {"budget": 1}}
    )
    assert STEPS.match(greedy.choices[0].text)
    assert ask(client, 1)
    assert workers(endpoint) == before
    assert endpoint.health()["status"] == "ok"


def test_a_worker_that_dies_is_replaced(endpoint: Endpoint) -> None:
    client = endpoint.client()
    (before,) = workers(endpoint)
    text = ask(client, 5)
    psutil.Process(before).kill()
    assert ask(client, 5) == text  # it waits for the new worker
    assert workers(endpoint) != [before]
    assert endpoint.health()["status"] == "ok"
    found = re.search(r"What fails is written to\s+(\S+serve\.log)", endpoint.log.read_text())
    assert found is not None
    assert "is lost and will be replaced" in Path(found[1]).read_text()


def test_the_metrics_and_the_version_are_there_for_tools(endpoint: Endpoint) -> None:
    text = httpx.get(f"{endpoint.address}/metrics", timeout=30).text
    assert 'airls_ray_endpoint_requests_total{path="/v1/completions",status="200"}' in text
    assert httpx.get(f"{endpoint.address}/version", timeout=30).json().keys() == {"version"}


def test_clients_that_go_free_their_places(endpoint: Endpoint) -> None:
    """Through Ray Serve's proxy: what clients leave behind is not searched to its end."""
    body = {"model": MODEL, "prompt": PROMPT, "search": {"algorithm": "beam", "budget": 64}}
    headers = {"Authorization": f"Bearer {TOKEN}"}

    def is_answered(timeout: float) -> bool:
        try:
            reply = httpx.post(
                f"{endpoint.address}/v1/completions", json=body, headers=headers, timeout=timeout
            )
        except httpx.TimeoutException:
            return False
        return reply.status_code == 200

    def searches() -> int:
        text = httpx.get(f"{endpoint.address}/metrics", timeout=30).text
        return int(text.partition("\nairls_ray_endpoint_searches_total ")[2].split()[0])

    start = time.monotonic()
    with ThreadPoolExecutor(24) as threads:
        assert all(threads.map(is_answered, [120.0] * 24))
        whole, before = time.monotonic() - start, searches()
        answered = sum(threads.map(is_answered, [whole / 8] * 24))
    wait_until(lambda: endpoint.health()["live"] == 0, 60)
    assert answered <= searches() - before < 24  # the others were given up


def test_a_taken_port_is_one_sentence(endpoint: Endpoint, folders: tuple[Path, Path, Path]) -> None:
    config, policy, prm = folders
    port = endpoint.address.rpartition(":")[2]
    assert_refused(["serve", config, "--policy", policy, "--prm", prm, "--port", port], "--port", port)


def test_ctrl_c_ends_it_and_every_process(endpoint: Endpoint) -> None:
    children = psutil.Process(endpoint.process.pid).children(recursive=True)
    assert len(children) > 4
    os.killpg(endpoint.process.pid, signal.SIGINT)
    assert endpoint.process.wait(END_SECONDS) == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    log = endpoint.log.read_text()
    assert "Traceback" not in log
    assert "graceful_shutdown" not in log
    assert " -- " not in log  # Ray Serve's own lines
    assert TOKEN not in log
