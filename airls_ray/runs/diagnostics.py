"""Known failures of adversarial training, seen in the metrics of a run and said in words, once each.

Thresholds are our choice, set so that the demo and its GRPO counterpart stay silent and the failures met in
this project's own runs are named (docs/methods.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

Line = Mapping[str, float | str | None]

SHORT = 5
"""Iterations of a short mean."""
LONG = 10
"""Iterations of each of the two windows that a trend is read from."""


@dataclass(frozen=True)
class Finding:
    """One known failure."""

    kind: str
    sentence: str


def saturated_discriminator(lines: Sequence[Line]) -> str | None:
    """Both class accuracies at 98 % or more: the logits carry no more information on single steps."""
    sides = [_last(lines, f"prm/{side}_accuracy", SHORT) for side in ("expert", "policy")]
    if any(not values for values in sides) or min(fmean(values) for values in sides) < 0.98:
        return None
    return (
        f"the PRM tells traces from rollouts with {min(fmean(v) for v in sides):.0%} accuracy: its rewards "
        "are the same for every step of the policy. Look for a difference of format between traces and "
        "rollouts; set prm.accuracy_ceiling, prm.label_smoothing or a lower prm.learner.learning_rate"
    )


def hacked_reward(lines: Sequence[Line]) -> str | None:
    """The PRM's reward rises while the outcome falls, both beyond their noise."""
    reward, outcome = _trend(lines, "prm/reward_mean"), _trend(lines, "outcome/mean")
    if reward is None or outcome is None or reward <= 0 or outcome >= -0.05:
        return None
    return (
        f"the PRM's reward rises while the outcome falls (by {-outcome:.2f} in {LONG} iterations): the "
        "policy learns to please the PRM. Lower method.step_weight (or trajectory_weight), raise "
        "prm.updates_per_iteration, or add method.kl_coefficient"
    )


def falling_outcome(lines: Sequence[Line]) -> str | None:
    """The outcome is below half of what it was when the policy began to learn."""
    change = _change(lines, "outcome/mean")
    if change is None or change[0] < 0.05 or change[1] > 0.5 * change[0]:
        return None
    return f"the outcome fell from {change[0]:.2f} to {change[1]:.2f}: the rewards destroy the policy. " + (
        "An untrained PRM pays for unlikely steps: raise prm.warmup_iterations, set prm.reward=f, or lower "
        "policy.learning_rate"
        if _numbers(lines, "prm/updates")
        else "Lower policy.learning_rate, or add method.kl_coefficient"
    )


def drifting_length(lines: Sequence[Line]) -> str | None:
    """Responses are half as long again as at the start, or two thirds."""
    change = _change(lines, "rollout/response_tokens_mean")
    if change is None or 1 / 1.5 < change[1] / max(change[0], 1e-9) < 1.5:
        return None
    return (
        f"the responses went from {change[0]:.0f} to {change[1]:.0f} tokens: length pays. Keep "
        "method.return_per_step, and compare prm/length_correlation with 0"
    )


def collapsed_entropy(lines: Sequence[Line]) -> str | None:
    """The entropy is below a tenth of the start's on a task that is not solved."""
    change, outcome = _change(lines, "policy/entropy"), _last(lines, "outcome/mean", SHORT)
    if change is None or not outcome or fmean(outcome) > 0.9 or change[1] > 0.1 * change[0]:
        return None
    return (
        f"the policy's entropy fell from {change[0]:.3f} to {change[1]:.4f} nats a token while the outcome "
        f"is {fmean(outcome):.2f}: it explores no more. Raise method.entropy_coefficient or lower "
        "policy.learning_rate"
    )


def narrowing_policy(lines: Sequence[Line]) -> str | None:
    """Fewer problems than at the start are solved by any of their rollouts; the outcome did not fall."""
    training = [line for line in lines if line.get("phase", "train") == "train"]
    solved, outcome = _numbers(training, "groups/solved_share"), _change(lines, "outcome/mean")
    if outcome is None or outcome[1] < outcome[0] or len(solved) < SHORT + 2 * LONG:
        return None
    before, after = fmean(solved[:SHORT]), fmean(solved[-2 * LONG :])
    if after > before - 0.1:
        return None
    return (
        f"the problems that any of their rollouts solves went from {before:.0%} to {after:.0%} while the "
        "outcome did not fall: the policy narrows, and a search will find less. Set "
        "method.outcome_advantage=pass_at_k, add method.entropy_coefficient, or lower policy.learning_rate"
    )


