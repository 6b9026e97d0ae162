"""What the command line says, and returns, where something fails."""

from __future__ import annotations

import errno
import runpy
import sys

import pytest

from airls_ray.cli import main as cli
from airls_ray.errors import Interrupted, ModelError, ResourceError, RunError
from tests.unit.cli_fakes import DEMO, raising, wrapped

pytestmark = pytest.mark.usefixtures("files_parsed_once", "any_folder")


@pytest.mark.parametrize("arguments", [["trian"], ["train"], ["train", DEMO, "--nope"]])
def test_wrong_usage_is_one_line_and_code_2(arguments, capsys):
    assert cli.run(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert error.count("\n") == 1


def test_the_version_is_printed(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == "0.1.0"


def test_the_package_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["airls_ray", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("airls_ray", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == "0.1.0"


# ------------------------------------------------------------------------------------ failures
def test_a_wrong_configuration_is_one_sentence_and_code_2(capsys):
    assert cli.run(["train", DEMO, "rollout.temprature=1"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "Error: unknown key rollout.temprature; did you mean rollout.temperature?\n"
    assert captured.out == ""


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped], ids=["plain", "from an actor"])
def test_a_users_mistake_is_one_sentence_and_code_2(fake, capsys, wrap):
    fake("actors.train.launch", run_training=raising(wrap(ResourceError("asked for 8 GPUs, there are 2"))))
    assert cli.run(["train", DEMO]) == 2
    assert capsys.readouterr().err == "Error: asked for 8 GPUs, there are 2.\n"


def test_the_outer_of_two_sentences_is_shown():
    try:
        try:
            raise ModelError("inner")
        except ModelError as inner:
            raise RunError("outer") from inner
    except RunError as error:
        assert cli.sentence_of(error) == "outer"


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped], ids=["plain", "from an actor"])
def test_a_full_disk_is_one_sentence_and_code_2(fake, capsys, wrap):
    full = wrap(OSError(errno.ENOSPC, "No space left on device", "runs/x"))
    fake("actors.train.launch", run_training=raising(full))
    assert cli.run(["train", DEMO]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: the disk is full while runs/x was written: free some space")
    assert error.count("\n") == 1


def test_ctrl_c_gives_code_130_and_says_how_to_go_on(fake, capsys):
    fake("actors.train.launch", run_training=raising(Interrupted("--resume goes on with iteration 19 of 60")))
    assert cli.run(["train", DEMO]) == 130
    error = capsys.readouterr().err.strip()
    assert error == "Interrupted: --resume goes on with iteration 19 of 60."


def test_wrong_usage_names_the_help_of_its_own_command(capsys):
    for arguments, command in (
        (["train"], "airls-ray train"),
        (["data", "make", "--x"], "airls-ray data make"),
    ):
        assert cli.run(arguments) == 2
        assert f"see {command} --help" in capsys.readouterr().err
    assert cli.run(["trian"]) == 2
    assert "see airls-ray --help" in capsys.readouterr().err


def test_ctrl_c_elsewhere_gives_code_130(fake, capsys):
    fake("actors.search.search", run_search=raising(KeyboardInterrupt()))
    assert cli.run(["search", DEMO, "--policy", "p"]) == 130
    assert capsys.readouterr().err.strip() == "Interrupted: what was written stays readable."


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.EIO, "a broken disk")])
def test_our_own_faults_keep_their_traceback(fake, error):
    fake("actors.train.launch", run_training=raising(error))
    with pytest.raises(type(error)):
        cli.run(["train", DEMO])


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped], ids=["plain", "from an actor"])
def test_a_path_that_cannot_be_opened_or_made_is_one_sentence(wrap):
    for code, said in (
        (errno.EEXIST, "a file is where a folder must be"),
        (errno.ENOTDIR, "a file is where a folder must be"),
        (errno.EISDIR, "a folder is where a file must be"),
        (errno.ENOENT, "there is no such file or folder"),
        (errno.EACCES, "it may not be read or written"),
        (errno.EROFS, "its disk is read-only"),
    ):
        sentence = cli.sentence_of(wrap(OSError(code, "as the system says", "there/out")))
        assert sentence == f"cannot read or write there/out: {said}; give another path"


def test_an_output_below_a_file_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    for arguments in (
        ["data", "make", DEMO, "--problems", "2", "--output", f"{tmp_path}/file/made.jsonl"],
        ["data", "make", DEMO, "--problems", "2", "--output", f"{tmp_path}/file/made.parquet"],
    ):
        assert cli.run(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"Error: cannot write {tmp_path}/file/made.")
        assert error.count("\n") == 1
