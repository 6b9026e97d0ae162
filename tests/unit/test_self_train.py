"""Rounds of self-training over stages that write what the real commands write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.search.self_train import Stages, run_self_train
from airls_ray.cli import main as cli
from airls_ray.config import Config
from airls_ray.config.load import dump_config
from airls_ray.console.progress import QuietProgress
from airls_ray.data.prm_labels import read_labels
from airls_ray.data.problems import ProblemStream, read_problems, table_to_problems
from airls_ray.errors import ConfigError, DataError, UserError
from airls_ray.search.records import records_table
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from tests.unit.self_train_fakes import record, solution

PROBLEMS = 12


def config(**sections: Any) -> Config:
    tree: dict[str, Any] = {
        "task": {"name": "arithmetic", "test_problems": 5},
        "model": {"context_tokens": 64},
        "rollout": {"max_response_tokens": 40},
        "prm": {"parameterisation": "scalar_head"},
        "search": {"temperature": 0.8},
        "self_train": {"problems": PROBLEMS, "rounds": 2, "traces_per_problem": 2},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return Config.model_validate(tree)


class Commands:
    """Stands for the commands: each writes its files and remembers what it was asked.

    A search solves every problem but one in four by responses of scores 0.3, 0.6 and 0.9, of which the first
    two are equal, and has one wrong response of score `wrong_score`.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.fails_at: str | None = None
        self.wrong_score: Callable[[float], float] = lambda _: 0.7

    def stages(self) -> Stages:
        return Stages(
            self.search, self.sft, self.train_prm, self.evaluate, lambda _: nullcontext(), lambda *_: None
        )

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def _called(self, name: str, *given: Any) -> None:
        self.calls.append((name, given))
        if len(self.calls) == int((self.fails_at or "0").split()[-1]):
            raise DataError("killed")

    def search(
        self, config: Config, policy: Path, prm: Path | None, output: Path, resume: bool, problems: pa.Table
    ) -> None:
        self._called("search", config.search.temperature, str(policy), prm, problems.num_rows)
        assert resume
        codec = TextCodec.from_folder(policy, make_task(config.task))
        records = []
        for number, problem in enumerate(table_to_problems(problems)):
            right = [solution(problem, codec, None, score) for score in (0.3, 0.6)]
            other = solution(problem, codec, None, 0.9)
            other["steps"] = [*other["steps"][:-1], " " + other["steps"][-1]]
            wrong = solution(problem, codec, 2, self.wrong_score(config.search.temperature))
            records.append(record(problem.problem_id, [wrong] if number % 4 == 0 else [*right, other, wrong]))
        output.mkdir(parents=True)
        pq.write_table(records_table(records), output / "records.parquet")
        (output / "summary.json").write_text("{}")

    def sft(self, config: Config, folder: Path, progress: Any, resume: bool) -> None:
        self._called("sft", config)
        assert config.model.path is not None and resume
        shutil.copytree(config.model.path, folder)
        (folder / "sft.json").write_text("{}")

    def train_prm(self, config: Config, policy: str, output: Path, progress: Any, labels: Any = None) -> None:
        self._called("train_prm", policy, labels)
        assert self.prm is not None
        shutil.copytree(self.prm, output / "prm")
        (output / "train_prm.json").write_text("{}")

    def evaluate(self, config: Config, policy: str, folder: Path, resume: bool) -> None:
        self._called("evaluate", policy, config.search.temperature)
        folder.mkdir(parents=True)
        mean = 0.1 * self.names().count("evaluate")
        figures = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}
        (folder / "summary.json").write_text(json.dumps({"pass": {"1": figures}}))

    prm: Path | None = None


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def commands(own_folder: Any) -> Commands:
    made = Commands()
    made.prm = own_folder(parameterisation="scalar_head")[0]
    return made


@pytest.fixture
def run(commands: Commands, own_policy: Path, tmp_path: Path) -> Run:
    """Run it with the settings that are given."""

    def made(settings: Config | None = None, prm: Path | None = commands.prm) -> dict[str, Any]:
        return run_self_train(
            settings or config(), own_policy, prm, tmp_path / "out", QuietProgress(), commands.stages()
        )

    return made


