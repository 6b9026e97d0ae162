"""The benchmarks' own arithmetic: what is measured is left to the benchmarks themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # as for `python benchmarks/NAME.py`

import common  # noqa: E402
import comparison  # noqa: E402
import iteration  # noqa: E402
import offline_prm_data  # noqa: E402
import search_table  # noqa: E402
import stage_work  # noqa: E402
import weight_sync  # noqa: E402

from airls_ray.planning.shapes import ModelShape  # noqa: E402

COMMANDS = (
    "rollout",
    "policy_learner",
    "packing",
    "logits",
    "weight_sync",
    "iteration",
    "airls_vs_grpo",
    "methods",
    "uses",
    "search_speed",
    "peers",
    "search_peers",
    "prm_scoring",
    "search_curves",
    "countdown",
    "chaos",
    "scale",
    "virtual_scale",
    "gpu_times",
    "math_grader",
    "answers",
    "code_grader",
    "offline_prm",
)


def test_pairs_alternate_after_one_warm_up_of_each_side():
    calls = []

    def side(name, value):
        def measure():
            calls.append(name)
            return value

        return measure

    pairs = common.measure_pairs(side("a", 2.0), side("b", 4.0), 3)
    assert "".join(calls) == "ab" * 4
    assert pairs.ours == [2.0] * 3
    assert pairs.ratio == common.Spread(0.5, 0.5, 0.5)


def test_the_ratio_is_taken_within_a_pair():
    pairs = common.Pairs([1.0, 10.0, 100.0], [2.0, 10.0, 50.0])
    assert pairs.ratio == common.Spread(median=1.0, low=0.5, high=2.0)


def test_a_line_is_found_exactly():
    intercept, slope = common.fit_line([1.0, 2.0, 5.0], [5.0, 7.0, 13.0])
    assert (intercept, slope) == pytest.approx((3.0, 2.0))


def test_a_line_needs_two_points():
    with pytest.raises(ValueError, match="two different x"):
        common.fit_line([1.0, 1.0], [1.0, 2.0])


def syncs(noise=0.0):
    # 5 ms, and per byte 1 (pack) + 0.5 (put) + 2 (load) copies of 1 ns; noise in one round of the smallest.
    measured = {
        size: [weight_sync.Round(size * 1e-9, size * 0.5e-9, 5e-3 + size * 2e-9, size * 1e-9)] * 3
        for size in (1_000_000, 20_000_000, 100_000_000)
    }
    measured[1_000_000] = [*measured[1_000_000], weight_sync.Round(1e-3, 0.5e-3, 7e-3 + noise, 1e-3)]
    return measured


def test_the_fixed_cost_of_a_sync_is_no_copy():
    figures = weight_sync.fitted(syncs())
    assert figures["copies"] == pytest.approx(3.5)
    assert figures["copies_range"] == pytest.approx([3.5, 3.5])
    assert figures["copies_by_part"] == pytest.approx({"pack": 1.0, "put": 0.5, "load": 2.0})
    assert figures["fixed_seconds"] == pytest.approx(5e-3)


def test_a_slow_round_of_a_small_model_hides_no_copies():
    assert weight_sync.fitted(syncs(noise=0.5))["copies"] == pytest.approx(3.5)


def test_stages_and_the_rest_add_up_to_the_iteration():
    lines = [
        {
            "time/rollout": 1.0,
            "time/policy_update": 0.5,
            "time/iteration": total,
            "tokens_per_second/rollout": 100.0,
            "policy/rollouts": 8.0,
        }
        for total in (2.0, 2.5)
    ]
    stages = iteration.summarise(lines)["stages"]
    shares = {name: stage["share"] for name, stage in stages.items()}
    assert shares.pop("iteration") == 1.0
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares[iteration.REST] == pytest.approx(1.5 / 4.5)


def test_the_arithmetic_of_a_stage_is_that_of_its_tokens():
    """Attention left out by a width of no heads: 2 N a token forwards, 6 N where it is learned from."""
    shape = ModelShape(
        hidden=8, layers=1, heads=0, kv_heads=0, head_dim=0, intermediate=16, vocab=4, tied=True
    )
    parameters = 3 * 8 * 16 + 2 * 8 + 4 * 8  # the gated MLP, two norms, the output layer
    line = {
        "policy/rollouts": 4.0, "policy/tokens": 40.0, "policy/sequences": 3.0, "policy/updates": 2.0,
        "prm/updates": 5.0, "prm/sequences": 6.0,
    }  # fmt: skip
    found = stage_work.stage_gflop(shape, line, groups=2, prompt=5.0)
    tokens = {"rollout": 2 * (40 + 2 * 5), "policy_update": 6 * 45 + 2 * 45 / 2}
    tokens |= {"prm_update": 6 * 5 * 6 * 15, "prm_score": 2 * 4 * 15}
    assert found == pytest.approx({name: count * parameters / 1e9 for name, count in tokens.items()})
    shared = stage_work.stage_gflop(shape, line, groups=2, prompt=5.0, prm_shares=3)
    assert shared == pytest.approx(found | {"prm_update": found["prm_update"] / 3})


def test_a_verdict_names_its_target():
    assert common.verdict(0.95, 0.95) == ">= 0.95 met"
    assert common.verdict(3.1, 3.0, at_most=True) == "<= 3 MISSED"


def test_a_result_of_another_name_says_which_program_made_it(tmp_path):
    record = json.loads(common.write_result("iteration_grpo", {}, tmp_path, script="iteration").read_text())
    assert record["command"].startswith("python benchmarks/iteration.py")


def test_a_result_file_says_what_it_depends_on(tmp_path):
    path = common.write_result("rollout", {"ratio": 1.0}, tmp_path)
    record = json.loads(path.read_text())
    assert record["figures"] == {"ratio": 1.0}
    assert record["command"].startswith("python benchmarks/rollout.py")
    assert record["machine"]["cores"] >= 1
    assert record["versions"]["torch"]
    assert record["date"].endswith("+00:00")


def test_a_digest_depends_on_every_text():
    assert len({common.digest("a", "b"), common.digest("a"), common.digest("a", "c")}) == 3


# -------------------------------------------------------------------------------------- comparison
def run(base, trained, step_auroc=0.97):
    def search(value):
        names = ("best_of_n", "majority", "weighted", "policy_log_prob", "oracle")
        return {name: {"16": value + 0.01 * rank} for rank, name in enumerate(reversed(names))}

    return {
        "accuracy": {
            "base": {"sampled": base, "greedy": base + 0.1},
            "trained": {"sampled": trained, "greedy": trained + 0.1},
        },
        "search": search(trained),
        "search_base": search(base),
        **{
            key: {"step_auroc": value, "trace_auroc": value}
            for key, value in (
                ("prm", step_auroc),
                ("prm_base", step_auroc),
                ("policy_log_prob", 0.9),
                ("policy_log_prob_base", 0.9),
            )
        },
    }


def supervised(value):
    one = run(value, value)
    return {"accuracy": one["accuracy"]["trained"], "search": one["search"]}


def compare(airl, grpo):
    table = comparison.accuracies(airl, grpo, [supervised(0.6)] * len(airl))
    return {c["name"]: c for c in comparison.targets(table, comparison.prm_figures(airl))}


def test_differences_are_taken_seed_by_seed():
    first, second = comparison.over_seeds([0.5, 0.75]), comparison.over_seeds([0.25, 0.25])
    difference = comparison.differences(first, second)
    assert difference["seeds"] == [0.25, 0.5]
    assert difference["mean"] == 0.375
    assert difference["std"] == pytest.approx(0.125 * 2**0.5)


def test_targets_compare_means_over_seeds():
    checks = compare([run(0.45, 0.75), run(0.5, 0.70)], [run(0.45, 0.6), run(0.5, 0.62)])
    assert checks["AIRL-S - base, sampled"]["reached"] == pytest.approx(0.25)
    assert checks["AIRL-S - GRPO, sampled"]["reached"] == pytest.approx(0.115)
    assert all(check["met"] for check in checks.values())


def test_a_missed_target_is_shown():
    checks = compare([run(0.7, 0.75, step_auroc=0.89)], [run(0.7, 0.74)])
    assert {name for name, check in checks.items() if not check["met"]} == {
        "base, sampled (highest seed)",
        "AIRL-S - base, sampled",
        "AIRL-S - GRPO, sampled",
        "PRM step AUROC",
        "PRM - policy log-prob, step AUROC",
    }


def test_ways_that_need_a_prm_are_missing_without_one():
    grpo = run(0.4, 0.5)
    for name in ("best_of_n", "weighted"):
        del grpo["search"][name]
    table = comparison.accuracies([run(0.4, 0.6)], [grpo], [supervised(0.5)])
    assert "grpo" not in table["best_of_n_16"]
    assert table["majority_16"]["grpo"]["mean"] == pytest.approx(0.53)


def test_the_best_variant_is_by_the_mean_over_seeds():
    assert comparison.best_variant({"0.1": [0.5, 0.8], "0.2": [0.7, 0.7]}) == "0.2"


def test_a_band_spans_smoothed_curves_where_all_have_values():
    curves = [{1: 0.0, 2: 1.0, 3: 2.0}, {1: 4.0, 2: 4.0, 3: 4.0, 4: 9.0}]
    x, mean, low, high = comparison.band(curves, window=2)
    assert (x, mean, low, high) == ([1, 2, 3], [2.0, 2.25, 2.75], [0.0, 0.5, 1.5], [4.0] * 3)


def test_the_last_outcomes_are_those_of_the_last_iterations():
    curves = [{3: 1.0, 1: 0.0, 2: 0.5}, {1: 9.0, 2: 0.25, 3: 0.25}]
    assert comparison.last_outcomes(curves, iterations=2)["seeds"] == [0.75, 0.25]


def test_the_picture_is_drawn(tmp_path):
    table = comparison.accuracies([run(0.4, 0.6)], [run(0.4, 0.5)], [supervised(0.5)])
    curves = {"airl_s": [{1: 0.4, 2: 0.5}], "grpo": [{1: 0.4, 2: 0.45}]}
    comparison.draw(tmp_path / "picture.png", curves, table, warmup=1)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_question_with_four_solutions_is_four_rollouts_and_a_trace():
    found = {model: {"solution": "1 + 1 = 2\nA: 2", "is_correct": True} for model in offline_prm_data.MODELS}
    found["6b_verification"] = {"solution": "I do not know", "is_correct": False}
    line = {"question": "1 + 1?", "ground_truth": "It is 2.\nA: 2", **found}
    rollouts, traces = offline_prm_data.solutions([line, line])
    assert [row["problem_id"] for row in rollouts] == ["gsm8k-0"] * 4 + ["gsm8k-1"] * 4
    assert [(row["answer"], row["correct"]) for row in rollouts[:4]] == [
        ("2", True), (None, False), ("2", True), ("2", True),
    ]  # fmt: skip
    assert [row["trace"] for row in traces] == ["It is 2.\nA: 2"] * 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        f"for name in {COMMANDS!r}: __import__(name)\n"
        "print(sorted({'torch', 'ray', 'vllm', 'transformers', 'pyarrow'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(BENCHMARKS)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def search_row(scorer: str, accuracy: float, margin: float = 0.05) -> dict[str, object]:
    interval = {"low": accuracy - margin, "high": accuracy + margin}
    return {"algorithm": "beam", "scorer": scorer, "budget": 16, "accuracy": accuracy, **interval}


@pytest.mark.parametrize(("margin", "said"), [(0.05, "intervals apart"), (0.2, "intervals not apart")])
def test_scorers_are_compared_at_equal_width(margin: float, said: str):
    rows = [
        search_row("prm", 0.9, margin),
        search_row("policy_log_prob", 0.7, margin),
        search_row("math_shepherd", 0.5, margin),
    ]
    (line,) = search_table.compare_scorers({"rows": rows, "best_of_n": {"majority": {"16": 0.65}}})
    assert said in line
    assert "majority 0.650" in line


def test_a_search_without_rivals_is_not_compared():
    found = {"rows": [search_row("prm", 0.9)], "best_of_n": {}}
    assert search_table.compare_scorers(found) == []


def test_the_prm_from_labels_may_be_absent():
    rows = [search_row("prm", 0.9), search_row("policy_log_prob", 0.7)]
    (line,) = search_table.compare_scorers({"rows": rows, "best_of_n": {}})
    assert "control 0.700" in line
    assert "Math-Shepherd" not in line


def test_only_parts_with_a_target_get_a_verdict():
    assert "MISSED" in search_table._verdict("4 numbers", 0.5)
    assert search_table._verdict("arithmetic", 0.5) == ""
