"""Which training problems come next: what samplers are shown and told, and that a resume chooses the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.train.parts import ask_outcomes, tell_outcomes
from actors.train.start import training_problems
from actors.train.tracking import LoopState
from airls_ray.config import load_config
from airls_ray.config.door_section import ProblemSamplerConfig
from airls_ray.config.load import dump_config, load_run_config, with_absolute_paths
from airls_ray.config.named import find_doors
from airls_ray.config.resume import check_resume
from airls_ray.config.schema import Config
from airls_ray.data.check_sampler import choose_and_restore, problems_drawn
from airls_ray.data.problem_sampler import Candidate, draw, success_rate
from airls_ray.data.problems import ProblemStream
from airls_ray.data.training_problems import TrainingProblems
from airls_ray.errors import ConfigError, DoorError, RunError
from airls_ray.evaluation.rollouts import outcomes_by_group
from airls_ray.tasks import make_task
from airls_ray.tasks.base import Problem
from airls_ray.tasks.problem_files import epochs

OWN = """
def hardest(candidates, count):
    order = sorted(range(len(candidates)), key=lambda at: (candidates[at].mean_outcome or 0.0, at))
    return order[:count]
def pruned(candidates, count, iteration):
    return [at for at, one in enumerate(candidates) if one.mean_outcome != 1.0][: count if iteration else 0]
def one_at_a_time(candidates, count): return [0]
class Rotating:
    def __init__(self, seed, by=1): self.by, self.turn, self.told = by, seed % 3, []
    def choose(self, candidates, count):
        self.turn += self.by
        return [(self.turn + at) % len(candidates) for at in range(count)]
    def seen(self, results): self.told += [[one.problem_id, one.iteration, *one.outcomes] for one in results]
    def state(self): return {"turn": self.turn, "told": self.told}
    def restore(self, state): self.turn, self.told = state["turn"], state["told"]
class Forgetful(Rotating):
    def restore(self, state): pass
class NoState:
    def choose(self, candidates, count): return list(range(count))
    def seen(self, results): pass
class NotJSON(Rotating):
    def state(self): return {1, 2}
class NoChoose: pass
class Asks:
    def __init__(self, strength): pass
    def choose(self, count): return list(range(count))
def twice(count): return [0] * count
def outside(candidates, count): return [len(candidates)] * count
def too_many(candidates, count): return list(range(count + 1))
def nothing(count): return None
def words(candidates, count): return [one.problem_id for one in candidates][:count]
def none_of_them(count): return []
def raises(candidates): return candidates[0].nothing
def other(problems): return []
number = 3
def few(count): return list(range(count))
few.candidates_per_problem = 0
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


class Letters:
    """Ten problems in epochs, as a file has them."""

    size = 10

    def problems(self, split: str, seed: int, start: int = 0) -> Iterator[Problem]:
        problems = [Problem(f"p{n}", f"{n}?", str(n), details={"level": n}) for n in range(self.size)]
        return epochs(problems, seed, start)


def problems_of(name: Any, count: int = 2, start: int = 0, **more: Any) -> TrainingProblems:
    named = ProblemSamplerConfig.model_validate(name)
    stream = ProblemStream(Letters(), "train", 0, start)  # type: ignore[arg-type]
    return TrainingProblems(stream, named, 7, count, **more)


def chosen(problems: TrainingProblems, iteration: int, count: int = 2) -> list[str]:
    names: list[str] = problems.choose(iteration, count)["problem_id"].to_pylist()
    return names


def outcome_of(name: str, iteration: int) -> list[float]:
    """Depends on problem and iteration, for exactness."""
    return [float((int(name[1:]) + iteration) % 3 == 0), float(int(name[1:]) > 4)]


def run(problems: TrainingProblems, iterations: range) -> list[list[str]]:
    found = []
    for iteration in iterations:
        found.append(chosen(problems, iteration))
        if problems.learns:
            problems.seen(iteration, [(name, outcome_of(name, iteration)) for name in found[-1]])
    return found


