"""vLLM's NCCL weight transfer from a DeepSpeed learner to the engines, GPU to GPU.

Not run on this project's machines, which have no GPU: the client's rank offsets and the weight source
are tested with fakes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from actors.cluster import cluster
from airls_ray.learning.engine import TrainEngine
from airls_ray.models.saved_names import as_saved


class RolloutWorkerClient:
    """vLLM's client protocol over rollout workers, with deadlines and a rank of its own for each engine.

    vLLM's trainer hands every engine `rank_offset=1`; with several engines each needs its own.
    """

    def __init__(self, handles: list[Any], ranks_per_engine: int, deadline_seconds: float) -> None:
        """`handles`: rollout workers; `ranks_per_engine`: tensor times pipeline parallel size."""
        self._handles = handles
        self._ranks = ranks_per_engine
        self._deadline = deadline_seconds
        self.version = 0

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Give every engine the init info with its own rank offset."""
        infos = [{**init_info, "rank_offset": 1 + i * self._ranks} for i in range(len(self._handles))]
        self._call("init_weight_transfer", infos)

    def start_weight_update(self) -> None:
        """Begin an update on all engines."""
        self._call("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        """Receive on all engines (concurrent with the trainer's broadcast)."""
        self._call("receive_weights", [update_info] * len(self._handles))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """End the update on all engines, at the client's version."""
        version = self.version if weight_version is None else int(weight_version)
        self._call("finish_weight_update", [version] * len(self._handles))

    def _call(self, method: str, arguments: list[Any] | None = None) -> None:
        rows = [()] * len(self._handles) if arguments is None else [(a,) for a in arguments]
        refs = [getattr(h, method).remote(*row) for h, row in zip(self._handles, rows, strict=True)]
        cluster.fetch(refs, self._deadline, f"weight transfer ({method})")


class NCCLSender:
    """The learner's end, in every rank: rank 0 sends, the others take part in the gathering."""

    def __init__(self, trainer: Any, client: RolloutWorkerClient) -> None:
        """`trainer`: vLLM's trainer-side engine, after its rendezvous."""
        self._trainer = trainer
        self._client = client

    def send(self, version: int, deadline_seconds: float) -> None:
        """Broadcast the weights to all engines.

        Raises:
            TimeoutError: the broadcast hangs; the communicator must be torn down.
        """
        self._client.version = version
        pool = ThreadPoolExecutor(max_workers=1)
        try:
            pool.submit(self._trainer.send_weights).result(timeout=deadline_seconds)
        finally:
            pool.shutdown(wait=False)


def open_sender(
    engine: TrainEngine,
    workers: Sequence[Any],
    ranks_per_engine: int,
    address: str,
    port: int,
    deadline_seconds: float,
) -> NCCLSender:
    """Rendezvous of learner rank 0 (NCCL rank 0) with every rank of every engine."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
    from vllm.distributed.weight_transfer.nccl_engine import (
        NCCLTrainerInitInfo,
        NCCLTrainerWeightTransferEngine,
    )

    class LearnerSource(WeightSource):
        """Full tensors of the learner, gathered where they are sharded (collective)."""

        _metadata: list[ParamMeta] | None = None

        def metadata(self) -> list[ParamMeta]:
            if self._metadata is None:  # one gathering pass; shapes never change
                self._metadata = [ParamMeta(name, one.dtype, tuple(one.shape)) for name, one in self]
            return self._metadata

        def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
            return as_saved(engine.module.model, engine.named_weights())

    client = RolloutWorkerClient(list(workers), ranks_per_engine, deadline_seconds)
    world_size = 1 + ranks_per_engine * len(workers)
    info = NCCLTrainerInitInfo(
        master_address=address, master_port=port, world_size=world_size, rank=engine.rank
    )
    trainer = NCCLTrainerWeightTransferEngine.trainer_init(info, client=client, source=LearnerSource())
    return NCCLSender(trainer, client)
