"""Which objective stored rollouts allow, and what is used in place of log-probabilities that they lack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from airls_ray.config.schema import Config, PRMConfig
from airls_ray.data.parts import merge_parts
from airls_ray.data.rollout_files import StoredRollouts, lacking_logprobs
from airls_ray.data.schemas import TOKEN_LOGPROBS
from airls_ray.errors import ConfigError
from airls_ray.evaluation.rollouts import list_column
from airls_ray.learning.batches import token_logprobs
from airls_ray.learning.engine import ForwardEngine
from airls_ray.prm.supervised import check_form

Objective = Literal["airl", "repirl", "outcome"]
_LOGPROBS = TOKEN_LOGPROBS.field("logprobs")


@dataclass(frozen=True)
class OfflineMethod:
    """How a PRM learns from the rollouts that there are."""

    objective: Objective
    """`outcome`: labels, as an ORM."""
    prm: PRMConfig
    """The configuration's, changed where log-probabilities are missing."""
    needs_trace_logprobs: bool
    """Whether the policy's log-probabilities of the traces go into the objective."""
    notes: tuple[str, ...] = ()
    """Sentences on what is used instead of what is missing."""


def choose_method(config: Config, stored: StoredRollouts) -> OfflineMethod:
    """Return what `config.method` means for stored rollouts; a preset of a given PRM learns from outcomes.

    Where a rollout lacks log-probabilities none is used: AIRL's logit f - l becomes f (`discriminator:
    gail`), and rePIRL's importance weights, whose denominator is the policy, are all 1.

    Raises:
        ConfigError: the objective cannot be learned from these rollouts.
    """
    name = config.method.prm_objective
    if name in ("none", "prime"):
        raise ConfigError(
            f"train-prm --rollouts cannot learn by method={config.method.name}: take airl_s or repirl (with "
            "correct traces), or orm (outcomes)"
        )
    if name == "frozen":
        if config.supervised_prm.labels != "outcome":
            raise ConfigError(
                "stored rollouts have outcomes but no completions of their steps: set "
                "supervised_prm.labels=outcome, or leave out --rollouts to sample completions"
            )
        check_form(config.prm)
        return OfflineMethod("outcome", config.prm, False)
    if not stored.traces.num_rows and config.prm.correct_rollouts == "policy":
        long = stored.traces_too_long
        which = f" that fits model.context_tokens ({long} do not)" if long else ""
        raise ConfigError(
            f"method={config.method.name} learns from correct solutions and there is no trace{which}: give "
            "--traces, or set prm.correct_rollouts=reference to take the correct rollouts for them"
        )
    objective: Objective = "airl" if name == "airl" else "repirl"
    missing = lacking_logprobs(stored.rollouts)
    if missing:
        return _without_logprobs(config.prm, objective, missing, stored.rollouts.num_rows)
    is_ratio = objective == "airl" and config.prm.discriminator == "airl"
    return OfflineMethod(objective, config.prm, is_ratio or config.prm.parameterisation == "log_prob")


def _without_logprobs(prm: PRMConfig, objective: Objective, missing: int, rollouts: int) -> OfflineMethod:
    lack = f"{missing} of {rollouts} rollouts have no log-probabilities"
    if prm.parameterisation == "log_prob":
        raise ConfigError(
            f"{lack}, with which prm.parameterisation=log_prob compares its own: set it to scalar_head, "
            "or give rollouts with 'logprobs'"
        )
    if prm.search_score in ("ratio", "product", "reference_ratio"):
        raise ConfigError(
            f"{lack}, which prm.search_score={prm.search_score} needs: set it to sigmoid_f, or give rollouts "
            "with 'logprobs'"
        )
    fields = prm.model_dump()
    if objective == "repirl":
        if prm.repirl.weight == "none":
            return OfflineMethod(objective, prm, False)
        fields["repirl"]["weight"] = "none"
        note = f"{lack}, so the weights exp(phi) / pi of the failed ones are unknown: all weigh the same"
    else:
        if prm.discriminator == "gail":
            return OfflineMethod(objective, prm, False)
        fields["discriminator"] = "gail"
        if prm.reward == "log_odds":
            fields["reward"] = "f"
        note = f"{lack}, so the logit of the discriminator is f alone in place of f - log pi"
    return OfflineMethod(objective, PRMConfig.model_validate(fields), False, (note + " for all of them",))


def fill_logprobs(table: pa.Table) -> pa.Table:
    """Return STORED_ROLLOUTS with log-probabilities of 0 in every row if any row lacks them."""
    if not lacking_logprobs(table):
        return table
    values, offsets = list_column(table["response"])
    zeros = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(np.zeros(len(values), np.float32)), type=_LOGPROBS.type
    )
    return _with_logprobs(table, zeros)


def logprobs_under(policy: ForwardEngine, table: pa.Table, config: Config, pad_id: int) -> pa.Table:
    """Return STORED_ROLLOUTS with log-probabilities under `policy`, which computes all rows alone.

    A table in which every row has its own stays as it is.
    """
    if not lacking_logprobs(table):
        return table
    part = token_logprobs(
        policy,
        table,
        temperature=config.rollout.temperature,
        tokens_per_microbatch=config.prm.learner.tokens_per_microbatch,
        pad_id=pad_id,
    )
    return _with_logprobs(table, merge_parts([part])["logprobs"])


def _with_logprobs(table: pa.Table, logprobs: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index("logprobs"), _LOGPROBS, logprobs)
