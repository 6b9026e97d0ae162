"""One micro-batch of rows as the tensors that a model and the objectives take."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from airls_ray.tensors.packing import PackedColumn
from airls_ray.tensors.segments import offsets_of, ranges

Layout = Literal["padded", "packed"]


@dataclass
class TokenBatch:
    """A micro-batch of B rows with R response tokens and S steps; all integer tensors are int64.

    Layout `padded`: T is the longest row, padding is on the right. Layout `packed`: the rows lie one
    after the other in a single line of `total` tokens, and positions restart at 0 with each row.
    """

    rows: Tensor
    """[B]: positions in the table."""
    input_ids: Tensor
    """[B, T] or [1, total]: prompt and response."""
    position_ids: Tensor
    """Like `input_ids`: position within the row."""
    attention_mask: Tensor | None
    """[B, T], 1 at tokens and 0 at padding; None when packed."""
    predict_index: Tensor
    """[R]: flat index of the position whose hidden state predicts response token r."""
    token_index: Tensor
    """[R]: flat index of the position at response token r (`predict_index + 1`)."""
    targets: Tensor
    """[R]: the response tokens, rows concatenated in the order of `rows`."""
    row_offsets: Tensor
    """[B + 1]: the response tokens of row b are `row_offsets[b]:row_offsets[b + 1]`."""
    step_index: Tensor
    """[R]: step of each response token, counted over the whole micro-batch."""
    step_rows: Tensor
    """[S]: row b of each step."""
    step_last: Tensor
    """[S]: index r of the last token of each step."""

    def model_inputs(self) -> dict[str, Tensor]:
        """Return what a model's `forward` takes; the mask only where there is one."""
        inputs = {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "predict_index": self.predict_index,
            "token_index": self.token_index,
            "targets": self.targets,
        }
        if self.attention_mask is not None:
            inputs["attention_mask"] = self.attention_mask
        return inputs

    @property
    def step_first(self) -> Tensor:
        """[S]: index r of the first token of each step."""
        first = torch.zeros_like(self.step_last)
        first[1:] = self.step_last[:-1] + 1
        return first

    @property
    def token_rows(self) -> Tensor:
        """[R]: row b of each response token."""
        return self.step_rows[self.step_index]

    @property
    def steps(self) -> int:
        """S, the number of steps."""
        return self.step_rows.numel()

    def to(self, device: torch.device | str) -> TokenBatch:
        """Return the same batch on `device`."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in held.items() if value is not None})


def make_batch(
    prompt: PackedColumn,
    response: PackedColumn,
    step_ends: PackedColumn,
    rows: Tensor,
    layout: Layout,
    pad_id: int,
) -> TokenBatch:
    """Gather `rows` (int64 [B], positions in the table) into one micro-batch.

    Without rows the batch is a single padding token with no response, so that a rank that has run
    out of rows still takes part in the collectives of a forward and backward pass.

    Raises:
        ValueError: a prompt is empty (nothing would predict the first token), or the step ends of a
            row do not rise to the length of its response.
    """
    prompts, responses, steps = prompt.take(rows), response.take(rows), step_ends.take(rows)
    lengths = prompts.lengths + responses.lengths
    if rows.numel() and int(prompts.lengths.min()) < 1:
        raise ValueError(f"row {int(rows[prompts.lengths.argmin()])} has an empty prompt")
    starts, width = _row_starts(lengths, layout)
    shape = (max(rows.numel(), 1), width) if layout == "padded" else (1, width)

    input_ids = torch.full((shape[0] * shape[1],), pad_id, dtype=torch.int64)
    token_index = ranges(starts + prompts.lengths, responses.lengths)
    targets = responses.values.to(torch.int64)
    input_ids[ranges(starts, prompts.lengths)] = prompts.values.to(torch.int64)
    input_ids[token_index] = targets

    ends = _step_ends(responses, steps, rows)
    return TokenBatch(
        rows=rows,
        input_ids=input_ids.view(shape),
        position_ids=_position_ids(lengths, shape, layout),
        attention_mask=_mask(lengths, width) if layout == "padded" else None,
        predict_index=token_index - 1,
        token_index=token_index,
        targets=targets,
        row_offsets=responses.offsets,
        step_index=torch.searchsorted(ends, torch.arange(targets.numel()), right=True),
        step_rows=torch.repeat_interleave(torch.arange(rows.numel()), steps.lengths),
        step_last=ends - 1,
    )


def _row_starts(lengths: Tensor, layout: Layout) -> tuple[Tensor, int]:
    """Flat index of the first token of each row [B], and the width of a line."""
    if not lengths.numel():
        return torch.zeros(0, dtype=torch.int64), 1
    if layout == "packed":
        offsets = offsets_of(lengths)
        return offsets[:-1], int(offsets[-1])
    width = int(lengths.max())
    return torch.arange(lengths.numel()) * width, width


def _position_ids(lengths: Tensor, shape: tuple[int, int], layout: Layout) -> Tensor:
    if layout == "packed" and lengths.numel():
        return ranges(torch.zeros_like(lengths), lengths).view(shape)
    return torch.arange(shape[1]).expand(shape).contiguous()


def _mask(lengths: Tensor, width: int) -> Tensor:
    if not lengths.numel():  # the lone padding token attends to itself: no row of only masked keys
        return torch.ones(1, width, dtype=torch.int64)
    return (torch.arange(width) < lengths[:, None]).to(torch.int64)


def _step_ends(responses: PackedColumn, steps: PackedColumn, rows: Tensor) -> Tensor:
    """Exclusive end of each step [S], counted over the response tokens of the micro-batch."""
    shift = torch.repeat_interleave(responses.offsets[:-1], steps.lengths)
    ends = steps.values.to(torch.int64) + shift
    # Rows are consecutive, so "no empty step and none past its row" is one rising sequence that
    # meets the end of every row that has tokens.
    last = offsets_of(steps.lengths)[1:] - 1
    has_steps = steps.lengths > 0
    meets = ends[last[has_steps]] == responses.offsets[1:][has_steps]
    wrong = has_steps != (responses.lengths > 0)
    wrong[has_steps] |= ~meets
    if bool(wrong.any()):
        row = int(rows[wrong.nonzero()[0, 0]])
        raise ValueError(f"the step ends of row {row} do not end at the length of its response")
    if ends.numel() and (int(ends[0]) < 1 or bool((ends.diff() < 1).any())):
        raise ValueError("the step ends of a row do not rise: every step needs a token")
    return ends
