"""An OpenAI-compatible server inside the process: a small random policy behind `/v1/completions`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from airls_ray.seeding import derive_seed
from airls_ray.text.codec import TextCodec

STEPS, END = 3, "?"
"""Steps of a response, and what ends every problem."""


class Fake(Protocol):
    """What can be served."""

    @property
    def models(self) -> Sequence[str]:
        """Names that it goes by."""

    @property
    def context(self) -> int:
        """Longest prompt of `/v1/completions`."""

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request; its `status` is that of HTTP."""


@dataclass
class FakePolicy:
    """After a problem that ends in `?` come three steps with a random digit each, the last one boxed.

    What follows a text depends on it and on the seed alone, and a token is a byte.
    """

    delimiter: str = "\n\n"
    dialect: str = "vllm"
    """`vllm`, `sglang`, or `openai`: nothing beyond what OpenAI's own interface has."""
    codec: TextCodec | None = None
    """Reads prompts of token ids and gives ids back."""
    models: Sequence[str] = ("m",)
    most_choices: int = 100
    context: int = 10_000
    """Longest prompt, in characters or tokens; a longer one is refused."""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        self.asked.append(body)
        seeds = range(body["seed"], body["seed"] + min(body["n"], self.most_choices))
        choices = [self._choice(index, body, seed) for index, seed in enumerate(seeds)]
        return {"id": "1", "object": "text_completion", "created": 1, "model": "m", "choices": choices}

    def _choice(self, index: int, body: dict[str, Any], seed: int) -> dict[str, Any]:
        given = body["prompt"]
        before = given if isinstance(given, str) else self._codec().decode(given)
        text, finish, reason = self.rest(before, seed), "stop", None
        stop = body.get("stop")
        if stop and stop in text:
            text, reason = text[: text.index(stop) + len(stop)], stop
        whole = [*text, *([] if reason else ["<eos>"])]
        if len(whole) > body["max_tokens"]:
            whole, finish, reason = whole[: body["max_tokens"]], "length", None
        shown = "".join(token for token in whole if token != "<eos>")
        choice: dict[str, Any] = {"index": index, "finish_reason": finish}
        if self.dialect == "vllm":
            choice["stop_reason"] = reason
            if body.get("return_token_ids"):
                ids = [] if not shown else self._codec().encode_trace(shown)[:-1]
                choice["token_ids"] = [*ids, *([self._codec().eos_id] if len(whole) > len(shown) else [])]
        elif self.dialect == "sglang":
            choice["matched_stop"] = reason or 1
        if (reason and not body.get("include_stop_str_in_output")) or (reason and self.dialect != "vllm"):
            shown = shown[: -len(reason)]
        logprobs = {"tokens": whole, "token_logprobs": [-0.5] * len(whole), "text_offset": [0] * len(whole)}
        return {**choice, "text": shown, "logprobs": logprobs}

    def rest(self, before: str, seed: int) -> str:
        """What the policy says after a problem and a part of a response."""
        said = before[before.rindex(END) + 1 :]
        while said.count(self.delimiter) < STEPS - 1:
            number = said.count(self.delimiter) + 1
            begun = said.rpartition(self.delimiter)[2]
            step = f"Step {number} gives {derive_seed(seed, said[: len(said) - len(begun)]) % 10}."
            # A step that is begun goes on, or anew where this seed would have begun it in another way.
            said += (step[len(begun) :] if step.startswith(begun) else step) + self.delimiter
        said += f"So \\boxed{{{derive_seed(seed, said) % 10}}}."
        return said[len(before) - before.rindex(END) - 1 :]

    def _codec(self) -> TextCodec:
        assert self.codec is not None
        return self.codec


@contextmanager
def served(policy: Fake) -> Iterator[str]:
    """Serve a policy or a critic; gives the address, with `/v1`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            models = [
                {"id": name, "object": "model", "created": 1, "owned_by": "me"} for name in policy.models
            ]
            self._send({"object": "list", "data": models})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if len(body.get("prompt", "")) > policy.context:
                self._send({"error": {"message": "maximum context length exceeded"}}, 400)
            else:
                answer = policy.answer(body)
                self._send(answer, answer.pop("status", 200))

        def _send(self, answer: dict[str, Any], status: int = 200) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Digits:
    """A PRM by which a step is as good as its last digit."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def score(self, problem: str, steps: Sequence[str]) -> list[float]:
        self.asked.append((problem, tuple(steps)))
        return [self.one(step) for step in steps]

    @staticmethod
    def one(step: str) -> float:
        digits = [int(character) for character in step if character.isdigit()]
        return digits[-1] / 10 if digits else 0.0
