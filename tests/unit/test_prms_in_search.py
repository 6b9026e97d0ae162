"""A PRM that reads texts, asked by a search on tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from airls_ray.config.schema import ArithmeticTaskConfig
from airls_ray.errors import DataError
from airls_ray.prm.in_search import TextSearchScorer
from airls_ray.prm.items import StepText
from airls_ray.search.scoring import Continuation
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer

TASK = make_task(ArithmeticTaskConfig(operations=3))
PROMPT, STEPS = "1+2+3=", ("1+2=3;", "3+3=6;", "6+4=0;")


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(TASK, folder)
    return TextCodec.from_folder(folder, TASK)


class Lengths:
    """Scores a step by its number; cannot read a step with a 9."""

    def __init__(self) -> None:
        self.asked: list[StepText] = []

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        self.asked += items
        if any("9" in step for item in items for step in item.steps):
            raise DataError("a marker")
        return [[number / 10 for number in range(1, len(item.steps) + 1)] for item in items]


def continuation(codec: TextCodec, before: str, new: str, over: bool = False) -> Continuation:
    prompt = codec.encode_prompt(PROMPT)
    earlier = codec.encode_trace(before)[:-1] if before else []
    tokens = codec.encode_trace(new) if over else codec.encode_trace(new)[:-1]
    ends = codec.step_ends(tokens)
    return Continuation(
        prefix=(*prompt, *earlier),
        tokens=tuple(tokens),
        step_ends=tuple(ends),
        log_probs=(0.0,) * len(ends),
        prompt_tokens=len(prompt),
        prefix_ends=tuple(codec.step_ends(earlier)),
        over=over,
    )


def test_the_prm_reads_problem_and_all_steps_as_text(codec: TextCodec) -> None:
    prm = Lengths()
    found, costs = TextSearchScorer(prm, codec).score([continuation(codec, STEPS[0], STEPS[1])])
    assert (prm.asked[0].problem, prm.asked[0].steps) == (PROMPT, list(STEPS[:2]))
    assert found == [(0.2,)]
    assert costs == [18]


def test_a_whole_response_has_a_score_for_each_step(codec: TextCodec) -> None:
    prm = Lengths()
    found, _ = TextSearchScorer(prm, codec).score([continuation(codec, "", "".join(STEPS), over=True)])
    assert found == [(0.1, 0.2, 0.3)]
    assert prm.asked[0].finished


def test_given_texts_of_the_problems_are_used(codec: TextCodec) -> None:
    prm = Lengths()
    asked = replace(continuation(codec, "", STEPS[0]), text="What is it?")
    TextSearchScorer(prm, codec).score([asked])
    assert prm.asked[0].problem == "What is it?"


def test_a_text_that_the_prm_cannot_read_scores_zero_alone(codec: TextCodec) -> None:
    items = [continuation(codec, STEPS[0], "9+9=8;"), continuation(codec, STEPS[0], STEPS[1])]
    found, _ = TextSearchScorer(Lengths(), codec).score(items)
    assert found == [(0.0,), (0.2,)]