# ------------------------------------------------------------------------------------ what comes by default
def test_by_default_problems_come_as_the_stream_has_them_repeats_included() -> None:
    stream = ProblemStream(Letters(), "train", 0)  # type: ignore[arg-type]
    problems = problems_of("in_order", count=7)
    for iteration in range(4):
        assert problems.choose(iteration, 7).equals(stream.take(7))
        assert problems.position == stream.position
    assert not problems.learns and problems.saved(4) is None


def test_by_default_a_stream_that_ends_gives_what_it_has() -> None:
    config = load_config(None, ["task.test_problems=5"])
    stream = ProblemStream(make_task(config.task), "test", 0)
    problems = TrainingProblems(stream, config.train.problem_sampler, 0, 3)
    assert [problems.choose(iteration, 3).num_rows for iteration in range(3)] == [3, 2, 0]


def test_the_default_configuration_asks_nobody_for_outcomes() -> None:
    parts: Any = SimpleNamespace(problems=problems_of("in_order"), verifier=None)
    assert ask_outcomes(parts, [], None) is None
    tell_outcomes(parts, 0, None)
    assert problems_drawn(load_config(None, ["train.iterations=3", "prm.warmup_iterations=0"])) == 3 * 32


# ---------------------------------------------------------------------------------------- what is shown
def test_a_candidate_says_what_is_known_of_it(own: Path) -> None:
    seen: list[Candidate] = []
    problems = problems_of(f"{own}:hardest")
    problems._sampler.choose = lambda known: seen.extend(known["candidates"]) or [0, 1]  # type: ignore[method-assign,func-returns-value]
    first = chosen(problems, 0)
    assert len({one.problem_id for one in seen}) == len(seen) == 10  # each once, though 16 were asked for
    assert {(one.visits, one.mean_outcome, one.last_iteration) for one in seen} == {(0, None, None)}
    assert all(one.prompt == f"{one.details['level']}?" for one in seen)
    problems.seen(0, [(first[0], [1.0, 0.0]), (first[1], [1.0, 1.0])])
    chosen(problems, 1)
    problems.seen(1, [(first[0], [0.0, 0.0])])
    seen.clear()
    chosen(problems, 2)
    known = {one.problem_id: one for one in seen}
    assert known[first[0]].visits == 2 and known[first[0]].mean_outcome == 0.25
    assert (known[first[0]].last_outcome, known[first[0]].last_iteration) == (0.0, 2)
    assert (known[first[1]].visits, known[first[1]].mean_outcome, known[first[1]].last_iteration) == (
        1,
        1.0,
        1,
    )


def test_what_is_passed_over_comes_again_with_the_next_epoch(own: Path) -> None:
    """A window of half the file: within two iterations all problems are candidates."""
    problems = problems_of({"name": f"{own}:hardest", "window": 5})
    shown: Counter[str] = Counter()
    problems._sampler.choose = lambda known: (
        shown.update(one.problem_id for one in known["candidates"]) or [0, 1]
    )  # type: ignore[method-assign,func-returns-value]
    for iteration in range(6):
        chosen(problems, iteration)
        problems.seen(iteration, [])
    assert set(shown.values()) == {3} and len(shown) == 10


def test_a_sampler_that_takes_fewer_is_asked_again_and_no_problem_comes_twice(own: Path) -> None:
    names = chosen(problems_of(f"{own}:one_at_a_time", count=9), 0, 9)
    assert len(names) == len(set(names)) == 9
    pruned = problems_of(f"{own}:pruned")
    for iteration in range(4):
        pruned.seen(iteration, [(name, [1.0]) for name in chosen(pruned, iteration)])
    assert len(pruned._known) == 6  # of three iterations: no problem was taken again that is solved
    assert not set(chosen(pruned, 4)) & set(pruned._known)


