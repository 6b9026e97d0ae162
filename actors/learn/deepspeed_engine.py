"""The DeepSpeed engine: one rank of a learner. The only module that imports DeepSpeed.

DeepSpeed is imported inside functions, after `DS_ACCELERATOR` is set: at import it chooses its
accelerator for good, and a CPU-only process must not look for a GPU.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from airls_ray.config.schema import LearnerConfig
from airls_ray.errors import RunError
from airls_ray.learning.engine import SkippedUpdates, TrainModule
from airls_ray.learning.optimizers import learning_rate, make_adamw, muon_groups, set_learning_rate
from airls_ray.models.lora import low_rank_updates, merged_weight, named_adapter_weights

_NO_CLIPPING = 1e30  # DeepSpeed computes the norm only where it clips


def free_port() -> int:
    """Return a TCP port that is free on this machine now, for the ranks' rendezvous."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def init_distributed(rank: int, world_size: int, address: str, port: int, deadline_seconds: float) -> None:
    """Join the process group of a learner: NCCL where this process sees a GPU, else Gloo.

    DeepSpeed falls back to MPI discovery if one of five environment variables is missing; all are set
    here. LOCAL_RANK is 0: Ray shows each rank its own GPU only.

    Args:
        rank: of this process.
        world_size: ranks of the learner.
        address: of rank 0's node.
        port: free on rank 0's node.
        deadline_seconds: for the rendezvous and for every later collective.

    Raises:
        RunError: the ranks did not meet in time.
    """
    on_gpu = torch.cuda.is_available()
    os.environ.update(
        MASTER_ADDR=address, MASTER_PORT=str(port), WORLD_SIZE=str(world_size), RANK=str(rank), LOCAL_RANK="0"
    )
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    backend = "nccl" if on_gpu else "gloo"
    try:
        dist.init_process_group(
            backend,
            init_method=f"tcp://{address}:{port}",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=deadline_seconds),
        )
    except (dist.DistError, RuntimeError, TimeoutError) as error:
        raise RunError(
            f"rank {rank} of {world_size} could not meet the others at {address}:{port} within "
            f"{deadline_seconds:g} s: check that the nodes reach each other"
        ) from error
    _deepspeed().init_distributed(dist_backend=backend, auto_mpi_discovery=False)


def deepspeed_settings(config: LearnerConfig, world_size: int, *, bfloat16: bool) -> dict[str, Any]:
    """Return DeepSpeed's own configuration.

    Micro-batches are ours (token budgets), so DeepSpeed's sizes are 1 and the end of an update is
    announced by `set_gradient_accumulation_boundary`. bfloat16 weights need ZeRO's fp32 master
    copies: stage 0 becomes 1 for them (the same on one rank). Their gradients are summed in fp32 at every
    stage: in bfloat16 a micro-batch adds nothing to a sum 256 times as large.
    """
    stage = effective_stage(config, bfloat16=bfloat16)
    settings: dict[str, Any] = {
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": False},
        "steps_per_print": 1_000_000_000,
        "bf16": {"enabled": bfloat16},
        "gradient_clipping": 0.0 if stage == 0 else (config.gradient_clip or _NO_CLIPPING),
    }
    if config.offload_optimizer:
        pin = torch.cuda.is_available()  # pinned memory is what a GPU copies from; a CPU has none to pin
        settings["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": pin}
    if bfloat16:
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings


def effective_stage(config: LearnerConfig, *, bfloat16: bool) -> int:
    """ZeRO stage that is used: 0 becomes 1 for bfloat16 weights."""
    return max(config.zero_stage, 1) if bfloat16 else config.zero_stage


