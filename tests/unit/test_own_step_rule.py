"""Step rules of the user's own: on text and on tokens, and what is said of those that are none."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from airls_ray import doors
from airls_ray.config import load_config
from airls_ray.config.load import dump_config
from airls_ray.config.task_sections import FileTaskConfig
from airls_ray.data.check_task import steps_of
from airls_ray.errors import ConfigError, DoorError
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec, build_tokenizer
from airls_ray.text.make_tokenizer import train_tokenizer
from airls_ray.text.steps import STEP_RULE, StepRule, cut, named_rule, open_rule, piece_ends, rule_of

OWN = """
import re
def semicolons(text, sign=";"):
    return [match.end() for match in re.finditer(sign, text)]
class Arrows:
    stop = "->"
    def __init__(self, delimiter="x"):
        self.end = delimiter
    def ends(self, text):
        return (match.end() for match in re.finditer("->", text))
class Upper:
    def ends(self, text):
        return [at for at, letter in enumerate(text) if letter.isupper()]
    def surely_ends(self, piece):
        return piece == "!"
def falling(text): return [1, 0] if text else []
def outside(text): return [len(text) + 1]
def words(text): return text.split()
def raises(text): return [{}[text]]
def odd(txt): return []
def none(text): return None
def wrong_stop(text): return []
wrong_stop.stop = "\\n"
def no_text(text): return []
no_text.stop = ""
class Nothing: pass
def broken_later(text):
    return [{"known": 1}[text]] if "later" in text else []
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def rule(own: Path, name: str, **options: Any) -> StepRule:
    return open_rule(doors.find(STEP_RULE, f"{own}:{name}", "task.steps"), options, "\n\n")


def task_of(steps: str) -> Any:
    overrides = ["task=file", "task.train_file=a", "task.test_file=b", f"task.steps={steps}"]
    return load_config(None, overrides).task


def codec_of(folder: Path, steps: str) -> TextCodec:
    train_tokenizer(["a"], 258, folder)  # no merges: every token is a byte
    return TextCodec.from_folder(folder, make_task(task_of(steps)))


def test_a_function_cuts_text_and_blank_text_belongs_to_the_step_before(own: Path) -> None:
    assert cut("a;b;c; \n", rule(own, "semicolons")) == [2, 4]
    assert cut("a  b", rule(own, "semicolons", sign=" ")) == [3]


def test_tokens_are_cut_by_it_and_the_rule_is_looked_up_once(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = codec_of(own.parent, f"{own}:semicolons")
    monkeypatch.setattr(doors, "load", None)
    monkeypatch.setattr(doors, "find", None)
    tokens = codec.encode_trace("ab;c")
    assert codec.step_texts(tokens, codec.step_ends(tokens)) == ["ab;", "c"]


def test_without_a_sure_end_no_token_stops_a_sampler(own: Path) -> None:
    assert codec_of(own.parent, f"{own}:semicolons").step_stop_ids() == []
    assert rule(own, "semicolons").stop is None and not rule(own, "semicolons").stops


def test_what_a_rule_says_to_end_a_step_surely_stops_a_sampler(own: Path) -> None:
    assert rule(own, "Arrows").surely_ends("so ->") and not rule(own, "Arrows").surely_ends("-")
    codec = codec_of(own.parent, f"{own}:Upper")
    assert [codec.decode([token]) for token in codec.step_stop_ids()] == ["!"]


def test_the_text_that_ends_most_steps_is_its_own_or_the_sure_one_or_a_line_feed(own: Path) -> None:
    assert rule(own, "Arrows").end == "\n\n"  # `task.step_delimiter`, which it asks for
    assert rule(own, "semicolons").end == "\n"
    built_in = {"delimiter": "\n\n", "blank_lines": "\n\n", "lines": "\n", "numbered": "\n", "sentences": ""}
    assert {name: named_rule(name).end for name in built_in} == built_in


def test_the_delimiter_is_that_of_the_task(own: Path) -> None:
    task = task_of("delimiter").model_copy(update={"step_delimiter": ";"})
    assert steps_of(make_task(task), "a;b") == ["a;", "b"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("falling", r"gives the position 0 after 1 of 1, and positions must rise"),
        ("outside", "gives the position 1 after 0 of 0"),
        ("words", r"raises TypeError: 'str' object cannot be interpreted as an integer"),
        ("raises", r"raises KeyError: '' on the text ''"),
        ("none", "raises TypeError"),
        ("odd", r"takes 'txt', which nobody gives it \(did you mean 'text'\?\)"),
        ("wrong_stop", r"says by stop='\\n' that this text ends a step, but does not cut behind it"),
        ("no_text", r"has stop=the text '', and it must be a text, which for stop is not empty"),
        ("Nothing", r"has no method ends\(text\)"),
    ],
)
def test_what_is_no_rule_is_one_sentence_as_the_task_is_made(own: Path, name: str, said: str) -> None:
    with pytest.raises(
        DoorError, match=rf"task\.steps: .*own\.py:{name} {said}.*step_rules/lines\.py"
    ) as caught:
        make_task(task_of(f"{own}:{name}"))
    assert "\n" not in str(caught.value)


