"""Doors: what a name in a configuration leads to, and what is said where it leads nowhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airls_ray import door_types, doors
from airls_ray.cli.main import run
from airls_ray.config.load import dump_config, load_config, load_run_config, with_absolute_paths
from airls_ray.doors import Door, Kind
from airls_ray.errors import ConfigError, DoorError

WHERE = "task.reward"
REWARD = doors.kind_of("reward")


@pytest.fixture(autouse=True)
def imports() -> Iterator[None]:
    """What a test imports from its own folder is forgotten after it."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, text: str, name: str = "own.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def find(name: str) -> Door:
    return doors.find(REWARD, name, WHERE)


def opened(name: str, **options: Any) -> Any:
    return doors.load(find(name), WHERE, options)


def test_a_built_in_is_a_file_of_its_kinds_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, '"""One line of it.\n\nMore."""\ndef score(response): return 1\n', "mine/kindness.py")
    write(tmp_path, "", "mine/__init__.py")
    monkeypatch.setattr(door_types, "_ROOT", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = Kind("reward", "a function", "mine", "score", "kindness", REWARD.make)
    assert doors.builtins(kind) == {"kindness": "One line of it."}
    assert doors.load(doors.find(kind, "kindness", WHERE), WHERE).function("x") == 1


def test_a_files_text_travels_and_needs_no_file(tmp_path: Path) -> None:
    path = write(tmp_path, "def score(response): return 7\n")
    sent = json.loads(json.dumps(asdict(find(f"{path}:score"))))
    path.unlink()
    assert doors.load(Door(**sent), WHERE).function("x") == 7


def test_a_file_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "FACTOR = 3\n", "beside_own.py")
    path = write(tmp_path, "def score(response):\n    from beside_own import FACTOR\n    return FACTOR\n")
    assert opened(f"{path}:score").function("x") == 3


def test_a_files_annotations_are_what_it_says(tmp_path: Path) -> None:
    text = "def score(response: str): return 1.0 if score.__annotations__['response'] is str else 0.0\n"
    assert opened(f"{write(tmp_path, text)}:score").function("x") == 1


def test_a_module_of_the_working_directory_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "def score(response): return 5\n", "some_package_of_mine/inner.py")
    monkeypatch.chdir(tmp_path)
    assert opened("some_package_of_mine.inner:score").function("x") == 5


def test_to_find_a_door_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "raise SystemExit('it ran')\n", "that_runs/__init__.py")
    write(tmp_path, "score = 1\nraise SystemExit('it ran')\n", "that_runs/inner.py")
    monkeypatch.chdir(tmp_path)
    assert find("that_runs.inner:score").version == find("that_runs/inner.py:score").version


