"""Continuations of prefixes on a scripted engine: where a step ends, what is cut, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.rollout.engine import Request, Sample
from actors.rollout.expansion import expand
from airls_ray.config.schema import ArithmeticTaskConfig, FileTaskConfig
from airls_ray.data.schemas import CONTINUATIONS, EXPANSIONS
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer
from airls_ray.text.make_tokenizer import train_tokenizer
from tests.fakes import FakeEngine

TASK = make_task(ArithmeticTaskConfig(operations=3))


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(TASK, folder)
    return TextCodec.from_folder(folder, TASK)


class Script(FakeEngine):
    """Continues by the given tokens, and by others when asked greedily."""

    def __init__(self, tokens: Sequence[int], eos: int, greedy: Sequence[int] = ()) -> None:
        super().__init__(vocabulary=0, eos=eos)
        self.tokens, self.greedy = list(tokens), list(greedy)
        self.asked: list[Request] = []

    def run(self, requests: Sequence[Request]) -> list[list[Sample]]:
        self.asked += requests
        return [[self._cut(self._script(request), request)] * request.samples for request in requests]

    def _script(self, request: Request) -> Sample:
        greedy = request.temperature == 0 or request.truncation.top_k == 1
        tokens = [*(self.greedy if greedy else self.tokens), self.eos]
        return Sample(tokens, [-0.5] * len(tokens), "stop")


def wants(**fields: Any) -> pa.Table:
    row = {
        "problem_id": "p",
        "prompt": [5, 6],
        "response": [],
        "count": 1,
        "whole": False,
        "max_tokens": None,
        "lookahead": 0,
        "temperature": 1.0,
        "seed": 0,
    }
    return pa.Table.from_pylist([row | fields], schema=EXPANSIONS)


def one(table: pa.Table) -> dict[str, Any]:
    assert table.schema.equals(CONTINUATIONS)
    [row] = table.to_pylist()
    return row


def test_a_step_ends_with_its_delimiter(codec: TextCodec) -> None:
    step, more = codec.encode_trace("1+2=3;")[:-1], codec.encode_trace("3+4=7;")[:-1]
    row = one(expand(Script(step + more, codec.eos_id), codec, wants(), 40, 40))
    assert (row["tokens"], row["finish"], row["step_ends"]) == (step, "step", [len(step)])
    assert row["sampled"] == len(step)


def test_the_whole_response_has_all_its_steps(codec: TextCodec) -> None:
    response = codec.encode_trace("1+2=3;3+4=7;")
    row = one(expand(Script(response[:-1], codec.eos_id), codec, wants(whole=True), 40, 40))
    assert (row["tokens"], row["finish"]) == (response, "stop")
    assert row["step_ends"] == codec.step_ends(response)


def test_a_step_that_never_ends_ends_the_response(codec: TextCodec) -> None:
    digits = codec.encode_trace("1111111111")[:-1]
    row = one(expand(Script(digits, codec.eos_id), codec, wants(), 40, 6))
    assert (len(row["tokens"]), row["finish"]) == (6, "length")


def test_no_more_tokens_than_the_response_may_have(codec: TextCodec) -> None:
    digits = codec.encode_trace("1111111111")[:-1]
    row = one(expand(Script(digits, codec.eos_id), codec, wants(response=[5] * 37), 40, 40))
    assert (len(row["tokens"]), row["finish"]) == (3, "length")


@pytest.mark.parametrize(("room", "finish"), [(0, "length"), (1, "step")])
def test_a_step_that_fills_the_response_ends_it(codec: TextCodec, room: int, finish: str) -> None:
    step = codec.encode_trace("1+2=3;")[:-1]
    engine = Script([*step, *step], codec.eos_id)
    row = one(expand(engine, codec, wants(response=[5] * (40 - len(step) - room)), 40, 40))
    assert (row["tokens"], row["finish"]) == (step, finish)


def test_a_cut_on_purpose_is_partial(codec: TextCodec) -> None:
    digits = codec.encode_trace("1111111111")[:-1]
    row = one(expand(Script(digits, codec.eos_id), codec, wants(max_tokens=4), 40, 40))
    assert (len(row["tokens"]), row["finish"]) == (4, "partial")


def test_what_is_looked_ahead_is_greedy_and_apart(codec: TextCodec) -> None:
    step, ahead = codec.encode_trace("1+2=3;")[:-1], codec.encode_trace("9;")[:-1]
    engine = Script(step, codec.eos_id, greedy=ahead)
    row = one(expand(engine, codec, wants(lookahead=2), 40, 40))
    assert row["tokens"] == step
    assert (row["ahead"], row["ahead_ends"]) == (ahead * 2, [len(ahead), 2 * len(ahead)])
    assert row["sampled"] == len(step) + 2 * len(ahead)
    assert list(engine.asked[-1].prompt) == [5, 6, *step, *ahead]


def test_steps_looked_ahead_have_the_log_probabilities_that_the_engine_gave(codec: TextCodec) -> None:
    step, ahead = codec.encode_trace("1+2=3;")[:-1], codec.encode_trace("9;")[:-1]
    row = one(expand(Script(step, codec.eos_id, greedy=ahead), codec, wants(lookahead=2), 40, 40))
    assert row["ahead_logprobs"] == [-0.5] * 2 * len(ahead)


@pytest.mark.parametrize(("temperature", "asked", "top_k"), [(1.0, 0.0, 0), (0.0, 0.0, 0), (0.5, 0.5, 1)])
def test_looking_ahead_has_the_log_probabilities_of_the_temperature(
    codec: TextCodec, temperature: float, asked: float, top_k: int
) -> None:
    step = codec.encode_trace("1+2=3;")[:-1]
    engine = Script(step, codec.eos_id, greedy=step)
    expand(engine, codec, wants(lookahead=1, temperature=temperature), 40, 40)
    assert (engine.asked[-1].temperature, engine.asked[-1].truncation.top_k) == (asked, top_k)


def test_nothing_is_looked_ahead_behind_an_end(codec: TextCodec) -> None:
    row = one(expand(Script([7], codec.eos_id), codec, wants(lookahead=2), 40, 40))
    assert (row["finish"], row["ahead"]) == ("stop", [])


def test_continuations_are_in_the_order_of_the_expansions(codec: TextCodec) -> None:
    table = pa.concat_tables([wants(count=2), wants(count=3, seed=50)])
    found = expand(FakeEngine(12, codec.eos_id), codec, table, 40, 40)
    assert found["expansion"].to_pylist() == [0, 0, 1, 1, 1]
    assert found["index"].to_pylist() == [0, 1, 0, 1, 2]
    alone = expand(FakeEngine(12, codec.eos_id), codec, table.slice(1), 40, 40)
    assert found["tokens"].to_pylist()[2:] == alone["tokens"].to_pylist()


def test_a_step_by_a_rule_of_ones_own_is_cut_from_what_was_sampled_behind_it(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def ends(text):\n    return [text.index(';') + 1] if ';' in text else []\n"
    )
    train_tokenizer(["a"], 258, tmp_path)  # no merges: every token is a byte
    files = {"train_file": "a", "test_file": "b", "steps": f"{tmp_path}/own.py:ends"}
    codec = TextCodec.from_folder(tmp_path, make_task(FileTaskConfig.model_validate(files)))
    script = Script(codec.encode_trace("ab;cd")[:-1], codec.eos_id)
    (piece,) = expand(script, codec, wants(), 64, 64).to_pylist()
    assert (codec.decode(piece["tokens"]), piece["finish"], piece["sampled"]) == ("ab;", "step", 6)
    assert [tuple(request.stop_ids) for request in script.asked] == [()]
