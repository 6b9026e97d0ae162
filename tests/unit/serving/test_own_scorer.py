"""The endpoint with a scorer that reads texts: another's PRM, a critic or one of the user's own."""

from __future__ import annotations

from collections.abc import Sequence

from airls_ray.errors import DataError
from airls_ray.prm.in_search import TextSearchScorer
from airls_ray.prm.items import StepText
from airls_ray.text.codec import TextCodec
from tests.unit.serving.fakes import Make, responses

QUESTION = "7+3*4="


class LastDigits:
    """Prefers steps whose result is large; refuses one problem."""

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        if any(item.problem == "0+0=" for item in items):
            raise DataError("too easy")
        return [[int(step[4]) / 10 if len(step) > 4 else 0.5 for step in item.steps] for item in items]


def test_the_answer_is_the_one_that_it_scores_best(make: Make, codec: TextCodec) -> None:
    endpoint = make(scorer=TextSearchScorer(LastDigits(), codec))
    chosen = endpoint.post(search={"algorithm": "best_of_n", "budget": 8}).json()["choices"][0]["text"]

    def product(text: str) -> float:
        value = 1.0
        for step in text.split(";")[:-1]:
            value *= int(step[4]) / 10
        return value

    assert product(chosen) == max(map(product, responses(endpoint)))


def test_a_problem_that_it_cannot_read_ends_nothing(make: Make, codec: TextCodec) -> None:
    endpoint = make(scorer=TextSearchScorer(LastDigits(), codec))
    bodies = [{"prompt": "0+0="}, {"prompt": QUESTION}]
    assert [reply.status_code for reply in endpoint.post_all(bodies)] == [200, 200]
