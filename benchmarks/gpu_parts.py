"""What `gpu.py` measures with: a model of random weights, rollouts, clocks and counters of a GPU."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

    from airls_ray.learning.engine import TrainModule
    from airls_ray.models.attention import Kernel
    from airls_ray.models.modules import PolicyModule
    from airls_ray.planning.shapes import ModelShape
    from airls_ray.tensors.batch import Layout

LAYOUTS: tuple[tuple[Layout, Kernel], ...] = (
    ("padded", "sdpa"), ("packed", "flex_attention"), ("packed", "flash_attention_2"),
)  # fmt: skip
GROUP = 8
"""Rollouts of a prompt."""
PROMPT = 128
MATRIX = 8192
"""Rows and columns of the plain product on a GPU; a CPU takes an eighth."""


def shape_named(name: str) -> ModelShape:
    """A published shape, or a tiny one.

    Raises:
        ConfigError: there is none of this name.
    """
    from airls_ray.errors import ConfigError
    from airls_ray.planning.shapes import PUBLISHED, ModelShape

    tiny = ModelShape(64, 2, 4, 2, 16, 128, 512, True, qkv_bias=True, context=4096)
    shapes = {**PUBLISHED, "tiny": tiny}
    if name not in shapes:
        raise ConfigError(f"--shape {name} is unknown: take one of {', '.join(shapes)}")
    return shapes[name]


def write_model(shape: ModelShape, folder: Path, device: torch.device) -> None:
    """Random weights of this shape in bfloat16, as a folder that every loader takes."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        hidden_size=shape.hidden, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim, intermediate_size=shape.intermediate,
        vocab_size=shape.vocab, tie_word_embeddings=shape.tied, max_position_embeddings=shape.context or 4096,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))


