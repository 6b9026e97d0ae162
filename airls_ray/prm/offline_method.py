"""Which objective stored rollouts allow, and what is used in place of log-probabilities that they lack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from airls_ray.config.method_doors import ObjectiveConfig
from airls_ray.config.schema import Config, PRMConfig
from airls_ray.data.parts import merge_parts
from airls_ray.data.rollout_files import StoredRollouts, lacking_logprobs
from airls_ray.data.schemas import TOKEN_LOGPROBS
from airls_ray.errors import ConfigError
from airls_ray.evaluation.rollouts import list_column
from airls_ray.learning.engine import ForwardEngine
from airls_ray.learning.passes import token_logprobs
from airls_ray.prm.label_rule import LabelRule
from airls_ray.prm.objective_traits import ObjectiveTraits
from airls_ray.prm.supervised import check_form

_LOGPROBS = TOKEN_LOGPROBS.field("logprobs")


@dataclass(frozen=True)
class OfflineMethod:
    """How a PRM learns from the rollouts that there are."""

    objective: ObjectiveConfig | None
    """None: by labels of outcomes, as an ORM."""
    prm: PRMConfig
    """The configuration's, changed where log-probabilities are missing."""
    needs_trace_logprobs: bool
    """Whether the policy's log-probabilities of the traces go into the objective."""
    notes: tuple[str, ...] = ()
    """Sentences on what is used instead of what is missing."""
    labels: str = ""
    """The label rule, where there is no objective."""

    @property
    def name(self) -> str:
        """What teaches it: the objective, or the label rule."""
        return self.labels if self.objective is None else self.objective.name


def choose_method(config: Config, stored: StoredRollouts) -> OfflineMethod:
    """Return what `config.method` means for stored rollouts; a preset of a given PRM learns from outcomes.

    Where a rollout lacks log-probabilities none is used, and the objective declares by what settings it does
    without: AIRL's logit f - l becomes f (`discriminator: gail`), and rePIRL's importance weights, whose
    denominator is the policy, are all 1.

    Raises:
        ConfigError: the objective cannot be learned from these rollouts, or does not open, or the label rule
            does not.
    """
    objective = config.method.prm_objective
    if not config.uses_prm or config.method.prm_objective.against_reference:
        raise ConfigError(
            f"train-prm --rollouts cannot learn by method={config.method.name}: take airl_s or repirl (with "
            "correct traces), or orm (outcomes)"
        )
    traits = objective.traits()
    if traits is None:
        rule: LabelRule = config.supervised_prm.labels.open()
        if rule.needs_completions:
            raise ConfigError(
                "stored rollouts have outcomes but no completions of their steps: set "
                f"supervised_prm.labels=outcome (it is {config.supervised_prm.labels.name}), or leave out "
                "--rollouts to sample completions"
            )
        check_form(config.prm, logprobs=not lacking_logprobs(stored.rollouts))
        return OfflineMethod(None, config.prm, False, labels=config.supervised_prm.labels.shown)
    of_traces = traits.needs_traces and traits.sides == "reference"
    if of_traces and not stored.traces.num_rows and config.prm.correct_rollouts == "policy":
        long = stored.traces_too_long
        which = f" that fits model.context_tokens ({long} do not)" if long else ""
        raise ConfigError(
            f"method={config.method.name} learns from correct solutions and there is no trace{which}: give "
            "--traces, or set prm.correct_rollouts=reference to take the correct rollouts for them"
        )
    missing = lacking_logprobs(stored.rollouts)
    if missing:
        return _without_logprobs(config.prm, objective, traits, missing, stored.rollouts.num_rows)
    compares = traits.base == "policy" and not _does_without(config.prm, traits.without_log_probs)
    needed = traits.needs_traces and (compares or config.prm.parameterisation == "log_prob")
    return OfflineMethod(objective, config.prm, needed)


def _without_logprobs(
    prm: PRMConfig, objective: ObjectiveConfig, traits: ObjectiveTraits, missing: int, rollouts: int
) -> OfflineMethod:
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
    settings = traits.without_log_probs
    if not settings:
        raise ConfigError(
            f"{lack}, with which the objective {objective.name} may compare: give rollouts with 'logprobs', "
            "or say in its class what it does without (without_log_probs)"
        )
    if _does_without(prm, settings):
        return OfflineMethod(objective, prm, False)
    fields = _merged(prm.model_dump(), settings)
    if fields["discriminator"] == "gail" and prm.reward == "log_odds":
        fields["reward"] = "f"
    try:
        changed = PRMConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{lack}, and the settings by which the objective {objective.name} does without cannot be "
            f"(prm.{place}: {first['msg']}): correct without_log_probs in its class"
        ) from None
    note = f"{lack}, {traits.without_log_probs_note}"
    return OfflineMethod(objective, changed, False, (note,))


def _does_without(prm: PRMConfig, settings: Mapping[str, Any]) -> bool:
    """Whether the settings by which an objective needs no log-probabilities are in force already."""
    fields = prm.model_dump()
    return bool(settings) and _merged(fields, settings) == fields


def _merged(fields: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        name: _merged(fields[name], value)
        if isinstance(value, Mapping) and isinstance(fields.get(name), Mapping)
        else value
        for name, value in settings.items()
    }
    return {**fields, **nested}


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
