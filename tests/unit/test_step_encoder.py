"""The tokens that a PRM of this project reads of texts: those that it learned from."""

from __future__ import annotations

from pathlib import Path

from airls_ray.config.schema import FileTaskConfig
from airls_ray.prm.folder import PromptForm
from airls_ray.prm.items import StepText
from airls_ray.prm.step_encoder import StepEncoder
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from tests.unit.prm_folders import space_tokenizer


def test_steps_have_the_tokens_of_rollouts_where_a_tokenizer_puts_a_space_before_a_text(
    tmp_path: Path,
) -> None:
    space_tokenizer(tmp_path)
    task = make_task(FileTaskConfig(train_file="a.jsonl", test_file="b.jsonl", steps="lines"))
    codec = TextCodec.from_folder(tmp_path, task)
    response = codec.encode_trace("Add 1+2.\nThat is 3.\nSo 0.")
    steps = codec.step_texts(response, codec.step_ends(response))
    encoder = StepEncoder.from_folder(tmp_path, PromptForm())
    assert list(encoder.encode(StepText("What is 1+2-3?", steps)).tokens) == response