def test_an_entry_point_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "def score(response): return 4\n", "theirs.py")
    dist = SimpleNamespace(name="their-rewards", version="1.2")
    entry = SimpleNamespace(name="theirs", module="theirs", attr="score", value="theirs:score", dist=dist)
    asked = []

    def entry_points(group: str) -> list[Any]:
        asked.append(group)
        return [entry]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find("theirs").version == "their-rewards 1.2"
    assert opened("theirs").function("x") == 4
    assert set(asked) == {"airls_ray.reward"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lenght", r"no reward 'lenght' \(did you mean 'length'\?\): there are format, length"),
        ("owm.py:score", r"no file .*owm\.py \(did you mean 'own\.py'\?\)"),
        ("own.py", r"own\.py names a file alone: write own\.py:NAME"),
        ("no_such_package.x:score", "no module no_such_package"),
        ("airls_ray.reward:score", r"no module airls_ray\.reward \(did you mean 'rewards'\?\)"),
        ("a-b:score", "neither package.module:NAME nor file.py:NAME"),
        ("ftp://host/x", "no address"),
        ("own.py:scor", r"no attribute 'scor' \(did you mean 'score'\?\)"),
        ("own.py:number", "is 3 \\(int\\), which cannot be called"),
        ("own.py:odd", r"takes 'respons', which nobody gives it \(did you mean 'response'\?\)"),
        ("own.py:mixed", r"takes both one response and a batch \(response, answers\)"),
        ("own.py:nothing", "takes none of prompt, response"),
        ("own.py:positional", "takes arguments without names"),
        ("own.py:Broken", r"raises as it is made: KeyError: 'model' \(own\.py line 9\)"),
        ("raises.py:score", r"raises at import: ZeroDivisionError: division by zero \(raises\.py line 2\)"),
        ("leaves.py:score", r"raises at import: SystemExit: bye"),
        ("grammar.py:score", r"raises at import: SyntaxError: .* \(grammar\.py line 1\)"),
        ("imports.py:score", r"raises at import: ModuleNotFoundError: No module named 'nowhere_at_all'"),
    ],
)
def test_a_door_that_does_not_open_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    write(
        tmp_path,
        "number = 3\n"
        "def score(response): return 1\n"
        "def odd(respons): return 1\n"
        "def mixed(response, answers): return 1\n"
        "def nothing(): return 1\n"
        "def positional(response, /): return 1\n"
        "class Broken:\n"
        "    def __init__(self):\n"
        "        {}['model']\n",
    )
    write(tmp_path, "score = 1\n1 / 0\n", "raises.py")
    write(tmp_path, "import sys; score = sys.exit('bye')\n", "leaves.py")
    write(tmp_path, "def score(:\n", "grammar.py")
    write(tmp_path, "from nowhere_at_all import score\n", "imports.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DoorError, match=said) as caught:
        opened(name)
    text = str(caught.value)
    assert text.startswith("task.reward: ") and "\n" not in text
    assert text.endswith("copy from airls_ray/rewards/length.py") and (REWARD.folder / "length.py").exists()


@pytest.mark.parametrize("name", ["own.py:brevty", "grammar.py:score"])
def test_a_name_that_a_file_lacks_is_said_before_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(tmp_path, "def brevity(response):\n    brevty = 1\n1 / 0\n")
    write(tmp_path, "def score(:\n", "grammar.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DoorError, match=r"did you mean 'brevity'|SyntaxError: .* \(grammar\.py line 1\)"):
        find(name)


@pytest.mark.parametrize(
    "text",
    [
        "def score(response): return 1",
        "async def score(response): return 1",
        "class score: pass",
        "score = make()",
        "score: int = 3",
        "a, (score, *b) = make()",
        "if (score := make()): pass",
        "try:\n    from fast import score\nexcept ImportError:\n    from slow import score",
        "from own import other as score",
        "import score.inside",
        "for score in (1,): pass",
        "with make() as score: pass",
        "def make():\n    global score\n    score = 1\nmake()",
        "match make():\n    case [score]: pass",
        "from own import *",
        "globals()['sc' + 'ore'] = 1",
        "def __getattr__(name): return 1",
    ],
)
def test_a_name_that_a_file_may_have_is_found_without_running_it(tmp_path: Path, text: str) -> None:
    assert find(f"{write(tmp_path, text)}:score").attribute == "score"


def test_an_option_that_a_reward_does_not_take_is_named() -> None:
    with pytest.raises(DoorError, match=r"length takes no option 'mots' \(did you mean 'most'\?\)"):
        opened("length", mots=3)


def test_every_built_in_opens_and_says_in_a_line_what_it_is() -> None:
    for kind in map(doors.kind_of, doors.KINDS):
        found = doors.builtins(kind)
        assert kind.example in found or (Path(__file__).parents[2] / kind.example).is_file()
        for name, line in found.items():
            assert line.endswith(".") and len(line) <= 110
            if kind.name == "task":  # they are made with sections of their own, and other tests open them
                continue
            try:
                doors.load(doors.find(kind, name, WHERE), WHERE)
            except DoorError as error:  # of others' programs, which need not be installed, and of critics
                assert f"{name} is made with 'endpoint'" in str(error) or re.search(
                    rf"{name} needs (the package )?{name}: pip install {name}", str(error), re.IGNORECASE
                )


def test_a_list_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "reward"]) == 0
    shown = capsys.readouterr().out
    assert "  length      Up to -1" in shown and "prompt, response, answer" in shown
    assert run(["list", "rewad"]) == 2
    assert "did you mean 'reward'?" in capsys.readouterr().err
    assert run(["list", "sytems"]) == 2
    assert "did you mean 'systems'?" in capsys.readouterr().err


def test_a_word_that_nothing_of_a_kind_has_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "reward", "lenght"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("Error: no reward has 'lenght' in its name or line (did you mean 'length'?)")
    assert not shown.out


def test_a_record_says_which_file_is_another_one(tmp_path: Path) -> None:
    path = write(tmp_path, "def score(response): return 1\n")
    first = [find(f"{path}:score"), find("length")]
    kept = json.loads(json.dumps(doors.record(first)))
    assert doors.changed(kept, first) == []
    write(tmp_path, "def score(response): return 2\n")
    (sentence,) = doors.changed(kept, [find(f"{path}:score"), find("length")])
    assert sentence.startswith(f"The reward {path}:score is another one than before: it was sha256:")


