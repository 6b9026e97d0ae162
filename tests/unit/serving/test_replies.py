"""What the endpoint answers, whole and streamed."""

from __future__ import annotations

import json
import sys
import types
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from airls_ray.cli import main as cli
from airls_ray.config.schema import ArithmeticTaskConfig, Config, CountdownTaskConfig, FileTaskConfig
from airls_ray.runs.run_folder import RunFolder
from airls_ray.search.tree import Node, SearchState
from airls_ray.serving.answers import pieces
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem
from airls_ray.text.codec import TextCodec
from tests.unit.serving.fakes import PROMPT, Chains, Make, probability, responses


# ------------------------------------------------------------------------------------- command
def test_the_command_passes_what_was_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []
    module = types.ModuleType("actors.search.serve")
    vars(module)["run_serve"] = lambda config, *given: seen.append((config.serve.max_live, *given))
    monkeypatch.setitem(sys.modules, "actors.search.serve", module)
    monkeypatch.setattr("airls_ray.prm.forms.check_search_models", lambda *_: None)
    file = tmp_path / "experiment.yaml"
    file.write_text("serve: {max_live: 3}\n")
    assert cli.run(["serve", str(file), "--policy", "p"]) == 0
    options = ["--prm", "r", "--host", "::1", "--port", "80", "--token-file", "t"]
    assert cli.run(["serve", str(file), "serve.max_live=5", "--policy", "p", *options]) == 0
    assert seen == [
        (3, Path("p"), None, "127.0.0.1", 8000, None),
        (5, Path("p"), Path("r"), "::1", 80, Path("t")),
    ]


def test_the_command_finds_the_models_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []
    module = types.ModuleType("actors.search.serve")
    vars(module)["run_serve"] = lambda config, *given: seen.append(given)
    monkeypatch.setitem(sys.modules, "actors.search.serve", module)
    monkeypatch.setattr("airls_ray.prm.forms.check_search_models", lambda *_: None)
    run = RunFolder(tmp_path / "made" / "run")
    run.create(Config())
    newest = run.checkpoints_folder / "iteration_000004"
    for name in ("policy", "prm"):
        (newest / name).mkdir(parents=True)
    assert cli.run(["serve", str(run.path)]) == 0
    assert seen[0][:2] == (newest / "policy", newest / "prm")


# ------------------------------------------------------------------------------------- replies
def test_a_completion_has_the_form_of_openai(make: Make) -> None:
    reply = make().post()
    assert reply.status_code == 200
    body = reply.json()
    assert body["object"] == "text_completion"
    assert body["model"] == "tiny"
    [choice] = body["choices"]
    assert choice.keys() == {"index", "text", "logprobs", "finish_reason"}
    assert choice["finish_reason"] == "stop"


def test_a_chat_completion_has_the_form_of_openai(make: Make) -> None:
    body = make().post("/v1/chat/completions").json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert body["choices"][0]["message"]["content"].count(";") == 3


def test_chat_and_completion_search_the_same(make: Make) -> None:
    endpoint = make()
    text = endpoint.post(seed=5).json()["choices"][0]["text"]
    assert endpoint.post("/v1/chat/completions", seed=5).json()["choices"][0]["message"]["content"] == text


def test_the_best_response_is_the_answer(make: Make) -> None:
    endpoint = make()
    body = endpoint.post(search={"algorithm": "best_of_n", "budget": 8}).json()
    best = min(endpoint.chains.samples, key=lambda sample: sum(sample["tokens"]))  # by the whole density
    assert body["choices"][0]["text"] == endpoint.codec.decode(best["tokens"])
    assert body["search"]["score"] == pytest.approx(probability(best["tokens"]))
    assert body["search"]["finished_responses"] == 8


@pytest.mark.parametrize("algorithm", ["best_of_n", "beam", "dvts", "early_rejection"])
def test_usage_is_what_was_sampled(make: Make, algorithm: str) -> None:
    endpoint = make()
    body = endpoint.post(search={"algorithm": algorithm, "budget": 6}).json()
    sampled = sum(sample["sampled"] for sample in endpoint.chains.samples)
    assert body["usage"] == {
        "prompt_tokens": 6, "completion_tokens": sampled, "total_tokens": 6 + sampled
    }  # fmt: skip
    assert body["search"]["ledger"]["policy_tokens"] == sampled
    assert body["search"]["ledger"]["generations"] == len(endpoint.chains.samples)


def test_without_options_the_configuration_decides(make: Make) -> None:
    endpoint = make(search={"algorithms": ["beam", "best_of_n"], "budgets": [3, 5]})
    report = endpoint.post().json()["search"]
    assert (report["algorithm"], report["budget"], report["answer"]) == ("beam", 3, "best")


def test_models_names_the_one_that_is_served(make: Make) -> None:
    body = make().get("/v1/models").json()
    assert [model["id"] for model in body["data"]] == ["tiny"]


# -------------------------------------------------------------------------------------- votes
@pytest.mark.parametrize("rule", ["majority", "weighted"])
def test_a_vote_is_over_the_answers_that_are_read(make: Make, codec: TextCodec, rule: str) -> None:
    asked: list[str] = []

    def first_digit(problem: str, given: Sequence[Sequence[int]]) -> list[str | None]:
        asked.append(problem)
        return [codec.decode(response)[0] for response in given]

    for seed in range(5):
        endpoint = make(Chains(digits=3), first_digit)
        options = {"algorithm": "best_of_n", "budget": 16, "answer": rule}
        body = endpoint.post(seed=seed, search=options).json()
        votes: dict[str, float] = defaultdict(float)
        for sample in endpoint.chains.samples:
            weight = 1.0 if rule == "majority" else probability(sample["tokens"])
            votes[codec.decode(sample["tokens"])[0]] += weight
        assert body["choices"][0]["text"][0] == max(votes, key=lambda digit: votes[digit])
    assert asked == [PROMPT] * 5


