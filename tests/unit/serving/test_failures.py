"""Overload, deadlines, clients that go and engines that fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from airls_ray.errors import RequestRefused, RunError
from tests.unit.serving.fakes import PROMPT, Chains, Make, fields, scope, until


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


def test_a_body_that_does_not_come_is_not_waited_for(make: Make) -> None:
    endpoint = make(serve={"deadline_seconds": 0.05})

    async def chunks() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    reply = endpoint.talk(lambda client: client.post("/v1/completions", content=chunks()))
    assert reply.status_code == 408
    assert "did not come within 0.05 s" in reply.json()["error"]["message"]


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


def test_the_metrics_count_what_a_search_cost_that_missed_its_deadline(make: Make) -> None:
    endpoint = make(is_open=False, serve={"deadline_seconds": 0.05})

    async def act(client: httpx.AsyncClient) -> str:
        body = fields("", {"search": {"algorithm": "beam"}})
        assert (await client.post("/v1/completions", json=body)).status_code == 504
        endpoint.chains.gate.set()
        await until(lambda: endpoint.queue.counts() == (0, 0))
        return (await client.get("/metrics")).text

    text = endpoint.talk(act)
    sampled = sum(len(sample["tokens"]) for sample in endpoint.chains.samples)
    assert f'tokens_total{{kind="policy"}} {sampled}\n' in text and sampled > 0
    assert "searches_total 0\n" in text


def test_a_request_that_waits_in_vain_is_never_searched(make: Make) -> None:
    endpoint = make(is_open=False, serve={"deadline_seconds": 0.05, "max_live": 1})
    replies = endpoint.post_all([{}] * 3)
    assert [reply.status_code for reply in replies] == [504] * 3
    endpoint.chains.gate.set()
    asyncio.run(until(lambda: endpoint.queue.counts() == (0, 0)))
    assert len(endpoint.chains.calls) <= 1  # of the one that was live, if its deadline let it begin


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


def test_the_log_says_why_a_request_failed(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = make()
    monkeypatch.setattr(endpoint.service, "prepare", {}.__getitem__)
    assert "the endpoint's log says why" in endpoint.post().json()["error"]["message"]
    assert [record.exc_info[0] for record in caplog.records if record.name == "airls_ray.serving.app"] == [
        KeyError
    ]


def test_health_comes_back_with_the_engine(make: Make) -> None:
    endpoint = make(Chains(error=RuntimeError("lost")))
    assert endpoint.post().status_code == 500
    endpoint.chains.error = None
    assert endpoint.post().status_code == 200
    assert endpoint.get("/health").json() == {"status": "ok", "live": 0, "waiting": 0}


def bad(kind: type[Exception]) -> Any:
    """A row of the prompt `1+1=` raises, whoever is beside it."""
    return lambda row: kind("n must be 1") if len(row["prompt"]) == len("1+1=") else None


def test_a_request_that_the_engine_refuses_is_told_why_and_the_endpoint_is_well(make: Make) -> None:
    endpoint = make(Chains(poison=bad(RequestRefused)))
    reply = endpoint.post(prompt="1+1=")
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == "n must be 1"
    assert endpoint.get("/health").status_code == 200
    assert endpoint.post().status_code == 200


@pytest.mark.parametrize("last", [False, True], ids=["in the middle", "at the end"])
@pytest.mark.parametrize(("kind", "status"), [(RequestRefused, 400), (RunError, 500), (ValueError, 500)])
def test_a_search_that_breaks_a_round_breaks_no_other(
    make: Make, kind: type[Exception], status: int, last: bool
) -> None:
    order = [PROMPT, "7*7-2=", "1+1="] if last else [PROMPT, "1+1=", "7*7-2="]
    asked = [{"prompt": prompt, "seed": 2, "search": {"algorithm": "beam"}} for prompt in order]
    endpoint = make(Chains(poison=bad(kind)), is_open=False)

    async def act(client: httpx.AsyncClient) -> list[httpx.Response]:
        def post(body: dict[str, Any]) -> asyncio.Task[httpx.Response]:
            return asyncio.ensure_future(client.post("/v1/completions", json=fields("", body)))

        first = post({})  # it holds the round, so that the others share the next
        await until(lambda: len(endpoint.chains.calls) == 1)
        others = [post(body) for body in asked]
        await until(lambda: endpoint.queue.counts() == (1, 3))
        endpoint.chains.gate.set()
        return await asyncio.gather(first, *others)

    replies = endpoint.talk(act)
    wrong = order.index("1+1=")
    assert replies[1 + wrong].status_code == status
    assert [reply.status_code for reply in replies].count(200) == 3
    assert len(set(endpoint.chains.calls[1])) == 3
    for reply, body in zip(replies[1:], asked, strict=True):
        if body is not asked[wrong]:
            assert reply.json()["choices"] == make().post(**body).json()["choices"]
    assert endpoint.get("/health").status_code == 200


def test_health_comes_back_when_a_worker_is_ready_again(make: Make) -> None:
    ready = [False]
    endpoint = make(Chains(error=RunError("no worker")), mend=lambda: ready[0])
    assert endpoint.post().status_code == 500
    endpoint.queue.rest()
    assert endpoint.get("/health").status_code == 503
    ready[0] = True
    endpoint.queue.rest()
    assert endpoint.get("/health").status_code == 200


def test_workers_that_cannot_be_mended_do_not_end_the_endpoint(make: Make) -> None:
    def broken() -> bool:
        raise RunError("died 6 times in a row")

    endpoint = make(mend=broken)
    endpoint.queue.rest()
    assert endpoint.post().status_code == 200


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
