"""PrefixRL: prompts that begin a right trace, verdicts on the whole, and streams that can be resumed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from airls_ray.config import load_config
from airls_ray.config.task_choice import runs_programs
from airls_ray.errors import ConfigError, DoorError
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem, Task, WrapsPrompts
from airls_ray.tasks.families.arithmetic import ArithmeticTask, apply, read_chain
from airls_ray.tasks.families.prefix_rl import PrefixRL
from airls_ray.text.messages import history_of
from tests.unit.row_files import write

CHAINS = {"name": "arithmetic", "operations": 10, "modulus": 50}


PLAIN = ArithmeticTask(load_config({"task": CHAINS}).task)  # type: ignore[arg-type]


def opened(**options: Any) -> Task:
    section = {"name": "prefix_rl", "options": {"task": CHAINS, **options}}
    return make_task(load_config({"task": section}).task)


def train(task: Task, number: int, seed: int = 0, start: int = 0) -> list[Problem]:
    return list(islice(task.problems("train", seed, start), number))


def chain(prompt: str) -> tuple[str, str, str]:
    """Question, prefix and the whole right response of a prompt, worked out by itself."""
    question, _, prefix = prompt.partition("=")
    value, terms = read_chain(question)
    response = ""
    for operator, right in terms:
        left, value = value, apply(value, operator, right, 50)
        response += f"{left}{operator}{right}={value};"
    return f"{question}=", prefix, response


def test_a_share_of_the_problems_begins_with_a_part_of_the_right_chain() -> None:
    found = train(opened(), 3000)
    parts = [chain(one.prompt) for one in found]
    prefixed = [(prefix, whole) for _, prefix, whole in parts if prefix]
    assert len(prefixed) / len(found) == pytest.approx(0.75, abs=0.03)
    for prefix, whole in prefixed:
        assert whole.startswith(prefix) and prefix.endswith(";")
    steps = np.array([prefix.count(";") for prefix, _ in prefixed])
    # Uniform between 4 and 8 of ten steps of nearly equal length, at the nearest end
    assert (steps.min(), steps.max()) == (4, 8)
    shares = np.bincount(steps)[4:] / len(steps)
    assert shares == pytest.approx([1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], abs=0.04)


def test_the_trace_of_a_prefixed_problem_is_the_rest_of_it() -> None:
    for one in train(opened(), 200):
        _, prefix, whole = chain(one.prompt)
        assert one.traces == (whole[len(prefix) :],)


def test_verdicts_are_on_prefix_and_response() -> None:
    task = opened()
    for one in train(task, 200):
        question, prefix, whole = chain(one.prompt)
        rest = whole[len(prefix) :]
        wrong = rest[: rest.rindex("=")] + "=99;"
        assert task.grade(one, rest).outcome == 1.0
        assert task.grade(one, wrong) == PLAIN.grade(PLAIN.problem(question), prefix + wrong)
        assert task.grade(one, wrong).outcome == 0.0
        if prefix:
            assert task.grade(one, whole).outcome == 0.0


def test_steps_are_judged_behind_those_of_the_prefix() -> None:
    task = opened(share=1.0)
    for one in train(task, 100):
        question, prefix, whole = chain(one.prompt)
        before, steps = ([f"{step};" for step in text.split(";")[:-1]] for text in (prefix, whole))
        steps = steps[len(before) :]
        assert task.step_truth(one, steps) == [True] * len(steps)
        steps[0] = "0+0=49;"
        alone = PLAIN.step_truth(PLAIN.problem(question), [*before, *steps])
        assert task.step_truth(one, steps) == alone[len(before) :]


@pytest.mark.parametrize("start", [1, 17])
def test_a_resumed_stream_goes_on_where_it_ended(start: int) -> None:
    task = opened()
    whole = train(task, 60, seed=3)
    assert train(task, 60 - start, seed=3, start=start) == whole[start:]
    assert len({one.problem_id for one in whole}) == 60


def test_the_test_set_has_no_prefixes_and_the_settings_are_kept_to() -> None:
    assert all(chain(one.prompt)[1] == "" for one in opened().problems("test", 0))
    assert all(chain(one.prompt)[1] == "" for one in train(opened(share=0.0), 100))
    narrow = train(opened(share=1.0, shortest=0.0, longest=0.0), 100)
    assert {chain(one.prompt)[1].count(";") for one in narrow} == {1}


def of_file(folder: Path, **options: Any) -> Task:
    first = {"prompt": "How many?", "answer": "4", "traces": ["Two.\n\nTwo more.\n\n#### 4"]}
    others = [{"prompt": "Which?", "answer": "1"}, {"prompt": "Why?", "answer": "2", "traces": ["#### 2"]}]
    section = {
        "name": "file",
        "train_file": str(write(folder / "a.jsonl", first, *others)),
        "test_file": str(write(folder / "b.jsonl", {"prompt": "When?", "answer": "3"})),
        "system_prompt": "Think.",
        "prompt_template": "{prompt} Go on.",
    }
    return PrefixRL(section, share=1.0, **options)  # type: ignore[return-value]


def test_words_around_a_problem_come_before_the_prefix(tmp_path: Path) -> None:
    task = of_file(tmp_path, between="\nBegun:\n", shortest=0.0, longest=0.0)
    assert not isinstance(task, WrapsPrompts)
    found = {one.answer: one for one in islice(task.problems("train", 0), 3)}
    assert found["4"].prompt == "How many? Go on.\nBegun:\nTwo.\n\n"
    assert found["4"].traces == ("Two more.\n\n#### 4",)
    assert history_of(found["4"].details) == [{"role": "system", "content": "Think."}]
    assert task.grade(found["4"], "Two more.\n\n#### 4").outcome == 1.0


def test_without_a_trace_of_two_steps_a_problem_stays_as_it_is(tmp_path: Path) -> None:
    found = {one.answer: one for one in islice(of_file(tmp_path).problems("train", 0), 3)}
    assert (found["1"].prompt, found["1"].traces) == ("Which? Go on.", ())
    assert (found["2"].prompt, found["2"].traces) == ("Why? Go on.", ("#### 2",))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share": 1.5}, "takes share from 0 to 1, not 1.5"),
        ({"share": "much"}, "takes share from 0 to 1, not 'much'"),
        ({"shortest": 0.9}, "takes shortest up to longest"),
        ({"task": {"name": "own.py:Sums"}}, r"built-in parts, and own\.py:Sums is code of your own"),
        ({"task": {**CHAINS, "reward": "length"}}, "a task without rewards"),
        ({"task": {"name": "arithmetic", "modulo": 5}}, "modulo"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises((DoorError, ConfigError), match=said):
        opened(**options)


def test_a_task_of_programs_is_seen_and_may_have_its_deadline() -> None:
    code = {"name": "code", "train_file": "a", "test_file": "b", "format": "mbpp"}
    section = {"name": "prefix_rl", "options": {"task": code}}
    task = load_config({"verifier": {"deadline_seconds": 30}, "task": section}).task
    assert runs_programs(task) and make_task(task).name == "prefix_rl"
    with pytest.raises(ConfigError, match="a program may take"):
        load_config({"verifier": {"deadline_seconds": 5}, "task": section})


def test_a_problem_of_another_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="none of prefix_rl"):
        opened().grade(Problem("x", "1+1=", "2"), "1+1=2;")
