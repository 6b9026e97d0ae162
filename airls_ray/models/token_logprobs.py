"""Log-probabilities of given tokens, and entropies, from hidden states: without the logits of all tokens.

The logits of a micro-batch [tokens, vocabulary] are its largest tensor. Above a size they are computed for a
chunk of tokens at a time, and again, chunk by chunk, in the backward pass: a third more products in the
output layer, and never more than one chunk in memory.

All chunks are computed within ONE call of the output layer. DeepSpeed's ZeRO-3 gathers its weights in hooks,
before the call and before its backward pass. Ranks differ in their tokens and so in their chunks: with a call
for each chunk (as a `torch.utils.checkpoint` of each would make, and again in the backward pass) they would
gather another number of times, and wait for each other for ever. Nor are there checkpoints within the call:
autograd would add up the chunks' gradients in the type of the weights. Here the sum is in fp32 and rounded
once, as that of the product over all tokens is; and both time and memory are less (`benchmarks/logits.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from airls_ray.models.logits import LogitForm

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TokenReader:
    """What is read of the logits of a chunk of tokens, or of all."""

    form: LogitForm
    temperature: float = 1.0
    """Divides the logits, as the sampler does."""
    entropy: bool = False
    """Whether to compute the entropy of each distribution, too."""
    entropy_gradient: bool = True
    """False where the entropy is only reported."""

    def __call__(self, layer: Layer, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (log-probabilities [R], entropies [R] or None) in nats, fp32.

        Args:
            layer: the output layer. Called here, so that nobody else holds what it gives.
            hidden: [R, hidden size] last hidden states of the positions that predict the tokens.
            targets: [R] token numbers.
        """
        logits = self.form(layer(hidden))
        if self.temperature != 1.0:
            logits = logits / self.temperature
        log_softmax = torch.log_softmax(logits, dim=-1)
        logprobs = log_softmax.gather(1, targets.unsqueeze(1)).squeeze(1)
        if not self.entropy:
            return logprobs, None
        if not self.entropy_gradient:
            log_softmax = log_softmax.detach()
        return logprobs, -(log_softmax.exp() * log_softmax).sum(-1)


def read_in_chunks(
    layer: nn.Module, hidden: Tensor, targets: Tensor, read: TokenReader, most_tokens: int
) -> tuple[Tensor, Tensor | None]:
    """Return what `read(layer, hidden, targets)` does, up to rounding, from chunks of at most `most_tokens`.

    The same holds for the gradients of the hidden states and of the layer's weights. The layer must treat
    every row alone. Gradients of gradients are not defined.

    Args:
        layer: the output layer, of any kind; called once, with all its hooks.
        hidden: [R, hidden size], last hidden states; R at least 1.
        targets: [R] token numbers.
        read: what is read.
        most_tokens: of a chunk.
    """
    chunks = -(-targets.numel() // most_tokens)
    size = -(-targets.numel() // chunks)  # all alike
    run: Layer = layer.forward
    weights = [weight for weight in layer.parameters() if weight.requires_grad]
    with _forward_is(layer, lambda given: _Chunks.apply(run, read, size, targets, given, *weights)):
        found: Tensor = layer(hidden)
    if not read.entropy:
        return found[0], None
    return found[0], found[1] if read.entropy_gradient else found[1].detach()


class _Chunks(torch.autograd.Function):
    """Log-probabilities, and entropies where they are asked for, in one tensor [1 or 2, R].

    In one, since ZeRO-3 counts the outputs of a module that have yet to begin their backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, run: Layer, read: TokenReader, size: int, targets: Tensor, hidden: Tensor, *weights: Tensor
    ) -> Tensor:
        ctx.save_for_backward(targets, hidden, *weights)
        ctx.run, ctx.read, ctx.size = run, read, size
        chunks = zip(hidden.split(size), targets.split(size), strict=True)
        return torch.cat([_stacked(read(run, part, tokens)) for part, tokens in chunks], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        targets, hidden, *weights = ctx.saved_tensors
        read = ctx.read
        if read.entropy and not read.entropy_gradient:  # then it need not be computed again
            read, gradient = TokenReader(read.form, read.temperature), gradient[:1]
        of_hidden = torch.empty_like(hidden)
        sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        parts = (of_hidden, hidden, targets)
        for to, part, tokens, given in zip(
            *(one.split(ctx.size) for one in parts), gradient.split(ctx.size, dim=1), strict=True
        ):
            _add_gradients(ctx.run, read, part, tokens, given, weights, to, sums)
        of_weights = (total.to(weight.dtype) for total, weight in zip(sums, weights, strict=True))
        return (None, None, None, None, of_hidden, *of_weights)


def _add_gradients(
    run: Layer,
    read: TokenReader,
    hidden: Tensor,
    targets: Tensor,
    given: Tensor,
    weights: list[Tensor],
    to: Tensor,
    sums: list[Tensor],
) -> None:
    """Compute a chunk again; write its hidden states' gradient to `to`, and add its weights' to `sums`."""
    with torch.enable_grad():
        part = hidden.detach().requires_grad_()
        found = _stacked(read(run, part, targets))
    first, *others = torch.autograd.grad(found, (part, *weights), given)
    to.copy_(first)
    for total, other in zip(sums, others, strict=True):
        total.add_(other)


def _stacked(found: tuple[Tensor, Tensor | None]) -> Tensor:
    return torch.stack([one for one in found if one is not None])


@contextmanager
def _forward_is(layer: nn.Module, forward: Layer) -> Iterator[None]:
    """Put another function in the place of a module's `forward`: its hooks run around it all the same."""
    before = layer.__dict__.get("forward")
    layer.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del layer.forward
        if before is not None:
            layer.forward = before  # type: ignore[method-assign]
