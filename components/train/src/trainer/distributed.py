"""Several processes on one batch, with the result that one process would have.

Each rank computes the embeddings of its slice. The loss is then computed on the whole batch by every rank
(a metric loss compares every utterance with every other), and batch normalisation uses the statistics of
the whole batch, so that the number of ranks changes nothing but the order of float additions.

Letters: B batch, C channels, D embedding.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

# For the others: while one rank reads 34 GB of features for the machine, they wait in a collective.
_PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    """This process among all of a run.

    Attributes:
        rank: Number of this process, 0 for the one that saves and reports.
        size: Number of processes.
        local_rank: Number of this process on its machine, which is its GPU's.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process saves and reports."""
        return self.rank == 0


@contextmanager
def joined_world(device_type: str) -> Iterator[World]:
    """The world that torchrun describes in the environment; of one process without torchrun.

    Args:
        device_type: `cuda` joins by NCCL, `cpu` by gloo.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield World()
        return
    world = World(
        rank=int(os.environ["RANK"]),
        size=int(os.environ["WORLD_SIZE"]),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield world
    finally:
        leave_world(world)


def leave_world(world: World) -> None:
    """Ends what connects the ranks; all of them must call it at about the same time, as NCCL asks for."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def broadcast_module(module: nn.Module, world: World) -> None:
    """Gives all ranks the parameters and buffers of rank 0."""
    if world.size > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def broadcast_value(value: Any, world: World) -> Any:
    """Rank 0's value, of any type that pickles, in all ranks."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


class _GatherBatch(torch.autograd.Function):
    """Concatenates the ranks' slices; backward keeps the slice's share, summed over the ranks."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        context.first = dist.get_rank() * tensor.shape[0]
        context.count = tensor.shape[0]
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        # Every rank computes the same loss of the whole batch, so each holds the full gradient already.
        return gradients[0][context.first : context.first + context.count]


def gather_batch(tensor: Tensor, world: World) -> Tensor:
    """The whole batch (B, …) of the ranks' equal slices, in the order of ranks; differentiable."""
    if world.size == 1:
        return tensor
    return cast(Tensor, _GatherBatch.apply(tensor))


def sum_gradients(module: nn.Module, world: World) -> None:
    """Adds up the ranks' gradients of a module whose ranks saw different slices of one loss."""
    if world.size == 1:
        return
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


class _SumOverRanks(torch.autograd.Function):
    """All-reduced sum, forward and backward."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _GlobalBatchNorm(nn.Module):
    """A batch normalisation over the slices of all ranks, on CPU and GPU alike.

    torch's SyncBatchNorm needs a GPU. Shares parameters and running statistics with the module that it
    stands in for, so checkpoints are the same whatever the number of ranks.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, original: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self.eps, self.momentum = original.eps, original.momentum
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(original, name))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            statistics = (self.running_mean, self.running_var)
            return nn.functional.batch_norm(x, *statistics, self.weight, self.bias, False, 0.0, self.eps)
        values = x.float()
        over = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = values.numel() // values.shape[1] * dist.get_world_size()
        mean_C = _sum_over_ranks(values.sum(over)) / count
        centred = values - mean_C.view(shape)
        variance_C = _sum_over_ranks(centred.square().sum(over)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean_C, momentum)
            self.running_var.lerp_(variance_C * (count / (count - 1)), momentum)
        normalised = centred * (variance_C + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    return cast(Tensor, _SumOverRanks.apply(tensor))


def with_global_batch_norm(module: nn.Module, world: World) -> nn.Module:
    """The module with batch statistics over all ranks; the module itself in a world of one process.

    Names in its state dict stay as they are.
    """
    if world.size == 1:
        return module
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, _GlobalBatchNorm(child))
        else:
            with_global_batch_norm(child, world)
    return module
