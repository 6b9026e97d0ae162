"""Settings of a PRM from labels: how steps are labelled, by what loss, on how much."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from airls_ray.config.base import StrictModel
from airls_ray.config.door_section import ConsensusConfig, NameOrSection


class LabelRuleConfig(NameOrSection):
    """A label rule."""

    kind: ClassVar[str] = "label rule"
    where: ClassVar[str] = "supervised_prm.labels"
    unopened: ClassVar[str] = "math_shepherd_soft"


class StepLossConfig(NameOrSection):
    """The loss of a PRM from labels."""

    kind: ClassVar[str] = "step loss"
    where: ClassVar[str] = "supervised_prm.step_loss"
    unopened: ClassVar[str] = "cross_entropy"


class SupervisedPRMConfig(StrictModel):
    """`airls-ray train-prm`: a PRM from labels, the baseline that the papers compare with. It is
    a `prm.parameterisation=scalar_head`, or `log_prob` with `prm.search_score=ratio`; `prm.learner` trains
    it."""

    labels: LabelRuleConfig = LabelRuleConfig(name="math_shepherd_soft")
    """`outcome` (an ORM): the outcome at the last step. `math_shepherd_hard|soft` (arXiv 2312.08935): a
    step is good if any, or by the share, of K completions from it that are correct. `relative_progress`:
    it keeps 0.8 of the share before it. `relative_effective`, `er_prm`, `process_advantage`, `omega_prm`:
    docs/systems.md. Or your own (docs/doors.md)."""
    step_loss: StepLossConfig = StepLossConfig(name="cross_entropy")
    """How a step's logit is compared with its label: `cross_entropy`, `mean_squared_error`,
    `pqm` (ranked within a solution), `implicit_prm` (their sum is the outcome's logit), `spa_rl`
    (their sum is the outcome), `implicit_prm_dpo|kto` (solutions compared), `sprm` (with
    `prm.head=policy`), `cooper` (with `spoiled`), or your own (docs/doors.md)."""
    consensus: ConsensusConfig | None = None
    """A critic (`{name: think_prm, options: {endpoint: ...}}`) or your own scorer that judges what is
    labelled: rollouts whose first wrong step is another to it than by the labels are left out (arXiv
    2501.07301)."""
    text_loss: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Weight w of a language model's loss on right solutions beside that of the steps, (1 - w) times, so that
    a scalar head's model keeps what it knew (GRM, arXiv 2406.10216; 0.01 [P]). 0: none."""
    spoiled: bool = False
    """Whether sampled labels get of every solved problem the first right rollout once more with other
    numbers, where it is wrong then (Cooper, arXiv 2508.05613; for `step_loss=cooper`). Such rows have no
    log-probabilities."""
    completions: PositiveInt = 8
    """[P] K: completions of every prefix."""
    problems: PositiveInt = 512
    """Problems whose rollouts are labelled."""
    rollouts_per_problem: PositiveInt = 4
    """Rollouts of each."""
    problems_per_call: PositiveInt = 64
    """Problems of a chunk: its completions are one batch, and its labels are written before the next one."""
    epochs: PositiveInt = 2
    """Passes over the labels."""
    rollouts_per_update: PositiveInt = 128
    """Labelled rollouts of one optimiser update, over all ranks."""
    held_out: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of the problems that is kept for measuring."""
    step_end: str | None = None
    """`train-prm --steps`: text behind each step but the last of a whole solution, as in the responses that
    the PRM will score; `score` puts it there, too. Empty: steps stay as they are. null: what ends a step of
    task `file` or `code`, for any other task a blank line."""
    bad_rows: Literal["error", "skip"] = "error"
    """`train-prm --steps`: what a row that is malformed or longer than `model.context_tokens` does: stop
    with one sentence, or be left out, counted and named."""