def test_options_seed_and_results_reach_a_class(own: Path) -> None:
    problems = problems_of({"name": f"{own}:Rotating", "options": {"by": 4}})
    first = chosen(problems, 0)
    problems.seen(0, [(name, [0.5]) for name in first])
    chosen(problems, 1)
    state = problems._sampler.state()
    assert state["turn"] == 7 % 3 + 2 * 4
    assert state["told"] == [[name, 1, 0.5] for name in first]


# ------------------------------------------------------------------------------------------- exactness
@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("name", ["prioritised", "learnability", "hardest", "Rotating"])
def test_a_resumed_run_chooses_what_one_that_was_never_stopped_chooses(
    own: Path, name: str, lag: int
) -> None:
    name = name if name.islower() and name != "hardest" else f"{own}:{name}"
    where = {"name": name, "window": 5}
    whole = run(problems_of(where, lag=lag), range(9))
    first = problems_of(where, lag=lag)
    assert run(first, range(4)) == whole[:4]
    kept, position = json.loads(json.dumps(first.saved(4))), first.position
    again = problems_of(where, lag=lag, start=position, iteration=4, saved=kept)
    assert run(again, range(4, 9)) == whole[4:]
    assert len(set(map(tuple, whole))) > 3


def test_outcomes_change_what_is_chosen(own: Path) -> None:
    """Else the test above would hold of a sampler that is never told anything."""
    problems = problems_of({"name": "prioritised", "window": 5})
    told = run(problems_of({"name": "prioritised", "window": 5}), range(9))
    other = []
    for iteration in range(9):
        other.append(chosen(problems, iteration))
        problems.seen(
            iteration, [(name, [1.0 - one for one in outcome_of(name, iteration)]) for name in other[-1]]
        )
    assert told != other


@pytest.mark.parametrize("lag", [1, 2])
def test_a_choice_knows_as_much_however_far_the_sampling_is_ahead(own: Path, lag: int) -> None:
    """Chosen as early as may be, or only when all before is trained: the same."""
    where = {"name": f"{own}:hardest", "window": 5}
    late = run(problems_of(where, lag=lag), range(8))
    early, found, positions = problems_of(where, lag=lag), [], [0]

    def choose_more() -> None:
        if len(found) < 8:
            found.append(chosen(early, len(found)))
            positions.append(early.position)

    for _ in range(lag + 1):
        choose_more()
    states = []
    for iteration in range(8):
        early.seen(iteration, [(name, outcome_of(name, iteration)) for name in found[iteration]])
        states.append(early.saved(iteration + 1))  # while later ones are chosen already
        choose_more()
    assert found == late
    for done in (1, 3, 5):
        more = {"start": positions[done], "iteration": done, "saved": states[done - 1]}
        assert run(problems_of(where, lag=lag, **more), range(done, 8)) == late[done:]


def test_the_loops_state_carries_what_the_sampler_needs() -> None:
    task = [
        "task.operations=1",
        "task.modulus=2",
        "train.problems_per_iteration=2",
        "train.problem_sampler=prioritised",
    ]
    config = load_config(None, task)
    first = training_problems(config, LoopState(), None)
    for iteration in range(3):
        names = chosen(first, iteration)
        first.seen(iteration, [(name, [float(at)]) for at, name in enumerate(names)])
    state = LoopState(iteration=3, position=first.position, problem_sampler=first.saved(3))
    assert chosen(training_problems(config, state, None), 3) == chosen(first, 3)
    assert state.advanced(1, 2, 3.0).problem_sampler is None


