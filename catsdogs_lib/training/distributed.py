"""Several processes that train one network together: torch's DistributedDataParallel under torchrun.

Each looks at its share of every batch, so that a step is the step of one process. Without torchrun there is one
process, and nothing here does anything.
"""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, Sampler


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun has started: over NCCL where there are GPUs, else over Gloo."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def barrier() -> None:
    """Go on when all have come here."""
    if distributed.is_initialized():
        distributed.barrier()


@contextlib.contextmanager
def first_one_then_all() -> Iterator[None]:
    """Let process 0 do it first, so that the others find what it left on disk."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def is_distributed(network: nn.Module) -> nn.Module:
    """The network to call in a step: gradients become means over all processes."""
    # Buffers are those of batch norm, which nothing here changes.
    return DistributedDataParallel(network, broadcast_buffers=False) if world_size() > 1 else network


def weight(mine: int, batch: int) -> float:
    """Factor on the mean loss of `mine` photos, so that the mean over processes is the mean over the batch."""
    return mine * world_size() / batch if mine < batch else 1.0


def total(value: Tensor) -> Tensor:
    """Sum over all processes."""
    if world_size() > 1:
        distributed.all_reduce(value)
    return value


class Share(Sampler[list[int]]):
    """The share of each batch that is this process's; of a batch with fewer photos than processes, all of it."""

    def __init__(self, batches: BatchSampler) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        """Indices, a list a step."""
        for batch in self._batches:
            yield batch[rank() :: world_size()] if len(batch) >= world_size() else batch