def test_a_rule_that_raises_later_is_one_sentence_that_names_its_line(own: Path) -> None:
    with pytest.raises(
        DoorError, match=r"broken_later raises KeyError: 'later' \(own\.py line 28\) on the text 'la"
    ):
        piece_ends(["la", "ter"], rule(own, "broken_later"))


def test_names_of_before_are_written_as_before(own: Path) -> None:
    for name in ("delimiter", "lines", "blank_lines", "sentences", "numbered", "code_lines"):
        assert task_of(name).model_dump(mode="json")["steps"] == name
    config = load_config(
        None, ["task=file", "task.train_file=a", "task.test_file=b", f"task.steps={own}:Upper"]
    )
    dump_config(config, own.parent / "config.yaml")
    assert load_config(own.parent / "config.yaml") == config


def test_the_code_travels(own: Path) -> None:
    sent = pickle.dumps(task_of(f"{own}:semicolons"))
    own.unlink()
    section: FileTaskConfig = pickle.loads(sent)
    assert cut("a;b", rule_of(make_task(section))) == [2]


def mixture(own: Path, *steps: str) -> Any:
    parts = [
        {"label": str(at), "task": {"name": "file", "train_file": "a", "test_file": "b", "steps": one}}
        for at, one in enumerate(steps)
    ]
    return make_task(load_config({"task": {"name": "mixture", "parts": parts}}).task)


def test_parts_of_a_mixture_may_have_the_same_rule_and_no_other(own: Path) -> None:
    assert rule_of(mixture(own, f"{own}:semicolons", f"{own}:semicolons")) == rule(own, "semicolons")
    with pytest.raises(ConfigError, match=r"different ways \(0 by .*:semicolons .*, 1 by lines"):
        mixture(own, f"{own}:semicolons", "lines")


def test_a_task_of_ones_own_names_a_rule(own: Path) -> None:
    class Task:
        step_delimiter = "\n"
        step_rule = f"{own}:semicolons"

    assert cut("a;b\nc", rule_of(Task())) == [2]


@pytest.mark.parametrize(
    ("steps", "ends"),
    [
        ("lines", [8, 12, 17]),
        ("blocks", [17]),
        ("code_lines", [12, 17]),  # the bracket is open at the first line feed
        ("own.py:semicolons", [11]),
    ],
)
def test_programs_end_their_steps_as_they_are_told(
    own: Path, monkeypatch: pytest.MonkeyPatch, steps: str, ends: list[int]
) -> None:
    monkeypatch.chdir(own.parent)
    files = {"train_file": own, "test_file": own}
    task = {"name": "code", **files, "steps": steps}
    config = load_config({"task": task, "verifier": {"deadline_seconds": 20}})
    assert cut("x = (1,\n2);\ny=1\n\nz=", rule_of(make_task(config.task))) == ends


def test_a_vocabulary_of_a_tasks_own_keeps_its_step_rule(own: Path, tmp_path: Path) -> None:
    """The words are run in Python; a delimiter that is no word of theirs is not asked for."""

    class Task:
        name = "signs"
        step_delimiter = "\n"
        step_rule = f"{own}:Arrows"

        def vocabulary(self) -> list[str]:
            return ["a", "b", "->", ";"]

    task: Any = Task()
    build_tokenizer(task, tmp_path)
    codec = TextCodec.from_folder(tmp_path, task)
    tokens = codec.encode_trace("a;->b->a")
    ends = codec.step_ends(tokens)
    assert codec.step_texts(tokens, ends) == ["a;->", "b->", "a"]
    assert [codec.decode([token]) for token in codec.step_stop_ids()] == ["->"]
