"""Requests that share the rounds of one search driver, and their limits."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from airls_ray.search.beam import Beam
from airls_ray.search.best_of_n import BestOfN
from airls_ray.search.early_rejection import EarlyRejection
from airls_ray.search.searcher import Searcher
from airls_ray.search.tree import Child
from airls_ray.serving.cap import Capped
from tests.unit.search_fakes import run
from tests.unit.serving.fakes import Chains, Make, fields, until


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
    body = endpoint.post(seed="absent").json()
    assert endpoint.post(seed=body["search"]["seed"]).json()["choices"] == body["choices"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 0.5), ({"temperature": 0.25}, 0.25), ({"temperature": 0, "search": {"budget": 1}}, 0)],
)
def test_the_temperature_is_the_requests_or_the_configurations(
    make: Make, given: dict[str, Any], expected: float
) -> None:
    endpoint = make(search={"temperature": 0.5})
    endpoint.post(**given)
    assert {row["temperature"] for row in endpoint.chains.rows} == {expected}


# ------------------------------------------------------------------------------------- limits
def test_nothing_is_looked_ahead_behind_a_response_that_the_cap_ended() -> None:
    capped = Capped(Beam(1, 1, lookahead=1), 2)
    state = capped.start(0)
    [asked] = capped.ask(state)
    child = Child((5, 6), -1.0, (0.5,), "step", ahead=(0.25,), ahead_tokens=(3,))
    capped.tell(state, asked.ticket, [child])
    [_, node] = state.nodes
    assert (node.finish, node.ahead, node.ahead_tokens) == ("length", (), ())


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
