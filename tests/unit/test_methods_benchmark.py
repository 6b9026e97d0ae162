"""The methods benchmark: its variants load, its keys tell settings apart, its statistics are right."""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # as for `python benchmarks/NAME.py`

import method_rates  # noqa: E402
import method_variants  # noqa: E402
import methods  # noqa: E402
import methods_table  # noqa: E402

pytestmark = pytest.mark.usefixtures("files_parsed_once")
ALL = [one.name for one in (*method_variants.METHODS, *method_variants.ABLATIONS)]


@pytest.mark.parametrize("task", list(method_variants.CONFIGS))
@pytest.mark.parametrize("name", ALL)
def test_every_variant_is_a_valid_configuration_at_equal_rollouts(task: str, name: str) -> None:
    config = methods.run_config(task, 0, method_variants.variant(name), 60)
    assert config.iterations == 60


def test_an_ablation_changes_what_it_names_and_keeps_the_rest() -> None:
    whole, cut = (
        methods.run_config("arithmetic", 0, method_variants.variant(name), 60)
        for name in ("repirl", "repirl_unweighted")
    )
    assert (whole.prm.repirl.weight, cut.prm.repirl.weight) == ("mean", "none")
    assert whole.method == cut.method


def test_keys_tell_settings_apart_but_not_places() -> None:
    def key(**changes: Any) -> str:
        config = methods.run_config("arithmetic", 0, method_variants.variant("grpo"), 60)
        return methods.key_of(config.model_copy(update=changes))

    config = methods.run_config("arithmetic", 0, method_variants.variant("grpo"), 60)
    moved = {"output": Path("elsewhere"), "model": config.model.model_copy(update={"path": "/other"})}
    assert key(**moved) == key()
    slower = config.policy.model_copy(update={"learning_rate": 1e-5})
    assert key(policy=slower) != key()
    assert methods.key_of(methods.run_config("arithmetic", 1, method_variants.variant("grpo"), 60)) != key()
    assert methods.key_of(methods.run_config("arithmetic", 0, method_variants.variant("grpo"), 40)) != key()


def test_counts_are_a_digit_a_problem() -> None:
    groups, outcomes = [0] * 16 + [1] * 16, [1.0] * 16 + [1.0] * 3 + [0.0] * 13
    assert methods_table.counts_text(groups, outcomes) == "g3"


@pytest.mark.parametrize("k", [1, 4, 16])
def test_any_of_k_is_the_share_of_sets_with_a_right_one(k: int) -> None:
    rights = (0, 1, 5, 16)
    text = "".join(methods_table.DIGITS[right] for right in rights)
    sets = [list(one) for one in itertools.islice(itertools.combinations(range(16), k), 20000)]
    expected = [sum(min(one) < right for one in sets) / len(sets) for right in rights]
    assert methods_table.pass_at(text, k) == pytest.approx(expected)


def test_the_interval_of_equal_problems_is_a_point() -> None:
    assert methods_table.interval(["8" * 50, "8" * 50]) == (0.5, 0.5)


def test_the_interval_of_one_run_is_that_of_its_problems() -> None:
    """Half of 400 problems solved: a standard error of 0.025, so about 0.45 to 0.55."""
    low, high = methods_table.interval(["0" * 200 + "g" * 200])
    assert low == pytest.approx(0.451, abs=0.01)
    assert high == pytest.approx(0.549, abs=0.01)


def test_reaching_counts_rollouts_and_seconds_up_to_the_smoothed_target() -> None:
    record = {
        "outcome": [0.0] * 5 + [1.0] * 5,
        "seconds_by_iteration": [2.0] * 10,
        "rollouts": 1000,
    }
    assert methods_table.reached(record, 0.6) == (800, 16.0)
    assert methods_table.reached(record, 1.1) is None


def record(variant: str, seed: int, sampled: float, **extra: Any) -> dict[str, Any]:
    search = {"best_of_n": 0.9, "policy_log_prob": 0.8, "majority": 0.7}
    prm = {"step_auroc": 0.95, "first_error_f1": 0.6}
    return {
        "task": "arithmetic",
        "variant": variant,
        "seed": seed,
        "accuracy": {"base": {"sampled": 0.5, "greedy": 0.6}, "trained": {"sampled": sampled, "greedy": 0.8}},
        "search": search,
        "search_base": search,
        "prm": prm,
        "prm_base": prm,
        "policy_log_prob": prm,
        "policy_log_prob_base": {"step_auroc": 0.9, "first_error_f1": 0.5},
        "right_of_16": "8" * 20,
        "outcome": [0.7] * 10,
        "seconds_by_iteration": [1.0] * 10,
        "rollouts": 100,
        **extra,
    }


def test_means_are_taken_over_seeds_by_variant() -> None:
    records = [record("airl_s", 0, 0.8), record("airl_s", 1, 0.9), record("grpo", 0, 0.6)]
    table = methods_table.summarise(records, "arithmetic")
    assert list(table) == ["base", "grpo", "airl_s"]
    assert table["airl_s"]["sampled"] == pytest.approx(0.85)
    assert table["airl_s"]["seeds"] == 2
    assert table["base"]["sampled"] == 0.5


