"""The processes of `search_peers.py` that are not ours: the peers, and vLLM's server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from environments import own_python, with_byte_code

if TYPE_CHECKING:
    from airls_ray.config.schema import Config

HERE = Path(__file__).parent
LONGEST_START = 600.0
Measured = dict[str, Any]
"""Of one search: seconds, problems_per_second, accuracy, scored_tokens."""


class Peer:
    """A program that searches for one job after the other (`whole_pass_prm.answer_jobs`)."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: it ended before.
        """
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=with_byte_code(),
        )  # fmt: skip
        self._answer()

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Let it do a job; returns its answer.

        Raises:
            RuntimeError: it ended instead.
        """
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("peer "):
                answer: dict[str, Any] = json.loads(line.removeprefix("peer "))
                return answer
        self._process.wait()
        self._log.seek(0)
        raise RuntimeError(f"a peer ended with {self._process.returncode}:\n{self._log.read()[-2000:]}")

    def close(self) -> None:
        """End it: its input is over."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()


def its_hub(job: dict[str, Any], endpoint: str) -> Peer:
    """Its_hub in its own environment, over a server."""
    command = [its_hub_python(), str(HERE / "its_hub_search.py"), json.dumps({**job, "endpoint": endpoint})]
    return Peer(command)


def its_hub_python() -> str:
    """The interpreter of its_hub's environment."""
    return own_python("its_hub", ("its_hub[lm]",), "its_hub")


def plain_loop(config: Config, job: dict[str, Any]) -> Peer:
    """The plain loop, with the engine of our rollout workers."""
    from actors.rollout.vllm_engine import engine_environment

    engine = {name.replace("-", "_"): value for name, value in engine_settings(config).items()}
    more = {"engine": {**engine, "seed": 0}, "environment": engine_environment(os.cpu_count() or 1)}
    return Peer([sys.executable, str(HERE / "plain_search.py"), json.dumps({**job, **more})])


def engine_settings(config: Config) -> dict[str, Any]:
    """What vLLM is told on a CPU, as in `actors/rollout/vllm_engine.py`, by the names of its options."""
    engine = config.rollout.engine
    return {
        "dtype": "float32",
        "max-model-len": config.model.context_tokens,
        "max-num-seqs": engine.max_sequences,
        "kv-cache-memory-bytes": int(engine.kv_cache_gib * 2**30),
        "block-size": 32,
        "enforce-eager": engine.enforce_eager,
        "enable-prefix-caching": engine.prefix_caching,
        "enable-chunked-prefill": False,
        "generation-config": "vllm",
    }


@contextmanager
def vllm_server(config: Config, policy: Path) -> Iterator[str]:
    """VLLM's OpenAI-compatible server; yields its address.

    Raises:
        RuntimeError: it did not come up.
    """
    from actors.rollout.vllm_engine import engine_environment

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        template, log = Path(name, "plain.jinja"), Path(name, "log")
        template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
        served = with_unknown_words(policy, Path(name, "policy"))
        options = {
            **engine_settings(config), "model": str(served), "served-model-name": "policy",
            "host": "127.0.0.1", "port": port, "chat-template": str(template),
            "disable-uvicorn-access-log": True,
        }  # fmt: skip
        flags = [flag for option, value in options.items() for flag in as_flags(option, value)]
        environment = {**with_byte_code(), **engine_environment(os.cpu_count() or 1)}
        del environment["VLLM_ENABLE_V1_MULTIPROCESSING"]  # a server's engine is a process of its own
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags]
        with log.open("w") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        try:
            wait_for(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def with_unknown_words(policy: Path, folder: Path) -> Path:
    """Copy a policy; words that its tokenizer does not know are padding there.

    At its start vLLM's server writes an `x` in every chat template, and ends where a tokenizer refuses it.
    """
    shutil.copytree(policy, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    pad = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["pad_token"]
    tokenizer["model"]["unk_token"] = pad
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def as_flags(option: str, value: object) -> list[str]:
    """An option of a command line: `--name value`, `--name` or `--no-name`."""
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(value)]


def wait_for(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Wait until a server answers.

    Raises:
        RuntimeError: it ended, or took too long.
    """
    until = time.monotonic() + LONGEST_START
    while process.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"vLLM's server did not come up:\n{log.read_text()[-2000:]}")
