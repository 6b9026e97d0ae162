"""Outcomes that a rule gives, as a column of the grades: they are learned from, and the grader's measured.

`outcome_label` float32 stands beside the columns of GRADES where `method.outcomes` names a rule. Credit, row
filters, PRM objectives, rewards and samplers of problems read it in the place of `outcome`; reports and
figures do not.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from airls_ray.config.method_doors import OutcomeRuleConfig
from airls_ray.data.schemas import LABEL
from airls_ray.errors import DoorError
from airls_ray.own_code import call_own, shown


def learned_outcomes(grades: pa.Table) -> pa.ChunkedArray:
    """Return the outcomes that are learned from, float32 [N]: a rule's, or else the grader's."""
    return grades[LABEL if LABEL in grades.column_names else "outcome"]


def with_outcomes(rollouts: pa.Table, grades: pa.Table) -> pa.Table:
    """Return ROLLOUTS with the outcomes filled in that are learned from."""
    index = rollouts.schema.get_field_index("outcome")
    return rollouts.set_column(index, rollouts.schema.field(index), learned_outcomes(grades))


def with_labels(
    grades: pa.Table, rollouts: pa.Table, problems: pa.Table, named: OutcomeRuleConfig
) -> pa.Table:
    """Return `grades` with the column of the rule's outcomes.

    Args:
        grades: GRADES.
        rollouts: ROLLOUTS, joined by position.
        problems: PROBLEMS of these rollouts, in any order.
        named: the rule.

    Raises:
        DoorError: the rule raised, or did not return a number from 0 to 1 for each rollout.
    """
    pairs = zip(problems["problem_id"].to_pylist(), problems["details"].to_pylist(), strict=True)
    details = {name: json.loads(text or "{}") for name, text in pairs}
    names = rollouts["problem_id"].to_pylist()
    finish = rollouts["finish"].cast(pa.string()).to_numpy(zero_copy_only=False)
    known = {
        "answers": grades["answer"].to_pylist(),
        "groups": rollouts["group"].to_numpy(),
        "problem_ids": names,
        "details": [details[name] for name in names],
        "lengths": pc.list_value_length(rollouts["response"]).to_numpy().astype(np.int64),
        "truncated": finish == "length",
    }
    return grades.append_column(LABEL, pa.array(outcomes_of(named, known), pa.float32()))


def outcomes_of(named: OutcomeRuleConfig, known: dict[str, Any]) -> NDArray[np.float64]:
    """Call a rule and return its outcomes, float64 [N].

    Args:
        named: the rule.
        known: what `OF_ANSWERS` (`airls_ray/grading/outcome_kind.py`) names.

    Raises:
        DoorError: as of `with_labels`.
    """
    size = len(known["answers"])
    said = call_own(named.door(), named.where, named.open(), known)
    wanted = f"and it must be {size} numbers from 0 to 1, one for each rollout"
    try:
        result = np.asarray(said, dtype=np.float64)
    except (TypeError, ValueError):
        raise DoorError(f"{named.where}: {named.name} returned {shown(said)}, {wanted}") from None
    if result.shape != (size,):
        raise DoorError(f"{named.where}: {named.name} returned shape {list(result.shape)}, {wanted}")
    wrong = np.flatnonzero(~((result >= 0) & (result <= 1)))
    if wrong.size:
        raise DoorError(
            f"{named.where}: {named.name} returned {result[wrong[0]]:g} for rollout {wrong[0]}, {wanted}"
        )
    return result


def label_metrics(grades: pa.Table, groups: NDArray[np.int64]) -> dict[str, float]:
    """Return how the rule's outcomes agree with the grader's; nothing where there is no rule.

    `label/mean`; `label/agreement`: share of rollouts for which both say right, or both wrong;
    `label/accuracy`: mean outcome of what is labelled right, over groups that have such rollouts (of a vote:
    share of groups whose majority is right); `label/constant_share`: groups whose labels are all equal.
    """
    if LABEL not in grades.column_names:
        return {}
    labels, truth = (grades[name].to_numpy().astype(np.float64) for name in (LABEL, "outcome"))
    _, group = np.unique(groups, return_inverse=True)
    size = np.bincount(group)
    right = np.bincount(group, labels > 0.5)
    hits = np.bincount(group, truth * (labels > 0.5))
    spread = np.bincount(group, (labels - (np.bincount(group, labels) / size)[group]) ** 2)
    some = right > 0
    return {
        "label/mean": float(labels.mean()),
        "label/agreement": float(((labels > 0.5) == (truth > 0.5)).mean()),
        "label/accuracy": float((hits[some] / right[some]).mean()) if some.any() else 0.0,
        "label/constant_share": float((spread < 1e-12).mean()),
    }
