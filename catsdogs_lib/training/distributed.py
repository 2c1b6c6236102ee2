"""Training in several processes: torch's DistributedDataParallel under torchrun.

Each process takes its share of every batch, so a step equals that of a single process. Without torchrun there is one
process, and these functions have no effect.
"""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, Sampler


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started, over NCCL between GPUs, else over Gloo."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def barrier() -> None:
    """Wait until every process has reached this call."""
    if distributed.is_initialized():
        distributed.barrier()


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in process 0 first, so that the others find its files on disk."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


def data_parallel(network: nn.Module) -> nn.Module:
    """Wrap a network so that its gradients are averaged over all processes."""
    # The only buffers are batch norm's, which training leaves as they are.
    return DistributedDataParallel(network, broadcast_buffers=False) if world_size() > 1 else network


def loss_weight(share: int, batch: int) -> float:
    """Return the factor on the mean loss of a share, so that the mean over processes is that of the batch."""
    return share * world_size() / batch if share < batch else 1.0


def total(value: Tensor) -> Tensor:
    """Sum a tensor over all processes."""
    if world_size() > 1:
        distributed.all_reduce(value)
    return value


class ShareSampler(Sampler[list[int]]):
    """The share of each batch for this process; the whole batch if it has fewer photos than there are processes."""

    def __init__(self, batches: BatchSampler) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield a list of indices for each step."""
        for batch in self._batches:
            yield batch[rank() :: world_size()] if len(batch) >= world_size() else batch