class DeepSpeedEngine:
    """One rank of a data-parallel learner on DeepSpeed ZeRO 0 to 3 (`TrainEngine`)."""

    def __init__(self, load: Callable[[], TrainModule], config: LearnerConfig) -> None:
        """`init_distributed` was called before; `load` gives the module with its weights, on CPU."""
        self.config = config
        self.rank: int = dist.get_rank()
        self.world_size: int = dist.get_world_size()
        self.updates = 0
        self._skipped = SkippedUpdates()
        module = load()
        weights = [parameter for _, parameter in module.trainable_parameters()]
        bfloat16 = weights[0].dtype == torch.bfloat16
        self.stage = effective_stage(config, bfloat16=bfloat16)
        settings = deepspeed_settings(config, self.world_size, bfloat16=bfloat16)
        self._engine, self._optimizer, _, _ = _deepspeed().initialize(
            model=module,
            optimizer=_make_optimizer(module, config),
            config=settings,
            dist_init_required=False,
        )
        self.module: TrainModule = self._engine.module
        if config.compile:
            self.module.compile_layers()
        self._parameters = [parameter for _, parameter in self.module.trainable_parameters()]

    @property
    def device(self) -> torch.device:
        """Where the inputs of `forward` must lie."""
        return torch.device(self._engine.device)

    def forward(self, inputs: dict[str, Tensor], **options: Any) -> tuple[Tensor, Tensor | None]:
        """Run the module; collective under ZeRO-3."""
        # Without gradients DeepSpeed's wrapper has nothing to add to the module's own hooks.
        run = self._engine if torch.is_grad_enabled() else self.module
        result: tuple[Tensor, Tensor | None] = run(**inputs, **options)
        return result

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradients of a micro-batch; the last one reduces them over the ranks."""
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss)

    def step(self) -> float:
        """See `TrainEngine.step`."""
        set_learning_rate(self._optimizer.param_groups, learning_rate(self.config, self.updates))
        if self.stage == 0:
            norm = self._clip()
            if math.isfinite(norm):
                self._engine.step()
            else:
                self._engine.zero_grad()
        else:
            self._engine.step()  # which skips what is not finite by itself
            norm = float(self._engine.get_global_grad_norm())
        self.updates += not self._skipped.skips(norm)
        return norm

    def _clip(self) -> float:
        """Stage 0: all ranks hold the whole gradient, and PyTorch clips it in a few fused kernels."""
        limit = self.config.gradient_clip or float("inf")
        return float(nn.utils.clip_grad_norm_(self._parameters, limit))

    def sum_over_ranks(self, values: dict[str, float]) -> dict[str, float]:
        """Add each value over the ranks; all ranks pass the same keys."""
        if self.world_size == 1:
            return dict(values)
        names = sorted(values)
        total = torch.tensor([values[name] for name in names], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(names, total.tolist(), strict=True))

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield full tensors with Hugging Face names, adapters merged; under ZeRO-3 gathered one by one."""
        updates = low_rank_updates(self.module.model)
        for name, parameter in self.module.hf_parameters():
            update = updates.get(name)
            with self._gathered([parameter] if update is None else [parameter, update.a, update.b]):
                weight = merged_weight(parameter, update)
                # What is gathered is gone outside the block.
                yield name, weight.clone() if self.stage == 3 and update is None else weight

    def adapter_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield copies of all that learns beside frozen weights; nothing without LoRA."""
        for name, parameter in named_adapter_weights(self.module):
            with self._gathered([parameter]):
                yield name, parameter.detach().clone()

    def _gathered(self, parameters: list[nn.Parameter]) -> Any:
        if self.stage < 3:
            return nullcontext()
        return _deepspeed().zero.GatheredParameters(parameters)

    def save_state(self, folder: Path) -> None:
        """Write this rank's fp32 master weights, the optimiser's moments and the update count.

        Plain tensors and numbers, so that loading needs no pickle of classes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        masters = self._masters()
        state = {
            "updates": self.updates,
            "world_size": self.world_size,
            "stage": self.stage,
            "masters": [master.detach() for master in masters],
            "moments": [dict(self._inner.state[master]) for master in masters],
        }
        torch.save(state, folder / f"rank_{self.rank}.pt")

    def load_state(self, folder: Path) -> None:
        """Read what `save_state` wrote, after the saved model's weights were loaded.

        Raises:
            RunError: the state is missing, or of another number of ranks, ZeRO stage or set of weights.
        """
        file = folder / f"rank_{self.rank}.pt"
        if not file.is_file():
            raise RunError(f"{file} is missing: resume with as many learner ranks as the checkpoint had")
        state = torch.load(file, map_location="cpu", weights_only=True)  # offloaded states stay there
        saved, own = (state["world_size"], state["stage"]), (self.world_size, self.stage)
        if saved != own:
            raise RunError(
                f"{folder} was saved with (ranks, zero_stage) = {saved}, but the configuration has {own}: "
                "resume with the saved values"
            )
        masters = self._masters()
        if [master.shape for master in state["masters"]] != [master.shape for master in masters]:
            raise RunError(
                f"{folder} holds other weights than those that learn now: resume with the saved lora settings"
            )
        self.updates = state["updates"]
        with torch.no_grad():
            for master, value, moments in zip(masters, state["masters"], state["moments"], strict=True):
                master.copy_(value)
                self._inner.state[master] = {
                    name: one.to(master.device) if torch.is_tensor(one) else one
                    for name, one in moments.items()
                }

    @property
    def _inner(self) -> torch.optim.Optimizer:
        """The PyTorch optimiser inside DeepSpeed's."""
        return self._engine.basic_optimizer  # type: ignore[no-any-return]

    def _masters(self) -> list[Tensor]:
        """The tensors that the optimiser updates: this rank's fp32 partitions, or at stage 0 the weights."""
        if self.stage == 0:
            return list(self._parameters)
        for name in ("single_partition_of_fp32_groups", "fp32_groups_flat_partition"):
            if hasattr(self._optimizer, name):
                return list(getattr(self._optimizer, name))
        return list(self._optimizer.fp32_partitioned_groups_flat)


def _make_optimizer(module: TrainModule, config: LearnerConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return make_adamw([parameter for _, parameter in module.trainable_parameters()], config)
    module.check_compiler("learner.optimizer=muon", "adamw")  # DeepSpeed compiles its kernels
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    optimizer: torch.optim.Optimizer = MuonWithAuxAdam(muon_groups(module.trainable_parameters(), config))
    return optimizer


def close_distributed() -> None:
    """Leave the process group, so that this process can join another one."""
    if dist.is_initialized():
        _deepspeed().comm.destroy_process_group()  # which knows DeepSpeed's own groups, too


def _deepspeed() -> Any:
    import deepspeed

    if os.environ.get("DS_ACCELERATOR") == "cpu" and "__compatible_ops__" not in vars(deepspeed.ops):
        # Else DeepSpeed probes all its operators and compiles one for shared-memory collectives: a
        # minute or more and a C++ compiler, for what Gloo does as well.
        deepspeed.ops.__compatible_ops__ = {}
    return deepspeed