def test_a_figure_that_a_seed_does_not_have_is_the_mean_of_the_others() -> None:
    lengths = [math.nan, 0.1, 0.3]
    prms = [{"step_auroc": 0.9, "length_correlation": value} for value in lengths]
    records = [record("airl_s", seed, 0.8, prm_base=prm) for seed, prm in enumerate(prms)]
    table = methods_table.summarise(records, "arithmetic")
    assert table["airl_s"]["prm_base/length_correlation"] == pytest.approx(0.2)
    assert "prm/length_correlation" not in table["airl_s"]


def test_the_control_stands_first_among_the_prms() -> None:
    table = methods_table.summarise([record("airl_s", 0, 0.8)], "arithmetic")
    control, majority, prm = methods_table.prm_rows(table)
    assert control[:5] == ("policy log-probability (control)", "0.900", "-", "0.500", "0.800")
    assert majority[4] == "0.700"
    assert prm[:5] == ("AIRL-S", "0.950", "-", "0.600", "0.900")


def test_the_control_is_that_of_the_most_seeds() -> None:
    more = [record("airl_s", seed, 0.8) for seed in range(2)]
    for one in more:
        one["search_base"] = {**one["search_base"], "policy_log_prob": 0.4}
    table = methods_table.summarise([record("prime", 0, 0.8), *more], "arithmetic")
    control, *_ = methods_table.prm_rows(table)
    assert control[4] == "0.400"


def test_a_table_without_a_base_yet_is_drawn(tmp_path: Path) -> None:
    """The first record may be that of supervised training, which measures no base."""
    first = record("sft", 0, 0.9, accuracy={"trained": {"sampled": 0.9, "greedy": 1.0}})
    methods_table.draw(
        tmp_path / "picture.png", {"arithmetic": methods_table.summarise([first], "arithmetic")}
    )
    assert (tmp_path / "picture.png").exists()


def test_labelling_cost_is_shown() -> None:
    paid = record("pure", 0, 0.6, labels={"cost": {"labelling_rollouts": 12345, "seconds": 61.0}})
    rows = methods_table.prm_rows(methods_table.summarise([paid], "arithmetic"))
    assert rows[-1][-1] == "12,345 rollouts, 61 seconds"


def test_markdown_and_picture_are_made(tmp_path: Path) -> None:
    table = methods_table.summarise([record("airl_s", 0, 0.8), record("grpo", 0, 0.6)], "arithmetic")
    text = methods_table.markdown("arithmetic", table)
    assert (
        "| AIRL-S | 1 | 0.800 (0.500-0.500) | 0.800 | 0.962 | 1.000 (1.000-1.000) | 1 of 1: 50 | 5 | - |"
        in text
    )
    methods_table.draw(tmp_path / "picture.png", {"arithmetic": table, "countdown": {}})
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_records_of_other_settings_stay_out_of_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(methods, "RECORDS", tmp_path / "runs.jsonl")
    config = methods.run_config("arithmetic", 0, method_variants.variant("grpo"), 60)
    for key in (methods.key_of(config), "arithmetic/grpo_seed_0/00000000"):
        methods.append_record({"key": key, **record("grpo", 0, 0.6)})
    assert list(methods.current_records(1, 60, ["arithmetic"])) == [methods.key_of(config)]
    assert len(methods.read_records()) == 2


def test_the_committed_runs_are_of_the_settings_as_they_are() -> None:
    """A field that is added to a configuration must not make hours of runs look like other settings'."""
    found = {
        (record["task"], record["variant"], record["seed"])
        for record in methods.current_records(3, None, methods.TASKS).values()
    }
    for seed in range(3):
        assert ("arithmetic", "airl_s", seed) in found
        assert ("countdown", "grpo", seed) in found


def write_rates(file: Path, accuracies: dict[float, float]) -> None:
    rows = [
        {
            "key": str(rate),
            "task": "jugs",
            "variant": "grpo",
            "rate": rate,
            "validation": {"10": 0.9, "40": last},
        }
        for rate, last in accuracies.items()
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_puzzle_takes_the_rate_that_was_best_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(method_rates, "RECORDS", tmp_path / "rates.jsonl")
    low, high = method_rates.RATES
    write_rates(method_rates.RECORDS, {low: 0.6, high: 0.5})
    tuned, other = (
        methods.run_config("jugs", 0, method_variants.variant(name), None) for name in ("grpo", "rloo")
    )
    assert tuned.policy.learning_rate == low
    assert other.policy.learning_rate == method_rates.UNTUNED  # its grid was not run
    assert method_rates.chosen("arithmetic", "grpo") == method_rates.chosen("jugs", "sft") == ()


def test_half_a_grid_chooses_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(method_rates, "RECORDS", tmp_path / "rates.jsonl")
    write_rates(method_rates.RECORDS, {method_rates.RATES[0]: 0.9})
    assert method_rates.chosen("jugs", "grpo") == (f"policy.learning_rate={method_rates.UNTUNED:g}",)


def test_every_method_of_a_grid_differs_from_its_run_in_rate_and_validation_alone() -> None:
    for one in method_variants.METHODS:
        found = method_rates.rate_config("quantum_lock", one, 1e-5)
        plain = methods.run_config("quantum_lock", 0, one, None)
        assert found.policy.learning_rate == 1e-5
        assert found.iterations == plain.iterations == found.train.evaluate_every * 4
        assert found.train.evaluation.skip >= plain.search.problems  # none of the final figures' problems
        assert (found.method, found.prm) == (plain.method, plain.prm)
