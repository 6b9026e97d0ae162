"""A PRM from stored rollouts: its held-out figures, and labels of stored rollouts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from airls_ray.config.schema import Config, LearnerConfig
from airls_ray.config.supervised_section import LabelRuleConfig
from airls_ray.data.rollout_files import StoredRollouts
from airls_ray.data.schemas import STORED_ROLLOUTS, rows_to_table
from airls_ray.learning.engine import TorchEngine
from airls_ray.prm.offline import (
    SelectionFigures,
    offline_training,
    split_stored,
    updates_of_an_epoch,
)
from airls_ray.prm.offline_method import choose_method
from airls_ray.prm.step_labels import label_stored
from airls_ray.prm.training import run_epochs
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer
from tests.tiny import prm_module
from tests.unit.offline_fakes import engine_of, settings, stored, values_at


# --------------------------------------------------------------------------------------- figures
def separable(problems: int = 24) -> StoredRollouts:
    """A correct solution ends its steps with token 5, a wrong one with 6; the rest is noise."""
    rng = np.random.default_rng(7)
    rows, traces = [], []
    for problem in range(problems):
        prompt = rng.integers(7, 12, 3).tolist()
        for number in range(4):
            end = 5 if number % 2 else 6
            response = [*rng.integers(7, 12, 2).tolist(), end, *rng.integers(7, 12, 2).tolist(), end]
            rows.append((f"p{problem}", prompt, response, [3, 6], None, float(number % 2), str(number % 2)))
        response = [*rng.integers(7, 12, 2).tolist(), 5]
        traces.append((f"p{problem}", prompt, response, [3], None, 1.0, None))
    return StoredRollouts(rows_to_table(rows, STORED_ROLLOUTS), rows_to_table(traces, STORED_ROLLOUTS))


@pytest.mark.parametrize("method", ["airl_s", "repirl", "orm"])
def test_a_prm_learns_to_choose_on_problems_that_it_has_not_seen(folder: Path, method: str) -> None:
    data = separable()
    config = settings(method, search_aggregate="mean")
    chosen = choose_method(config, data)
    engine = TorchEngine(prm_module(folder, "scalar_head"), config.prm.learner)
    labels = (
        label_stored(data.rollouts, Unread(), LabelRuleConfig(name="outcome")) if method == "orm" else None
    )
    training = offline_training(engine, config, chosen, data, labels, pad_id=0)
    lines = [line for line, _ in run_epochs(training, config.supervised_prm.epochs)]
    assert lines[0]["prm/best_of_n"] == 0.5  # a new head scores all alike
    assert lines[-1]["prm/best_of_n"] == 1.0
    assert lines[-1]["prm/trace_auroc"] > 0.9
    learn, _ = split_stored(data, config.supervised_prm.held_out, config.seed)
    assert len(lines) == 1 + 3 * updates_of_an_epoch(config, chosen, learn)


class Unread:
    """A codec whose texts do not matter."""

    def decode(self, tokens: list[int]) -> str:
        return ""

    def step_texts(self, response: list[int], ends: list[int]) -> list[str]:
        return ["" for _ in ends]


def test_lines_are_numbered_and_close_epochs_with_figures(folder: Path) -> None:
    config = settings()
    data = separable(8)
    training = offline_training(
        engine_of(folder, config), config, choose_method(config, data), data, None, pad_id=0
    )
    lines, closes = zip(*run_epochs(training, 2), strict=True)
    assert [line["update"] for line in lines] == [0, 1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in lines] == [0, 1, 1, 1, 2, 2, 2]
    assert [at for at, closed in enumerate(closes) if closed] == [3, 6]
    assert [at for at, line in enumerate(lines) if "prm/best_of_n" in line] == [0, 3, 6]


def test_figures_of_several_ranks_are_those_of_one(folder: Path) -> None:
    config = settings(discriminator="gail", reward="f")
    table = stored(6, 3).rollouts

    class Half(TorchEngine):
        """Rank `rank` of two: what the other rank would add comes from `others`."""

        def __init__(self, rank: int, others: list[dict[str, float]] | None) -> None:
            super().__init__(engine_of(folder, config).module, LearnerConfig())
            self.rank, self.world_size = rank, 2
            self.said: list[dict[str, float]] = []
            self.others = others

        def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
            self.said.append(dict(values))
            other = {} if self.others is None else self.others[len(self.said) - 1]
            return {name: value + other.get(name, 0.0) for name, value in values.items()}

    first = Half(0, None)
    SelectionFigures(first, config, table, pad_id=0).measure()
    both = SelectionFigures(Half(1, first.said), config, table, pad_id=0).measure()
    alone = SelectionFigures(engine_of(folder, config), config, table, pad_id=0).measure()
    assert both == pytest.approx(alone, rel=1e-5, nan_ok=True)


def test_scores_stand_at_the_steps_of_their_rows(folder: Path) -> None:
    """Micro-batches are sorted by length: the scores must come back in the table's order."""
    config = settings(discriminator="gail", reward="f")
    table = stored(6, 3).rollouts
    engine = engine_of(folder, config)
    got = SelectionFigures(engine, config, table, pad_id=0).step_scores()
    wanted = [1 / (1 + math.exp(-f)) for row in values_at(engine, table, "steps") for f in row]
    assert got.tolist() == pytest.approx(wanted, abs=1e-5)


# ---------------------------------------------------------------------------------------- labels
def test_outcome_labels_stand_at_the_last_step_with_its_text(tmp_path: Path) -> None:
    task = make_task(Config().task)
    build_tokenizer(task, tmp_path)
    codec = TextCodec.from_folder(tmp_path, task)
    response = codec.encode_trace("7+3=0;0*4=0;")
    row = ("p", codec.encode_prompt("7+3*4="), response, codec.step_ends(response), None, 0.75, None)
    (label,) = label_stored(
        rows_to_table([row], STORED_ROLLOUTS), codec, LabelRuleConfig(name="outcome")
    ).to_pylist()
    assert label["labels"] == [None, 0.75]
    assert (label["prompt_text"], label["step_texts"]) == ("7+3*4=", ["7+3=0;", "0*4=0;"])
    assert (label["outcome"], label["logprobs"], label["step_truth"]) == (0.75, None, None)
