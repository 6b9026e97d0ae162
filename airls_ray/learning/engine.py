"""What a training engine is, and the plain PyTorch one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from airls_ray.config.schema import LearnerConfig
from airls_ray.errors import ModelError, RunError
from airls_ray.learning.optimizers import learning_rate, make_optimizers, set_learning_rate
from airls_ray.models.attention import attention_of, packs_well
from airls_ray.models.lora import low_rank_updates, merged_weight, named_adapter_weights
from airls_ray.models.modules import PolicyModule, ScalarHeadModule
from airls_ray.tensors.batch import Layout

TrainModule = PolicyModule | ScalarHeadModule

MOST_SKIPPED = 5
"""Updates in a row without a finite gradient at which a learner gives up."""


class ForwardEngine(Protocol):
    """One rank that can run its module. Collective calls are made by all ranks in the same order."""

    rank: int
    world_size: int
    module: TrainModule

    @property
    def device(self) -> torch.device:
        """Where the inputs of `forward` must lie."""
        ...

    def forward(self, inputs: dict[str, Tensor], **options: Any) -> tuple[Tensor, Tensor | None]:
        """Run the module; collective under ZeRO-3. Without gradients inside `torch.no_grad()`."""
        ...


class TrainEngine(ForwardEngine, Protocol):
    """One rank of a data-parallel learner.

    Gradients are AVERAGED over ranks: a loss that is normalised over all ranks is multiplied by
    `world_size` before `backward`.
    """

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of a micro-batch; `last` marks the final one of an update."""
        ...

    def step(self) -> float:
        """Clip, step, zero the gradients; return the global gradient norm before clipping.

        Where it is not finite, the update is skipped on all ranks: weights and optimiser stay as they are.

        Raises:
            RunError: `MOST_SKIPPED` updates in a row were.
        """
        ...

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Add each value over the ranks; all ranks pass the same keys."""
        ...

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield full tensors with Hugging Face names, adapters merged; collective under ZeRO-3."""
        ...

    def adapter_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all that learns beside frozen weights, by parameter name (nothing without LoRA); collective
        under ZeRO-3."""
        ...

    def save_state(self, folder: Path) -> None:
        """Write this rank's optimiser state into `folder`; collective."""
        ...

    def load_state(self, folder: Path) -> None:
        """Read what `save_state` wrote with the same number of ranks; collective."""
        ...


class SkippedUpdates:
    """Counts the updates in a row whose gradient is not finite, which a NaN would make of all weights."""

    def __init__(self) -> None:
        """None so far."""
        self._in_a_row = 0

    def skips(self, norm: float) -> bool:
        """Whether an update is skipped, by its global gradient norm, which all ranks know.

        Raises:
            RunError: `MOST_SKIPPED` in a row are.
        """
        if math.isfinite(norm):
            self._in_a_row = 0
            return False
        self._in_a_row += 1
        if self._in_a_row >= MOST_SKIPPED:
            raise RunError(
                f"the gradient of {self._in_a_row} updates in a row was not finite (the weights are as "
                "before them): look for NaN or infinity in rewards, advantages and losses of your own, or "
                "lower the learning rate and go on from an earlier checkpoint"
            )
        return True


def norm_metrics(norms: Sequence[float]) -> dict[str, float]:
    """`gradient_norm` (mean over the updates made; NaN where all were skipped), `updates` (those made) and
    `skipped_updates` of the norms that `step` returned."""
    made = [norm for norm in norms if math.isfinite(norm)]
    mean = sum(made) / max(len(made), 1)
    return {
        "gradient_norm": math.nan if norms and not made else mean,
        "updates": float(len(made)),
        "skipped_updates": float(len(norms) - len(made)),
    }


def max_over_ranks(engine: TrainEngine, value: float) -> float:
    """Return the largest `value` of any rank, by a sum with one slot per rank."""
    slots = {str(rank): value if rank == engine.rank else 0.0 for rank in range(engine.world_size)}
    return max(engine.sum_over_ranks(slots).values())


