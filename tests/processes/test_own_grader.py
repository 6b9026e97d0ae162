"""Graders of the user's own before a run: every response must get a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airls_ray.config import Config, load_config
from airls_ray.console.progress import QuietProgress
from airls_ray.data.check_config import check_before
from airls_ray.errors import DoorError, UserError

OWN = """
import os, time
def right(response, answer): return response.strip() == answer, response
def raises(response): return float(response[0] == "1")
def hangs(response):
    while not response: time.sleep(0.1)
    return 0.0
def dies(response): return 0.0 if response else os._exit(3)
def beyond(response, answer): return 2.0 if response == answer else 0.0
def odd(respond): return 1
"""


def config_of(folder: Path, name: str) -> Config:
    (folder / "own.py").write_text(OWN)
    for at, file in enumerate(("a.jsonl", "b.jsonl")):
        (folder / file).write_text(json.dumps({"prompt": f"p{at}", "answer": "1", "traces": ["1"]}) + "\n")
    files = [f"task.train_file={folder}/a.jsonl", f"task.test_file={folder}/b.jsonl"]
    return load_config(None, ["task=file", *files, f"task.grader={folder}/own.py:{name}"])


def test_a_grader_that_judges_all_responses_passes(tmp_path: Path) -> None:
    check_before(config_of(tmp_path, "right"), QuietProgress(), traces=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "raised IndexError: string index out of range on the response ''"),
        ("hangs", "gave no verdict within 5 s on the response ''"),
        ("dies", "ended its process on the response ''"),
        ("beyond", r"raised ValueError: grade returned 2\.0, and an outcome is a number from 0 to 1"),
    ],
)
def test_a_response_without_a_verdict_ends_the_command_with_a_sentence(
    tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(DoorError, match=rf"task\.grader: .*own\.py:{name} {said}"):
        check_before(config_of(tmp_path, name), QuietProgress(), traces=True)


def test_what_is_no_grader_is_said_by_the_process_that_opens_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes 'respond', which nobody gives it"):
        check_before(config_of(tmp_path, "odd"), QuietProgress(), traces=True)
