"""A reward that is a server's: whole batches as JSON, with a deadline and retries."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from airls_ray.grading.reward_calls import Reward, WrongValue

_FIRST_PAUSE = 0.5
_LARGEST_ANSWER = 64 << 20


def reward_of_url(url: str, options: Mapping[str, Any], deadline_seconds: float) -> Reward:
    """Return a reward that posts `{"prompts": [...], "responses": [...], "answers": ..., "steps": ...,
    "correct": ..., "rows": ..., **options}` and reads `{"rewards": [...]}`, or the list alone.

    A refused or broken connection and the answers 429 and 5xx are tried again until the deadline of the call.
    """

    def score(**fields: Any) -> Any:
        until = time.monotonic() + 0.9 * deadline_seconds  # what the server said must reach the user
        body = json.dumps({**fields, **options}).encode()
        pause = _FIRST_PAUSE
        while True:
            try:
                return _answer(url, body, max(until - time.monotonic(), 0.1))
            except OSError as error:
                refused = isinstance(error, urllib.error.HTTPError) and error.code != 429 and error.code < 500
                if refused or time.monotonic() + pause >= until:
                    raise
            time.sleep(pause)
            pause *= 2

    return Reward(score, "batch", (), True, {})


def _answer(url: str, body: bytes, seconds: float) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=seconds) as reply:
        text = reply.read(_LARGEST_ANSWER)
    try:
        said = json.loads(text)
    except ValueError:
        raise WrongValue(f"answered {text[:60]!r}, which is no JSON") from None
    if isinstance(said, dict):
        if "rewards" not in said:
            raise WrongValue(
                f"answered an object with {', '.join(map(str, said))}, and it must have `rewards`"
            )
        return said["rewards"]
    return said
