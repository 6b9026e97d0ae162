"""What clients send beside one prompt: stop, top_p, top_k, n, prompts, tokens; and what they look up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from airls_ray import __version__
from airls_ray.config.schema import FileTaskConfig
from airls_ray.search.records import Leaf
from airls_ray.serving.answers import before, cut, in_order
from airls_ray.tasks.families.file import FileTask
from airls_ray.text.codec import TextCodec
from airls_ray.text.make_tokenizer import train_tokenizer
from tests.unit.serving.fakes import (
    END,
    PROMPT,
    SEMICOLON,
    STEP,
    Chains,
    Endpoint,
    Make,
    probability,
    responses,
)


# ---------------------------------------------------------------------------------------- stop
@pytest.mark.parametrize("algorithm", ["best_of_n", "beam", "early_rejection", "mcts"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_an_answer_ends_before_the_first_stop(make: Make, path: str, algorithm: str) -> None:
    endpoint = make()
    options = {"algorithm": algorithm, "budget": 6}
    choice = endpoint.post(path, stop=["=", ";"], seed=3, search=options).json()["choices"][0]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    assert len(text) == len("a+b")
    assert not set(text) & {"=", ";"}
    assert choice["finish_reason"] == "stop"


def test_behind_a_stop_nothing_is_searched(make: Make) -> None:
    endpoint = make()
    body = endpoint.post(stop=";", search={"algorithm": "beam", "budget": 4}).json()
    assert body["search"]["rounds"] == 1
    assert body["usage"]["completion_tokens"] == 4 * len(STEP)
    assert body["search"]["finished_responses"] == 4


def test_a_stop_that_never_comes_changes_nothing(make: Make) -> None:
    plain, stopped = make().post(seed=5), make().post(seed=5, stop=["x", "no such text"])
    assert plain.json()["choices"] == stopped.json()["choices"]


def test_a_response_is_scored_up_to_its_stop(make: Make) -> None:
    endpoint = make()
    body = endpoint.post(stop=";", seed=2, search={"algorithm": "best_of_n", "budget": 8}).json()
    firsts = [sample["tokens"][: len(STEP)] for sample in endpoint.chains.samples]
    assert body["search"]["score"] == pytest.approx(max(map(probability, firsts)))


@pytest.mark.parametrize("algorithm", ["best_of_n", "adaptive_consistency"])
def test_a_vote_reads_what_comes_before_the_stop(make: Make, algorithm: str) -> None:
    seen: list[str] = []

    def read(problem: str, given: Sequence[Sequence[int]]) -> list[str | None]:
        seen.extend(endpoint.codec.decode(one) for one in given)
        return [None] * len(given)

    endpoint = make(canonical=read)
    endpoint.post(stop=["=", ";"], search={"algorithm": algorithm, "answer": "majority"})
    assert {len(text) for text in seen} == {len("a+b")}


def test_tokens_before_a_stop_are_those_of_the_text_before_it(tmp_path: Path) -> None:
    """A stop may begin inside a token."""
    folder = tmp_path / "pieces"
    train_tokenizer(["it is 42.\n\n", "so é 42.\n\nQ:"] * 50, 300, folder)
    codec = TextCodec.from_folder(folder, FileTask(FileTaskConfig(train_file=folder, test_file=folder)))
    text = "so é 42.\n\nQ: it is 42.\n\n"
    tokens = codec.encode_trace(text)
    assert len(tokens) < len(text)
    for stop in ("Q", "\n\nQ", "\n", ".\n\nQ", "2.", "42", "é", "o é"):
        assert codec.decode(before([stop], codec)(tokens)) == text[: text.index(stop)]
    assert before(["x"], codec)(tokens) == tokens


def test_a_streams_pieces_end_before_the_stop(make: Make) -> None:
    endpoint = make()
    text = endpoint.post(seed=3).json()["choices"][0]["text"]
    stop = text[len(STEP) + 3 :]  # in the second step
    reply = endpoint.post(seed=3, stop=stop, stream=True, search={"algorithm": "best_of_n"})
    chunks = [json.loads(line[6:]) for line in reply.text.split("\n\n") if line and "[DONE]" not in line]
    pieces = [chunk["choices"][0]["text"] for chunk in chunks]
    assert all(stop not in piece for piece in pieces)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("texts", "stops", "expected"),
    [
        (["ab;", "cd;"], [], ["ab;", "cd;"]),
        (["ab;", "cd;"], ["d"], ["ab;", "c"]),
        (["ab;", "cd;"], [";c", "x"], ["ab"]),
        (["ab;", "cd;"], ["d", "b"], ["a"]),
        (["ab;", "cd;"], ["a"], []),
    ],
)
def test_texts_are_cut_before_the_first_stop(texts: list[str], stops: list[str], expected: list[str]) -> None:
    assert cut(texts, stops) == tuple(expected)


# ------------------------------------------------------------------------------- top_p and top_k
def cuts(endpoint: Endpoint) -> set[tuple[float, int, float]]:
    return {(row["top_p"], row["top_k"], row["min_p"]) for row in endpoint.chains.rows}


def test_top_p_top_k_and_min_p_reach_the_sampler(make: Make) -> None:
    endpoint = make()
    endpoint.post(top_p=0.5, top_k=7, min_p=0.25, search={"algorithm": "beam"})
    assert cuts(endpoint) == {(0.5, 7, 0.25)}


@pytest.mark.parametrize(
    ("given", "expected"), [({}, (0.5, 7, 0.25)), ({"top_p": 1, "top_k": -1, "min_p": 0}, (1.0, 0, 0.0))]
)
def test_what_a_request_does_not_say_is_as_the_configuration_says(
    make: Make, given: dict[str, Any], expected: tuple[float, int, float]
) -> None:
    endpoint = make(search={"top_p": 0.5, "top_k": 7, "min_p": 0.25})
    endpoint.post(**given)
    assert cuts(endpoint) == {expected}


@pytest.mark.parametrize("given", [{}, {"top_p": 1, "top_k": 0}, {"top_k": -1}])
def test_without_them_all_tokens_are_sampled(make: Make, given: dict[str, Any]) -> None:
    endpoint = make()
    endpoint.post(**given)
    assert cuts(endpoint) == {(1.0, 0, 0.0)}


# ------------------------------------------------------------------------------------------- n
def test_n_gives_the_searchs_answers_in_order(make: Make) -> None:
    endpoint = make()
    body = endpoint.post(n=3, search={"algorithm": "best_of_n", "budget": 8}).json()
    ranked = sorted(endpoint.chains.samples, key=lambda sample: -probability(sample["tokens"]))
    assert [choice["text"] for choice in body["choices"]] == [
        endpoint.codec.decode(sample["tokens"]) for sample in ranked[:3]
    ]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["search"]["scores"] == pytest.approx([probability(one["tokens"]) for one in ranked[:3]])


def test_after_a_vote_the_next_answer_comes_next(make: Make) -> None:
    def first_digit(problem: str, given: Sequence[Sequence[int]]) -> list[str | None]:
        return [str(response[0]) for response in given]

    endpoint = make(Chains(digits=3), first_digit)
    options = {"algorithm": "best_of_n", "budget": 16, "answer": "majority"}
    texts = [choice["text"] for choice in endpoint.post(n=16, search=options).json()["choices"]]
    assert len({text[0] for text in texts[:3]}) == 3
    assert sorted(texts) == sorted(responses(endpoint))


def test_a_vote_ranks_answers_by_votes_and_then_responses_by_score() -> None:
    answers = ["x", "y", "y", None, "y", "x"]
    leaves = [
        Leaf(at, score, 0.0, 0.0, answers[at], 0.0) for at, score in enumerate([0.1, 0.2, 0.3, 0.9, 0.4, 0.5])
    ]
    assert in_order(leaves, "majority", 6) == [1, 0, 3, 5, 4, 2]
    assert in_order(leaves, "best", 3) == [3, 5, 4]


def test_a_stream_has_all_choices(make: Make) -> None:
    endpoint = make()
    whole = endpoint.post(n=2, seed=4).json()["choices"]
    reply = endpoint.post(n=2, seed=4, stream=True)
    chunks = [json.loads(line[6:]) for line in reply.text.split("\n\n") if line and "[DONE]" not in line]
    for choice in whole:
        pieces = [one["choices"][0] for one in chunks if one["choices"][0]["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        assert [piece["finish_reason"] for piece in pieces if piece["finish_reason"]] == ["stop"]
    assert ["search" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


# ------------------------------------------------------------------------------------- prompts
def test_each_prompt_of_a_list_is_searched_as_if_alone(make: Make) -> None:
    prompts = [PROMPT, "1+1=", "9-4*2="]
    endpoint = make()
    body = endpoint.post(prompt=prompts, seed=6, n=2).json()
    alone = [make().post(prompt=prompt, seed=6, n=2).json() for prompt in prompts]
    assert [choice["text"] for choice in body["choices"]] == [
        choice["text"] for one in alone for choice in one["choices"]
    ]
    assert [choice["index"] for choice in body["choices"]] == list(range(6))
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert body["usage"][name] == sum(one["usage"][name] for one in alone)
    assert [one["score"] for one in body["search"]] == [one["search"]["score"] for one in alone]


def test_tokens_are_the_prompt_that_they_are(make: Make) -> None:
    endpoint = make()
    tokens = endpoint.codec.encode_prompt(PROMPT)
    by_text = endpoint.post(seed=6).json()["choices"]
    assert endpoint.post(prompt=tokens, seed=6).json()["choices"] == by_text
    assert endpoint.post(prompt=[tokens], seed=6).json()["choices"] == by_text
    assert {tuple(row["prompt"]) for row in endpoint.chains.rows} == {tuple(tokens)}


def test_prompts_beyond_the_queue_are_refused_together(make: Make) -> None:
    endpoint = make(serve={"max_live": 1, "max_queue": 1})
    assert endpoint.post(prompt=[PROMPT] * 2).status_code == 200
    reply = endpoint.post(prompt=[PROMPT] * 3)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt")


# ----------------------------------------------------------------------------- what is looked up
def test_without_a_model_the_one_that_is_served_answers(make: Make) -> None:
    assert make().post(model=None).json()["model"] == "tiny"
    assert make().post(model="absent").json()["model"] == "tiny"


def test_a_model_is_found_by_its_name(make: Make) -> None:
    endpoint = make()
    found = endpoint.get("/v1/models/tiny")
    assert (found.status_code, found.json()["id"], found.json()["object"]) == (200, "tiny", "model")
    assert found.json() == endpoint.get("/v1/models").json()["data"][0]
    assert endpoint.get("/v1/models/org/other").json()["error"]["code"] == "model_not_found"


def test_the_version_is_the_packages(make: Make) -> None:
    assert make().get("/version").json() == {"version": __version__}


def test_chunks_before_the_usage_have_a_null_there(make: Make) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    for path in ("/v1/completions", "/v1/chat/completions"):
        reply = make().post(path, seed=3, **options)
        chunks = [json.loads(line[6:]) for line in reply.text.split("\n\n") if line and "[DONE]" not in line]
        assert all(chunk["usage"] is None for chunk in chunks[:-1])
        assert chunks[-1]["usage"]["prompt_tokens"] == len(PROMPT)


def test_the_metrics_count_requests_and_tokens(make: Make) -> None:
    endpoint = make(token="open-sesame")
    headers = {"authorization": "Bearer open-sesame"}

    def post(**body: Any) -> Any:
        return endpoint.talk(lambda client: client.post("/v1/completions", json=body), headers=headers)

    usage = post(prompt=PROMPT).json()["usage"]
    assert post(prompt=PROMPT, n=0).status_code == 400
    reply = endpoint.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = dict(line.rsplit(" ", 1) for line in reply.text.splitlines() if not line.startswith("#"))
    name = "airls_ray_endpoint_"
    assert lines[f'{name}requests_total{{path="/v1/completions",status="200"}}'] == "1"
    assert lines[f'{name}requests_total{{path="/v1/completions",status="400"}}'] == "1"
    assert int(lines[f'{name}tokens_total{{kind="policy"}}']) == usage["completion_tokens"]
    assert lines[f"{name}searches_total"] == "1"
    assert lines[f"{name}failing"] == "0"


def test_the_metrics_count_an_error_of_ours_with_the_status_that_its_client_gets(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = make()
    monkeypatch.setattr(endpoint.service, "prepare", {}.__getitem__)
    assert endpoint.post().status_code == 500
    assert 'requests_total{path="/v1/completions",status="500"} 1' in endpoint.get("/metrics").text


def test_the_metrics_are_what_prometheus_reads(make: Make) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    endpoint = make()
    endpoint.post()
    families = list(parser.text_string_to_metric_families(endpoint.get("/metrics").text))
    assert {family.name for family in families} >= {
        "airls_ray_endpoint_requests", "airls_ray_endpoint_tokens", "airls_ray_endpoint_searches",
    }  # fmt: skip


def test_the_fakes_tokens_are_arithmetics(make: Make) -> None:
    assert make().codec.decode([SEMICOLON, END]) == ";"
