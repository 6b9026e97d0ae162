"""What a causal language model does to the numbers of its output layer before they are logits.

Gemma 2 and its successors cap them (`final_logit_softcapping`), Granite divides them (`logits_scaling`),
Cohere and Falcon-H1 multiply them (`logit_scale`, `lm_head_multiplier`). Whoever calls the output layer
alone, to spare the logits of prompts and padding, applies this `LogitForm` to what it gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from airls_ray.errors import ModelError

_PROBE_SIZE = 50.0
"""The largest number that the output layer gives in the check: above every published cap."""


@dataclass(frozen=True)
class LogitForm:
    """logits = cap tanh(scale x / cap), or scale x without a cap."""

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> LogitForm:
        """Read a model's configuration (of one with several parts: its text part's)."""
        text = config.get_text_config()
        scale = float(getattr(text, "logit_scale", None) or 1.0)
        scale *= float(getattr(text, "lm_head_multiplier", None) or 1.0)
        divisor = float(getattr(text, "logits_scaling", None) or 1.0)
        # The same name means a factor in HyperCLOVA X, a divisor in all Granite models.
        scale = scale * divisor if text.model_type.startswith("hyperclovax") else scale / divisor
        return cls(scale, getattr(text, "final_logit_softcapping", None))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the logits, fp32, of what the output layer gave: any shape, any part of the vocabulary."""
        logits = outputs.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def caps_attention(config: Any) -> bool:
    """Whether a model caps the scores of its attention (Gemma 2), which PyTorch's fused kernel leaves out."""
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


def check_logit_form(model: Any, path: Any) -> None:
    """Compare `LogitForm` with the model's own way from its last hidden states to its logits.

    The backbone does not run: it is made to give random hidden states, so that this costs four tokens of
    the output layer.

    Raises:
        ModelError: the model does something else to its logits. It would be trained on other
            log-probabilities than those that it samples by. Or its backbone is not found.
    """
    if model.base_model is model:  # its class names another backbone than it has, as that of Llama 4 does
        raise ModelError(
            f"{path} ({model.config.model_type}) has no backbone of the name that its class gives, so that "
            "its hidden states cannot be read: take another model"
        )
    head = model.get_output_embeddings()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(1, 4, head.weight.shape[-1], generator=generator).to(head.weight)
        largest = float(head(hidden).abs().max())
        hidden = hidden * (_PROBE_SIZE / max(largest, 1e-6))
        outputs = head(hidden)
        with _backbone_gives(model, hidden):
            own = model(input_ids=torch.zeros(1, 4, dtype=torch.long, device=hidden.device)).logits
    # The model computes in its own type: three roundings of up to 1/256 each in bfloat16.
    tolerance = _PROBE_SIZE * (1e-4 if head.weight.dtype == torch.float32 else 0.02)
    difference = float((LogitForm.of(model.config)(outputs) - own.float()).abs().max())
    if difference > tolerance:
        raise ModelError(
            f"{path} ({model.config.model_type}) changes its logits in a way that is not known here (they "
            f"differ by up to {difference:.3g} from those of its output layer): take another model"
        )


class _Output:
    """What a backbone returns, as far as a causal language model reads it: all else is None."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, at: Any) -> Any:
        return (self.last_hidden_state,)[at]


@contextmanager
def _backbone_gives(model: Any, hidden: Tensor) -> Iterator[None]:
    backbone = model.base_model
    backbone.forward = lambda *_, **__: _Output(hidden)
    try:
        yield
    finally:
        del backbone.forward
