"""Scores of continuations whose prefixes were scored before: only the new tokens are computed.

A search scores a tree. Keys and values of every prefix that may be continued are kept, so a child costs
its own tokens and one more (the prefix's last, which predicts the child's first). What was dropped is
computed anew, and so is all of a model that carries something else from token to token (Qwen3.5, LFM2), or
keys and values of several widths (DeepSeek-V3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from airls_ray.config.schema import PRMConfig
from airls_ray.models.attention import keeps_keys_and_values
from airls_ray.models.modules import PRMModule, ScalarHeadModule
from airls_ray.objectives.airl import reduce_to_steps
from airls_ray.prm.scores import search_scores
from airls_ray.search.scoring import Continuation, Scores


@dataclass(eq=False)
class _Piece:
    """Keys and values of tokens `start..end` of a prefix; those before are in `before` (they may overlap)."""

    before: _Piece | None
    start: int
    end: int
    states: Tensor
    """Keys and values of all layers [layers, 2, heads, end - start, head size], in memory of their own."""
    users: int = 1
    """Who keeps it: its prefix, and the pieces that go on from it."""


@dataclass(frozen=True)
class _Row:
    """A continuation as the model sees it: the first `cached` tokens of `piece`, then `fed`."""

    piece: _Piece | None
    cached: int
    fed: tuple[int, ...]


class PrefixScorer:
    """A PRM with the keys and values of the prefixes that it has scored.

    Args of the constructor:
        module: the PRM (without shaping), in evaluation mode.
        config: its form.
        temperature: the sampler's, for a log-probability PRM.
        device: where the model is.
        cache_tokens: most tokens whose keys and values are kept between calls; the least recently used
            prefixes go first, and their tokens with the last prefix that goes on from them. 0 turns the cache
            off.
        tokens_per_microbatch: most tokens (padding and cached ones counted) of one forward pass.
    """

    def __init__(
        self,
        module: PRMModule,
        config: PRMConfig,
        *,
        temperature: float,
        device: torch.device,
        cache_tokens: int = 1_000_000,
        tokens_per_microbatch: int = 16384,
    ) -> None:
        if config.shaping:
            raise ValueError("a PRM with shaping needs the state after each step: search without it")
        self._module = module.eval()
        self.kind = config.score_kind
        self._config = config
        self._temperature = temperature
        self._device = device
        self._has_cache = keeps_keys_and_values(module.model)
        self._cache_tokens = cache_tokens if self._has_cache else 0
        self._budget = tokens_per_microbatch
        self._pieces: OrderedDict[tuple[int, ...], _Piece] = OrderedDict()
        self._held = 0
        self.computed_tokens = 0
        """Tokens that went through the model since the start."""
        self.prefix_tokens = 0
        """Tokens of prefixes that were asked about: what would have been computed without the cache."""

    def forget(self) -> None:
        """Drop all prefixes (their problems are done)."""
        self._pieces.clear()
        self._held = 0

    def score(self, items: Sequence[Continuation]) -> Scores:
        """Return the scores in [0, 1] of each item's steps, and the tokens that each item cost.

        Scores do not depend on what is cached or on the other items (up to rounding). Equal continuations
        (siblings that sampled the same) are computed once: the first one pays.
        """
        first: dict[tuple[object, ...], int] = {}
        places = [
            first.setdefault((item.prefix, item.tokens, item.step_ends, item.open_tokens), at)
            for at, item in enumerate(items)
        ]
        distinct = sorted(first.values())
        found, paid = self._score_distinct([items[at] for at in distinct])
        by_place = dict(zip(distinct, zip(found, paid, strict=True), strict=True))
        costs = [by_place[place][1] if place == at else 0 for at, place in enumerate(places)]
        self.computed_tokens += sum(costs)
        self.prefix_tokens += sum(len(item.prefix) for item in items)
        return [by_place[place][0] for place in places], costs

    def _score_distinct(self, items: Sequence[Continuation]) -> Scores:
        rows = [self._row(item) for item in items]
        scores: list[tuple[float, ...]] = [()] * len(items)
        order = sorted(range(len(items)), key=lambda at: (rows[at].cached, len(rows[at].fed), at))
        with torch.inference_mode():
            for batch in _batches(order, rows, self._budget):
                found = self._forward([items[at] for at in batch], [rows[at] for at in batch])
                for at, one in zip(batch, found, strict=True):
                    scores[at] = one
        self._trim()
        return scores, [len(row.fed) for row in rows]

    def _row(self, item: Continuation) -> _Row:
        """Use what is cached of the prefix, less the step under way and the token that predicts it."""
        piece = self._pieces.get(item.prefix)
        if piece is None:
            return _Row(None, 0, (*item.prefix, *item.tokens))
        self._pieces.move_to_end(item.prefix)
        cached = min(piece.end, len(item.prefix) - item.open_tokens - 1)
        return _Row(piece, cached, (*item.prefix[cached:], *item.tokens))

    def _forward(self, items: Sequence[Continuation], rows: Sequence[_Row]) -> list[tuple[float, ...]]:
        longest, most_cached = max(len(row.fed) for row in rows), max(row.cached for row in rows)
        ids = torch.tensor([(*row.fed, *[0] * (longest - len(row.fed))) for row in rows])
        cached = torch.tensor([[row.cached] for row in rows])
        ends = torch.tensor([[most_cached + len(row.fed)] for row in rows])
        places = torch.arange(most_cached + longest)
        mask = ((places >= most_cached - cached) & (places < ends)).long()
        positions = cached + torch.arange(longest)
        kept = {"past_key_values": self._past(rows, most_cached)} if self._has_cache else {}
        output = self._module.model.base_model(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            position_ids=positions.to(self._device),
            use_cache=self._has_cache,
            **kept,
        )
        if self._has_cache:
            self._remember(items, rows, output.past_key_values, most_cached)
        values = self._token_values(items, rows, output.last_hidden_state, ids)
        return self._step_scores(items, values)

    def _past(self, rows: Sequence[_Row], most_cached: int) -> DynamicCache:
        """Cached keys and values of all rows, padded on the left; siblings' are gathered once."""
        past = DynamicCache()
        if not most_cached:
            return past
        groups: dict[tuple[int, int], int] = {}
        members = [
            groups.setdefault((id(row.piece) if row.cached else 0, row.cached), len(groups)) for row in rows
        ]
        parts: dict[int, Tensor] = {}
        for group, row in zip(members, rows, strict=True):
            if row.cached and group not in parts:
                parts[group] = _gather(row)
        like = next(iter(parts.values()))
        layers, _, heads, _, size = like.shape
        held = like.new_zeros(layers, 2, len(groups), heads, most_cached, size)
        for group, part in parts.items():
            held[:, :, group, :, most_cached - part.shape[3] :] = part
        whole = held.index_select(2, torch.tensor(members, device=held.device))
        for layer in range(layers):
            past.update(whole[layer, 0], whole[layer, 1], layer)
        return past

    def _remember(
        self, items: Sequence[Continuation], rows: Sequence[_Row], cache: Any, most_cached: int
    ) -> None:
        """Keep a copy of the new keys and values of each row that may go on, without the past."""
        if not self._cache_tokens or not any(item.keep for item in items):
            return
        if len({tensor.shape for layer in cache.layers for tensor in (layer.keys, layer.values)}) > 1:
            self._cache_tokens = 0  # keys wider than values, or layers of several widths
            return
        states = torch.stack(
            [
                torch.stack((layer.keys[:, :, most_cached:], layer.values[:, :, most_cached:]))
                for layer in cache.layers
            ]
        )
        for at, (item, row) in enumerate(zip(items, rows, strict=True)):
            key = (*item.prefix, *item.tokens[: item.keep])
            if not item.keep or key in self._pieces:
                continue
            count = len(key) - row.cached
            before = row.piece if row.cached else None
            if before is not None:
                before.users += 1
            # A view would keep the states of the whole batch.
            own = states[:, :, at, :, :count].clone()
            self._pieces[key] = _Piece(before, row.cached, row.cached + count, own)
            self._held += count

    def _token_values(
        self, items: Sequence[Continuation], rows: Sequence[_Row], hidden: Tensor, ids: Tensor
    ) -> Tensor:
        """Value of every token that is judged (open ones and new ones), row after row: fp32."""
        width = hidden.shape[1]
        ends = [at * width + len(row.fed) for at, row in enumerate(rows)]
        token_index = torch.cat(
            [torch.arange(end - _judged(item), end) for end, item in zip(ends, items, strict=True)]
        )
        flat = hidden.flatten(0, 1)
        if isinstance(self._module, ScalarHeadModule):
            return self._module.values(flat[token_index.to(self._device)]).cpu()
        before = flat[(token_index - 1).to(self._device)]
        targets = ids.flatten()[token_index].to(self._device)
        return self._module.token_logprobs(before, targets, temperature=self._temperature)[0].cpu()

    def _step_scores(self, items: Sequence[Continuation], values: Tensor) -> list[tuple[float, ...]]:
        """Reduce the token values of the items, one after the other, to the scores of their steps."""
        how = self._config.step_reduction
        sizes = [size for item in items for size in item.step_tokens]
        lengths = torch.tensor(sizes)
        last_alone = self._config.parameterisation == "scalar_head" and self._config.action == "step"
        if last_alone:
            f = values[lengths.cumsum(0) - 1]
        else:
            index = torch.arange(len(sizes)).repeat_interleave(lengths)
            f = reduce_to_steps(values, index, len(sizes), how)
        log_pi = torch.tensor(
            [
                log + (item.open_log_prob if not at else 0.0)
                for item in items
                for at, log in enumerate(item.log_probs)
            ]
        )
        if how == "mean":
            log_pi = log_pi / lengths
        scores = iter(search_scores(f, log_pi, lengths, self._config).clamp(0.0, 1.0).tolist())
        return [tuple(islice(scores, len(item.step_ends))) for item in items]

    def _trim(self) -> None:
        """Drop prefixes until what is held, also for those that go on from dropped ones, is in the limit."""
        while self._held > self._cache_tokens:
            piece: _Piece | None = self._pieces.popitem(last=False)[1]
            while piece is not None:
                piece.users -= 1
                if piece.users:
                    break
                self._held -= piece.end - piece.start
                piece = piece.before


def _judged(item: Continuation) -> int:
    return item.open_tokens + len(item.tokens)


def _gather(row: _Row) -> Tensor:
    """Cached keys and values of a row that has some [layers, 2, heads, cached, head size]."""
    parts: list[Tensor] = []
    at, end = row.piece, row.cached
    while at is not None and end > 0:
        if at.start < end:
            parts.append(at.states[:, :, :, : end - at.start])
            end = at.start
        at = at.before
    return torch.cat(parts[::-1], dim=3)


def _batches(order: Sequence[int], rows: Sequence[_Row], budget: int) -> list[list[int]]:
    """Cut rows, sorted by length, into batches of at most `budget` tokens with padding (a row at least)."""
    batches: list[list[int]] = []
    cached = fed = 0
    for at in order:
        row = rows[at]
        cached, fed = max(cached, row.cached), max(fed, len(row.fed))
        if not batches or (len(batches[-1]) + 1) * (cached + fed) > budget:
            batches.append([])
            cached, fed = row.cached, len(row.fed)
        batches[-1].append(at)
    return batches
