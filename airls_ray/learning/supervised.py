"""Supervised learning on traces, sampling without an engine, and when to look at the accuracy next."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa
import torch
from transformers import GenerationConfig

from airls_ray.config.schema import LearnerConfig
from airls_ray.learning.batches import Sequences, add_sums, all_rows, rank_batches
from airls_ray.learning.engine import TrainEngine, resolve_layout
from airls_ray.models.attention import decoding_attention
from airls_ray.models.modules import PolicyModule
from airls_ray.truncation import WHOLE, Truncation


def update_on_traces(
    engine: TrainEngine, traces: pa.Table, learner: LearnerConfig, *, pad_id: int
) -> dict[str, float]:
    """Make one optimiser update on the mean negative log-likelihood of the traces' tokens; collective.

    Args:
        engine: this rank's engine, its module a `PolicyModule`.
        traces: TRACES, the same on every rank.
        learner: micro-batches and layout.
        pad_id: padding token.

    Returns:
        `sft/loss` (nats per response token), `sft/gradient_norm`, `sft/skipped_updates` (1 where that is not
        finite), `sft/tokens` (prompt and response).
    """
    sequences = Sequences.of(traces)
    layout = resolve_layout(learner.layout, engine)
    rows = all_rows(sequences)
    batches = rank_batches(engine, sequences, rows, learner.tokens_per_microbatch, layout, pad_id)
    tokens = max(sequences.response.values.numel(), 1)
    sums: dict[str, float] = {}
    for number, batch in enumerate(batches):
        logprobs, _ = engine.forward(batch.model_inputs())
        loss = -logprobs.sum() / tokens
        engine.backward(loss * engine.world_size, last=number == len(batches) - 1)
        add_sums(sums, {"loss": loss.detach()})
    norm = engine.step()
    return {
        "sft/gradient_norm": norm,
        "sft/skipped_updates": float(not math.isfinite(norm)),
        "sft/loss": engine.sum_over_ranks(sums)["loss"],
        "sft/tokens": float(sequences.lengths.sum()),
    }


def sample_responses(
    module: PolicyModule,
    prompts: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_response_tokens: int,
    eos_ids: Sequence[int],
    pad_id: int,
    seed: int,
    truncation: Truncation = WHOLE,
    rows_at_once: int = 256,
    in_step_with_others: bool = False,
) -> list[list[int]]:
    """Sample one response for each prompt by Hugging Face's `generate`; leaves the random state alone.

    For the few hundred samples of an accuracy check: an engine would take longer to start.

    Args:
        module: the policy.
        prompts: tokens.
        temperature: of sampling.
        max_response_tokens: end of sequence included.
        eos_ids: any of them ends a response and is its last token.
        pad_id: padding token.
        seed: of the samples.
        truncation: which tokens are drawn from.
        rows_at_once: rows decoded together.
        in_step_with_others: ZeRO-3 with several ranks: all call this, with as many prompts each.

    Returns:
        Response tokens, with the end of sequence where there is one.
    """
    settings = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=truncation.top_k,
        top_p=truncation.top_p,
        min_p=truncation.min_p or None,
        repetition_penalty=1.0,
        max_new_tokens=max_response_tokens,
        eos_token_id=list(eos_ids),
        pad_token_id=pad_id,
        use_cache=True,
    )
    responses: list[list[int]] = []
    device = next(module.parameters()).device
    module.eval()  # `generate` keeps no cache in training mode with gradient checkpointing
    # Decoding with a cache would be compiled anew for every length.
    eager = torch.compiler.set_stance("force_eager")
    with torch.random.fork_rng(), torch.no_grad(), eager, decoding_attention(module.model):
        torch.manual_seed(seed)
        for start in range(0, len(prompts), rows_at_once):
            part = prompts[start : start + rows_at_once]
            width = max(len(prompt) for prompt in part)
            ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in part], device=device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part], device=device)
            output = module.model.generate(
                ids, attention_mask=mask, generation_config=settings, synced_gpus=in_step_with_others
            )
            responses += [_until_eos(row, eos_ids) for row in output[:, width:].tolist()]
    module.train()
    return responses


def _until_eos(tokens: list[int], eos_ids: Sequence[int]) -> list[int]:
    end = next((at for at, token in enumerate(tokens) if token in eos_ids), len(tokens))
    return tokens[: end + 1]


def updates_until_check(curve: Sequence[tuple[int, float]], target: float, every: int) -> int:
    """How many updates to make before the accuracy is measured again, so that the target is not overshot.

    Far from the target: `every`. Within 0.25 of it half, and within 0.12 a quarter: on small tasks the
    accuracy has been seen to rise by 0.27 in 20 updates just there. Where the last rise, continued,
    would arrive sooner: half of the updates that this takes. At least a tenth of `every`.

    Args:
        curve: (update, accuracy) of the checks so far.
        target: accuracy at which training stops.
        every: most updates between two checks.
    """
    if not curve:
        return every
    update, accuracy = curve[-1]
    before, lower = curve[-2] if len(curve) > 1 else (0, 0.0)
    left = target - accuracy
    wait = every if left > 0.25 else every // 2 if left > 0.12 else every // 4
    if accuracy > lower:
        wait = min(wait, int(0.5 * left * (update - before) / (accuracy - lower)))
    return max(wait, every // 10, 1)
