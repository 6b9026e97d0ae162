"""Policy learner against a plain PyTorch loop: the same update on the same rollouts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import common
import typer
from common import Pairs, Spread

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from airls_ray.config.schema import Config
    from airls_ray.console.progress import Progress
    from airls_ray.models.load import DType

TARGET = 0.9
SIZES = {"0.8 M": (common.SMALL, 15), "4.8 M": (common.MEDIUM, 7)}
"""Parameters: (settings, pairs)."""


def main(
    problems: Annotated[
        int,
        typer.Option(min=1, help="Groups of rollouts of one update, as many rollouts each as the demo has."),
    ] = 64,
) -> None:
    """Tokens per second of `update_policy` on DeepSpeed against a plain PyTorch loop.

    Both sides go from the data as it arrives (an Arrow table here, Python lists there) to the optimiser's
    step: clipped surrogate, gradient clipping, AdamW. Ours also computes the metrics of every iteration.
    """
    threads = common.use_all_cores()
    from actors.learn.deepspeed_engine import close_distributed, free_port, init_distributed
    from airls_ray.config import load_config
    from airls_ray.console.choose import make_progress

    progress = make_progress()
    rows: list[tuple[str, str, str, str, str]] = []
    sizes: dict[str, Any] = {}
    init_distributed(0, 1, "127.0.0.1", free_port(), 60.0)
    for name, (settings, pairs) in SIZES.items():
        config = load_config(common.CONFIG, [*settings, "method=grpo"])
        with tempfile.TemporaryDirectory() as folder:
            measured, facts = measure(config, Path(folder), problems, pairs, progress, name)
        ours, bare, ratio = Spread.of(measured.ours), Spread.of(measured.bare), measured.ratio
        rows.append((name, str(ours), str(bare), str(ratio), common.verdict(ratio.median, TARGET)))
        sizes[name] = {
            "policy_learner_tokens_per_second": ours.figures(),
            "plain_loop_tokens_per_second": bare.figures(),
            "ratio": ratio.figures(),
            "pairs": pairs,
            **facts,
        }
    close_distributed()
    progress.table(
        "Policy update, tokens of prompt and response per second: median (range)",
        rows,
        ("parameters", "policy learner", "plain PyTorch loop", "ratio of each pair", "target"),
    )
    figures = {"sizes": sizes, "target_ratio": TARGET, "threads": threads}
    progress.say(f"written to {common.write_result('policy_learner', figures)}")


def measure(
    config: Config, folder: Path, problems: int, pairs: int, progress: Progress, name: str
) -> tuple[Pairs, dict[str, Any]]:
    """Return tokens per second of both sides, and what they did."""
    from actors.learn.deepspeed_engine import DeepSpeedEngine
    from airls_ray.data.parts import merge_parts
    from airls_ray.learning.advantages import assign_credit
    from airls_ray.learning.passes import token_logprobs
    from airls_ray.learning.policy import update_policy
    from airls_ray.models.load import load_policy_module

    codec = common.new_policy(config, folder)
    engine = DeepSpeedEngine(lambda: load_policy_module(folder), config.policy)
    table = common.arithmetic_rollouts(config, codec, problems, config.train.rollouts_per_problem)
    budget = config.policy.tokens_per_microbatch
    logprobs = merge_parts(
        [token_logprobs(engine, table, temperature=1.0, tokens_per_microbatch=budget, pad_id=codec.pad_id)]
    )
    column = table.schema.get_field_index("logprobs")
    table = table.set_column(column, table.schema.field(column), logprobs["logprobs"])
    advantages = assign_credit(
        table,
        table.select(["outcome"]),
        None,
        config.method,
        max_response_tokens=config.rollout.max_response_tokens,
    )
    tokens = sum(len(row) for name in ("prompt", "response") for row in table[name].to_pylist())
    plain = PlainLoop(folder, config, codec.pad_id)
    lists = Lists.of(table, advantages)
    norms: dict[str, float] = {}

    def learn() -> None:
        metrics = update_policy(
            engine,
            table,
            advantages,
            None,
            config.method,
            config.policy,
            temperature=1.0,
            max_response_tokens=config.rollout.max_response_tokens,
            pad_id=codec.pad_id,
        )
        norms.setdefault("policy_learner", metrics["policy/gradient_norm"])

    def learn_plainly() -> None:
        norms.setdefault("plain_loop", plain.update(lists))

    with progress.track(f"Pairs, {name} parameters", pairs) as bar:
        measured = common.measure_pairs(
            lambda: tokens / common.seconds_of(learn),
            lambda: tokens / common.seconds_of(learn_plainly),
            pairs,
            bar,
        )
    if abs(norms["policy_learner"] / norms["plain_loop"] - 1.0) > 1e-3:
        raise RuntimeError(f"both sides must compute the same gradient, but its norms are {norms}")
    parameters = sum(weight.numel() for weight in plain.parameters)
    facts = {"parameters": parameters, "tokens": tokens, "rollouts": table.num_rows, "gradient_norm": norms}
    return measured, facts


@dataclass(frozen=True)
class Lists:
    """Rollouts as a plain loop has them."""

    prompts: list[list[int]]
    responses: list[list[int]]
    logprobs: list[list[float]]
    advantages: list[float]
    """One per rollout (outcomes alone)."""

    @classmethod
    def of(cls, table: pa.Table, advantages: pa.ListArray) -> Lists:
        """Read a ROLLOUTS table and its advantages."""
        prompts, responses, logprobs = (
            table[name].to_pylist() for name in ("prompt", "response", "logprobs")
        )
        return cls(prompts, responses, logprobs, [steps[0] for steps in advantages.to_pylist()])


class PlainLoop:
    """What one writes without this project: a Hugging Face model, padded batches, AdamW."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        pad_id: int,
        dtype: DType = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        """Load the model; the optimiser is the fused one, the fastest of PyTorch's."""
        import torch
        from transformers import AutoModelForCausalLM

        from airls_ray.models.load import quiet_transformers

        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        self.model = model.to(device).train()
        self.device = device
        if config.policy.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        self.parameters = list(self.model.parameters())
        learner = config.policy
        self.optimizer = torch.optim.AdamW(
            self.parameters, learner.learning_rate, learner.adam_betas, weight_decay=0.0, fused=True
        )
        self.config = config
        self.pad_id = pad_id

    def update(self, rollouts: Lists) -> float:
        """Make one update; returns the gradient's norm before clipping."""
        import torch

        total = sum(len(response) for response in rollouts.responses)
        longest = max(len(p) + len(r) for p, r in zip(rollouts.prompts, rollouts.responses, strict=True))
        rows = max(1, self.config.policy.tokens_per_microbatch // longest)
        for start in range(0, len(rollouts.prompts), rows):
            (self._loss(rollouts, slice(start, start + rows)) / total).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.policy.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def _loss(self, rollouts: Lists, rows: slice) -> Any:
        """Sum of the clipped surrogate over the response tokens of `rows`."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        prompts, responses = rollouts.prompts[rows], rollouts.responses[rows]
        texts = [torch.tensor(p + r) for p, r in zip(prompts, responses, strict=True)]
        ids = pad_sequence(texts, batch_first=True, padding_value=self.pad_id)
        old = torch.zeros(ids.shape)
        mask = torch.zeros(ids.shape)
        advantage = torch.tensor(rollouts.advantages[rows])[:, None]
        for row, (prompt, sampled) in enumerate(zip(prompts, rollouts.logprobs[rows], strict=True)):
            span = slice(len(prompt), len(prompt) + len(sampled))
            old[row, span] = torch.tensor(sampled)
            mask[row, span] = 1.0
        ids, old, mask, advantage = (one.to(self.device) for one in (ids, old, mask, advantage))
        # Padding on the right and causal attention: no token sees padding, so no mask is needed.
        logits = self.model(input_ids=ids, use_cache=False).logits[:, :-1]
        logprobs = torch.log_softmax(logits.float(), -1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        ratio = torch.exp(logprobs - old[:, 1:])
        method = self.config.method
        clipped = ratio.clamp(1.0 - method.clip_low, 1.0 + method.clip_high)
        return -(torch.minimum(ratio * advantage, clipped * advantage) * mask[:, 1:]).sum()


if __name__ == "__main__":
    common.run(main)