def test_a_resume_with_another_sampler_is_refused() -> None:
    with pytest.raises(RunError, match=r"train\.problem_sampler\.name was in_order and is prioritised"):
        check_resume(Config(), load_config(None, ["train.problem_sampler=prioritised"]))


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_what_a_resume_needs_is_there_after_the_next_iteration_is_seen_too(lag: int) -> None:
    """A checkpoint may be written when a later iteration has come in."""
    training = problems_of("prioritised", lag=lag)
    run(training, range(4))
    before = training.saved(4)
    names = chosen(training, 4)
    training.seen(4, [(name, outcome_of(name, 4)) for name in names])
    assert training.saved(4) == before


def test_each_window_of_an_iteration_has_random_numbers_of_its_own() -> None:
    training, drawn = problems_of("prioritised"), []

    def one(known: Any) -> list[int]:
        drawn.append(known["rng"].random())
        return [0]

    training._sampler.choose = one  # type: ignore[method-assign]
    chosen(training, 0, 3)
    assert len(set(drawn)) == len(drawn) == 3


# ------------------------------------------------------------------------------------------- built-ins
def test_draws_without_replacement_are_in_proportion_to_the_weights() -> None:
    """Against the exact probability of every ordered pair."""
    weights = [0.5, 0.2, 0.2, 0.1]
    candidates = [Candidate(str(at), "", visits=1, mean_outcome=0.5) for at in range(4)]
    rng, draws = Random(0), 40_000
    counts = Counter(tuple(draw(candidates, weights, 2, rng)) for _ in range(draws))
    for pair in permutations(range(4), 2):
        expected = weights[pair[0]] * weights[pair[1]] / (1 - weights[pair[0]])
        assert abs(counts[pair] / draws - expected) < 5 * np.sqrt(expected / draws)


@pytest.mark.parametrize(
    ("name", "weight"), [("prioritised", lambda p: 1 - p), ("learnability", lambda p: p * (1 - p))]
)
def test_problems_come_as_often_as_the_formula_says(name: str, weight: Any) -> None:
    means, visits = [0.0, 0.5, 1.0, 0.25], [3, 1, 7, 2]
    candidates = [
        Candidate(str(at), "", visits=n, mean_outcome=mean)
        for at, (mean, n) in enumerate(zip(means, visits, strict=True))
    ]
    rates = [(n * mean + 0.5) / (n + 1) for mean, n in zip(means, visits, strict=True)]
    assert [success_rate(one) for one in candidates] == pytest.approx(rates)
    weights = np.array([weight(rate) for rate in rates])
    sampler = ProblemSamplerConfig.model_validate(name).open().make(0)
    rng, draws = Random(1), 20_000
    counts = Counter(
        sampler.choose({"candidates": candidates, "count": 1, "rng": rng, "iteration": 1})[0]
        for _ in range(draws)
    )
    shares = np.array([counts[at] / draws for at in range(4)])
    expected = weights / weights.sum()
    assert np.abs(shares - expected).max() < 5 * np.sqrt(0.25 / draws)


@pytest.mark.parametrize("name", ["prioritised", "learnability"])
def test_new_problems_come_first_and_in_order(name: str) -> None:
    candidates = [Candidate("a", "", visits=1, mean_outcome=0.0), Candidate("b", ""), Candidate("c", "")]
    sampler = ProblemSamplerConfig.model_validate(name).open().make(0)
    known = {"candidates": candidates, "count": 3, "rng": Random(0), "iteration": 1}
    assert sampler.choose(known) == [1, 2, 0]


def test_outcomes_of_a_group_stay_together() -> None:
    rollouts = pa.table({"group": [1, 0, 1, 0], "problem_id": ["b", "a", "b", "a"]})
    grades = pa.table({"outcome": [1.0, 0.0, 0.5, 1.0]})
    assert outcomes_by_group(rollouts, grades) == [("a", [0.0, 1.0]), ("b", [1.0, 0.5])]


