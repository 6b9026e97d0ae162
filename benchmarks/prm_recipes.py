"""What `prm_baselines.py` compares: ways to train a PRM, as overrides of a task's configuration."""

from __future__ import annotations

from dataclasses import dataclass

AGGREGATES = ("min", "prod", "mean", "last")
SCALAR = ("prm.parameterisation=scalar_head", "prm.search_score=auto", "prm.log_prob=auto", "prm.reward=f")
RATIO = ("prm.parameterisation=log_prob", "prm.search_score=ratio", "prm.log_prob=sum")
TRUTH, TRACES, SPOILED = "truth", "traces", "spoiled"
"""What is no label rule: the truth of the steps; no labels, but the traces as text to be likely; outcomes,
and right rollouts with other numbers."""


@dataclass(frozen=True)
class Recipe:
    """A way to train a PRM."""

    name: str
    label: str
    overrides: tuple[str, ...]
    rates: tuple[float, ...]
    labels: str | None = None
    """The label rule, or `TRUTH`, `TRACES`, `SPOILED`; None: by the method's objective on what is stored."""
    aggregates: tuple[str, ...] = AGGREGATES
    """Tried, the best on validation problems is taken."""


_SLOW, _FAST = (1e-4, 3e-4), (3e-4, 1e-3)
RECIPES = (
    Recipe("airl_s", "AIRL-S, mean of log phi", ("method=airl_s",), _SLOW),
    Recipe(
        "airl_s_ratio", "AIRL-S, log phi - log pi", ("method=airl_s", *RATIO, "prm.reward=log_odds"), _SLOW
    ),
    Recipe(
        "expert",
        "language model of the traces alone, times the policy",
        ("method=airl_s", "prm.log_prob=sum", "prm.search_score=product"),
        _FAST,
        TRACES,
    ),
    Recipe(
        "repirl",
        "rePIRL",
        (
            "method=repirl", "prm.action=token", "prm.reward_unit=token", "prm.output_l2=0.1",
            "prm.negatives=failed", "prm.correct_rollouts=reference", "prm.log_prob=sum",
            "prm.search_aggregate=prod",
        ),
        _SLOW,
    ),
    Recipe(
        "implicit", "implicit PRM, outcomes", ("method=orm", *RATIO, "supervised_prm.step_loss=implicit_prm"),
        _SLOW, "outcome", ("odds", *AGGREGATES),
    ),
    Recipe("orm", "outcomes, scalar head", ("method=orm", *SCALAR), _FAST, "outcome"),
    Recipe("soft", "Math-Shepherd soft, scalar head", ("method=orm", *SCALAR), _FAST, "math_shepherd_soft"),
    Recipe(
        "soft_text", "Math-Shepherd soft and GRM's loss of 0.01, scalar head",
        ("method=orm", *SCALAR, "supervised_prm.text_loss=0.01"), _FAST, "math_shepherd_soft",
    ),
    Recipe(
        "soft_more_text", "Math-Shepherd soft and GRM's loss of 0.3, scalar head",
        ("method=orm", *SCALAR, "supervised_prm.text_loss=0.3"), _FAST, "math_shepherd_soft",
    ),
    Recipe(
        "soft_ratio", "Math-Shepherd soft, log phi - log pi", ("method=orm", *RATIO), _SLOW,
        "math_shepherd_soft",
    ),
    Recipe("hard", "Math-Shepherd hard, scalar head", ("method=orm", *SCALAR), _FAST, "math_shepherd_hard"),
    Recipe("progress", "relative progress, scalar head", ("method=orm", *SCALAR), _FAST, "relative_progress"),
    Recipe(
        "pqm", "PQM on hard labels, scalar head",
        ("method=orm", *SCALAR, "supervised_prm.step_loss=pqm"), _FAST, "math_shepherd_hard",
    ),
    Recipe("er_prm", "ER-PRM, log phi - log pi", ("method=orm", *RATIO), _SLOW, "er_prm"),
    Recipe(
        "pav", "PAV's progress, log phi - log pi",
        ("method=orm", *RATIO, "supervised_prm.step_loss=mean_squared_error"), _SLOW, "process_advantage",
    ),
    Recipe(
        "effective", "StepWiser's effective progress, log phi - log pi", ("method=orm", *RATIO), _SLOW,
        "relative_effective",
    ),
    Recipe(
        "implicit_dpo", "implicit PRM by DPO",
        ("method=orm", *RATIO, "supervised_prm.step_loss=implicit_prm_dpo"), _SLOW, "outcome",
        ("odds", *AGGREGATES),
    ),
    Recipe(
        "implicit_kto", "implicit PRM by KTO",
        ("method=orm", *RATIO, "supervised_prm.step_loss=implicit_prm_kto"), _SLOW, "outcome",
        ("odds", *AGGREGATES),
    ),
    Recipe(
        "spa_rl", "SPA-RL, scalar head", ("method=orm", *SCALAR, "supervised_prm.step_loss=spa_rl"), _FAST,
        "outcome", ("odds", *AGGREGATES),
    ),
    Recipe("omega", "OmegaPRM, scalar head", ("method=orm", *SCALAR), _FAST, "omega_prm"),
    Recipe(
        "birm", "BiRM, scalar head",
        ("method=orm", *SCALAR, "prm.outcome_head=1.0", "supervised_prm.step_loss=mean_squared_error"), _FAST,
        "math_shepherd_soft",
    ),
    Recipe(
        "sprm", "SPRM, a head on the frozen policy",
        ("method=orm", *SCALAR, "prm.head=policy", "supervised_prm.step_loss=sprm"), _FAST, "outcome",
        (*AGGREGATES, "geometric_mean"),
    ),
    Recipe(
        "cooper", "Cooper with spoiled solutions, scalar head",
        ("method=orm", *SCALAR, "supervised_prm.step_loss=cooper"), _FAST, SPOILED, ("last",),
    ),
    Recipe("truth", "true step labels, scalar head", ("method=orm", *SCALAR), _FAST, TRUTH),
    Recipe(
        "truth_more_text", "true step labels and GRM's loss of 0.3, scalar head",
        ("method=orm", *SCALAR, "supervised_prm.text_loss=0.3"), _FAST, TRUTH,
    ),
    Recipe("truth_ratio", "true step labels, log phi - log pi", ("method=orm", *RATIO), _SLOW, TRUTH),
)  # fmt: skip
