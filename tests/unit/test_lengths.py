"""Problems and traces that do not fit the context."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.commands.prm_labels import training_problems
from actors.learn.sft_rank import held_out_problems
from actors.train import launch_checks
from actors.train.launch_checks import check_data, check_lengths
from airls_ray.config.schema import Config, TrainConfig
from airls_ray.console.choose import make_progress
from airls_ray.data.lengths import fit_of
from airls_ray.data.problems import ProblemStream, table_to_problems
from airls_ray.errors import ConfigError, DataError
from airls_ray.tasks import Problem, make_task
from airls_ray.text.codec import TextCodec, build_tokenizer

PROMPT, TRACE = "1+1=", "1+1=2;"  # 4 tokens, and 6 with the end of sequence (8 with the marks around them)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A tokenizer with a token for each character."""
    build_tokenizer(make_task(Config().task), tmp_path / "policy")
    return tmp_path / "policy"


def config_of(folder: Path, train: list[tuple[str, list[str]]], context: int, **task: Any) -> Config:
    rows = {"train": train, "test": [("9-1=", [])]}
    for name, problems in rows.items():
        lines = [
            json.dumps({"prompt": prompt, "answer": "2", "traces": traces}) for prompt, traces in problems
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    files = {"train_file": folder / "train.jsonl", "test_file": folder / "test.jsonl"}
    return Config(
        task={"name": "file", **files, **task},
        model={"path": "unused", "context_tokens": context},
        rollout={"max_response_tokens": 8},
        train={"problems_per_iteration": 4},
    )


def size(policy: Path, config: Config) -> tuple[int, int]:
    codec = TextCodec.from_folder(policy, make_task(config.task))
    return len(codec.encode_prompt(PROMPT)), len(codec.encode_trace(TRACE))


def drawn(config: Config, policy: Path, count: int) -> list[Problem]:
    task = make_task(config.task)
    fit = fit_of(config, TextCodec.from_folder(policy, task))
    return table_to_problems(ProblemStream(task, "train", 0, fit=fit).take(count))


LONG = [(PROMPT, [TRACE]), ("1+1+1+1+1+1+1=", [TRACE]), ("2+2=", [TRACE, "2+2=4;" * 9])]


@pytest.fixture
def limit(tmp_path: Path, policy: Path) -> int:
    """The context that the first problem of LONG fills."""
    return sum(size(policy, config_of(tmp_path, LONG, 99))) + 2


def test_what_is_too_long_is_found_before_a_run_however_late_it_comes(
    tmp_path: Path, policy: Path, limit: int
) -> None:
    short = [(f"{a}+{b}=", [TRACE]) for a in range(9) for b in range(9)]
    config = config_of(tmp_path, [*short, LONG[1]], limit)
    with pytest.raises(DataError, match=r"of 82 training problems, 1 prompt is .*'1\+1\+1\+1\+1\+1\+1='"):
        check_lengths(config, str(policy), 10_000, make_progress(), traces=True)


def test_of_traces_that_are_too_long_the_problem_is_named(tmp_path: Path, policy: Path, limit: int) -> None:
    config = config_of(tmp_path, [LONG[0], LONG[2]], limit)
    with pytest.raises(DataError, match=rf"of 2 .* 1 trace is .* {limit} tokens .* \('2\+2='\)"):
        check_lengths(config, str(policy), 10, make_progress(), traces=True)


def test_traces_count_only_where_they_are_used(tmp_path: Path, policy: Path, limit: int) -> None:
    config = config_of(tmp_path, [LONG[0], LONG[2]], limit)
    check_lengths(config, str(policy), 10, make_progress(), traces=False)


def test_what_fits_exactly_is_no_error(tmp_path: Path, policy: Path, limit: int) -> None:
    prompt, trace = size(policy, config_of(tmp_path, LONG[:1], 99))
    config = config_of(tmp_path, LONG[:1], max(prompt + trace, prompt + 8))
    check_lengths(config, str(policy), 10, make_progress(), traces=True)


def test_problems_that_are_skipped_are_counted_and_never_drawn(
    tmp_path: Path, policy: Path, limit: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, LONG, limit, bad_rows="skip")
    check_lengths(config, str(policy), 10, make_progress(), traces=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "of 3 training problems, 1 prompt is longer than" in said
    assert "and 1 trace is with the prompt longer than" in said
    found = drawn(config, policy, 8)
    assert len(found) == 8
    assert {(one.prompt, one.traces) for one in found} == {(PROMPT, (TRACE,)), ("2+2=", (TRACE,))}


@pytest.mark.parametrize("draw", [training_problems, held_out_problems], ids=["PRM labels", "accuracy check"])
def test_who_samples_training_problems_skips_those_that_are_too_long(
    tmp_path: Path, policy: Path, limit: int, draw: Callable[[Config, TextCodec], pa.Table]
) -> None:
    long = [(f"{LONG[1][0]}{number}=", [TRACE]) for number in range(20)]
    config = config_of(tmp_path, [*long, LONG[0], ("3+3=", [])], limit, bad_rows="skip")
    config = config.model_copy(update={"sft": config.sft.model_copy(update={"evaluate_problems": 2})})
    found = draw(config, TextCodec.from_folder(policy, make_task(config.task)))
    assert set() < set(found["prompt"].to_pylist()) <= {PROMPT, "3+3="}


def test_a_stream_goes_on_behind_the_problems_that_it_left_out(
    tmp_path: Path, policy: Path, limit: int
) -> None:
    config = config_of(tmp_path, LONG, limit, bad_rows="skip")
    task = make_task(config.task)
    fit = fit_of(config, TextCodec.from_folder(policy, task))
    whole = table_to_problems(ProblemStream(task, "train", 0, fit=fit).take(9))
    first = ProblemStream(task, "train", 0, fit=fit)
    begun = table_to_problems(first.take(4))
    rest = ProblemStream(task, "train", 0, start=first.position, fit=fit).take(5)
    assert begun + table_to_problems(rest) == whole


def test_a_file_of_which_nothing_fits_is_an_error(tmp_path: Path, policy: Path, limit: int) -> None:
    config = config_of(tmp_path, LONG[1:2], limit, bad_rows="skip")
    with pytest.raises(DataError, match="of 1 training problems, 1 prompt is"):
        check_lengths(config, str(policy), 10, make_progress(), traces=True)


def test_a_test_problem_is_never_left_out(tmp_path: Path, policy: Path, limit: int) -> None:
    config = config_of(tmp_path, LONG[:1], limit, bad_rows="skip")
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": LONG[1][0], "answer": "7"}))
    with pytest.raises(DataError, match="of 1 test problems, 1 prompt is"):
        check_data(config, str(policy), make_progress())
    check_lengths(config, str(policy), 10, make_progress(), traces=True)  # a warm start has no test


def test_an_evaluation_needs_a_test_problem(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_checks, "check_before", lambda *_, **__: None)  # it would start graders
    config = config_of(tmp_path, LONG[:1], 64)
    for skip in (0, 1):
        asked = {"evaluate_every": 1, "evaluation": {"skip": skip}}
        train = TrainConfig.model_validate({**config.train.model_dump(), **asked})
        with (
            nullcontext()
            if skip == 0
            else pytest.raises(ConfigError, match="skip is 1, but there are no more")
        ):
            check_data(config.model_copy(update={"train": train}), str(policy), make_progress())
