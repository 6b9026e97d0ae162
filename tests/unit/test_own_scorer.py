"""Scorers of the user's own: how they are named and called, what may come out, where they are used."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import airls_ray
from actors.search.search_parts import StepScorer
from airls_ray.cli.main import run as command_line
from airls_ray.config import load_config
from airls_ray.config.load import dump_config, load_run_config, with_absolute_paths
from airls_ray.config.named import find_doors
from airls_ray.config.schema import Config
from airls_ray.config.search_section import SearchConfig
from airls_ray.console.progress import QuietProgress
from airls_ray.errors import ConfigError, DoorError
from airls_ray.prm.forms import check_search_models
from airls_ray.prm.items import StepText
from airls_ray.search.own_scorer import open_own
from airls_ray.search.registry import make_searcher, own_of_search
from airls_ray.search.try_scorer import try_scorer
from airls_ray.serving.service import check_defaults
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec
from tests.unit.endpoint_fakes import Digits, FakePolicy, served
from tests.unit.search_fakes import run
from tests.unit.test_prms_in_search import STEPS, continuation
from tests.unit.test_prms_in_search import codec as codec  # a fixture

EXAMPLES = Path(__file__).parents[2] / "examples"
PROBLEMS = ["What is it?", "And this?"]
OWN = """
import numpy as np
def digits(prompt, steps):
    return [int(([0] + [one for one in step if one.isdigit()])[-1]) / 10 for step in steps]
def many(prompts, steps, finished):
    return [np.full(len(one), 1.0 if over else 0.5) for one, over in zip(steps, finished)]
def asked(prompt, steps, finished, by=1):
    return [by * len(prompt) / 100] * (len(steps) - 1) + [float(finished)]
class Made:
    times = 0
    def __init__(self, value): self.value = value; Made.times += 1
    def score(self, steps): return [self.value] * len(steps)
class Called:
    def __call__(self, steps): return [0.25] * len(steps)
def fewer(steps): return [0.5]
def nan(steps): return [float("nan")] * len(steps)
def large(steps): return [1.5] * len(steps)
def text(steps): return ["right"] * len(steps)
def nothing(steps): return None
def single(prompts, steps): return [[0.5]]
def raises(steps): return steps[7]
def other(prompt, solution): return []
def prints_and_ends(steps): raise SystemExit(3)
class NoScore: pass
class Fails:
    def __init__(self): raise ValueError("no model here")
    def score(self, steps): return []
class Unmade:
    def __init__(self, model): pass
    def score(self, steps): return []
number = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def config_of(scorer: Any) -> Config:
    return load_config({"search": {"scorer": scorer}})


def scores(scorer: Any, *items: StepText) -> list[list[float]]:
    return open_own(config_of(scorer).search.scorer).score(items)


A = StepText("What?", ("It is 3.", "And 7."), finished=False)
B = StepText("Why so?", ("As 9 is.",), finished=True)


# -------------------------------------------------------------------------------------------- protocol
def test_a_function_of_one_solution_and_one_of_many_get_the_texts(own: Path) -> None:
    assert scores(f"{own}:digits", A, B) == [[0.3, 0.7], [0.9]]
    assert scores(f"{own}:many", A, B) == [[0.5, 0.5], [1.0]]
    found = scores({"name": f"{own}:asked", "options": {"by": 2}}, A, B)
    assert found == [[0.1, 0.0], [1.0]]