# --------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("twice", "returned the index 0 twice"),
        ("outside", "returned the index 10"),
        ("too_many", "returned 3 indices"),
        ("nothing", "returned None"),
        ("words", r"returned the text 'p\d' as an index"),
        ("raises", r"raises AttributeError: .*\(own\.py line \d+\)"),
        ("NotJSON", r"the state\(\) of .* returned \{1, 2\} \(set\), which is no JSON"),
        ("NoState", r".*own.py:NoState has seen and no state"),
        ("NoChoose", r".*own.py:NoChoose is a class without choose"),
        ("Asks", r".*own.py:Asks is made with 'strength', which nobody gives it"),
        ("other", r".*own.py:other takes 'problems', which nobody gives it"),
        ("number", r".*own.py:number is 3 \(int\), which cannot be called"),
        ("few", r".*own.py:few has candidates_per_problem=0 \(int\)"),
    ],
)
def test_what_is_wrong_is_one_sentence(own: Path, name: str, said: str) -> None:
    with pytest.raises(DoorError, match=said) as caught:
        chosen(problems_of(f"{own}:{name}"), 0)
    assert str(caught.value).startswith("train.problem_sampler: ") and "\n" not in str(caught.value)


def test_one_that_never_takes_any_ends_and_so_do_data_with_too_few_problems(own: Path) -> None:
    with pytest.raises(RunError, match="has chosen 0 problems of the 2 of iteration 1 in 100 windows of 16"):
        chosen(problems_of(f"{own}:none_of_them"), 0)
    with pytest.raises(RunError, match="have only 10 different problems"):
        chosen(problems_of("prioritised", count=11), 0, 11)


def config_of(name: str, *more: str) -> Config:
    return load_config(None, [f"train.problem_sampler={name}", "train.problems_per_iteration=2", *more])


@pytest.mark.parametrize("name", ["in_order", "prioritised", "learnability", "hardest", "Rotating", "pruned"])
def test_a_trial_lets_pass_what_is_right(own: Path, name: str) -> None:
    choose_and_restore(config_of(name if name[0] in "ipl" and name != "pruned" else f"{own}:{name}"))


@pytest.mark.parametrize(
    ("name", "said"), [("twice", "twice"), ("Forgetful", r"chooses otherwise after restore\(state\(\)\)")]
)
def test_a_trial_finds_what_is_wrong_before_a_run(own: Path, name: str, said: str) -> None:
    with pytest.raises(DoorError, match=said):
        choose_and_restore(config_of(f"{own}:{name}"))


def test_what_a_run_may_draw_grows_with_the_window() -> None:
    fields = ("train.iterations=3", "prm.warmup_iterations=0")
    assert problems_drawn(config_of("prioritised", *fields)) == 3 * 16
    assert problems_drawn(config_of("{name: prioritised, window: 5}", *fields)) == 3 * 5
    with pytest.raises(ConfigError, match=r"window must be at least problems_per_iteration \(2\), but is 1"):
        config_of("{name: prioritised, window: 1}")


def test_a_typing_mistake_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"train\.problem_sampler: .*did you mean 'prioritised'"):
        config_of("prioritized")


def test_its_code_is_recorded_and_needs_trust(own: Path, tmp_path: Path) -> None:
    config = config_of(f"{own}:hardest")
    (door,) = find_doors(config)
    assert (door.kind, door.text) == ("problem sampler", OWN)
    (tmp_path / "run").mkdir()
    dump_config(with_absolute_paths(config), tmp_path / "run" / "config.yaml")
    with pytest.raises(ConfigError, match="names code of its own"):
        load_run_config(tmp_path / "run", trust=False)
    assert load_run_config(tmp_path / "run").train.problem_sampler.name == "in_order"
    assert load_run_config(tmp_path / "run", trust=True).train.problem_sampler.name == f"{own}:hardest"


def test_the_number_of_candidates_is_no_index_of_one() -> None:
    training = problems_of("prioritised")
    training._sampler.choose = lambda known: [len(known["candidates"])]  # type: ignore[method-assign]
    with pytest.raises(DoorError, match="returned the index 10; it must return a list"):
        chosen(training, 0)
