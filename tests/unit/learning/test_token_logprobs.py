"""Log-probabilities and entropies in chunks of tokens: those of all logits at once, with their gradients."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Qwen2Config

from airls_ray.models.logits import LogitForm
from airls_ray.models.modules import PolicyModule
from airls_ray.models.token_logprobs import TokenReader, read_in_chunks
from tests.unit.model_shapes import SMALL

PLAIN = LogitForm()
FORMS = [PLAIN, LogitForm(cap=3.0), LogitForm(scale=0.25), LogitForm(scale=2.0, cap=5.0)]


def in_float64(
    hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, read: TokenReader
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies by the formulas, of all tokens at once."""
    logits = read.form.scale * (hidden @ weight.T + (0 if bias is None else bias))
    if read.form.cap is not None:
        logits = read.form.cap * (logits / read.form.cap).tanh()
    p = (logits / read.temperature).softmax(-1)
    return p[torch.arange(len(targets)), targets].log(), torch.special.entr(p).sum(-1)


def layer_and_inputs(
    tokens: int, size: int, vocabulary: int, *, bias: bool = True
) -> tuple[nn.Linear, Tensor, Tensor]:
    """An output layer whose logits are spread out, hidden states and targets."""
    generator = torch.Generator().manual_seed(tokens)
    layer = nn.Linear(size, vocabulary, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    hidden = torch.randn(tokens, size, generator=generator)
    targets = torch.randint(0, vocabulary, (tokens,), generator=generator)
    return layer, hidden.requires_grad_(), targets


def both(layer: nn.Linear, hidden: Tensor, targets: Tensor, read: TokenReader, most_tokens: int) -> Any:
    """(found, expected): values, entropies and gradients of a weighted sum, ours and in float64."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(2, len(targets), generator=generator)
    inputs = [hidden, *layer.parameters()]
    exact = [one.detach().double().requires_grad_() for one in inputs]
    wanted = in_float64(exact[0], targets, exact[1], exact[2] if len(exact) > 2 else None, read)
    logprobs, entropy = read_in_chunks(layer, hidden, targets, read, most_tokens)
    assert entropy is None or entropy.requires_grad == read.entropy_gradient
    loss, exact_loss = logprobs @ weights[0], wanted[0] @ weights[0].double()
    if entropy is not None and read.entropy_gradient:
        loss, exact_loss = loss + entropy @ weights[1], exact_loss + wanted[1] @ weights[1].double()
    found = [logprobs, entropy, *torch.autograd.grad(loss, inputs)]
    return found, [wanted[0], wanted[1] if read.entropy else None, *torch.autograd.grad(exact_loss, exact)]


def assert_near(found: list[Tensor | None], expected: list[Tensor | None], tolerance: float) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            torch.testing.assert_close(mine.double(), theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy", ["none", "reported", "learned"])
def test_chunks_give_what_all_logits_give(form: LogitForm, temperature: float, entropy: str) -> None:
    read = TokenReader(form, temperature, entropy != "none", entropy == "learned")
    assert_near(*both(*layer_and_inputs(23, 6, 31), read, most_tokens=5), tolerance=2e-5)


@pytest.mark.parametrize("most_tokens", [1, 7, 22, 23, 100])
def test_the_size_of_a_chunk_changes_nothing(most_tokens: int) -> None:
    read = TokenReader(LogitForm(cap=4.0), 0.8, True, True)
    assert_near(*both(*layer_and_inputs(23, 6, 31, bias=False), read, most_tokens), tolerance=2e-5)


def test_thousands_of_tokens_and_words() -> None:
    layer, hidden, targets = layer_and_inputs(3000, 32, 6000)
    assert_near(*both(layer, hidden, targets, TokenReader(LogitForm(scale=0.2)), 257), tolerance=1e-4)


def test_a_gradient_is_that_of_finite_differences() -> None:
    layer, hidden, targets = layer_and_inputs(9, 5, 13)
    read = TokenReader(LogitForm(cap=3.0), 0.7, True, True)
    direction = torch.randn(9, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()

    def loss(step: float) -> float:
        moved = hidden.detach().double() + step * direction
        logprobs, entropies = in_float64(moved, targets, weight, bias, read)
        return float((logprobs * entropies).sum())

    logprobs, entropies = read_in_chunks(layer, hidden, targets, read, 4)
    assert entropies is not None
    (gradient,) = torch.autograd.grad((logprobs * entropies).sum(), hidden)
    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert float((gradient.double() * direction).sum()) == pytest.approx(slope, rel=1e-4)


def test_the_weights_gradient_is_summed_in_fp32_and_rounded_once() -> None:
    """In bfloat16 the sum of equal numbers stops at 256 of them; that of 1,024 is exact."""
    layer, hidden, targets = layer_and_inputs(1, 6, 31)
    layer = layer.to(torch.bfloat16)

    def gradients(tokens: int) -> tuple[Tensor, ...]:
        given = hidden.detach().to(torch.bfloat16).expand(tokens, 6)
        logprobs, _ = read_in_chunks(layer, given, targets.expand(tokens), TokenReader(PLAIN), 1)
        return torch.autograd.grad(logprobs.sum(), list(layer.parameters()))

    for one, many in zip(gradients(1), gradients(1024), strict=True):
        assert one.dtype == many.dtype == torch.bfloat16
        assert torch.equal(1024 * one, many)


def test_adapters_on_the_output_layer_learn_and_its_own_weight_does_not() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    layer, hidden, targets = layer_and_inputs(11, 6, 31, bias=False)
    model = nn.ModuleDict({"out": layer})
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=6.0, target_modules=["out"]), model)
    out: Any = model["out"]
    a, b = out.lora_A["default"].weight, out.lora_B["default"].weight
    nn.init.normal_(b)
    logprobs, _ = read_in_chunks(out, hidden, targets, TokenReader(PLAIN), 3)
    found = [logprobs, *torch.autograd.grad(logprobs.sum(), [hidden, a, b])]
    assert not out.base_layer.weight.requires_grad
    exact = [one.detach().double().requires_grad_() for one in (hidden, a, b)]
    weight = out.base_layer.weight.double() + 3.0 * exact[2] @ exact[1]
    wanted, _ = in_float64(exact[0], targets, weight, None, TokenReader(PLAIN))
    assert_near(found, [wanted, *torch.autograd.grad(wanted.sum(), exact)], tolerance=1e-4)


# ------------------------------------------------------------------------------- in a policy
VOCABULARY = 2**17
"""Of which one MiB holds the logits of two tokens."""


def policy(tie: bool) -> Any:
    torch.manual_seed(0)
    sizes = {**SMALL, "vocab_size": VOCABULARY, "num_hidden_layers": 1}
    model = AutoModelForCausalLM.from_config(Qwen2Config(**sizes, tie_word_embeddings=tie))
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(std=0.5)
    return model


def inputs_of(ids: Tensor) -> dict[str, Tensor]:
    places = torch.arange(ids.shape[1])
    return {
        "input_ids": ids,
        "position_ids": places[None],
        "predict_index": places[:-1],
        "targets": ids[0, 1:],
        "attention_mask": torch.ones_like(ids),
    }


@pytest.mark.parametrize("tie", [False, True])
def test_a_policy_in_chunks_has_the_models_own_values_and_gradients(tie: bool) -> None:
    model = policy(tie)
    exact = deepcopy(model).double()
    ids = torch.randint(0, VOCABULARY, (1, 12), generator=torch.Generator().manual_seed(3))
    module = PolicyModule(model, logit_chunk_mib=1)
    logprobs, _ = module(**inputs_of(ids), temperature=0.7)
    logits = exact(input_ids=ids).logits[0, :-1] / 0.7
    wanted = logits.log_softmax(-1)[torch.arange(11), ids[0, 1:]]
    torch.testing.assert_close(logprobs.double(), wanted, atol=1e-4, rtol=0)
    logprobs.sum().backward()
    wanted.sum().backward()
    for mine, theirs in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, atol=1e-3, rtol=1e-3)


def test_without_a_gradient_the_values_are_the_same() -> None:
    module = PolicyModule(policy(tie=True), logit_chunk_mib=1)
    ids = torch.randint(0, VOCABULARY, (1, 9), generator=torch.Generator().manual_seed(4))
    inputs = inputs_of(ids)
    with_gradient = module(**inputs, entropy=True)
    with torch.inference_mode():
        without = module(**inputs, entropy=True)
    for one, other in zip(with_gradient, without, strict=True):
        assert one.requires_grad and not other.requires_grad
        assert torch.equal(one, other)


@pytest.mark.parametrize("chunk_mib", [0, 1])
def test_up_to_the_size_of_a_chunk_no_bit_changes(chunk_mib: int) -> None:
    tokens = 2 if chunk_mib else 20
    module = PolicyModule(policy(tie=False), logit_chunk_mib=chunk_mib)
    layer = module.model.get_output_embeddings()
    hidden = torch.randn(tokens, SMALL["hidden_size"], generator=torch.Generator().manual_seed(5))
    targets = torch.arange(tokens)
    found, entropies = module.token_logprobs(hidden, targets, temperature=0.7, entropy=True)
    log_softmax = torch.log_softmax(layer(hidden).float() / 0.7, dim=-1)
    assert torch.equal(found, log_softmax.gather(1, targets.unsqueeze(1)).squeeze(1))
    assert torch.equal(entropies, -(log_softmax.exp() * log_softmax).sum(-1))


# ---------------------------------------------------------------------------------- the hooks
@pytest.mark.parametrize("tokens", [1, 20])
def test_every_number_of_tokens_is_one_call_of_the_layer_and_one_gradient(tokens: int) -> None:
    """As many on every rank, whatever its tokens: ZeRO gathers weights and reduces gradients there."""
    layer, hidden, targets = layer_and_inputs(tokens, 6, 31)
    seen: list[str] = []
    layer.register_forward_pre_hook(lambda *_: seen.append("call"))
    layer.register_forward_hook(lambda *_: seen.append("return"))
    layer.register_full_backward_pre_hook(lambda *_: seen.append("backward"))
    layer.weight.register_post_accumulate_grad_hook(lambda _: seen.append("gradient"))
    read = TokenReader(PLAIN, 1.0, True, True)
    logprobs, entropies = read_in_chunks(layer, hidden, targets, read, 3)
    assert entropies is not None
    (logprobs.sum() + entropies.sum()).backward()
    assert seen == ["call", "return", "backward", "gradient"]


def test_the_layer_is_left_as_it_was() -> None:
    layer, hidden, targets = layer_and_inputs(5, 6, 31)
    with pytest.raises(RuntimeError, match="out of bounds"):
        read_in_chunks(layer, hidden, targets + 31, TokenReader(PLAIN), 2)
    assert "forward" not in vars(layer)

    def plain(given: Tensor) -> Tensor:
        return nn.functional.linear(given, layer.weight, layer.bias)

    layer.forward = plain  # type: ignore[method-assign]
    read_in_chunks(layer, hidden, targets, TokenReader(PLAIN), 2)
    assert vars(layer)["forward"] is plain