def test_a_class_is_made_once_with_its_options_and_only_when_it_is_used(own: Path) -> None:
    named = config_of({"name": f"{own}:Made", "options": {"value": 0.75}}).search.scorer
    found = named.open()  # looked at alone
    scorer = open_own(named)
    assert scorer.score([A, B]) == [[0.75, 0.75], [0.75]]
    scorer.score([A])
    assert found.needs == "texts" and type(scorer._text_rule.rule.function.__self__).times == 1
    assert scores(f"{own}:Called", B) == [[0.25]]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fewer", "returned 1 scores, and it must return one number from 0 to 1 for each of the 3 steps"),
        ("nan", "returned nan for step 1"),
        ("large", r"returned 1\.5 for step 1"),
        ("text", "returned the text 'right' for step 1"),
        ("nothing", "returned None"),
        ("single", "returned 1 lists for 3 solutions"),
        ("raises", r"raises IndexError: .*\(own\.py line \d+\)"),
        ("other", "takes 'solution', which nobody gives it"),
        ("NoScore", r"is a class without score\(prompt, steps\)"),
        ("Fails", r"raises ValueError: no model here \(own\.py line \d+\)"),
        ("Unmade", "is made with 'model', which nobody gives it: give it in options"),
        ("number", r"is 3 \(int\), which cannot be called"),
    ],
)
def test_what_is_no_scorer_is_one_sentence(own: Path, name: str, said: str) -> None:
    with pytest.raises(DoorError, match=rf"search\.scorer: .*own\.py:{name} {said}") as caught:
        open_own(config_of(f"{own}:{name}").search.scorer).try_out()
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------- configuration
def test_the_built_in_ones_keep_their_names() -> None:
    needs = {name: config_of(name).search.scorer.needs for name in ("prm", "policy_log_prob", "oracle")}
    assert needs == {"prm": "prm", "policy_log_prob": "log_probs", "oracle": "truth"}
    assert SearchConfig().scorer.shown == "prm"
    with pytest.raises(
        ConfigError, match=r"search\.scorer: .*no scorer 'orakle' \(did you mean 'oracle'\?\)"
    ):
        config_of("orakle")
    with pytest.raises(DoorError, match="takes no option 'a'"):
        config_of({"name": "prm", "options": {"a": 1}}).search.scorer.open()


def test_its_code_travels_is_recorded_by_searches_alone_and_needs_trust(own: Path, tmp_path: Path) -> None:
    config = config_of(f"{own}:digits")
    assert find_doors(config) == []
    assert [door.text for door in own_of_search(config.search)] == [OWN]
    (tmp_path / "run").mkdir()
    dump_config(with_absolute_paths(config), tmp_path / "run" / "config.yaml")
    with pytest.raises(ConfigError, match="names code of its own"):
        load_run_config(tmp_path / "run", trust=False)
    assert load_run_config(tmp_path / "run").search.scorer.name == "prm"
    copy = pickle.loads(pickle.dumps(config))
    own.unlink()
    assert open_own(copy.search.scorer).score([B]) == [[0.9]]


