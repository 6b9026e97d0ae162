"""Whatever a client sends gets a reply or a sentence (4xx), no error of ours; the next one is served."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airls_ray.search.registry import ALGORITHMS
from tests.fuzz.budget import FEW
from tests.unit.serving.conftest import codec, make  # noqa: F401
from tests.unit.serving.fakes import PROMPT, Endpoint, Make

PATHS = st.sampled_from(["/v1/completions", "/v1/chat/completions"])
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
TEXTS = st.text(alphabet="0123456789+-*=;", max_size=8) | st.text(max_size=4)
TOKENS = st.lists(st.integers(-2, 20), max_size=4)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["tiny", "other", None]),
    "prompt": TEXTS | TOKENS | st.lists(TEXTS, max_size=3) | st.lists(TOKENS, max_size=3),
    "messages": st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": TEXTS | ANY}
        ),
        max_size=3,
    ),
    "n": st.integers(-1, 6),
    "max_tokens": st.integers(-1, 50),
    "max_completion_tokens": st.integers(-1, 50),
    "temperature": st.floats() | st.sampled_from([0, 1, 1e-9, 0.5]),
    "top_p": st.floats(-0.5, 1.5),
    "top_k": st.integers(),
    "min_p": st.floats(-0.5, 1.5),
    "seed": st.integers(),
    "stop": TEXTS | st.lists(TEXTS, max_size=3),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "search": st.fixed_dictionaries(
        {},
        optional={
            "algorithm": st.sampled_from([*ALGORITHMS, "magic"]),
            "budget": st.integers(-1, 9),
            "answer": st.sampled_from(["best", "majority", "weighted", "first"]),
            "aggregate": st.sampled_from(["last", "min", "prod", "mean", "max"]),
            "max_policy_tokens": st.integers(-1, 100),
        },
    ),
    "logprobs": st.sampled_from([None, False, 0, 5]),
    "echo": st.booleans(),
    "user": TEXTS,
}
KNOWN = st.fixed_dictionaries({}, optional=FIELDS)
BODIES = st.builds(
    lambda known, more: {**known, **more},
    KNOWN,
    st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(max_size=6), ANY, max_size=1),
)


def check(endpoint: Endpoint, path: str, content: bytes) -> None:
    reply = endpoint.talk(lambda client: client.post(path, content=content))
    assert reply.status_code == 200 or 400 <= reply.status_code < 500, (reply.status_code, content)
    if reply.status_code != 200:
        error = reply.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["message"] and "\n" not in error["message"].strip()
    assert endpoint.get("/health").json() == {"status": "ok", "live": 0, "waiting": 0}


@pytest.fixture
def endpoint(make: Make) -> Endpoint:  # noqa: F811
    """One for all examples of a test: what a request leaves behind, the next one meets."""
    return make()


@settings(FEW, max_examples=80)
@given(path=PATHS, body=KNOWN)
def test_known_fields_with_any_values_of_their_kind(
    endpoint: Endpoint, path: str, body: dict[str, Any]
) -> None:
    prompt = {"messages": [{"role": "user", "content": PROMPT}]} if "chat" in path else {"prompt": PROMPT}
    check(endpoint, path, json.dumps({**prompt, **body}).encode())


@settings(FEW, max_examples=80)
@given(path=PATHS, body=BODIES)
def test_any_fields_with_any_values(endpoint: Endpoint, path: str, body: dict[str, Any]) -> None:
    check(endpoint, path, json.dumps(body).encode())


@settings(FEW, max_examples=80)
@given(path=PATHS, body=ANY)
def test_any_json(endpoint: Endpoint, path: str, body: Any) -> None:
    check(endpoint, path, json.dumps(body).encode())


@settings(FEW, max_examples=80)
@given(path=PATHS, body=st.binary(max_size=40))
def test_any_bytes(endpoint: Endpoint, path: str, body: bytes) -> None:
    check(endpoint, path, body)


@pytest.mark.parametrize("depth", [50, 200, 400, 900, 5000])
def test_any_depth(endpoint: Endpoint, depth: int) -> None:
    for left, right in (("[", "]"), ('{"a":', "}")):
        inner = left * depth + "1" + right * depth
        check(endpoint, "/v1/completions", inner.encode())
        check(endpoint, "/v1/completions", f'{{"prompt": {json.dumps(PROMPT)}, "search": {inner}}}'.encode())
        check(endpoint, "/v1/completions", f'{{"prompt": {inner}}}'.encode())