def test_a_round_is_a_search_a_warm_start_from_the_base_a_prm_and_an_evaluation(
    run: Run, commands: Commands, own_policy: Path, tmp_path: Path
) -> None:
    summary = run()
    assert commands.names() == ["evaluate", *["search", "sft", "train_prm", "evaluate"] * 2]
    out = tmp_path / "out"
    searches = [given for name, given in commands.calls if name == "search"]
    assert searches == [
        (0.8, str(own_policy), commands.prm, PROBLEMS),
        (0.8, str(out / "round_1/policy"), out / "round_1/train_prm/prm", PROBLEMS),
    ]
    for number, learned in enumerate((given[0] for name, given in commands.calls if name == "sft"), 1):
        assert learned.model.path == str(own_policy) and learned.sft.target_accuracy == 1.0
        assert learned.task.train_file == out / f"round_{number}/traces.jsonl"
    for number, one in enumerate(summary["rounds"], 1):
        assert (one["solved"], one["traces"]) == (9, 18)
        assert (one["temperature"], one["threshold"], one["balance"]) == (0.8, 0.0, None)
        assert one["accuracy_before"] == pytest.approx(0.1 * number)
        assert one["accuracy"] == pytest.approx(0.1 * (number + 1))
    assert summary["policy"] == str(out / "round_2/policy")
    assert summary["prm_path"] == str(out / "round_2/train_prm/prm")
    assert json.loads((out / "self_train.json").read_text()) == summary


def test_a_round_may_go_on_from_the_policy_of_the_round_before(
    run: Run, commands: Commands, own_policy: Path, tmp_path: Path
) -> None:
    out = Path(run(config(self_train={"policy_from": "newest"}))["policy"]).parents[1]
    started = [given[0].model.path for name, given in commands.calls if name == "sft"]
    assert started == [str(own_policy), str(out / "round_1/policy")]


def test_the_traces_are_problems_of_the_task_that_grade_right(run: Run, tmp_path: Path) -> None:
    run(config(self_train={"threshold": 0.5}))
    file = tmp_path / "out/round_1/traces.jsonl"
    settings = config(task={"train_file": str(file)})
    task = make_task(settings.task)
    problems = table_to_problems(ProblemStream(task, "train", 3).take(9))
    assert len({one.problem_id for one in problems}) == 9 == read_problems(file).num_rows
    for one in problems:
        assert len(one.traces) == 2
        assert task.grade(one, one.traces[1]).outcome == 1.0


def test_a_prm_learns_the_values_of_the_steps_that_the_search_found(run: Run, commands: Commands) -> None:
    run()
    policy, file = next(given for name, given in commands.calls if name == "train_prm")
    assert policy.endswith("round_1/policy")
    labels = read_labels(file).to_pylist()
    assert len(labels) == 2 * 9  # right and wrong tokens once
    assert {round(row["labels"][-1], 6) for row in labels if row["outcome"] == 1.0} == {1.0}
    assert max(row["labels"][-1] for row in labels if row["outcome"] == 0.0) < 0.5


@pytest.mark.parametrize("kind", ["completions", "none"])
def test_a_prm_may_learn_from_completions_or_stay(run: Run, commands: Commands, kind: str) -> None:
    summary = run(config(self_train={"prm": kind}))
    given = [given for name, given in commands.calls if name == "train_prm"]
    assert [labels for _, labels in given] == ([None, None] if kind == "completions" else [])
    if kind == "none":
        assert summary["prm_path"] == str(commands.prm)


@pytest.mark.parametrize("stage", range(1, 10))
def test_what_is_finished_is_not_done_again(run: Run, commands: Commands, stage: int) -> None:
    commands.fails_at = f"call {stage}"
    with pytest.raises(DataError, match="killed"):
        run()
    before = commands.names()
    assert len(before) == stage
    commands.fails_at = None
    summary = run()
    whole = ["evaluate", *["search", "sft", "train_prm", "evaluate"] * 2]
    assert commands.names() == [*whole[:stage], *whole[stage - 1 :]]
    assert [one["traces"] for one in summary["rounds"]] == [18, 18]
    again = run()
    assert len(commands.names()) == 10 and again == summary


