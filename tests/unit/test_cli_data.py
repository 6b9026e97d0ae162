"""`airls-ray data`: files of problems made, checked and converted, over fakes of what is heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airls_ray.cli import main as cli
from tests.unit.cli_fakes import DEMO

pytestmark = pytest.mark.usefixtures("files_parsed_once", "any_folder")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_data_is_made_checked_and_converted(tmp_path, capsys, suffix):
    made, other = tmp_path / f"made.{suffix}", tmp_path / "other.jsonl"
    assert cli.run(["data", "make", DEMO, "--problems", "5", "--split", "test", "--output", str(made)]) == 0
    assert cli.run(["data", "check", str(made)]) == 0
    assert cli.run(["data", "convert", str(made), str(other)]) == 0
    output = capsys.readouterr().out
    assert "5 test problems of arithmetic" in output
    assert "5 problems, 5 traces, 0 problems without one" in output
    assert len(other.read_text().splitlines()) == 5


def test_data_make_passes_what_was_asked(fake):
    seen: list[tuple[Any, ...]] = []
    fake("airls_ray.data.commands", make_data=lambda *arguments: seen.append(arguments) or 5)
    command = ["data", "make", DEMO, "seed=3", "--problems", "5", "--split", "test", "--output", "x.jsonl"]
    assert cli.run(command) == 0
    assert seen[0][0].seed == 3
    assert seen[0][1:] == (Path("x.jsonl"), 5, "test")


def test_a_broken_data_row_is_one_sentence(tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "1+1", "answer": "2"}\n{"prompt": "1+2"}\n')
    assert cli.run(["data", "check", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path}, row 2" in error
    assert "answer" in error
    assert error.count("\n") == 1


def test_data_convert_wants_a_tokenizer_to_count_tokens(tmp_path, capsys):
    source, target = tmp_path / "mine.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "1+1", "answer": "2"}\n')
    assert cli.run(["data", "convert", str(source), str(target), "--max-tokens", "1"]) == 2
    assert "give --tokenizer and --max-tokens together" in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize("more", [[], ["--overwrite"], ["--format", "gsm8k"]])
def test_data_convert_never_replaces_its_source(tmp_path, capsys, more):
    source = tmp_path / "mine.jsonl"
    source.write_text('{"prompt": "1+1", "answer": "2"}\n')
    (tmp_path / "link.jsonl").symlink_to(source)
    for target in (source, tmp_path / "link.jsonl"):
        assert cli.run(["data", "convert", str(source), str(target), *more]) == 2
        assert "is the file that is read" in capsys.readouterr().err
    assert source.read_text() == '{"prompt": "1+1", "answer": "2"}\n'


def test_a_data_file_is_replaced_with_overwrite_alone(tmp_path, capsys):
    source, target = tmp_path / "mine.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "1+1", "answer": "2"}\n')
    for command in (
        ["convert", str(source), str(target)],
        ["make", DEMO, "--problems", "2", "--output", str(target)],
        ["unsolved", DEMO, "--output", str(target)],
    ):
        target.write_text("kept")
        assert cli.run(["data", *command]) == 2
        assert "--overwrite to replace it" in capsys.readouterr().err
        assert target.read_text() == "kept"
        if command[0] != "unsolved":
            assert cli.run(["data", *command, "--overwrite"]) == 0
            assert target.read_text() != "kept"


@pytest.mark.parametrize("more", [[], ["--field", "prompt=prompt", "--no-check-answers"]])
def test_data_convert_stops_at_a_bad_row_only_when_it_is_strict(tmp_path, capsys, more):
    source, target = tmp_path / "mine.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "1+1", "answer": "2"}\n{"prompt": "1+2"}\n')
    assert cli.run(["data", "convert", str(source), str(target), "--strict", *more]) == 2
    assert f"{source}, row 2" in capsys.readouterr().err
    assert not target.exists()
    assert cli.run(["data", "convert", str(source), str(target), *more]) == 0
    shown = capsys.readouterr().out
    assert f"{source}, row 2" in shown and "bad rows" in shown
    assert len(target.read_text().splitlines()) == 1
