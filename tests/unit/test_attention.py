"""Which attention a model gets, and that rows packed in one line are computed as each by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.attention.flex_attention as torch_flex
import transformers.modeling_flash_attention_utils as flash_utils
from torch import Tensor
from transformers import Qwen3Config
from transformers.masking_utils import create_causal_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from airls_ray.errors import ModelError
from airls_ray.learning.engine import FrozenEngine, kernels
from airls_ray.models.attention import (
    AttentionTraits,
    Kernel,
    Machine,
    attention_of,
    check_attention,
    choose_attention,
    decoding_attention,
    packs_well,
    set_attention,
)
from airls_ray.models.load import load_policy_module
from airls_ray.models.modules import PolicyModule
from airls_ray.tensors.batch import Layout, make_batch
from airls_ray.tensors.packing import PackedColumn
from airls_ray.tensors.segments import offsets_of
from tests.tiny import make_policy_folder

CPU = Machine(gpu=False)
FLEX = Machine(gpu=True, flex=True)
FLASH = Machine(gpu=True, flash=True, flex=True)
BARE = Machine(gpu=True)
HEADS, KV_HEADS, WIDTH = 2, 1, 16


@pytest.mark.parametrize(
    ("machine", "traits", "kernel"),
    [
        (FLASH, {}, "flash_attention_2"),
        (FLEX, {}, "sdpa"),
        (BARE, {}, "sdpa"),
        (CPU, {}, "sdpa"),
        (FLASH, {"dtype": "float32"}, "sdpa"),
        (FLASH, {"flash": False}, "sdpa"),
        (FLASH, {"head_dim": 320}, "sdpa"),
        (FLASH, {"head_dim": 8}, "flash_attention_2"),
        (FLASH, {"capped": True}, "flash_attention_2"),
        (FLEX, {"capped": True}, "eager"),
        (BARE, {"capped": True}, "eager"),
        (CPU, {"capped": True}, "eager"),
        (CPU, {"context": 128}, "eager"),
        (CPU, {"context": 128, "dtype": "float32"}, "sdpa"),
        (BARE, {"context": 128}, "sdpa"),
        (CPU, {"context": None}, "sdpa"),
        (CPU, {"fused": False}, "eager"),
        (BARE, {"fused": False}, "eager"),
    ],
)
def test_auto_takes_the_fastest_that_model_and_machine_have(
    machine: Machine, traits: dict[str, Any], kernel: str
) -> None:
    given = {"dtype": "bfloat16", "context": 4096, "head_dim": 64} | traits
    assert choose_attention("auto", AttentionTraits(**given), machine, "model") == kernel


@pytest.mark.parametrize("asked", ["sdpa", "eager", "flex_attention", "flash_attention_2"])
def test_what_was_asked_for_is_taken(asked: Kernel) -> None:
    assert choose_attention(asked, AttentionTraits("float32", 64, 8), FLASH, "model") == asked


@pytest.mark.parametrize(
    ("asked", "machine", "words"),
    [
        ("flex_attention", CPU, "model.attention=flex_attention needs a GPU, and this process sees none"),
        ("flash_attention_2", CPU, "model.attention=flash_attention_2 needs a GPU"),
        ("flex_attention", BARE, "needs Triton, a C compiler and an Ampere GPU"),
        ("flash_attention_2", FLEX, "needs the package flash-attn"),
    ],
)
def test_an_attention_that_the_machine_lacks_is_refused(asked: Any, machine: Machine, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        check_attention(asked, machine)
    check_attention(asked, FLASH)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a process without a GPU")
def test_a_model_is_not_loaded_for_an_attention_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="flex_attention needs a GPU"):
        load_policy_module(make_policy_folder(tmp_path), attention="flex_attention")


def test_traits_are_the_models_own(tmp_path: Path) -> None:
    traits = AttentionTraits.of(load_policy_module(make_policy_folder(tmp_path)).model, "float32")
    assert traits == AttentionTraits("float32", context=64, head_dim=32)


# --------------------------------------------------------------------------- packed against one by one
@pytest.fixture
def flex_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PyTorch's reference of flex attention, which it refuses to differentiate on a CPU, in plain calls."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    with torch.compiler.set_stance("force_eager"):
        yield


def row_lengths(rows: int, longest: int) -> list[int]:
    """Lengths with a row of one token first, last and twice in between."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randint(2, longest, (rows - 4,), generator=generator).tolist()
    return [1, *drawn[:7], 1, 1, *drawn[7:], 1]