def test_where_no_answer_can_be_read_a_vote_is_over_the_last_steps(make: Make) -> None:
    endpoint = make(Chains(digits=2))
    body = endpoint.post(search={"algorithm": "best_of_n", "budget": 32, "answer": "majority"}).json()
    steps = Counter(text.split(";")[-2] for text in responses(endpoint))
    assert steps.most_common(1)[0][1] > 2
    assert body["choices"][0]["text"].split(";")[-2] == steps.most_common(1)[0][0]


def test_the_best_needs_no_reading_of_answers(make: Make) -> None:
    def never(problem: str, given: Sequence[Sequence[int]]) -> list[str | None]:
        raise AssertionError

    assert make(canonical=never).post(search={"answer": "best"}).status_code == 200


@pytest.mark.parametrize(
    ("task", "prompt", "response", "answer"),
    [
        (ArithmeticTaskConfig(operations=1), "7+3=", "7+3=0;", "0"),
        (CountdownTaskConfig(numbers=3), "2,3,4,20:", "3+2=5,5*4=20", "2+3=5,4*5=20"),
        (FileTaskConfig(train_file="a", test_file="b", grader="exact"), "?", "so\n#### 12", "12"),
        (FileTaskConfig(train_file="a", test_file="b", grader="math"), "?", r"so \boxed{12}", "12"),
    ],
    ids=["arithmetic", "countdown", "exact", "math"],
)
def test_graders_read_an_answer_without_knowing_the_right_one(
    task: Any, prompt: str, response: str, answer: str
) -> None:
    assert make_task(task).grade(Problem("", prompt, ""), response).answer == answer


# ------------------------------------------------------------------------------------ streams
def events(reply: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of all events; the last line must end the stream."""
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_stream_is_the_whole_answer_step_by_step(make: Make) -> None:
    endpoint = make()
    whole = endpoint.post(seed=3).json()["choices"][0]["text"]
    chunks = events(endpoint.post(seed=3, stream=True))
    texts = [chunk["choices"][0]["text"] for chunk in chunks]
    assert texts == [*(step + ";" for step in whole.split(";")[:-1]), ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1


class FirstHasOne(Chains):
    """Prompts that begin as the first one did have one response alone."""

    def step(self, seen: list[int], row: dict[str, Any], new: int, seed: list[int]) -> list[int]:
        self.digits = 1 if row["prompt"][0] == self.rows[0]["prompt"][0] else 10
        return super().step(seen, row, new, seed)


def test_every_one_of_several_prompts_has_n_choices_where_clients_look_for_them(make: Make) -> None:
    endpoint = make(FirstHasOne(steps=2))
    search = {"algorithm": "mcts", "budget": 4}
    body = endpoint.post(prompt=["1+1=", "7+3*4="], n=2, search=search).json()
    texts = [choice["text"] for choice in body["choices"]]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert texts[0] == texts[1] != texts[2] != texts[3]
    assert [len(report["scores"]) for report in body["search"]] == [1, 2]


def test_one_prompt_has_no_choice_twice(make: Make) -> None:
    endpoint = make(FirstHasOne(steps=2))
    body = endpoint.post(prompt="1+1=", n=2, search={"algorithm": "mcts", "budget": 4}).json()
    assert len(body["choices"]) == 1


def test_replies_and_events_are_what_the_types_of_openai_take(make: Make) -> None:
    from openai.types import Completion
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    endpoint, chat = make(), "/v1/chat/completions"
    Completion.model_validate(endpoint.post(n=2).json())
    reply = ChatCompletion.model_validate(endpoint.post(chat, n=2).json())
    assert [choice.index for choice in reply.choices] == [0, 1]
    options = {"include_usage": True}
    for event in events(endpoint.post(chat, stream=True, stream_options=options)):
        ChatCompletionChunk.model_validate(event)


def test_a_chat_stream_begins_with_the_role(make: Make) -> None:
    endpoint = make()
    whole = endpoint.post("/v1/chat/completions", seed=3).json()["choices"][0]["message"]["content"]
    deltas = [
        chunk["choices"][0]["delta"]
        for chunk in events(endpoint.post("/v1/chat/completions", seed=3, stream=True))
    ]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == whole
    assert deltas[-1] == {}


def test_the_usage_is_streamed_when_it_is_asked_for(make: Make) -> None:
    endpoint = make()
    usage = endpoint.post(seed=3).json()["usage"]
    *_, last = events(endpoint.post(seed=3, stream=True, stream_options={"include_usage": True}))
    assert (last["choices"], last["usage"]) == ([], usage)
    assert all("usage" not in chunk for chunk in events(endpoint.post(seed=3, stream=True)))


def test_a_stream_that_cannot_be_has_the_status_of_its_error(make: Make) -> None:
    endpoint = make(Chains(error=RuntimeError("no memory")))
    assert endpoint.post(stream=True).status_code == 500


def test_a_stream_does_not_cut_a_character(codec: TextCodec) -> None:
    class Bytes:
        def decode(self, tokens: Sequence[int]) -> str:
            return bytes(tokens).decode("utf-8", errors="replace")

    text = "x é; y ✓ z"
    tokens = tuple(text.encode())
    for cut in range(1, len(tokens)):
        state = SearchState(0, [Node(-1), Node(0, tokens, step_ends=(cut, len(tokens)), finish="stop")])
        found = pieces(state, 1, Bytes())  # type: ignore[arg-type]
        assert "".join(found) == text
