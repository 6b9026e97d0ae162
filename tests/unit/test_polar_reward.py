"""The reward of a POLAR model: the text that its authors' client writes, and the forms of two servers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from airls_ray import doors
from airls_ray.errors import DoorError
from airls_ray.grading.reward_calls import REWARD, Row
from airls_ray.rewards.polar import polar_text


class Server(BaseHTTPRequestHandler):
    """Rewards a text by minus its length, in the form of the program whose path is asked."""

    seen: list[tuple[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, body))
        if self.path == "/classify":
            said: Any = [{"embedding": [-float(len(text))]} for text in body["text"]]
        else:  # vLLM's pooling of a reward model has a value for each token; the last is the text's
            said = {"data": [{"data": [[7.0], [-float(len(text))]]} for text in body["input"]]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    Server.seen.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


ROWS = [
    Row(f"How many r in {'r' * at}?", f"{at}.", str(at), row={"full": f"There are {at}."}) for at in range(64)
]


def test_the_text_is_that_of_the_authors_client() -> None:
    assert polar_text("How many?", "Three.", "Two.") == (
        "How many?\nThree.<|reward|>How many?\nTwo.[UNUSED_TOKEN_130]"
    )


@pytest.mark.parametrize("server", ["vllm", "sglang"])
@pytest.mark.parametrize("reference", [None, "full"])
def test_a_batch_is_one_request_in_the_servers_form(address: str, server: str, reference: str | None) -> None:
    options = {"endpoint": address, "server": server, "reference": reference}
    reward = doors.load(doors.find(REWARD, "polar", "task.reward"), "task.reward", options)
    values = reward.read(ROWS, reward.call(ROWS))
    texts = [
        f"{row.prompt}\n{row.row['full'] if reference else row.answer}<|reward|>"
        f"{row.prompt}\n{row.response}[UNUSED_TOKEN_130]"
        for row in ROWS
    ]
    assert values == [-float(len(text)) for text in texts]
    [(path, body)] = Server.seen
    wanted = {"vllm": ("/pooling", {"input": texts}), "sglang": ("/classify", {"text": texts})}
    assert (path, body) == wanted[server]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "polar is made with 'endpoint', the address of a server"),
        ({"endpoint": "http://x", "server": "tgi"}, "knows the servers vllm and sglang, not 'tgi'"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DoorError, match=said):
        doors.load(doors.find(REWARD, "polar", "task.reward"), "task.reward", options)