def collapsed_weights(lines: Sequence[Line]) -> str | None:
    """One failed rollout has nearly all the importance weight (rePIRL)."""
    sizes = _last(lines, "prm/effective_sample_size", SHORT)
    failed = _last(lines, "prm/failed_rollouts", SHORT)
    problems = fmean(_last(lines, "prm/weight_groups", SHORT) or [1.0])
    if not sizes or fmean(failed) < max(8, 2 * problems) or fmean(sizes) > max(2.0, 1.25 * problems):
        return None
    of_each = "of each problem's" if problems > 1 else "of them"
    return (
        f"the importance weights of {fmean(failed):.0f} failed rollouts count as {fmean(sizes):.1f}: the PRM "
        f"learns from one {of_each}. Set prm.repirl.weight=mean, a higher prm.repirl.weight_temperature or "
        "prm.repirl.max_weight"
    )


def flat_scores(lines: Sequence[Line]) -> str | None:
    """The search scores of a group's responses are all but equal."""
    spread = _last(lines, "prm/score_spread", SHORT)
    if not spread or fmean(spread) > 1e-4:
        return None
    return (
        f"the search scores of a problem's responses differ by {fmean(spread):.1g} only: a search that "
        "shares out by them (REBASE, ETS, particles, MCTS) takes them for equal, and a vote by score is a "
        "majority. Train the PRM longer, lower prm.output_l2, or set another prm.search_score"
    )


def skipped_updates(lines: Sequence[Line]) -> str | None:
    """An update of this iteration had no finite gradient."""
    whose = [part for part in ("policy", "prm") if _numbers(lines[-1:], f"{part}/skipped_updates") > [0.0]]
    if not whose:
        return None
    return (
        f"an update of the {' and of the '.join(whose)} was skipped, since its gradient was not finite, and "
        "several in a row end the run: look for NaN or infinity in rewards, advantages and losses of your "
        f"own, or lower {'policy' if 'policy' in whose else 'prm.learner'}.learning_rate"
    )


CHECKS: Mapping[str, Callable[[Sequence[Line]], str | None]] = {
    "saturated discriminator": saturated_discriminator,
    "hacked reward": hacked_reward,
    "falling outcome": falling_outcome,
    "drifting length": drifting_length,
    "collapsed entropy": collapsed_entropy,
    "narrowing policy": narrowing_policy,
    "collapsed weights": collapsed_weights,
    "flat scores": flat_scores,
    "skipped updates": skipped_updates,
}


class RunWatch:
    """Sees every line of metrics and reports each kind of failure once; what it keeps does not grow."""

    def __init__(self, earlier: Sequence[Line] = ()) -> None:
        """`earlier`: lines of the run before a resume; what they show is not reported again."""
        self._first: list[Line] = []
        self._recent: list[Line] = []
        self._reported: set[str] = set()
        for line in earlier:
            self.see(line)

    def see(self, line: Line) -> list[Finding]:
        """Take one iteration's metrics; return what is new."""
        if line.get("phase", "train") == "train" and len(self._first) < SHORT:
            self._first.append(line)
        self._recent = [*self._recent, line][-2 * LONG :]
        found = []
        for kind, check in CHECKS.items():
            if kind not in self._reported and (sentence := check([*self._first, *self._recent])):
                self._reported.add(kind)
                found.append(Finding(kind, sentence))
        return found


def _numbers(lines: Sequence[Line], key: str) -> list[float]:
    values = (line.get(key) for line in lines)
    return [float(value) for value in values if isinstance(value, int | float) and value == value]


def _last(lines: Sequence[Line], key: str, count: int) -> list[float]:
    """The last `count` values, or none where there are fewer."""
    values = _numbers(lines, key)
    return values[-count:] if len(values) >= count + SHORT else []


def _change(lines: Sequence[Line], key: str) -> tuple[float, float] | None:
    """Mean of the first and of the last values of the training phase, once they do not overlap."""
    values = _numbers([line for line in lines if line.get("phase", "train") == "train"], key)
    if len(values) < 2 * SHORT:
        return None
    return fmean(values[:SHORT]), fmean(values[-SHORT:])


def _trend(lines: Sequence[Line], key: str) -> float | None:
    """Difference of the last two long windows' means; None where it is within two standard errors."""
    values = _numbers([line for line in lines[SHORT:] if line.get("phase", "train") == "train"], key)
    if len(values) < 2 * LONG:
        return None
    before, after = values[-2 * LONG : -LONG], values[-LONG:]
    error = ((variance(before) + variance(after)) / LONG) ** 0.5
    difference = fmean(after) - fmean(before)
    return difference if abs(difference) > 2 * error else None
