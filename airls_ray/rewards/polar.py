"""How close a response is to a reference, by a POLAR model behind vLLM or SGLang (arXiv 2507.05197)."""

import json
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from airls_ray.errors import DoorError


def polar_text(prompt: str, reference: str, response: str) -> str:
    """Return what the model reads, after its authors' client (InternLM/xtuner, `xtuner/utils/rm_utils.py`).

    Prompt and reference, then prompt and response, each joined by a line end, and the token at which the
    reward is read. The client also shortens what is too long, by its tokenizer; here the server refuses it.
    """
    return f"{prompt}\n{reference}<|reward|>{prompt}\n{response}[UNUSED_TOKEN_130]"


class Polar:
    """A client of the server; called with a batch."""

    def __init__(
        self,
        endpoint: str = "",
        reference: str | None = None,
        server: Literal["vllm", "sglang"] = "vllm",
        seconds: float = 60.0,
    ) -> None:
        """Keep where the model is; nothing is asked yet.

        Args:
            endpoint: address of the server, such as `http://127.0.0.1:30000`.
            reference: field of the row with a whole response to compare with; None: the answer.
            server: which program serves it, `vllm serve --task reward` or SGLang with `--is-embedding`.
            seconds: of one request; `deadline_seconds` of the reward must allow it.

        Raises:
            DoorError: there is no address, or no such program.
        """
        if not endpoint.startswith(("http://", "https://")):
            raise DoorError(
                f"is made with 'endpoint', the address of a server (http://HOST:PORT), not {endpoint!r}"
            )
        if server not in ("vllm", "sglang"):
            raise DoorError(f"knows the servers vllm and sglang, not {server!r}")
        self._endpoint, self._reference = endpoint.rstrip("/"), reference
        self._server, self._seconds = server, seconds

    def __call__(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        answers: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
    ) -> list[float]:
        """Return the model's reward of each response: any number, the higher the closer to the reference.

        Raises:
            OSError: the server refuses or cannot be reached.
            KeyError: a row lacks the field, or the server answers another form.
        """
        field = self._reference
        references = list(answers) if field is None else [str(row[field]) for row in rows]
        texts = [polar_text(*one) for one in zip(prompts, references, responses, strict=True)]
        if self._server == "sglang":
            found: Any = _post(f"{self._endpoint}/classify", {"text": texts}, self._seconds)
            return [float(one["embedding"][0]) for one in found]
        found = _post(f"{self._endpoint}/pooling", {"input": texts}, self._seconds)
        return [float(one["data"][-1][0]) for one in found["data"]]


def _post(url: str, body: Mapping[str, Any], seconds: float) -> Any:
    asked = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=seconds) as reply:
        return json.loads(reply.read())


score = Polar
