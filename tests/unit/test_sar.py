"""The self-aligned reward by hand, and a policy's log-probabilities without the problem in a plain loop."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from airls_ray.config.schema import MethodConfig
from airls_ray.credit.terms import sar
from airls_ray.learning.advantages import assign_credit
from airls_ray.learning.alone_logprobs import mean_logprobs_alone, takes_alone
from airls_ray.learning.engine import TorchEngine
from tests.tiny import make_policy_folder, make_rollouts, policy_module
from tests.unit.learning.fakes import TEMPERATURE, learner
from tests.unit.test_advantages import LIMIT, grades_of

EMPTY = [3, 5]


def perplexity(logprobs: list[float]) -> float:
    return math.exp(-sum(logprobs) / len(logprobs))


def self_aligned(given: list[float], alone: list[float]) -> float:
    """From the tokens' log-probabilities, in the paper's words."""
    return min(1.0, max(-1.0, (perplexity(alone) - perplexity(given)) / perplexity(alone)))


@pytest.mark.parametrize(
    ("given", "alone", "wanted"),
    [
        # perplexity 2 with the problem and 4 without; the same; 8 and 2: -3, clipped
        ([0.5, 0.5], [0.25, 0.25], 0.5),
        ([0.1, 0.4], [0.4, 0.1], 0.0),
        ([0.125], [0.5], -1.0),
        ([1.0, 1.0], [1e-3, 1e-5], 1.0 - 1e-4),
    ],
)
def test_the_reward_by_hand(given: list[float], alone: list[float], wanted: float) -> None:
    logs = [[math.log(p) for p in one] for one in (given, alone)]
    assert self_aligned(*logs) == pytest.approx(wanted)
    means = [torch.tensor([sum(one) / len(one)]) for one in logs]
    assert sar.term(*means).item() == pytest.approx(wanted, abs=1e-6)


def test_thousands_of_rewards_are_the_papers_formula() -> None:
    draw = random.Random(0)
    logs = [
        [[-draw.expovariate(0.2) for _ in range(draw.randint(1, 20))] for _ in range(2)] for _ in range(3000)
    ]
    given, alone = (torch.tensor([sum(pair[at]) / len(pair[at]) for pair in logs]) for at in (0, 1))
    wanted = torch.tensor([self_aligned(*pair) for pair in logs])
    torch.testing.assert_close(sar.term(given, alone), wanted, atol=1e-5, rtol=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy_folder(tmp_path_factory.mktemp("policy"))


def without_problem(folder: Path, response: list[int]) -> list[float]:
    """Log-probabilities of a response behind the empty prompt, by the model itself."""
    model = policy_module(folder).model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([EMPTY + response])).logits[0].double() / TEMPERATURE
    tables = logits.log_softmax(-1)[len(EMPTY) - 1 : -1]
    return [float(table[token]) for table, token in zip(tables, response, strict=True)]


def alone_of(folder: Path, table: pa.Table) -> torch.Tensor:
    engine = TorchEngine(policy_module(folder), learner(tokens_per_microbatch=60))
    return mean_logprobs_alone(
        engine, table, EMPTY, learner(tokens_per_microbatch=60), temperature=TEMPERATURE, pad_id=0
    )


def test_the_means_without_the_problem_are_the_models_own(folder: Path) -> None:
    table = make_rollouts(20, 5)
    found = alone_of(folder, table)
    wanted = [sum(without_problem(folder, row)) / len(row) for row in table["response"].to_pylist()]
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)


def test_the_reward_joins_the_outcome_at_its_weight(folder: Path) -> None:
    """The rollouts' own log-probabilities are -1 a token."""
    table = make_rollouts(2, 3)
    method = MethodConfig(
        name="grpo", outcome_advantage="none", outcome_terms=[{"name": "sar", "weight": 0.2}]
    )
    assert takes_alone(method)
    given = assign_credit(
        table, grades_of(table), None, method, max_response_tokens=LIMIT, alone=alone_of(folder, table)
    ).to_pylist()
    for row, outcome, response in zip(
        given, table["outcome"].to_pylist(), table["response"].to_pylist(), strict=True
    ):
        reward = self_aligned([-1.0] * len(response), without_problem(folder, response))
        assert row == pytest.approx([outcome + 0.2 * reward] * len(row), abs=1e-5)


def test_no_pass_is_made_for_terms_that_do_not_need_it(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def some(lengths, mean_logprobs_alone=None): return lengths * 1.0\n")
    for term in ("overlong", f"{tmp_path / 'own.py'}:some"):
        assert not takes_alone(MethodConfig(name="grpo", outcome_terms=[term]))
