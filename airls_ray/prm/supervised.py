"""Supervised learning of a PRM from step labels: split by problem, update, held-out figures."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from airls_ray.config.schema import PRMConfig
from airls_ray.config.supervised_section import StepLossConfig
from airls_ray.errors import ConfigError, DataError
from airls_ray.evaluation.labels import measure_step_scores
from airls_ray.learning.batches import add_sums, all_rows, rank_batches, take_values
from airls_ray.learning.engine import TrainEngine, resolve_layout, share_rows
from airls_ray.objectives.outcome_head import scored_logits, with_outcome_head
from airls_ray.objectives.own_loss import CheckedLoss
from airls_ray.objectives.step_loss import (
    RESERVED,
    Solutions,
    StepLossInputs,
    known_to,
    measured_sums,
)
from airls_ray.objectives.step_loss_kind import takes_solutions
from airls_ray.objectives.text_loss import text_loss
from airls_ray.prm.labelled_sequences import LabelledSequences
from airls_ray.prm.scores import action_values
from airls_ray.prm.solution_sums import UpdateSolutions
from airls_ray.seeding import derive_seed
from airls_ray.tensors import TokenBatch
from airls_ray.tensors.segments import ranges

_NAMES = {"correct": "accuracy", "label": "label_mean", "logit_abs": "logit_abs_mean"}
CROSS_ENTROPY = StepLossConfig(name="cross_entropy")


def check_form(config: PRMConfig, *, logprobs: bool = True) -> None:
    """Refuse forms of a PRM that a label per step cannot teach.

    Args:
        config: the form: a scalar at the step's last token, or the discriminator's logit log phi - log pi.
        logprobs: whether the labelled rollouts have the policy's log-probabilities.

    Raises:
        ConfigError: it is none of these, or would be read differently by what scores with it.
    """
    language = config.parameterisation == "log_prob"
    wanted = {"action": "step", "shaping": False, **({"search_score": "ratio"} if language else {})}
    what = "log phi - log pi of a step" if language else "a scalar at the step's last token"
    for name, value in wanted.items():
        given = getattr(config, name)
        if given != value:
            raise ConfigError(
                f"train-prm needs prm.{name}={str(value).lower()} (a label is learned by {what}), but it is "
                f"{str(given).lower()}: set it{', or prm.parameterisation=scalar_head' if language else ''}"
            )
    require_logprobs(config, logprobs)


def require_logprobs(config: PRMConfig, logprobs: bool) -> None:
    """Refuse a log-probability PRM where the labelled rollouts have no log-probabilities to compare with.

    Raises:
        ConfigError: so it is.
    """
    if config.parameterisation == "log_prob" and not logprobs:
        raise ConfigError(
            "the labelled rollouts have no log-probabilities of the policy, with which "
            "prm.parameterisation=log_prob compares its own: set it to scalar_head"
        )


def split_by_problem(
    table: pa.Table, share: float, seed: int, what: str = "labels"
) -> tuple[pa.Table, pa.Table]:
    """Split labelled or stored rollouts into those to learn from and held-out ones, by whole problems.

    Which problems are held out depends on the seed and their identifiers alone. At least one problem is
    held out, unless `share` is 0. `what` names the rows in messages.

    Raises:
        DataError: there are too few problems.
    """
    problems = sorted(
        set(table["problem_id"].to_pylist()), key=lambda problem: derive_seed(seed, "held out", problem)
    )
    count = max(round(share * len(problems)), 1) if share else 0
    if count >= len(problems):
        raise DataError(
            f"the {what} have {len(problems)} problems, of which supervised_prm.held_out={share:g} would "
            f"hold out {count}: give more problems or set it to 0"
        )
    held = pc.is_in(table["problem_id"], pa.array(problems[:count], pa.string()))
    return table.filter(pc.invert(held)).combine_chunks(), table.filter(held).combine_chunks()


def update_on_labels(
    engine: TrainEngine,
    batch: LabelledSequences,
    rows: Tensor,
    config: PRMConfig,
    *,
    pad_id: int,
    step_loss: StepLossConfig = CROSS_ENTROPY,
    temperature: float = 1.0,
    text_weight: float = 0.0,
) -> dict[str, float]:
    """Make one optimiser update on the labelled steps of `rows`; collective, the same on every rank.

    A loss that takes `solutions` costs a pass without gradients before it.

    Args:
        engine: this rank's engine, its module one of `config.parameterisation`.
        batch: all labelled rollouts.
        rows: int64, those of this update.
        config: stabilisers and micro-batches.
        pad_id: padding token.
        step_loss: how logits are compared with labels.
        temperature: the sampler's, of a log-probability PRM.
        text_weight: `supervised_prm.text_loss`; the module has a text head then.

    Returns:
        `train_prm/loss` (of the cross-entropy nats per labelled step), `train_prm/accuracy`,
        `train_prm/label_mean`, `train_prm/logit_abs_mean`, what the loss itself sums as a mean over the
        labelled steps, `train_prm/text_loss` with a text weight, `train_prm/gradient_norm`,
        `train_prm/skipped_updates` (1 where it is not finite), `train_prm/tokens` (prompt and response).

    Raises:
        DoorError: a loss of the user's own failed.
    """
    batches = _batches(engine, batch, rows, config, pad_id)
    normaliser, loss_of = batch.normaliser(rows), _checked(step_loss)

    def inputs_of(part: TokenBatch) -> StepLossInputs:
        return _inputs(batch, part, *_logits(engine, batch, part, config, temperature))

    solutions_of = _solutions(step_loss, engine, batch, rows, batches, inputs_of)
    right = int(batch.right[rows].sum())
    sums: dict[str, float] = {}
    for number, part in enumerate(batches):
        text: Tensor | None = None
        if text_weight:
            inputs, text = _with_text(engine, batch, part, right)
        else:
            inputs = inputs_of(part)
        loss, parts = loss_of(known_to(inputs, normaliser, config, solutions_of(part)))
        loss, parts = with_outcome_head(loss, parts, inputs, normaliser)
        if text is not None:
            loss = (1.0 - text_weight) * loss + text_weight * text
            parts = {**parts, "text_loss": text.detach()}
        engine.backward(loss * engine.world_size, last=number == len(batches) - 1)
        add_sums(sums, {"loss": loss.detach(), **measured_sums(inputs), **parts})
    norm = engine.step()
    return {
        **_metrics(engine.sum_over_ranks(sums), "train_prm"),
        "train_prm/gradient_norm": norm,
        "train_prm/skipped_updates": float(not math.isfinite(norm)),
        "train_prm/tokens": float(batch.sequences.lengths[rows].sum()),
    }


def measure_labels(
    engine: TrainEngine,
    table: pa.Table,
    config: PRMConfig,
    *,
    pad_id: int,
    step_loss: StepLossConfig = CROSS_ENTROPY,
    temperature: float = 1.0,
) -> dict[str, float]:
    """Loss and AUROCs of the PRM on held-out labels, without an update; collective.

    Returns:
        `prm/loss`, of labels and logits as they are (`prm.label_smoothing` and `prm.logit_clip` are off),
        `prm/accuracy`, `prm/label_mean`, `prm/logit_abs_mean` (of the labelled steps), what the loss itself
        sums, and the AUROCs of `measure_step_scores` under `prm/`. The same on every rank.

    Raises:
        DoorError: a loss of the user's own failed.
    """
    batch = LabelledSequences.of(table)
    rows = all_rows(batch.sequences)
    normaliser, loss_of = batch.normaliser(rows), _checked(step_loss)
    plain = config.model_copy(update={"label_smoothing": 0.0, "logit_clip": 0.0})
    batches = _batches(engine, batch, rows, config, pad_id)

    def inputs_of(part: TokenBatch) -> StepLossInputs:
        return _inputs(batch, part, *_logits(engine, batch, part, config, temperature))

    solutions_of = _solutions(step_loss, engine, batch, rows, batches, inputs_of)
    sums: dict[str, float] = {}
    logits = torch.zeros(batch.labels.values.numel())
    with torch.no_grad():
        for part in batches:
            inputs = inputs_of(part)
            loss, parts = loss_of(known_to(inputs, normaliser, plain, solutions_of(part)))
            loss, parts = with_outcome_head(loss, parts, inputs, normaliser)
            add_sums(sums, {"loss": loss, **measured_sums(inputs), **parts})
            logits[batch.labels.positions(part.rows.cpu())] = scored_logits(inputs, config.outcome_head).cpu()
    scores = share_rows(engine, logits.double(), torch.arange(logits.numel())).sigmoid().numpy()
    measured = measure_step_scores(table, scores, config.search_aggregate)
    return _metrics(engine.sum_over_ranks(sums), "prm") | {f"prm/{k}": v for k, v in measured.items()}


def _checked(step_loss: StepLossConfig) -> CheckedLoss:
    return CheckedLoss(step_loss.door(), step_loss.where, step_loss.open(), RESERVED)


def _solutions(
    step_loss: StepLossConfig,
    engine: TrainEngine,
    batch: LabelledSequences,
    rows: Tensor,
    parts: list[TokenBatch],
    inputs_of: Callable[[TokenBatch], StepLossInputs],
) -> Callable[[TokenBatch], Solutions | None]:
    """What gives the solutions of the whole update for a micro-batch; nothing where the loss takes none."""
    if not takes_solutions(step_loss.open()):
        return lambda _: None
    return UpdateSolutions(engine, batch.labels, batch.problems, rows, parts, inputs_of).of


def _batches(
    engine: TrainEngine, batch: LabelledSequences, rows: Tensor, config: PRMConfig, pad_id: int
) -> list[TokenBatch]:
    layout = resolve_layout(config.learner.layout, engine)
    return rank_batches(engine, batch.sequences, rows, config.learner.tokens_per_microbatch, layout, pad_id)


def _logits(
    engine: TrainEngine, batch: LabelledSequences, part: TokenBatch, config: PRMConfig, temperature: float
) -> tuple[Tensor, Tensor | None]:
    """[S]: the head's output at the last token of each step, and its second one, of the outcome; of a
    language model log phi - log pi, the logit of the discriminator (AIRL), so that only what teaches it
    differs from `airl_s`."""
    if config.outcome_head is not None:
        process, outcome = engine.forward(part.model_inputs(), apart=True)
        assert outcome is not None
        return process[part.step_last], outcome[part.step_last]
    if config.parameterisation == "scalar_head":
        return engine.forward(part.model_inputs())[0][part.step_last], None
    assert batch.logprobs is not None
    f, log_pi = action_values(engine, part, take_values(batch.logprobs, part), config, temperature)
    return f - log_pi, None


def _with_text(
    engine: TrainEngine, batch: LabelledSequences, part: TokenBatch, right: int
) -> tuple[StepLossInputs, Tensor]:
    """The head's inputs of the step loss and the share of the text's loss, from one pass; `right` solutions
    are in the whole update."""
    is_right = batch.right.to(part.rows.device)[part.rows][part.token_rows]
    index = is_right.nonzero().squeeze(1)
    f, logprobs = engine.forward(part.model_inputs(), text_index=index)
    assert logprobs is not None
    return _inputs(batch, part, f[part.step_last]), text_loss(logprobs, part.token_rows[index], right)


def _inputs(
    batch: LabelledSequences, part: TokenBatch, logits: Tensor, outcome_logits: Tensor | None = None
) -> StepLossInputs:
    steps = torch.bincount(part.step_rows, minlength=part.rows.numel())
    positions = ranges(torch.zeros_like(steps), steps)
    labels = take_values(batch.labels, part)
    return StepLossInputs.of(logits, labels, part.step_rows, positions, outcome_logits)


def _metrics(sums: dict[str, float], prefix: str) -> dict[str, float]:
    """The losses as they are, all else as means over the labelled steps."""
    weight = max(sums["weight"], 1.0)
    losses = {name: sums[name] for name in ("loss", "text_loss") if name in sums}
    means: dict[str, float] = {
        _NAMES.get(name, name): sums[name] / weight for name in sums if name not in (*losses, "weight")
    }
    return {f"{prefix}/{name}": value for name, value in (losses | means).items()}
