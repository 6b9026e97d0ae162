"""Variables of the chat template: given to it wherever it is applied, and recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from airls_ray.config.load import dump_config, load_config, sections_of
from airls_ray.config.schema import Config, PRMConfig
from airls_ray.data.problems import problems_to_table
from airls_ray.errors import ConfigError
from airls_ray.grading.pool import GraderPool
from airls_ray.grading.table import requests_of
from airls_ray.prm.folder import PromptForm, read_prompt_form, write_prm_form
from airls_ray.prm.items import StepText
from airls_ray.prm.step_encoder import StepEncoder
from airls_ray.serving.prompts import PromptEncoder
from airls_ray.serving.requests import ChatRequest, parse
from airls_ray.tasks import Problem, make_task
from airls_ray.text.codec import TextCodec
from tests.unit.test_turn_ends import make

QWEN3 = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    "{% endif %}"
)
"""As of Qwen3: without thinking an empty thought stands before what the assistant says."""
TASK = {"name": "file", "train_file": "a", "test_file": "b"}


def config_of(**keywords: Any) -> Config:
    model = {"prompt_template": "chat", "chat_template_kwargs": keywords}
    return Config.model_validate({"task": TASK, "model": model})


def codec_of(folder: Path, **keywords: Any) -> TextCodec:
    make(folder, QWEN3)
    config = config_of(**keywords)
    return TextCodec.for_model(config.model, folder, make_task(config.task))


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, "<user>hi<assistant>"),
        ({"enable_thinking": True}, "<user>hi<assistant>"),
        ({"enable_thinking": False}, "<user>hi<assistant><think></think>"),
        ({"nobody_reads_this": [1]}, "<user>hi<assistant>"),
    ],
)
def test_the_template_is_given_its_variables(tmp_path: Path, keywords: Any, expected: str) -> None:
    codec = codec_of(tmp_path, **keywords)
    assert codec.decode(codec.encode_prompt("hi")) == expected


@pytest.mark.parametrize(
    ("ending", "thought"),
    [("<think>\n", "<think>\n"), ("<think>\n\n</think>\n\n", ""), ("<think> a", ""), ("", "")],
)
def test_graders_read_a_thought_that_the_template_opened(tmp_path: Path, ending: str, thought: str) -> None:
    make(tmp_path, "{% for m in messages %}{{ m.content }}{% endfor %}<assistant>{{ " + repr(ending) + " }}")
    config = config_of()
    codec = TextCodec.for_model(config.model, tmp_path, make_task(config.task))
    problems = problems_to_table([Problem("a", "6*7?", "42")])
    rollouts = pa.table({"problem_id": ["a"], "response": [codec.encode_trace("42?")], "step_ends": [[4]]})
    (request,) = requests_of(rollouts, problems, codec)
    assert (request.open_thought, request.response) == (thought, "42?")
    assert GraderPool.encode(None, request)[3] == f"{thought}42?"  # type: ignore[arg-type]


def test_prompts_are_what_transformers_makes_of_them(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    codec = codec_of(tmp_path, enable_thinking=False)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path)).apply_chat_template(
        [{"role": "user", "content": "hi"}],
        add_generation_prompt=True,
        return_dict=False,
        enable_thinking=False,
    )
    assert codec.encode_prompt("hi") == theirs


def test_requests_to_the_endpoint_get_the_same_prompt(tmp_path: Path) -> None:
    codec = codec_of(tmp_path, enable_thinking=False)
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
    [(_, tokens)] = PromptEncoder(codec).encode(parse(ChatRequest, body))
    assert codec.decode(tokens) == "<user>hi<assistant><think></think>"


def test_a_prm_folder_says_them_and_is_read_with_them(tmp_path: Path) -> None:
    codec = codec_of(tmp_path, enable_thinking=False)
    write_prm_form(PRMConfig(), tmp_path, PromptForm.of(config_of(enable_thinking=False)))
    form = read_prompt_form(tmp_path)
    assert form is not None and form.chat_template_kwargs == {"enable_thinking": False}
    item = StepText("hi", ["one\n"], finished=True)
    assert list(StepEncoder.from_folder(tmp_path, form).encode(item).prefix) == codec.encode_prompt("hi")


def test_without_them_a_prm_folder_is_as_it_was(tmp_path: Path) -> None:
    write_prm_form(PRMConfig(), tmp_path, PromptForm.of(config_of()))
    said = json.loads((tmp_path / "prm.json").read_text())["prompt"]
    assert said == {"template": "chat", "system": "", "user": "{prompt}", "step_end": ""}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.chat_template_kwargs.enable_thinking=false"], r"set prompt_template=chat"),
        (["model.prompt_template=chat", "model.chat_template_kwargs=[1]"], r"chat_template_kwargs must be a"),
        (
            ["model.prompt_template=chat", "model.chat_template_kwargs.tokenize=true"],
            r"but tokenize is set by",
        ),
        (["model.prompt_template=chat", "model.chat_template_kwargs.day=2024-01-01"], r"must hold texts"),
    ],
)
def test_keywords_that_cannot_be_are_one_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_config(None, overrides)


def test_a_configuration_with_them_is_read_as_it_was_written() -> None:
    config = config_of(enable_thinking=False, budget=3)
    assert load_config(sections_of(yaml.safe_load(dump_config(config)))) == config
