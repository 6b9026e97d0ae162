"""Methods as data: each name fills the fields of `method` and `prm` that the user did not set.

A method is which PRM objective feeds which reward into which advantage. The loop has no branch on
the name. Sources: AIRL-S arXiv 2508.14313; rePIRL 2602.07832; PRIME 2502.01456; PURE 2504.15275;
GRPO 2402.03300; Dr. GRPO 2503.20783; RLOO 2402.14740; DAPO 2503.14476; Math-Shepherd 2312.08935;
OPD and ExOPD 2602.12125.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Preset = dict[str, dict[str, Any]]


def _distillation(**teacher: Any) -> Preset:
    """The teacher alone teaches: each token's reward is its advantage."""
    return {
        "method": {
            "prm_objective": "frozen",
            "step_weight": 1.0,
            "step_baseline": "none",
            "step_return": "immediate",
        },
        "prm": {"reward": "distillation", "action": "token", "reward_unit": "token", **teacher},
    }


METHODS: dict[str, Preset] = {
    "airl_s": {
        "method": {"prm_objective": "airl", "outcome_advantage": "grpo", "step_weight": 0.5},
    },
    "repirl": {
        "method": {
            "prm_objective": "repirl",
            "outcome_advantage": "rloo",
            "trajectory_weight": 0.05,
            "entropy_coefficient": 0.001,
        },
        "prm": {
            "parameterisation": "scalar_head",
            "action": "token",
            "reward": "f",
            "reward_unit": "token",
            "negatives": "failed",
            "correct_rollouts": "reference",
            "output_l2": 0.01,
            "warmup_iterations": 0,
            "updates_per_iteration": 1,
            "search_aggregate": "mean_odds",
        },
    },
    # The published program; eq. 5 of the paper alone: `method.step_scale: none`, `prm.score_by: updated`,
    # `method.accuracy_band: null`.
    "prime": {
        "method": {
            "prm_objective": "prime",
            "outcome_advantage": "rloo",
            "accuracy_band": (0.2, 0.8),
            "step_scale": "largest_return",
            # The plain sum of both advantages: the weights 1/2 each are undone by the whitening.
            "step_weight": 0.5,
            "step_baseline": "leave_one_out",
            "return_per_step": False,
            "whiten": True,
        },
        "prm": {
            "parameterisation": "log_prob",
            "action": "token",
            "reward_unit": "token",
            "warmup_iterations": 0,
            "updates_per_iteration": 1,
            "score_by": "previous",
            "search_score": "reference_ratio",
            "search_aggregate": "odds",
        },
    },
    # Theirs also: a baseline over tokens (a step's reward stands at its last one; ours is over steps). Their
    # coefficient of the verifier is 1; the weights 1/2 each are undone by whitening, as for `prime`.
    "pure": {
        "method": {
            "prm_objective": "frozen",
            "outcome_advantage": "rloo",
            "step_weight": 0.5,
            "step_transform": "min_form",
            "step_baseline": "leave_one_out",
            "return_per_step": False,
            "whiten": True,
        },
        "prm": {"reward": "signed_probability"},
    },
    "orm": {
        "method": {
            "prm_objective": "frozen",
            "outcome_advantage": "rloo",
            "trajectory_weight": 1.0,
            "trajectory_reward": "last",
        },
        "prm": {"parameterisation": "scalar_head", "reward": "probability", "search_aggregate": "last"},
    },
    "math_shepherd": {
        "method": {"prm_objective": "frozen", "outcome_advantage": "grpo", "step_weight": 0.5},
        "prm": {"parameterisation": "scalar_head", "reward": "probability", "search_aggregate": "min"},
    },
    "grpo": {"method": {"prm_objective": "none", "outcome_advantage": "grpo"}},
    "dr_grpo": {
        "method": {"prm_objective": "none", "outcome_advantage": "dr_grpo", "aggregation": "constant"},
    },
    "rloo": {"method": {"prm_objective": "none", "outcome_advantage": "rloo"}},
    "dapo": {
        "method": {
            "prm_objective": "none",
            "outcome_advantage": "grpo",
            "clip_high": 0.28,
            "drop_constant_groups": True,
        },
    },
    "opd": _distillation(),
    # lambda of the authors' script (`run_qwen3-4b-g-opd.sh`).
    "exopd": _distillation(distillation_scale=1.25),
}


def fill_sections(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's sections with those of its method's preset below them.

    `method` itself is filled by `MethodConfig`, which also serves where it stands alone.
    """
    method = tree.get("method", "airl_s")
    name = method.get("name", "airl_s") if isinstance(method, Mapping) else method
    preset = METHODS.get(name, {}) if isinstance(name, str) else {}
    result = dict(tree)
    for section, fields in preset.items():
        given = result.get(section, {})
        if section != "method" and isinstance(given, Mapping):
            result[section] = {**_of_densities(fields, given), **given}
    return result


def _of_densities(fields: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a preset's `prm` with the product where it takes the odds of what is a density by `given`."""
    both = {"parameterisation": "log_prob", "search_score": "auto", **fields, **given}
    density = both["parameterisation"] == "log_prob" and both["search_score"] in ("auto", "exp_f", "product")
    odds = fields.get("search_aggregate") in ("odds", "mean_odds")
    return {**fields, "search_aggregate": "prod"} if density and odds else fields