def random_rollouts(rows: int, longest: int, vocabulary: int) -> pa.Table:
    """ROLLOUTS of random tokens in groups of eight: lengths are log-normal, as those of reasoning are, and
    the longest is `longest`."""
    import numpy as np
    import pyarrow as pa

    from airls_ray.data.schemas import ROLLOUTS

    rng = np.random.default_rng(0)
    drawn = rng.lognormal(0.0, 0.8, rows)
    lengths = np.maximum((drawn / drawn.max() * longest).astype(int), 2)
    prompts = rng.integers(2, vocabulary, (-(-rows // GROUP), min(PROMPT, longest)))
    columns: dict[str, list[Any]] = {
        "problem_id": [f"p{row // GROUP}" for row in range(rows)],
        "group": [row // GROUP for row in range(rows)],
        "index": [row % GROUP for row in range(rows)],
        "prompt": [prompts[row // GROUP] for row in range(rows)],
        "response": [rng.integers(2, vocabulary, length) for length in lengths],
        "logprobs": [np.full(length, -np.log(vocabulary)) for length in lengths],
        "version": [0] * rows,
        "step_ends": [[length // 2, length] for length in lengths],
        "finish": ["stop"] * rows,
        "outcome": [float(row % 2) for row in range(rows)],
        "worker": ["w"] * rows,
        "seconds": [0.0] * rows,
        "token_versions": [None] * rows,
    }
    plain = {"finish": pa.string()}
    arrays = {
        field.name: pa.array(columns[field.name], plain.get(field.name, field.type)) for field in ROLLOUTS
    }
    arrays["finish"] = arrays["finish"].dictionary_encode().cast(ROLLOUTS.field("finish").type)
    return pa.table(arrays, schema=ROLLOUTS)


def random_advantages(table: pa.Table) -> pa.ListArray:
    """A value for each step, the same for both of a rollout; none is 0, so that every rollout learns."""
    import numpy as np
    import pyarrow as pa

    values = np.random.default_rng(1).normal(size=table.num_rows)
    return pa.array([[value, value] for value in values], pa.list_(pa.float32()))


def lengths_of(table: pa.Table) -> np.ndarray:
    """Tokens of each row, prompt included: int64 [N]."""
    import numpy as np
    import pyarrow.compute as pc

    parts = (pc.list_value_length(table[name]).to_numpy() for name in ("prompt", "response"))
    total: np.ndarray = np.sum([part.astype(np.int64) for part in parts], axis=0)
    return total


# ------------------------------------------------------------------------------------- clock and counters
def seconds_of(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of one call, to the end of what it left on the device."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def per_second(device: torch.device, count: float, work: Callable[[], object]) -> float:
    """`count` over the seconds of a call."""
    return float(count) / seconds_of(device, work)


def matmul_tflops(device: torch.device) -> float:
    """TFLOP/s of plain products of large square matrices in bfloat16: what this device can do at most."""
    import torch

    size = MATRIX if device.type == "cuda" else MATRIX // 8
    left, right = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    times = [seconds_of(device, lambda: left @ right) for _ in range(9)]
    return 2.0 * size**3 / median(times[2:]) / 1e12


def device_name(device: torch.device) -> str:
    """Of the GPU, or `cpu`."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def release(device: torch.device) -> None:
    """Give back what earlier measurements held."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_bytes(device: torch.device, work: Callable[[], object]) -> int | None:
    """Bytes at the peak of a call above those before it; None on a CPU, which does not count them."""
    import torch

    if device.type != "cuda":
        work()
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


# ------------------------------------------------------------------------------------------------ passes
def pass_speeds(
    module: TrainModule, table: pa.Table, layout: Layout, budget: int, device: torch.device, times: int
) -> list[float]:
    """Tokens/s (without padding) of forward and backward passes over all rows, after one to warm up."""
    from airls_ray.learning.batches import Sequences
    from airls_ray.tensors import make_batch, plan_microbatches

    sequences = Sequences.of(table)

    def run() -> None:
        for rows in plan_microbatches(sequences.lengths, 1, budget, layout)[0]:
            batch = make_batch(sequences.prompt, sequences.response, sequences.step_ends, rows, layout, 0)
            logprobs, _ = module(**batch.to(device).model_inputs())
            logprobs.sum().backward()
        module.zero_grad(set_to_none=True)

    run()
    return [per_second(device, int(sequences.lengths.sum()), run) for _ in range(times)]


def logit_step(
    module: PolicyModule, tokens: int, shape: ModelShape, device: torch.device, times: int
) -> dict[str, float | None]:
    """GiB and seconds of log-probabilities, entropies and gradients of `tokens` response tokens."""
    import torch

    hidden = torch.randn(tokens, shape.hidden, device=device, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(0, shape.vocab, (tokens,), device=device)

    def run() -> None:
        logprobs, _ = module.token_logprobs(hidden, targets, entropy=True, entropy_gradient=False)
        logprobs.sum().backward()
        module.zero_grad(set_to_none=True)
        hidden.grad = None

    run()
    peak = peak_bytes(device, run)
    seconds = median(seconds_of(device, run) for _ in range(times))
    return {"gib": None if peak is None else peak / 2**30, "seconds": seconds}


def peak_of_a_pass(
    module: TrainModule, tokens: int, row: int, shape: ModelShape, device: torch.device
) -> int | None:
    """Bytes of one micro-batch of `tokens` response tokens in rows of `row`, gradients not counted."""
    import torch

    rows = max(tokens // row, 1)
    ids = torch.randint(2, shape.vocab, (rows, row), device=device)
    inputs = {
        "input_ids": ids,
        "position_ids": torch.arange(row, device=device).expand(rows, row),
        "predict_index": torch.arange(rows * row, device=device),
        "targets": ids.flatten(),
        "attention_mask": torch.ones_like(ids),
    }

    def run() -> None:
        logprobs, _ = module(**inputs, entropy=True, entropy_gradient=False)
        logprobs.sum().backward()

    run()  # gradients stay, as they do between the micro-batches of an update
    return peak_bytes(device, run)


def differences(folder: Path, table: pa.Table, device: torch.device) -> dict[str, tuple[float, float]]:
    """Mean and largest |difference| in nats over the response tokens.

    `sampler_learner`: one token at a time with a cache against whole rows, both in bfloat16. `sampler_fp32`
    and `learner_fp32`: each against whole rows of the same weights in fp32.
    """
    import torch

    from airls_ray.models.load import load_policy_module

    rows = [p + r for p, r in zip(table["prompt"].to_pylist(), table["response"].to_pylist(), strict=True)]
    starts = [len(prompt) for prompt in table["prompt"].to_pylist()]
    found = {}
    with torch.no_grad():
        module = load_policy_module(folder, "bfloat16").to(device).eval()
        found["learner"] = whole_rows(module, rows, starts, device)
        found["sampler"] = a_token_at_a_time(module, rows, starts, device)
        del module
        release(device)
        found["fp32"] = whole_rows(load_policy_module(folder).to(device).eval(), rows, starts, device)

    def of(one: str, other: str) -> tuple[float, float]:
        gap = (found[one] - found[other]).abs()
        return float(gap.mean()), float(gap.max())

    pairs = (("sampler", "learner"), ("sampler", "fp32"), ("learner", "fp32"))
    return {f"{one}_{other}": of(one, other) for one, other in pairs}


def whole_rows(module: Any, rows: list[list[int]], starts: list[int], device: torch.device) -> torch.Tensor:
    """Log-probabilities of the response tokens of all rows by the learner's module, a row a pass."""
    import torch

    parts = []
    for row, start in zip(rows, starts, strict=True):
        ids = torch.tensor([row], device=device)
        at = torch.arange(start - 1, len(row) - 1, device=device)
        positions = torch.arange(len(row), device=device)[None]
        parts.append(module(ids, positions, at, ids[0, start:], torch.ones_like(ids))[0])
    return torch.cat(parts)


def a_token_at_a_time(
    module: Any, rows: list[list[int]], starts: list[int], device: torch.device
) -> torch.Tensor:
    """The same as a sampler has them: the prompt at once, then a token a step with a cache."""
    import torch

    parts = []
    for row, start in zip(rows, starts, strict=True):
        ids = torch.tensor([row], device=device)
        output = module.model(ids[:, :start], use_cache=True)
        for at in range(start, len(row)):
            parts.append(torch.log_softmax(output.logits[0, -1].float(), -1)[ids[0, at]])
            if at + 1 < len(row):
                output = module.model(
                    ids[:, at : at + 1], use_cache=True, past_key_values=output.past_key_values
                )
    return torch.stack(parts)
