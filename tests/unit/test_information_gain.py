"""IGPO's information gain: probabilities of the answer in a plain loop, and the rewards by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from airls_ray.config import load_config
from airls_ray.config.prm_sections import PRMConfig
from airls_ray.config.schema import MethodConfig
from airls_ray.credit.transforms import information_gain
from airls_ray.data.schemas import PROBLEMS
from airls_ray.errors import ConfigError, DoorError
from airls_ray.learning.advantages import assign_credit
from airls_ray.learning.answer_gains import answer_gains
from airls_ray.learning.engine import TorchEngine
from airls_ray.learning.policy_reader import PolicyReader
from airls_ray.learning.try_method import try_method
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from tests.tiny import make_policy_folder, make_rollouts, make_text_policy, policy_module
from tests.unit.learning.fakes import TEMPERATURE, learner
from tests.unit.test_advantages import LIMIT, grades_of, scores_of

INTRO = [7, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("policy"))


def probability(model: Any, before: list[int], answer: list[int]) -> float:
    """exp of the mean log-probability of the answer's tokens, by the model itself."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([before + answer])).logits[0].double() / TEMPERATURE
    tables = logits.log_softmax(-1)[len(before) - 1 : -1]
    logs = [float(table[token]) for table, token in zip(tables, answer, strict=True)]
    return math.exp(sum(logs) / len(logs))


def in_a_loop(folder: Path, table: pa.Table, answers: list[list[int]], intro: list[int]) -> list[float]:
    model = policy_module(folder).model.eval()
    gains: list[float] = []
    columns = (table[name].to_pylist() for name in ("prompt", "response", "step_ends"))
    for answer, prompt, response, ends in zip(answers, *columns, strict=True):
        if not answer:
            gains += [0.0] * len(ends)
            continue
        p = [probability(model, prompt + response[:end] + intro, answer) for end in [0, *ends[:-1]]]
        gains += [after - before for before, after in pairwise(p)] + [0.0]
    return gains


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_gains_of_many_steps_are_the_models_own(folder: Path, steps: int) -> None:
    table = make_rollouts(15, 4, steps=steps)
    answers = [[] if row % 7 == 3 else [2 + row % 9, 4, 5][: 1 + row % 3] for row in range(60)]
    engine = TorchEngine(policy_module(folder), learner())
    config = learner(tokens_per_microbatch=60)
    found = answer_gains(
        engine, table, answers, INTRO, config, temperature=TEMPERATURE, pad_id=0, context_tokens=256
    )
    wanted = in_a_loop(folder, table, answers, INTRO)
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)
    assert steps == 1 or max(map(abs, wanted)) > 1e-3


