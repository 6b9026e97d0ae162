"""`search --endpoint`: a task's test problems over a server, graded in processes, without an engine."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from airls_ray.config import Config, load_config
from airls_ray.config.model_sections import ModelConfig
from airls_ray.config.task_doors import GraderConfig
from airls_ray.console.progress import QuietProgress
from airls_ray.errors import ConfigError, DataError, RunError
from airls_ray.evaluation.endpoint import Connection
from airls_ray.search.endpoint_task import search_task_by_endpoint
from airls_ray.search.over_endpoint import Scoring
from tests.unit.endpoint_fakes import Digits, FakePolicy, served
from tests.unit.test_turn_ends import make

TAGS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ mark }}"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for name, texts in (("train", ["Other?"]), ("test", ["What is it?", "And this?", "Third?"])):
        rows = [json.dumps({"prompt": text, "answer": "3"}) for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    task = {"name": "file", "train_file": tmp_path / "train.jsonl", "test_file": tmp_path / "test.jsonl"}
    search = {"algorithms": ["best_of_n", "beam"], "budgets": [4], "problems": 3, "max_step_tokens": 64}
    return load_config({"task": task, "search": search, "verifier": {"processes": 1}})


class Loaded:
    """Counts how often the PRM is loaded."""

    times = 0

    def __call__(self) -> Any:
        self.times += 1
        return _Many()


class _Many:
    def score(self, items: Any) -> list[list[float]]:
        return [list(Digits().score(item.problem, item.steps)) for item in items]


def test_every_algorithm_is_graded_and_its_responses_are_kept(config: Config, tmp_path: Path) -> None:
    load, output = Loaded(), tmp_path / "out"
    with served(FakePolicy()) as url:
        summary = search_task_by_endpoint(
            config, Connection(url, None, 30.0), Scoring(load), output, QuietProgress()
        )
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert load.times == 1 and len(lines) == 2 * 3
    assert json.loads((output / "summary.json").read_text()) == summary
    for row, part in zip(summary["algorithms"], (lines[:3], lines[3:]), strict=True):
        # The answer of a response of the fake policy is its last digit, boxed.
        right = ["\\boxed{3}" in line["response"] for line in part]
        assert [line["outcome"] == 1.0 for line in part] == right
        assert row["accuracy"] == sum(right) / 3
        any_right = [any("\\boxed{3}" in one["response"] for one in line["candidates"]) for line in part]
        assert row["oracle"] == sum(any_right) / 3
        assert row["policy_tokens"] == pytest.approx(sum(line["costs"]["policy_tokens"] for line in part) / 3)
    for line in lines[:3]:  # Best-of-N takes the response whose steps score best
        scores = [prod(one["scores"]) for one in line["candidates"]]
        assert line["response"] == line["candidates"][scores.index(max(scores))]["response"]


class Capitals(FakePolicy):
    """Names a city after what mathematics takes for the answer; three of four times the same one."""

    def rest(self, before: str, seed: int) -> str:
        return f"So \\boxed{{{seed}}}.\n#### {'Rome' if seed % 4 else 'Oslo'}"


def test_votes_are_over_the_answers_that_the_tasks_grader_reads(config: Config, tmp_path: Path) -> None:
    for name in ("train", "test"):
        row = {"prompt": f"{name}?", "answer": "Rome"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    task = config.task.model_copy(update={"grader": GraderConfig(name="exact")})
    search = config.search.model_copy(update={"answer": "majority", "algorithms": ["best_of_n"]})
    exact = config.model_copy(update={"task": task, "search": search})
    with served(Capitals()) as url:
        connection = Connection(url, None, 30.0)
        summary = search_task_by_endpoint(
            exact, connection, Scoring(Loaded()), tmp_path / "out", QuietProgress()
        )
    [line] = [json.loads(one) for one in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert sorted(one["answer"] for one in line["candidates"]) == ["Oslo", "Rome", "Rome", "Rome"]
    assert summary["algorithms"][0]["accuracy"] == 1.0


def test_results_are_not_written_over_and_other_tasks_are_a_sentence(config: Config, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").touch()
    connection = Connection("http://127.0.0.1:1/v1", "m", 1.0)
    with pytest.raises(RunError, match="has results already: give another --output"):
        search_task_by_endpoint(config, connection, Scoring(Loaded()), tmp_path, QuietProgress())
    with pytest.raises(ConfigError, match="reads the problems of files, and the task is arithmetic"):
        search_task_by_endpoint(Config(), connection, Scoring(Loaded()), tmp_path, QuietProgress())


def test_prompts_of_several_messages_need_the_tokenizer_and_are_written_with_it(
    config: Config, tmp_path: Path
) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}]
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": turns, "answer": "3"}))
    folder = tmp_path / "policy"
    codec = make(folder, TAGS)
    keywords = {"prompt_template": "chat", "chat_template_kwargs": {"mark": "!"}}
    chat = config.model_copy(update={"model": ModelConfig.model_validate(keywords)})
    policy = FakePolicy(codec=codec)
    with served(policy) as url:
        connection, quiet = Connection(url, None, 30.0), QuietProgress()
        with pytest.raises(DataError, match="several messages need the policy's tokenizer"):
            search_task_by_endpoint(config, connection, Scoring(Loaded()), tmp_path / "a", quiet)
        assert not policy.asked
        search_task_by_endpoint(chat, connection, Scoring(Loaded()), tmp_path / "b", quiet, tokenizer=folder)
    assert {codec.decode(body["prompt"]) for body in policy.asked[:1]} == {
        "<system>Be brief.<user>What is it?!"
    }
