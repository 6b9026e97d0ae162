"""Methods as data: each name fills the fields of `MethodConfig` that the user did not set.

A method is which PRM objective feeds which reward into which advantage. The loop has no branch on
the name. Sources: AIRL-S arXiv 2508.14313; GRPO arXiv 2402.03300; Dr. GRPO arXiv 2503.20783;
RLOO arXiv 2402.14740.
"""

from __future__ import annotations

from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "airl_s": {"prm_objective": "airl", "outcome_advantage": "grpo", "step_weight": 0.5},
    "grpo": {"prm_objective": "none", "outcome_advantage": "grpo", "step_weight": 0.0},
    "dr_grpo": {
        "prm_objective": "none",
        "outcome_advantage": "dr_grpo",
        "step_weight": 0.0,
        "aggregation": "constant",
    },
    "rloo": {"prm_objective": "none", "outcome_advantage": "rloo", "step_weight": 0.0},
}