def test_more_rounds_go_on_from_those_that_are_there(run: Run, commands: Commands) -> None:
    run(config(self_train={"rounds": 1}))
    assert len(run(config(self_train={"rounds": 3}))["rounds"]) == 3
    assert commands.names() == ["evaluate", *["search", "sft", "train_prm", "evaluate"] * 3]


def test_other_settings_are_refused(run: Run) -> None:
    run(config(self_train={"rounds": 1}))
    with pytest.raises(
        ConfigError, match="holds a self-training with another search, self_train: go on with"
    ):
        run(config(search={"temperature": 0.9}, self_train={"threshold": 0.1}))


@pytest.mark.parametrize(
    ("good", "wrong", "wished", "threshold", "kept"), [(0.5, 0.7, 1, 0.75, 1), (1.2, 0.1, 2, 0.25, 2)]
)
def test_temperature_and_threshold_are_chosen_by_the_balance(
    run: Run, commands: Commands, good: float, wrong: float, wished: int, threshold: float, kept: int
) -> None:
    """At one temperature wrong responses score below the best right one, or below all, at the other above."""
    commands.wrong_score = lambda temperature: wrong if temperature == good else 0.95
    balance = {"temperatures": [0.5, 1.2], "thresholds": [0.0, 0.25, 0.75], "wished": wished, "problems": 8}
    section = {"rounds": 1, "balance": balance, "traces_per_problem": 3}
    summary = run(config(self_train=section))
    searches = [given for name, given in commands.calls if name == "search"]
    assert [one[0] for one in searches] == [0.5, 1.2, good]
    assert [one[3] for one in searches] == [8, 8, PROBLEMS]
    (one,) = summary["rounds"]
    assert (one["temperature"], one["threshold"]) == (good, threshold)
    assert one["balance"] == pytest.approx(6 / 8)  # of eight problems two are not solved
    assert one["traces"] == 9 * kept


def test_a_round_without_traces_is_one_sentence(run: Run) -> None:
    with pytest.raises(
        DataError, match=r"round 1 kept no trace of 12 problems.* scores 0\.95 or more: lower"
    ):
        run(config(self_train={"threshold": 0.95}))


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"search": {"budgets": [2, 4]}}, "search.algorithms has 1 and search.budgets 2: set one of each"),
        (
            {"task": {"name": "mixture", "parts": [{"task": {"name": "arithmetic"}}]}},
            "task.name=mixture does",
        ),
        (
            {"search": {"scorer": "policy_log_prob"}},
            "reads no PRM, so none need learn: set self_train.prm=none",
        ),
        ({"prm": {"parameterisation": "log_prob", "search_score": "ratio"}}, "have no log-probabilities"),
        (
            {"supervised_prm": {"spoiled": True}},
            r"come from the search \(self_train\.prm=values\)",
        ),
        (
            {
                "prm": {"parameterisation": "log_prob", "search_score": "ratio"},
                "self_train": {"prm": "completions", "balance": {"temperatures": [1.0, 0.5]}},
            },
            r"rollout\.temperature=1 with the policy at search\.temperature=0\.5",
        ),
        ({"prm": {"action": "token"}}, r"train-prm needs prm\.action=step"),
    ],
)
def test_what_a_round_could_not_do_is_said_before_anything_starts(
    run: Run, commands: Commands, sections: dict[str, Any], sentence: str
) -> None:
    base = config().model_dump(mode="json", exclude_unset=True)
    for name, section in sections.items():
        base[name] = section if name == "task" else {**base.get(name, {}), **section}
    with pytest.raises(UserError, match=sentence):
        run(Config.model_validate(base))
    assert not commands.calls


def test_a_search_by_a_prm_needs_one(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"search\.scorer is prm, but no PRM is given"):
        run(prm=None)


def test_the_command_says_what_is_wrong_in_one_sentence(
    tmp_path: Path, own_policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    dump_config(config(), file)
    asked = ["self-train", str(file), "--policy", str(own_policy), "--output", str(tmp_path / "o")]
    assert cli.run(asked) == 2
    assert capsys.readouterr().err.startswith("Error: search.scorer is prm, but no PRM is given")
    assert not (tmp_path / "o").exists()
