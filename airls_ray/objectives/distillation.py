"""On-policy distillation: a teacher's log-probabilities of the policy's own tokens as rewards.

    r_t = lambda (log teacher(y_t) - log pi_ref(y_t)) - (log pi(y_t) - log pi_ref(y_t))

Each is the advantage of its token, without a baseline and without the rewards behind it. lambda = 1 is plain
on-policy distillation, r_t = log teacher - log pi, which no reference model changes. Above 1 the policy is
driven beyond the teacher (ExOPD), below 1 it stays between the reference model and the teacher.

G-OPD (arXiv 2602.12125), by the authors' program (RUCBM/G-OPD, `dp_actor.py`, `lambda_vals`).
"""

from __future__ import annotations

from torch import Tensor


def distillation_rewards(log_teacher: Tensor, log_policy: Tensor, log_base: Tensor, scale: float) -> Tensor:
    """Return the rewards of actions [A], tokens or (with sums over their tokens) steps, in nats.

    Args:
        log_teacher: [A], log-probabilities under the teacher.
        log_policy: [A], under the policy that learns.
        log_base: [A], under the reference model; with `scale` 1 any finite numbers.
        scale: lambda.
    """
    return scale * (log_teacher - log_base) - (log_policy - log_base)