def test_where_the_answer_has_no_room_behind_a_step_there_is_no_gain(folder: Path) -> None:
    table = make_rollouts(4, 2, steps=3)
    answers = [[2, 4]] * 8
    engine = TorchEngine(policy_module(folder), learner())
    prompts, responses, ends = (table[name].to_pylist() for name in ("prompt", "response", "step_ends"))
    sizes = [
        len(prompt) + end + 4 for prompt, at in zip(prompts, ends, strict=True) for end in [*at[:-1], 999]
    ]
    limit = sorted(sizes)[len(sizes) // 3]

    seen: list[int] = []
    forward = engine.forward

    def watched(inputs: dict[str, torch.Tensor], **options: Any) -> Any:
        seen.append(inputs["input_ids"].shape[1])
        return forward(inputs, **options)

    engine.forward = watched  # type: ignore[method-assign]
    found = answer_gains(
        engine, table, answers, INTRO, learner(), temperature=TEMPERATURE, pad_id=0, context_tokens=limit
    )
    whole = in_a_loop(folder, table, answers, INTRO)
    wanted = [gain if size <= limit else 0.0 for gain, size in zip(whole, sizes, strict=True)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)
    assert 0 < sum(gain != 0 for gain in wanted) < sum(gain != 0 for gain in whole)
    assert max(seen) <= limit and len(responses) == 8


def test_texts_of_problems_become_the_answers_of_their_rollouts(tmp_path: Path) -> None:
    folder = make_text_policy(tmp_path / "policy")
    codec = TextCodec.from_folder(folder, make_task(load_config(None).task))
    rows = [["p1", "b?", "21", [], "{}"], ["p0", "a?", "7", [], "{}"]]
    columns = [
        pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), PROBLEMS, strict=True)
    ]
    problems = pa.Table.from_arrays(columns, schema=PROBLEMS)
    table = make_rollouts(2, 2)
    reader = PolicyReader(TorchEngine(policy_module(folder), learner()), learner(), codec, TEMPERATURE, 256)
    found = reader.answer_gains(table, problems, "\n#### ")
    byte = {text: codec.encode_trace(text)[:-1] for text in ("7", "21", "\n#### ")}
    assert [len(byte[text]) for text in ("7", "21")] == [1, 2]
    wanted = in_a_loop(folder, table, [byte["7"]] * 2 + [byte["21"]] * 2, byte["\n#### "])
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_step_gets_its_gain_and_the_last_one_the_outcome() -> None:
    rewards = torch.tensor([0.5, 0.0, 0.0, 0.25, 1.0])
    rows = torch.tensor([0, 0, 0, 2, 3])  # rollout 1 has no step
    asked: list[str] = []

    def gains(intro: str) -> torch.Tensor:
        asked.append(intro)
        return torch.tensor([0.1, -0.2, 0.0, 0.0, 0.0], dtype=torch.float64)

    found = information_gain.transform(rewards, rows, torch.tensor([1.0, 0.0, 0.0, 0.5]), gains, intro="so ")
    assert found.tolist() == pytest.approx([0.6, -0.2, 1.0, 0.25, 1.5])
    assert asked == ["so "]


METHOD: dict[str, Any] = {
    "name": "grpo",
    "step_weight": 1.0,
    "step_transforms": [{"name": "information_gain", "options": {"intro": "so "}}],
    "step_baseline": "none",
    "return_per_step": False,
}


def test_without_a_prm_the_gains_are_the_steps_rewards() -> None:
    """Reward-to-go of two steps: gain and outcome, then the outcome."""
    table = make_rollouts(2, 2)
    gains = torch.tensor([0.1, 0.0, 0.2, 0.0, 0.3, 0.0, 0.4, 0.0])
    found = assign_credit(
        table,
        grades_of(table),
        None,
        MethodConfig(**METHOD),
        max_response_tokens=LIMIT,
        gains=lambda intro: gains,
    ).to_pylist()
    outcomes = table["outcome"].to_pylist()
    for row, outcome in enumerate(outcomes):
        assert found[row] == pytest.approx([0.1 * (row + 1) + outcome, outcome])
    assert len(set(outcomes)) == 2


def test_with_rewards_of_tokens_a_gain_stands_at_its_steps_last_token() -> None:
    table = make_rollouts(1, 2)
    lengths = [len(row) for row in table["response"].to_pylist()]
    scores = scores_of([[0.01] * length for length in lengths])
    method = MethodConfig(**METHOD, prm_objective="frozen", step_return="immediate")
    found = assign_credit(
        table,
        grades_of(table),
        scores,
        method,
        max_response_tokens=LIMIT,
        gains=lambda intro: torch.tensor([0.1, 0.0, 0.2, 0.0]),
    ).to_pylist()
    for row, (length, ends) in enumerate(zip(lengths, table["step_ends"].to_pylist(), strict=True)):
        wanted = [0.01] * length
        wanted[ends[0] - 1] += 0.1 * (row + 1)
        wanted[-1] += table["outcome"][row].as_py()
        assert found[row] == pytest.approx(wanted)


def test_transforms_without_step_rewards_are_refused_before_a_run() -> None:
    with pytest.raises(ConfigError, match=r"method\.step_weight above 0 needs a PRM"):
        load_config(None, ["method=grpo", "method.step_weight=0.5"])
    method = MethodConfig(**{**METHOD, "step_transforms": ["clip"]})
    with pytest.raises(DoorError, match=r"^method\.step_weight above 0 needs step rewards, which"):
        try_method(method, PRMConfig(), 8, reference=False, step_rewards=False)
    try_method(MethodConfig(**METHOD), PRMConfig(), 8, reference=False, step_rewards=False)
