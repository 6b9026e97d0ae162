"""What the endpoint counts, in the text form that Prometheus reads."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator

PREFIX = "airls_ray_endpoint_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one endpoint; may be used by several threads."""

    def __init__(self) -> None:
        """All are 0."""
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._tokens: Counter[str] = Counter()
        self._searches = 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered; `path` is one of the endpoint's own."""
        with self._lock:
            self._requests[path, status] += 1
            self._seconds[path] += seconds

    def search(self) -> None:
        """Count a search that gave its answers."""
        with self._lock:
            self._searches += 1

    def spent(self, prompt_tokens: int, policy_tokens: int, prm_tokens: int) -> None:
        """Count what a search has cost that has ended, with answers or without."""
        with self._lock:
            self._tokens.update(prompt=prompt_tokens, policy=policy_tokens, prm=prm_tokens)

    def text(self, live: int, waiting: int, failing: bool) -> str:
        """All of them; the arguments are as of now."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines(live, waiting, failing))

    def _lines(self, live: int, waiting: int, failing: bool) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests that were answered, by path and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'{PREFIX}requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _head("request_seconds_total", "counter", "Seconds from request to reply, by path.")
        for path, seconds in sorted(self._seconds.items()):
            yield f'{PREFIX}request_seconds_total{{path="{path}"}} {seconds:.6f}'
        yield from _head("searches_total", "counter", "Searches that gave their answers.")
        yield f"{PREFIX}searches_total {self._searches}"
        told = "Tokens of prompts, sampled, and computed by the PRM, of all searches that have ended."
        yield from _head("tokens_total", "counter", told)
        for kind in ("prompt", "policy", "prm"):
            yield f'{PREFIX}tokens_total{{kind="{kind}"}} {self._tokens[kind]}'
        yield from _head("searches", "gauge", "Searches that are live, and that wait.")
        yield f'{PREFIX}searches{{state="live"}} {live}'
        yield f'{PREFIX}searches{{state="waiting"}} {waiting}'
        yield from _head("failing", "gauge", "1 while searches fail (/health says 503), else 0.")
        yield f"{PREFIX}failing {int(failing)}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {text}"
    yield f"# TYPE {PREFIX}{name} {kind}"