def test_a_path_is_relative_to_the_working_directory_or_else_to_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = write(tmp_path, "", "there/own.py"), tmp_path / "here"
    here.mkdir()
    file = write(tmp_path, "task: {reward: own.py:score}\n", "there/run.yaml")
    monkeypatch.chdir(here)
    assert load_config(file).task.reward[0].name == f"{there}:score"
    write(tmp_path, "base: ../there/run.yaml\n", "here/run.yaml")
    assert load_config(here / "run.yaml").task.reward[0].name == f"{there}:score"
    write(here, "")
    assert load_config(file).task.reward[0].name == f"{here / 'own.py'}:score"


def run_folder(tmp_path: Path, *overrides: str) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    dump_config(with_absolute_paths(load_config(None, overrides)), folder / "config.yaml")
    return folder


@pytest.mark.parametrize("name", ["own.py:score", "os:system", "http://host/score"])
def test_a_run_folder_that_names_code_is_refused_unless_trusted(tmp_path: Path, name: str) -> None:
    folder = run_folder(tmp_path, f"task.reward='{name}'")
    with pytest.raises(ConfigError, match=r"names code of its own \(.*--trust"):
        load_run_config(folder, trust=False)
    assert [one.name for one in load_run_config(folder, trust=True).task.reward] == [name]


ADDRESS = "http://example.org"


@pytest.mark.parametrize(
    "override",
    [
        f"task.reward={{name: polar, options: {{endpoint: '{ADDRESS}'}}}}",
        f"train.trackers={{name: mlflow, options: {{tracking_uri: '{ADDRESS}'}}}}",
        f"train.trackers={{name: wandb, options: {{settings: {{base_url: '{ADDRESS}'}}}}}}",
    ],
)
def test_a_run_folder_that_names_an_address_is_refused_unless_trusted(tmp_path: Path, override: str) -> None:
    folder = run_folder(tmp_path, override)
    with pytest.raises(ConfigError, match=rf"names code of its own \({ADDRESS}\).*--trust"):
        load_run_config(folder, trust=False)
    config = load_run_config(folder)
    assert not config.task.reward and not config.train.trackers


def test_a_file_of_this_machine_is_no_address(tmp_path: Path) -> None:
    override = "train.trackers={name: mlflow, options: {tracking_uri: 'sqlite:///runs.db'}}"
    assert load_run_config(run_folder(tmp_path, override), trust=False).train.trackers


def test_a_run_folder_that_lets_code_of_models_run_is_refused_unless_trusted(tmp_path: Path) -> None:
    setting = "model.trust_remote_code=true"
    folder = run_folder(tmp_path, setting)
    with pytest.raises(ConfigError, match=r"code of a model folder would run here.*--trust"):
        load_run_config(folder, trust=False)
    assert not load_run_config(folder).model.trust_remote_code
    assert load_run_config(folder, trust=True).model.trust_remote_code
    assert load_run_config(folder, [setting], trust=False).model.trust_remote_code


def test_a_run_folders_built_ins_and_the_users_own_names_are_not_refused(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "task.reward=length")
    assert load_run_config(folder, trust=False).task.reward[0].name == "length"
    given = load_run_config(folder, ["task.reward=own.py:score"], trust=False)
    assert given.task.reward[0].name == "own.py:score"


def test_commands_that_open_no_reward_need_no_trust(tmp_path: Path) -> None:
    assert load_run_config(run_folder(tmp_path, "task.reward=own.py:score")).task.reward == []


def test_train_refuses_a_run_folder_that_names_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path, "method=grpo", "task.reward=/somewhere/own.py:score")
    assert run(["train", str(folder), "--dry-run"]) == 2
    assert "names code of its own (/somewhere/own.py:score)" in capsys.readouterr().err
    assert run(["train", str(folder), "--dry-run", "--trust"]) == 2
    assert "there is no file /somewhere/own.py" in capsys.readouterr().err


def test_two_rewards_of_one_name_are_told_apart_by_a_label() -> None:
    with pytest.raises(ConfigError, match="two rewards would be called score in the metrics"):
        load_config(None, ["task.reward=[a.py:score, b.py:score]"])
    both = load_config(None, ["task.reward=[a.py:score, {name: b.py:score, label: other}]"]).task.reward
    assert [one.shown for one in both] == ["score", "other"]


def test_the_endpoint_opens_no_door() -> None:
    root = Path(doors.__file__).parents[1]
    served = [*(root / "airls_ray" / "serving").glob("*.py"), root / "actors" / "search" / "serve.py"]
    assert len(served) > 5
    assert not [path for path in served if "doors" in path.read_text() or "reward_pool" in path.read_text()]
