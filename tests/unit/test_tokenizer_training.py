"""A tokenizer that is learned from the training texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from actors.commands.sft import prepare_model
from actors.train.launch_checks import base_policy
from airls_ray.config import Config, load_config
from airls_ray.errors import ConfigError, ModelError
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from airls_ray.text.make_tokenizer import train_tokenizer

TEXTS = ["Natalia sold 48/2 = 24 clips in May.", "Natalia sold 48+24 = 72 clips altogether."]
STRANGE = "Ünï→ 😀\n\n\tNatalia 1234"


def test_any_text_comes_back_and_digits_stand_alone(tmp_path: Path) -> None:
    train_tokenizer(TEXTS * 5, 280, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer.encode(STRANGE)
    assert tokenizer.decode(ids) == STRANGE
    assert [tokenizer.decode([one]) for one in tokenizer.encode("1234")] == ["1", "2", "3", "4"]
    assert len(tokenizer.encode("Natalia")) < len("Natalia")
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer)) == (0, 1, 280)


def test_the_codec_of_a_file_task_reads_it(tmp_path: Path) -> None:
    train_tokenizer(TEXTS, 300, tmp_path)
    (tmp_path / "a.jsonl").write_text("", encoding="utf-8")
    task = make_task(
        Config.model_validate(
            {
                "model": {"vocabulary": 300},
                "task": {
                    "name": "file",
                    "train_file": tmp_path / "a.jsonl",
                    "test_file": tmp_path / "b.jsonl",
                },
            }
        ).task
    )
    codec = TextCodec.from_folder(tmp_path, task)
    assert codec.decode(codec.encode_trace(STRANGE)) == STRANGE


def test_a_vocabulary_without_room_for_all_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no room for all bytes: give at least 258"):
        train_tokenizer(TEXTS, 100, tmp_path)


def test_a_file_task_without_model_and_vocabulary_is_refused_where_one_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("task: {name: file, train_file: a.jsonl, test_file: b.jsonl}\n", encoding="utf-8")
    config = load_config(file, [f"output={tmp_path}"])
    for needs_one in (lambda: base_policy(config), lambda: prepare_model(config, tmp_path / "new")):
        with pytest.raises(ConfigError, match=r"set model\.path to .* name, or model\.vocabulary"):
            needs_one()
