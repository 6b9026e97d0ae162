"""A backbone and a small head: the hidden states at some positions become scores of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from airls_ray.errors import ModelError
from airls_ray.prm.encoders import Encoded, Encoder
from airls_ray.prm.items import StepText, fits, refuse_blank_steps, refuse_long, with_beginning
from airls_ray.tensors.microbatches import plan_microbatches


class HeadScorer:
    """Scores steps by a head on a decoder's last hidden states; implements `StepScorer`."""

    def __init__(
        self, backbone: Any, head: nn.Module, encoder: Encoder, *, folder: str, batch_tokens: int = 16384
    ) -> None:
        """Put backbone and head in evaluation mode.

        Args:
            backbone: a Hugging Face model without output layer, on its device.
            head: hidden states [R, hidden] in fp32 to logits: [R, 1] of "right", or [R, 2] of "wrong" and
                "right".
            encoder: the form of the input.
            folder: names the model in messages.
            batch_tokens: most tokens of a forward pass, padding counted; a longer item goes alone.

        Raises:
            ValueError: `batch_tokens` is below 1.
        """
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, but is {batch_tokens}")
        self._backbone = backbone.eval()
        self._head = head.to(backbone.device).float().eval()
        self._encoder = encoder
        self._folder = folder
        self._batch_tokens = batch_tokens

    def score(self, items: Sequence[StepText]) -> list[list[float]]:
        """See `StepScorer.score`; items without steps get an empty list."""
        scores: list[list[float]] = [[] for _ in items]
        encoded = {at: self._encode(item) for at, item in enumerate(items) if item.steps}
        # By tokens, so that every order of the same items gives the same batches and bits.
        order = sorted(encoded, key=lambda at: encoded[at].ids)
        lengths = torch.tensor([len(encoded[at].ids) for at in order], dtype=torch.long)
        with torch.inference_mode():
            for rows in plan_microbatches(lengths, 1, self._batch_tokens, "padded")[0]:
                batch = [order[row] for row in rows.tolist()]
                for at, values in zip(batch, self._forward([encoded[at] for at in batch]), strict=True):
                    scores[at] = values.tolist()
        for item, found in zip(items, scores, strict=True):
            assert len(found) == len(item.steps), f"{len(found)} scores of {len(item.steps)} steps"
        return scores

    def fits(self, item: StepText) -> bool:
        """See `StepScorer.fits`."""
        return fits(self._encode, item)

    def cut_last_step(self, item: StepText, tokens: int) -> StepText | None:
        """See `StepScorer.cut_last_step`."""
        return with_beginning(item, self._encoder.beginning(item.steps[-1], tokens))

    def _encode(self, item: StepText) -> Encoded:
        refuse_blank_steps(item)
        encoded = self._encoder(item)
        config = self._backbone.config
        limit = getattr(config, "max_position_embeddings", None)
        refuse_long(item, len(encoded.ids), limit, self._folder)
        if max(encoded.ids) >= config.vocab_size:
            raise ModelError(
                f"the tokenizer of {self._folder} gives token {max(encoded.ids)}, but the model has only "
                f"{config.vocab_size}: take the tokenizer that belongs to the weights"
            )
        return encoded

    def _forward(self, batch: Sequence[Encoded]) -> list[Tensor]:
        """Return for each row the scores [steps] of its steps."""
        device = self._backbone.device
        longest = max(len(one.ids) for one in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, one in enumerate(batch):  # padded on the right: positions count from 0 in every row
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
            mask[row, : len(one.ids)] = 1
        output = self._backbone(
            input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
        ).last_hidden_state
        flat = [row * longest + position for row, one in enumerate(batch) for position in one.positions]
        hidden = output.flatten(0, 1)[torch.tensor(flat, device=device)]
        scores = positive_probability(self._head(hidden.float()).cpu())
        if not bool(scores.isfinite().all()):
            raise ModelError(f"{self._folder} gives scores that are not finite: try --dtype float32")
        return list(scores.split([len(one.positions) for one in batch]))


def positive_probability(logits: Tensor) -> Tensor:
    """Probability of "right" [R]: the sigmoid of one label [R, 1], or the softmax's second of two [R, 2].

    In float64: in float32 it would be 1 from a logit of 17 on.
    """
    logits = logits.double()
    if logits.shape[1] == 1:
        return torch.sigmoid(logits[:, 0])
    return torch.softmax(logits, dim=1)[:, 1]