def test_a_search_with_it_needs_no_prm_nor_does_the_endpoint(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airls_ray.prm.forms.check_model_folder", lambda *_, **__: None)
    check_search_models(config_of(f"{own}:digits"), tmp_path, None)
    with pytest.raises(ConfigError, match="no PRM is given"):
        check_search_models(config_of("prm"), tmp_path, None)
    check_defaults(config_of(f"{own}:digits"))


# ----------------------------------------------------------------------------------------- in searches
def test_a_scorers_process_reads_the_texts_of_a_search(own: Path, tmp_path: Path, codec: TextCodec) -> None:
    config = load_config(
        {"task": {"name": "arithmetic", "operations": 3}, "search": {"scorer": f"{own}:digits"}}
    )
    from airls_ray.text.codec import build_tokenizer

    build_tokenizer(make_task(config.task), tmp_path / "policy")
    actor = StepScorer("0", config, str(tmp_path / "policy"), None)
    actor.start()
    found, costs = actor.score([continuation(codec, STEPS[0], STEPS[1]), continuation(codec, "", STEPS[0])])
    assert found == [(0.6,), (0.3,)]  # the last digits of the new steps
    assert sum(costs) == actor.tokens()[0]


def search(policy: FakePolicy, *more: Any, **options: Any) -> list[Any]:
    with served(policy) as url:
        return airls_ray.search_endpoint(url, PROBLEMS, *more, budget=4, **options)


def test_over_an_endpoint_a_name_a_function_and_an_object_search_alike(own: Path) -> None:
    def mine(prompt: str, steps: list[str]) -> list[float]:
        return [Digits.one(step) for step in steps]

    wanted = [one.response for one in search(FakePolicy(), Digits(), algorithm="beam")]
    assert [one.response for one in search(FakePolicy(), mine, algorithm="beam")] == wanted
    for scorer in (f"{own}:digits", {"name": f"{own}:digits"}):
        assert [one.response for one in search(FakePolicy(), scorer=scorer, algorithm="beam")] == wanted


def test_over_an_endpoint_mistakes_are_told_before_anything_is_sampled(own: Path) -> None:
    policy = FakePolicy()
    with pytest.raises(DoorError, match="nan returned nan for step 1"):
        search(policy, scorer=f"{own}:nan")
    with pytest.raises(DoorError, match=r"^prm: <lambda> returned 1 scores"):
        search(policy, lambda steps: [0.5])
    with pytest.raises(DoorError, match=r"^prm: <lambda> takes 'x', which nobody gives it; a scorer is"):
        search(policy, lambda x: [0.5])
    with pytest.raises(
        ConfigError, match=r"guided by a PRM or by a scorer of your own, and search.scorer is oracle"
    ):
        search(policy, scorer="oracle")
    for more in ((), (Digits(),)):
        given = {"scorer": f"{own}:digits"} if more else {}
        with pytest.raises(ConfigError, match="give one of them: a PRM, or scorer="):
            search(policy, *more, **given)
    assert not policy.asked


def write_task(folder: Path) -> Path:
    for name, texts in (("train", ["Other?"]), ("test", PROBLEMS)):
        rows = [json.dumps({"prompt": text, "answer": "3"}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    path = folder / "task.yaml"
    path.write_text(
        f"task: {{name: file, train_file: {folder}/train.jsonl, test_file: {folder}/test.jsonl}}\n"
        "search: {problems: 2, budgets: [4], max_step_tokens: 64}\nverifier: {processes: 1}\n"
    )
    return path


def test_the_command_says_what_guides_a_search_over_an_endpoint(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", str(write_task(tmp_path)), "--endpoint", "http://127.0.0.1:9/v1"]
    for more, said in (
        ([], "give --prm, or set search.scorer=file.py:NAME"),
        ([f"search.scorer={own}:digits", "--prm", str(tmp_path)], "exclude each other"),
        (["search.scorer=oracle", "--prm", str(tmp_path)], "search.scorer is oracle"),
    ):
        assert command_line([*command, *more]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


# --------------------------------------------------------------------------------------------- example
def test_the_example_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(EXAMPLES / "own_search.yaml")
    assert [door.attribute for door in own_of_search(config.search)] == ["Greedy", "consistent"]
    try_scorer(config.search.scorer, QuietProgress())


def test_the_examples_scorer_by_hand() -> None:
    config = load_config(EXAMPLES / "own_search.yaml")
    item = StepText("7+3*4-5=", ("7+3=0;", "0*4=0;", "0-5=4;", "so"))
    assert open_own(config.search.scorer).score([item]) == [[0.9, 0.9, 0.1, 0.5]]
    plain = {"name": f"{EXAMPLES / 'own_search.py'}:consistent"}
    assert scores(plain, StepText("", ("12 * 13 = 156", "7 + 3 = 0"))) == [[0.9, 0.1]]


def test_the_examples_search_goes_on_from_the_best_prefix() -> None:
    config = load_config(EXAMPLES / "own_search.yaml")
    searcher = make_searcher(config.search.algorithms[1], config.search, 4, "prod")
    state = run(searcher, end=0.0)
    parents = sorted({node.parent for node in state.nodes[1:]})
    values = np.array([state.log_score(node, "prod") for node in range(1, len(state.nodes))])
    for number, parent in enumerate(parents[1:]):  # the best of the four nodes before
        among = values[4 * number : 4 * number + 4]
        assert parent == 4 * number + 1 + int(among.argmax())
    assert len(state.nodes) == 1 + 4 * state.rounds and searcher.leaves(state)
