"""Requests, tokens and settings that are refused."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from airls_ray.errors import ConfigError
from airls_ray.serving.errors import ApiError
from airls_ray.serving.prompts import PromptEncoder
from airls_ray.serving.requests import ChatRequest, parse
from airls_ray.serving.token import check_exposure, digest, read_token
from tests.unit.serving.fakes import PROMPT, Chains, Make, fields, scope
from tests.unit.test_turn_ends import make as make_codec

# ------------------------------------------------------------------------------- wrong requests
WRONG: list[tuple[dict[str, Any], int, str | None]] = [
    ({"model": "gpt-9"}, 404, "model"),
    ({"model": ""}, 404, "model"),
    ({"model": 1}, 400, "model"),
    ({"prompt": "absent"}, 400, "prompt"),
    ({"prompt": []}, 400, "prompt"),
    ({"prompt": [[]]}, 400, "prompt"),
    ({"prompt": ["7+3=", 5]}, 400, "prompt"),
    ({"prompt": [9, 1.5]}, 400, "prompt"),
    ({"prompt": [True, False]}, 400, "prompt"),
    ({"prompt": [9, 17]}, 400, "prompt"),
    ({"prompt": [9, -1]}, 400, "prompt"),
    ({"prompt": ["7+3="] * 161}, 400, "prompt"),
    ({"prompt": ""}, 400, "prompt"),
    ({"prompt": "what is 7+3?"}, 400, "prompt"),
    ({"prompt": "7" * 65}, 400, "prompt"),
    ({"n": 5}, 400, "n"),
    ({"n": 0}, 400, "n"),
    ({"n": True}, 400, "n"),
    ({"best_of": 4}, 400, "best_of"),
    ({"logprobs": 0}, 400, "logprobs"),
    ({"logprobs": True}, 400, "logprobs"),
    ({"tools": [{"type": "function"}]}, 400, "tools"),
    ({"stop": ""}, 400, "stop"),
    ({"stop": [";", ""]}, 400, "stop"),
    ({"stop": [";"] * 65}, 400, "stop"),
    ({"stop": 5}, 400, "stop"),
    ({"top_p": 0}, 400, "top_p"),
    ({"top_p": 1.5}, 400, "top_p"),
    ({"top_k": -2}, 400, "top_k"),
    ({"top_k": 1.5}, 400, "top_k"),
    ({"min_p": -0.5}, 400, "min_p"),
    ({"min_p": 1.5}, 400, "min_p"),
    ({"frequency_penalty": 0.1}, 400, "frequency_penalty"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
    ({"response_format": {"type": "json_object"}}, 400, "response_format"),
    ({"echo": True}, 400, "echo"),
    ({"temprature": 1}, 400, "temprature"),
    ({"temperature": 2.5}, 400, "temperature"),
    ({"temperature": "1"}, 400, "temperature"),
    ({"temperature": 0}, 400, "temperature"),
    ({"temperature": 1e-6}, 400, "temperature"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"max_tokens": 41}, 400, "max_tokens"),
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


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"prompt": "7+3=\\ud800"}'], ids=repr
)
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


@pytest.mark.parametrize(("scorer", "status"), [("prm", 400), ("policy_log_prob", 200)])
def test_a_prm_that_is_read_with_the_policy_has_one_temperature(make: Make, scorer: str, status: int) -> None:
    endpoint = make(prm={"search_score": "ratio"}, search={"scorer": scorer}, rollout={"temperature": 0.8})
    assert endpoint.post(temperature=0.8).status_code == 200
    reply = endpoint.post(temperature=0.7)
    assert reply.status_code == status
    if status == 400:
        assert reply.json()["error"]["param"] == "temperature"
        assert "read with the policy at temperature 0.8" in reply.json()["error"]["message"]


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
NO_SYSTEM = (
    "{% for m in messages %}"
    "{% if m.content == 'no' %}{{ raise_exception('no system messages') }}{% endif %}"
    "{% if m.content == 'None' %}{{ 'text' + none }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
)


def conversation(*turns: tuple[str, Any]) -> ChatRequest:
    messages = [{"role": role, "content": content} for role, content in turns]
    return parse(ChatRequest, json.dumps({"model": "tiny", "messages": messages}).encode())


def test_turns_go_through_the_chat_template_with_the_tasks_words_around_the_last(tmp_path: Path) -> None:
    codec = make_codec(tmp_path, NO_SYSTEM, system_prompt="Be brief.", prompt_template="Q: {prompt}")
    parts = [{"type": "text", "text": "1+1"}, {"type": "text", "text": "="}]
    asked = conversation(("user", "7+3="), ("assistant", "7+3=0;"), ("user", parts))
    [(problem, tokens)] = PromptEncoder(codec).encode(asked)
    assert problem == "1+1="
    assert codec.decode(tokens) == "<system>Be brief.<user>7+3=<assistant>7+3=0;<user>Q: 1+1=:"


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_of_the_request_goes_before_the_tasks(tmp_path: Path, role: str) -> None:
    codec = make_codec(tmp_path, NO_SYSTEM, system_prompt="Be brief.")
    [(_, tokens)] = PromptEncoder(codec).encode(conversation((role, "Be long."), ("user", "1+1=")))
    assert codec.decode(tokens) == f"<{role}>Be long.<user>1+1=:"


REFUSALS = {
    "no": r"chat template refuses this prompt \(no system messages\)",
    "None": r"chat template refuses this prompt \(.*str",
    "".join(map(chr, range(0xE000, 0xF8FF))) + "<eos>": "a message uses all private characters",
}


@pytest.mark.parametrize("system", REFUSALS, ids=["no system", "None", "private"])
def test_what_a_template_refuses_is_the_clients_mistake(tmp_path: Path, system: str) -> None:
    encoder = PromptEncoder(make_codec(tmp_path, NO_SYSTEM))
    with pytest.raises(ApiError, match=REFUSALS[system]) as caught:
        encoder.encode(conversation(("system", system), ("user", "1+1=")))
    assert (caught.value.status, caught.value.param) == (400, "messages")


def test_without_a_chat_template_there_are_no_earlier_turns(tmp_path: Path) -> None:
    encoder = PromptEncoder(make_codec(tmp_path))
    with pytest.raises(ApiError, match="served without a chat template"):
        encoder.encode(conversation(("user", "7+3="), ("assistant", "7+3=0;"), ("user", "1+1=")))


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


def test_a_token_file_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the token file .*gone: No such file or directory$"):
        read_token(tmp_path / "gone", {})


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