def share_rows(engine: TrainEngine, values: Tensor, rows: Tensor) -> Tensor:
    """Return float64 `values` [N] in which each of `rows` has the value of the rank that holds it.

    Every other rank must hold 0 there; collective, the same `rows` on every rank.
    """
    shared = engine.sum_over_ranks({str(row): float(values[row]) for row in rows.tolist()})
    result = torch.zeros_like(values)
    result[rows] = torch.tensor([shared[str(row)] for row in rows.tolist()], dtype=values.dtype)
    return result


def resolve_layout(layout: Literal["auto", "padded", "packed"], engine: ForwardEngine) -> Layout:
    """Turn layout `auto` into `packed` (a GPU with flash or flex attention) or `padded` (all else).

    Raises:
        ModelError: `packed` was asked for, and the model's rows would see each other.
    """
    model = engine.module.model
    gains = engine.device.type == "cuda" and packs_well(attention_of(model))
    if layout == "padded" or (layout == "auto" and not gains):
        return "padded"
    if engine.module.packs:
        return "packed"
    if layout == "auto":
        return "padded"
    raise ModelError(
        f"layout=packed is not for a {model.config.model_type}: rows of one line would see each other, since "
        "its layers carry a state from token to token or do not read positions; set layout to auto or padded"
    )


def kernels(engine: ForwardEngine, layout: Literal["auto", "padded", "packed"]) -> dict[str, str]:
    """Which attention a module computes with, and how its rows lie (`padded` or `packed`)."""
    return {
        "attention": attention_of(engine.module.model),
        "layout": resolve_layout(layout, engine),
    }


def own_device() -> torch.device:
    """The GPU of this process, or the CPU where it was given none (an actor without GPUs sees none)."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class FrozenEngine:
    """A single process that only runs its module forward: the reference model, a given PRM."""

    rank: int = 0
    world_size: int = 1

    def __init__(self, module: TrainModule, device: torch.device | None = None) -> None:
        """`device`: where the module is moved; None leaves it."""
        self.module = module if device is None else module.to(device)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.module.parameters()).device

    def forward(self, inputs: dict[str, Tensor], **options: Any) -> tuple[Tensor, Tensor | None]:
        """Run the module."""
        result: tuple[Tensor, Tensor | None] = self.module(**inputs, **options)
        return result


class TorchEngine(FrozenEngine):
    """A single process in plain PyTorch: for unit tests, and the bare counterpart in benchmarks."""

    def __init__(self, module: TrainModule, config: LearnerConfig) -> None:
        super().__init__(module)
        self.config = config
        self.updates = 0
        self._skipped = SkippedUpdates()
        self._parameters = [parameter for _, parameter in module.trainable_parameters()]
        self.optimizers = make_optimizers(module.trainable_parameters(), config)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of a micro-batch."""
        loss.backward()

    def step(self) -> float:
        """See `TrainEngine.step`."""
        limit = self.config.gradient_clip or float("inf")
        norm = float(nn.utils.clip_grad_norm_(self._parameters, limit))
        skipped = self._skipped.skips(norm)
        for optimizer in self.optimizers:
            if not skipped:
                set_learning_rate(optimizer.param_groups, learning_rate(self.config, self.updates))
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.updates += not skipped
        return norm

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Return the values: there is one rank."""
        return dict(values)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights themselves, detached (not copied); merged ones are new."""
        updates = low_rank_updates(self.module.model)
        for name, parameter in self.module.hf_parameters():
            yield name, merged_weight(parameter, updates.get(name))

    def adapter_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what learns beside frozen weights, detached (not copied)."""
        for name, parameter in named_adapter_weights(self.module):
            yield name, parameter.detach()

    def save_state(self, folder: Path) -> None:
        """Write optimiser state and update count to `folder/rank_0.pt`."""
        folder.mkdir(parents=True, exist_ok=True)
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        state = {"optimizers": optimizers, "updates": self.updates}
        torch.save(state, folder / "rank_0.pt")

    def load_state(self, folder: Path) -> None:
        """Read what `save_state` wrote."""
        state = torch.load(folder / "rank_0.pt", weights_only=True)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.updates = state["updates"]