def one_by_one(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Softmax of q k / sqrt(width) over the tokens before, by row and head: [1, T, heads, width]."""
    rows, start = [], 0
    for length in lengths:
        span = slice(start, start + length)
        heads = []
        for head in range(HEADS):
            q, kv = query[0, head, span], head // (HEADS // KV_HEADS)
            scores = q @ key[0, kv, span].T / math.sqrt(WIDTH)
            hidden = torch.ones(length, length).tril() == 0
            heads.append(scores.masked_fill(hidden, -math.inf).softmax(-1) @ value[0, kv, span])
        rows.append(torch.stack(heads, 1))
        start += length
    return torch.cat(rows)[None]


class Layer(torch.nn.Module):
    """What an attention function asks of its layer."""

    num_key_value_groups = HEADS // KV_HEADS
    is_causal = True


def packed(kernel: str, states: list[Tensor], positions: Tensor) -> Tensor:
    config = Qwen3Config(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=WIDTH)
    config._attn_implementation = kernel
    inputs = torch.zeros(1, positions.shape[1], 1, dtype=states[0].dtype)
    mask = create_causal_mask(config, inputs, None, None, position_ids=positions)
    output, _ = ALL_ATTENTION_FUNCTIONS[kernel](Layer(), *states, mask, scaling=WIDTH**-0.5, dropout=0.0)
    assert isinstance(output, Tensor)
    return output


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kernel", ["sdpa", "flex_attention"])
def test_thousands_of_packed_tokens_get_what_their_rows_get_alone(flex_on_cpu: None, kernel: str) -> None:
    lengths = row_lengths(rows=74, longest=64)
    total = sum(lengths)
    assert total > 2000
    generator = torch.Generator().manual_seed(0)
    states = [
        torch.randn(1, heads, total, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    weights = torch.randn(1, total, HEADS, WIDTH, generator=generator, dtype=torch.float64)
    results = []
    for output in (one_by_one(*states, lengths), packed(kernel, states, positions)):
        results.append([output, *torch.autograd.grad((output * weights).sum(), states)])
    for alone, together in zip(*results, strict=True):
        torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)


def columns(lengths: list[int]) -> list[PackedColumn]:
    """Prompts of one token, responses of the lengths in one step each."""
    generator = torch.Generator().manual_seed(1)
    sizes = torch.tensor(lengths)
    ones = torch.ones_like(sizes)
    return [
        PackedColumn(torch.randint(2, 12, (len(lengths),), generator=generator), offsets_of(ones)),
        PackedColumn(torch.randint(2, 12, (sum(lengths),), generator=generator), offsets_of(sizes)),
        PackedColumn(sizes, offsets_of(ones)),
    ]


def logprobs_and_gradients(
    module: PolicyModule, lengths: list[int], rows: list[Tensor], layout: Layout
) -> list[Tensor]:
    """Of the rows in these micro-batches; the loss weighs every token differently."""
    module.zero_grad()
    device = next(module.parameters()).device
    parts = [make_batch(*columns(lengths), part, layout, 0).to(device) for part in rows]
    logprobs = torch.cat([module(**part.model_inputs())[0] for part in parts])
    (logprobs * torch.linspace(-1, 1, logprobs.numel(), device=device)).sum().backward()
    grads = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return [logprobs.detach(), *(grad.clone() for grad in grads)]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kernel", ["sdpa", "eager", "flex_attention"])
def test_a_packed_micro_batch_has_the_log_probabilities_and_gradients_of_its_rows(
    tmp_path: Path, flex_on_cpu: None, kernel: Kernel
) -> None:
    module = load_policy_module(make_policy_folder(tmp_path), attention="eager")
    lengths = row_lengths(rows=44, longest=60)
    assert sum(lengths) > 1000
    every = torch.arange(len(lengths))
    alone = logprobs_and_gradients(module, lengths, list(every.split(1)), "padded")
    set_attention(module.model, kernel)
    together = logprobs_and_gradients(module, lengths, [every], "packed")
    torch.testing.assert_close(together[0], alone[0], atol=1e-5, rtol=0)
    for ours, theirs in zip(together[1:], alone[1:], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()) + 1e-6, rtol=1e-4)


def flash_by_rows(seen: list[list[int]]) -> tuple[Any, Any]:
    """Flash attention's two functions as their README defines them, row by row; `seen`: lengths of the rows.

    States are [total, heads, width], or [rows, tokens, heads, width] without cumulative lengths.
    """

    def plain(
        q: Tensor, k: Tensor, v: Tensor, dropout_p: float, softmax_scale: float, causal: bool
    ) -> Tensor:
        assert (dropout_p, causal) == (0.0, True)
        states = [one.transpose(1, 2) for one in (q, k, v)]
        output = torch.nn.functional.scaled_dot_product_attention(
            *states, is_causal=True, scale=softmax_scale, enable_gqa=True
        )
        return output.transpose(1, 2)

    def by_lengths(
        q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
        max_seqlen_k: int, dropout_p: float, softmax_scale: float, causal: bool,
    ) -> Tensor:  # fmt: skip
        lengths = cu_seqlens_q.diff().tolist()
        seen.append(lengths)
        assert cu_seqlens_k.diff().tolist() == lengths
        assert max_seqlen_q == max_seqlen_k == max(lengths)
        rows = zip(*(one.split(lengths) for one in (q, k, v)), strict=True)
        outputs = [plain(*(one[None] for one in row), dropout_p, softmax_scale, causal)[0] for row in rows]
        return torch.cat(outputs)

    return plain, by_lengths


def test_flash_attention_is_told_where_the_rows_of_a_packed_line_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load_policy_module(make_policy_folder(tmp_path), attention="eager")
    lengths = row_lengths(rows=44, longest=60)
    every = torch.arange(len(lengths))
    alone = logprobs_and_gradients(module, lengths, list(every.split(1)), "padded")
    seen: list[list[int]] = []
    plain, by_lengths = flash_by_rows(seen)
    for name, value in {
        "_loaded_implementation": "flash_attention_2",
        "_flash_fn": plain,
        "_flash_varlen_fn": by_lengths,
        "_prepare_from_posids": None,  # nobody looks for the rows' ends again
        "_process_flash_kwargs_fn": flash_utils._lazy_define_process_function(by_lengths),
    }.items():
        monkeypatch.setattr(flash_utils, name, value)
    module.model.config._attn_implementation = "flash_attention_2"
    together = logprobs_and_gradients(module, lengths, [every], "packed")
    assert seen == [[length + 1 for length in lengths]] * 2  # layers; a prompt has one token
    padded = logprobs_and_gradients(module, lengths, [every], "padded")
    for ours, theirs, also in zip(together, alone, padded, strict=True):
        size = 1e-5 * float(theirs.abs().max()) + 1e-5
        torch.testing.assert_close(ours, theirs, atol=size, rtol=1e-4)
        torch.testing.assert_close(also, theirs, atol=size, rtol=1e-4)


# -------------------------------------------------------------------------------------------- the rest
@pytest.mark.parametrize(
    ("attention", "packs"),
    [("flash_attention_2", True), ("flex_attention", True), ("sdpa", False), ("eager", False)],
)
def test_rows_are_packed_where_a_line_costs_what_its_rows_cost(attention: str, packs: bool) -> None:
    assert packs_well(attention) == packs


@pytest.mark.parametrize(("layout", "rows"), [("auto", "padded"), ("packed", "packed")])
def test_an_engine_says_what_it_computes_with(tmp_path: Path, layout: Any, rows: str) -> None:
    engine = FrozenEngine(load_policy_module(make_policy_folder(tmp_path)))
    assert kernels(engine, layout) == {"attention": "sdpa", "layout": rows}


@pytest.mark.parametrize(
    ("kernel", "inside"), [("flex_attention", "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")]
)
def test_a_model_decodes_without_flex_attention_and_has_it_again(
    tmp_path: Path, kernel: Kernel, inside: str
) -> None:
    model = load_policy_module(make_policy_folder(tmp_path)).model
    set_attention(model, kernel)
    with decoding_attention(model):
        assert attention_of(model) == inside
    assert attention_of(model) == kernel
