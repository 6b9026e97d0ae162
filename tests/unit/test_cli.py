"""The command line, over fakes of what it calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.text import Text
from safetensors.numpy import save_file

from airls_ray.cli import main as cli
from airls_ray.config import Config, load_config
from airls_ray.models.check import check_model_folder
from tests.unit.cli_fakes import DEMO

pytestmark = pytest.mark.usefixtures("files_parsed_once", "any_folder")


# ------------------------------------------------------------------------------------ commands
def test_train_passes_the_configuration_and_resume_and_prints_sizes_and_result(fake, capsys):
    seen: list[tuple[Config, bool]] = []

    def run_training(config: Config, resume: bool) -> dict[str, Any]:
        seen.append((config, resume))
        return {"accuracy": {"trained": {"sampled": 0.625}}, "versions": {"torch": "2.13"}}

    fake("actors.train.launch", run_training=run_training)
    fake("actors.commands.demo", show_summary=lambda summary, progress: print(summary["accuracy"]))
    assert cli.run(["train", DEMO, "seed=7", "--resume", "train.problems_per_iteration=12"]) == 0
    config, resume = seen[0]
    assert (config.seed, config.train.problems_per_iteration, resume) == (7, 12, True)
    output = capsys.readouterr().out
    assert "rollouts per iteration" in output
    assert "48" in output
    assert "report.html" in output
    assert "0.625" in output


def test_sft_writes_to_the_folder_that_training_reads_unless_told(fake, tmp_path):
    folders: list[Path] = []
    fake("actors.train.launch_checks", warm_start_folder=lambda config: Path("runs") / config.name / "sft")
    fake(
        "actors.commands.sft",
        run_sft=lambda config, folder, resume: folders.append(folder) or {"accuracy": 0.5},
    )
    assert cli.run(["sft", DEMO]) == 0
    assert cli.run(["sft", DEMO, "--output", str(tmp_path)]) == 0
    assert folders == [Path("runs/demo_arithmetic/sft"), tmp_path]


@pytest.mark.parametrize("command", ["sft", "train"])
def test_missing_problems_are_said_before_anything_is_loaded(command, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "actors", None)  # an import of it is an error
    own = f"model.vocabulary=100 task=file task.train_file={tmp_path}/gone.jsonl task.test_file=gone.jsonl"
    assert cli.run([command, DEMO, *own.split()]) == 2
    assert capsys.readouterr().err.startswith(f"Error: there is no problem file {tmp_path}/gone.jsonl")


def test_train_prm_names_too_long_a_context_before_anything_is_loaded(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "actors", None)  # an import of it is an error
    monkeypatch.setattr("airls_ray.models.check.check_model_folder", check_model_folder)
    model = {"model_type": "qwen3", "vocab_size": 32, "max_position_embeddings": 16}
    (tmp_path / "config.json").write_text(json.dumps(model))
    save_file({"weight": np.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    assert cli.run(["train-prm", DEMO, "--policy", str(tmp_path)]) == 2
    assert "takes 16 tokens (max_position_embeddings)" in capsys.readouterr().err


def test_train_prm_takes_the_policy_that_training_starts_from_unless_told(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("l.parquet").touch()
    seen: list[tuple[Any, ...]] = []
    fake("actors.train.launch_checks", base_policy=lambda config: "warm")
    fake(
        "actors.commands.train_prm", train_prm=lambda *given, labels: seen.append((*given[1:], labels)) or {}
    )
    assert cli.run(["train-prm", DEMO, f"output={tmp_path}"]) == 0
    command = ["train-prm", DEMO, "--policy", "p", "--output", str(tmp_path), "--labels", "l.parquet"]
    assert cli.run(command) == 0
    default = tmp_path / "demo_arithmetic" / "train_prm"
    assert seen == [("warm", default, None), ("p", tmp_path, Path("l.parquet"))]


def test_train_prm_learns_from_stored_rollouts_without_sampling(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl", "t.jsonl", "p.jsonl"):
        Path(name).touch()
    seen: list[tuple[Any, ...]] = []
    fake("actors.train.launch_checks", base_policy=lambda config: "warm")
    files = lambda rollouts, traces, problems: (rollouts, traces, problems)  # noqa: E731
    fake(
        "actors.commands.train_prm_offline",
        StoredFiles=files,
        train_prm_offline=lambda *given: seen.append(given[1:]) or {},
    )
    command = ["train-prm", DEMO, "--rollouts", "a.jsonl", "--rollouts", "b.jsonl", "--output", str(tmp_path)]
    assert cli.run([*command, "--traces", "t.jsonl", "--problems", "p.jsonl"]) == 0
    assert cli.run([*command, "prm.path=a/prm", "task.train_file=own.jsonl"]) == 0
    both = [Path("a.jsonl"), Path("b.jsonl")]
    assert seen == [
        ("warm", tmp_path, (both, Path("t.jsonl"), Path("p.jsonl"))),
        ("a/prm", tmp_path, (both, None, Path("own.jsonl"))),
    ]


def test_train_prm_learns_from_labelled_steps_without_sampling(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        Path(name).touch()
    seen: list[Any] = []
    fake("actors.train.launch_checks", base_policy=lambda config: "warm")
    fake("actors.commands.train_prm", train_prm=lambda *given, steps: seen.append((given[1], steps)) or {})
    command = ["train-prm", DEMO, "--steps", "a.jsonl", "--steps", "b.jsonl", "--output", str(tmp_path)]
    assert cli.run(command) == 0
    assert cli.run([*command, "--data-format", "math_shepherd", "prm.path=a/prm"]) == 0
    both = [Path("a.jsonl"), Path("b.jsonl")]
    found = [(policy, steps.paths, steps.form) for policy, steps in seen]
    assert found == [("warm", both, None), ("a/prm", both, "math_shepherd")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--labels", "l.parquet", "--rollouts", "a.jsonl"], "give either --labels or --rollouts, not both"),
        (["--steps", "a.jsonl", "--rollouts", "a.jsonl"], "give either --steps or --rollouts, not both"),
        (["--steps", "nowhere.jsonl"], "--steps: there is no file nowhere.jsonl"),
        (["--data-format", "stepwise"], "--data-format is the form of labelled steps"),
        (["--traces", "t.jsonl"], "--traces and --problems belong to stored rollouts"),
    ],
)
def test_train_prm_refuses_files_that_do_not_go_together(capsys, options, said):
    assert cli.run(["train-prm", DEMO, *options]) == 2
    assert said in capsys.readouterr().err


def test_train_prm_refuses_a_form_that_labels_cannot_teach(tmp_path, capsys):
    assert cli.run(["train-prm", DEMO, "--policy", "owner/name", "--output", str(tmp_path / "out")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "train-prm needs prm.search_score=ratio" in said and "prm.parameterisation=scalar_head" in said
    assert not list(tmp_path.iterdir())


def test_a_run_folder_serves_as_configuration(fake, tmp_path):
    from airls_ray.config.load import dump_config

    seen: list[Config] = []
    fake("actors.train.launch", run_training=lambda config, resume: seen.append(config) or {})
    dump_config(Config(seed=11), tmp_path / "config.yaml")
    assert cli.run(["train", str(tmp_path)]) == 0
    assert seen[0].seed == 11


@pytest.mark.parametrize("name", ["run", "another", "mein Lauf (2)", ".kept"])
def test_a_run_folder_is_itself_whatever_it_is_called(fake, tmp_path, monkeypatch, name):
    """The run was made as runs/run from another folder, where another run of that name is now."""
    from airls_ray.runs.run_folder import RunFolder

    seen: list[tuple[Any, ...]] = []
    fake("actors.search.search", run_search=lambda *arguments: seen.append(arguments) or {})
    other = RunFolder(tmp_path / "runs" / "run")
    moved = RunFolder(tmp_path / "kept" / name)
    for run in (other, moved):
        run.create(Config(name="run"))
        (run.checkpoints_folder / "iteration_000003" / "policy").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for given in (moved.path, moved.path.relative_to(tmp_path)):
        assert cli.run(["search", str(given)]) == 0
    monkeypatch.chdir(moved.path)
    assert cli.run(["search", "."]) == 0
    for config, policy, _, target, _ in seen:
        assert policy == moved.checkpoints_folder / "iteration_000003" / "policy"
        assert target == moved.path / "search"
        assert config.output / config.name == moved.path


def test_a_run_folder_gives_a_new_run_its_settings(fake, tmp_path):
    from airls_ray.runs.run_folder import RunFolder

    seen: list[Config] = []
    fake("actors.train.launch", run_training=lambda config, resume: seen.append(config) or {})
    RunFolder(tmp_path / "old").create(Config(seed=11))
    assert cli.run(["train", str(tmp_path / "old"), "name=new"]) == 0
    assert cli.run(["train", str(tmp_path / "old"), f"output={tmp_path / 'x'}"]) == 0
    assert [one.output / one.name for one in seen] == [tmp_path / "new", tmp_path / "x" / "old"]
    assert {one.seed for one in seen} == {11}


def test_search_takes_policy_and_prm_of_the_latest_checkpoint(fake, tmp_path):
    seen: list[tuple[Any, ...]] = []
    fake("actors.search.search", run_search=lambda *arguments: seen.append(arguments) or {})
    checkpoints = tmp_path / "x" / "checkpoints"
    newest = checkpoints / "iteration_000040"
    for folder in (newest / "policy", newest / "prm"):
        folder.mkdir(parents=True)
    (checkpoints / "latest").write_text("iteration_000040\n")
    assert cli.run(["search", DEMO, f"output={tmp_path}", "name=x"]) == 0
    assert seen[0][1:] == (newest / "policy", newest / "prm", tmp_path / "x" / "search", False)


def test_search_takes_no_prm_beside_a_policy_of_ones_own(fake, tmp_path):
    seen: list[tuple[Any, ...]] = []
    fake("actors.search.search", run_search=lambda *arguments: seen.append(arguments) or {})
    arguments = ["search", DEMO, "--policy", "elsewhere", "--output", str(tmp_path)]
    assert cli.run(arguments) == 0
    assert seen[0][1:] == (Path("elsewhere"), None, tmp_path, False)


def test_search_runs_the_algorithms_and_budgets_that_are_named(fake, tmp_path):
    from airls_ray.search.registry import ready_searches

    seen: list[Any] = []
    fake("actors.search.search", run_search=lambda config, *rest: seen.append(config.search) or {})
    common = ["search", DEMO, "--policy", "elsewhere", "--output", str(tmp_path)]
    assert cli.run([*common, "--algorithm", "beam", "--algorithm", "mcts", "--budget", "8"]) == 0
    assert cli.run([*common, "--algorithm", "all"]) == 0
    assert (seen[0].algorithms, seen[0].budgets) == (["beam", "mcts"], [8])
    assert (seen[1].algorithms, seen[1].budgets) == (ready_searches(), [16])


def test_an_unknown_algorithm_is_named_with_those_that_exist(tmp_path, capsys):
    assert cli.run(["search", DEMO, "--policy", "elsewhere", "--algorithm", "bema"]) == 2
    message = capsys.readouterr().err
    assert "search.algorithms" in message
    assert "beam" in message


def test_search_without_a_checkpoint_says_what_to_do(tmp_path, capsys):
    assert cli.run(["search", DEMO, f"output={tmp_path}"]) == 2
    assert "train it first, or give --policy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--endpoint", "http://x/v1", "--policy", "p"], "--policy and --endpoint exclude each other"),
        (["--endpoint", "http://x/v1", "--resume"], "leave --resume out"),
        (["--model", "m"], "give it by --endpoint"),
        (["--tokenizer", "t"], "give it by --endpoint"),
    ],
)
def test_search_refuses_options_that_it_would_not_read(fake, capsys, options, said):
    fake("actors.search.search", run_search=lambda *_: {})
    fake("airls_ray.search.endpoint_task", search_task_by_endpoint=lambda *_, **__: {})
    assert cli.run(["search", DEMO, "--prm", "elsewhere", *options]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "sft",
        "search",
        "evaluate",
        "serve",
        "train-prm",
        "config",
        "data check",
        "data make --output x.jsonl",
    ],
)
def test_every_command_that_takes_a_configuration_trusts_run_folders_alone(command, capsys):
    assert cli.run([*command.split(), DEMO, "--trust"]) == 2
    assert "--trust is for the code that a run folder names" in " ".join(capsys.readouterr().err.split())


def test_evaluate_refuses_a_model_name_without_an_endpoint(capsys):
    assert cli.run(["evaluate", DEMO, "--model", "x"]) == 2
    assert "give its address by --endpoint" in capsys.readouterr().err


def test_report_wants_a_run_folder(tmp_path, capsys, fake):
    fake("airls_ray.report", write_report=lambda run: run / "report.html")
    assert cli.run(["report", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("seed: 1")
    assert cli.run(["report", str(tmp_path)]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out.replace("\n", "")


def test_demo_runs_the_demo_configuration(fake):
    seen: list[Config] = []
    fake("actors.commands.demo", run_demo=seen.append)
    assert cli.run(["demo", "seed=3"]) == 0
    assert (seen[0].name, seen[0].seed) == ("demo_arithmetic", 3)


def test_doctor_fails_where_something_needed_is_missing(monkeypatch, capsys):
    from airls_ray import doctor

    fine = doctor.Check("a", doctor.Status.WARN, "found")
    monkeypatch.setattr(doctor, "run_checks", lambda: [fine])
    assert cli.run(["doctor"]) == 0
    monkeypatch.setattr(doctor, "run_checks", lambda: [fine, doctor.Check("b", doctor.Status.MISSING, "no")])
    assert cli.run(["doctor"]) == 1
    assert "Not ready: b." in capsys.readouterr().err


def test_no_help_loses_brackets_that_read_as_markup():
    def helps(command: Any, path: str) -> Iterator[tuple[str, str]]:
        yield path, command.help or ""
        for parameter in command.params:
            yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
        for name, below in getattr(command, "commands", {}).items():
            yield from helps(below, f"{path} {name}")

    found = list(helps(typer.main.get_command(cli.app), "airls-ray"))
    assert len(found) > 100
    assert not [path for path, text in found if Text.from_markup(text).plain != text]


def test_config_prints_what_the_other_commands_read(capsys, tmp_path):
    overrides = ["method=prime", "prm.prime.beta=0.1"]
    assert cli.run(["config", DEMO, *overrides]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    assert load_config(shown) == load_config(Path(DEMO), overrides)
