"""Characters in place of tokens: steps end where they end for a tokenizer whose tokens are characters."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airls_ray.config.schema import FileTaskConfig
from airls_ray.config.task_doors import StepRuleConfig
from airls_ray.tasks.families.file import FileTask
from airls_ray.text.character_codec import END, CharacterCodec
from airls_ray.text.codec import TextCodec
from airls_ray.text.make_tokenizer import train_tokenizer
from airls_ray.text.steps import named_rule, rule_of

RULES = ("delimiter", "lines", "blank_lines", "sentences", "numbered")
TEXTS = st.text(st.sampled_from("ab1. \n"), max_size=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bytes")
    train_tokenizer(["a"], 258, place)  # no merges: every token is a byte
    return place


def both(folder: Path, rule: str) -> tuple[CharacterCodec, TextCodec]:
    task = FileTask(
        FileTaskConfig(train_file=Path("a"), test_file=Path("b"), steps=StepRuleConfig(name=rule))
    )
    return CharacterCodec(str, rule_of(task)), TextCodec.from_folder(folder, task)


@pytest.mark.parametrize("rule", RULES)
def test_steps_end_where_those_of_a_byte_tokenizer_do(folder: Path, rule: str) -> None:
    characters, tokens = both(folder, rule)

    @given(TEXTS)
    def check(text: str) -> None:
        trace = tokens.encode_trace(text)
        assert characters.step_ends([*characters.encode(text), END]) == tokens.step_ends(trace)
        assert characters.step_ends(characters.encode(text)) == tokens.step_ends(trace[:-1])

    check()


@given(st.text(max_size=20))
def test_text_goes_there_and_back(text: str) -> None:
    codec = CharacterCodec(str, named_rule("lines"))
    assert codec.decode([*codec.encode(text), END]) == text


def test_half_a_character_becomes_the_replacement_character() -> None:
    codec = CharacterCodec(str, named_rule("lines"))
    assert codec.decode(codec.encode("a\ud83d")) == "a\ufffd"
