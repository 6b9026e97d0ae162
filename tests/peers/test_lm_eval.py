"""lm-evaluation-harness against the endpoint: what it sends is served, and it reads what comes back."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.peers.environments import python_with
from tests.unit.serving.conftest import codec, make  # noqa: F401
from tests.unit.serving.fakes import PROMPT, Endpoint, Make

PROBLEMS = [PROMPT, "1+1=", "9-4*2=", "3*3="]
TASK = """
task: chains
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [";", "no such text"], max_gen_toks: 12, top_p: 0.5}}
metric_list:
  - {{metric: bypass}}
metadata: {{version: 1}}
"""


@pytest.fixture
def served(make: Make) -> Iterator[tuple[Endpoint, str]]:  # noqa: F811
    """The endpoint behind a real server, and its address."""
    endpoint = make()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(endpoint.app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.05)
    yield endpoint, f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join()


def evaluate(folder: Path, model: str, arguments: str, *more: str) -> list[dict[str, Any]]:
    """Run the harness on four problems; returns its samples in the order of the problems."""
    python = python_with("lm_eval", "lm_eval[api]")
    rows = [{"prompt": prompt, "answer": "0"} for prompt in PROBLEMS]
    file = folder / "problems.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "chains.yaml").write_text(TASK.format(file=file))
    command = [
        python, "-m", "lm_eval", "--model", model, "--model_args", arguments, "--tasks", "chains",
        "--include_path", folder, "--output_path", folder / "out", "--log_samples", *more,
    ]  # fmt: skip
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "x"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (samples,) = (folder / "out").rglob("samples_chains_*.jsonl")
    found = [json.loads(line) for line in samples.read_text().splitlines()]
    return sorted(found, key=lambda one: one["doc_id"])


@pytest.mark.parametrize("batch", [1, 4])
def test_completions(served: tuple[Endpoint, str], tmp_path: Path, batch: int) -> None:
    endpoint, address = served
    arguments = f"model=tiny,base_url={address}/completions,tokenizer_backend=None,tokenized_requests=False"
    samples = evaluate(
        tmp_path, "local-completions", arguments, "--batch_size", str(batch),
        "--gen_kwargs", "do_sample=True,temperature=1.0",
    )  # fmt: skip
    texts = [sample["resps"][0][0] for sample in samples]
    assert all(len(text) == len("a+b=c") and ";" not in text for text in texts)
    asked = {tuple(row["prompt"]) for row in endpoint.chains.rows}
    assert asked == {tuple(endpoint.codec.encode_prompt(prompt)) for prompt in PROBLEMS}
    assert {row["top_p"] for row in endpoint.chains.rows} == {0.5}


def test_chat_completions(served: tuple[Endpoint, str], tmp_path: Path) -> None:
    _, address = served
    samples = evaluate(
        tmp_path, "local-chat-completions", f"model=tiny,base_url={address}/chat/completions",
        "--apply_chat_template", "--gen_kwargs", "do_sample=True,temperature=1.0",
    )  # fmt: skip
    texts = [sample["resps"][0][0] for sample in samples]
    assert all(len(text) == len("a+b=c") and ";" not in text for text in texts)


def test_a_temperature_of_zero_ends_the_harness_and_not_the_endpoint(
    served: tuple[Endpoint, str], tmp_path: Path
) -> None:
    endpoint, address = served
    arguments = f"model=tiny,base_url={address}/completions,tokenizer_backend=None,max_retries=1"
    with pytest.raises(AssertionError, match="400 Client Error: Bad Request"):
        evaluate(tmp_path, "local-completions", arguments)
    assert endpoint.get("/health").json()["status"] == "ok"
