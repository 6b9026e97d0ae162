"""Searches that read answers or size themselves, over the endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from airls_ray.search.live import SearchProblem
from airls_ray.serving.answers import reader
from tests.unit.serving.fakes import Make


def finished(make: Make, canonical: Any, **search: Any) -> int:
    endpoint = make(canonical=canonical)
    body = endpoint.post(seed=1, search={"algorithm": "adaptive_consistency", "budget": 12, **search}).json()
    return int(body["search"]["finished_responses"])


def test_a_request_stops_when_its_vote_is_decided(make: Make) -> None:
    """Four equal answers decide it; without any it goes on to its budget."""
    assert finished(make, lambda problem, responses: ["5"] * len(responses)) == 4
    assert finished(make, lambda problem, responses: [None] * len(responses)) == 12


def test_a_vote_is_read_of_the_requests_own_problem(make: Make) -> None:
    seen: list[str] = []

    def read(problem: str, responses: Sequence[Sequence[int]]) -> list[str | None]:
        seen.append(problem)
        return ["5"] * len(responses)

    finished(make, read)
    assert seen and set(seen) == {seen[0]} and seen[0]


def test_answers_of_several_problems_come_back_in_their_order() -> None:
    def read(problem: str, responses: Sequence[Sequence[int]]) -> list[str | None]:
        return [f"{problem}{response[0]}" for response in responses]

    problems = [SearchProblem(at, str(at), (1,), 0, text) for at, text in enumerate("abab")]
    assert reader(read)(problems, [[1], [2], [3], [4]]) == ["a1", "b2", "a3", "b4"]


def test_a_calibration_that_is_not_there_is_the_requests_mistake(make: Make, tmp_path: Path) -> None:
    missing = {"calibration": str(tmp_path / "c.json")}
    endpoint = make(search={"instance_adaptive": missing})
    reply = endpoint.post(search={"algorithm": "instance_adaptive", "budget": 4})
    assert reply.status_code == 400
    assert "there is no calibration" in reply.json()["error"]["message"]


@pytest.mark.parametrize("algorithm", ["chunk_reset", "adaptive_consistency", "instance_adaptive"])
@pytest.mark.parametrize("rule", ["hybrid", "reward_frequency"])
def test_every_new_search_and_rule_answers(make: Make, algorithm: str, rule: str) -> None:
    endpoint = make(canonical=lambda problem, responses: [str(sum(one) % 3) for one in responses])
    body = endpoint.post(search={"algorithm": algorithm, "budget": 4, "answer": rule}, max_tokens=8).json()
    assert body["choices"][0]["text"]
    assert 1 <= body["search"]["finished_responses"] <= 4
