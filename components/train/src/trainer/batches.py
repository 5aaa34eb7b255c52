"""Batches on the device, step after step: planned, gathered and augmented, prepared ahead by a thread.

Letters: B crops, T frames, F mel bands.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.augment import Augmenter, PreparedDraw
from trainer.data import DeviceFeatures
from trainer.placement import DataConfig
from trainer.sampler import BatchPlan, Sampler

# Batches by which a memory map's pages are asked for in advance.
_READ_AHEAD = 2


@dataclass(frozen=True, eq=False)
class Batch:
    """One process's share of a step's batch.

    Attributes:
        plan: What it is made of.
        features: (B, F, T) float32 log-mel in nat on the device, augmented, not normalised; a transposed
            view of contiguous (B, T, F).
        labels: (B,) int64 on the device.
    """

    plan: BatchPlan
    features: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class _Prepared:
    """All that a batch needs, in bytes on the device; `ready` tells when the copies are done."""

    plan: BatchPlan
    levels: Tensor
    labels: Tensor
    draws: Mapping[str, PreparedDraw]
    ready: torch.cuda.Event | None

    def tensors(self) -> Iterator[Tensor]:
        yield from (self.levels, self.labels)
        for draw in self.draws.values():
            yield draw.samples
            yield from draw.parameters.values()
            if draw.levels is not None:
                yield draw.levels


class BatchLoader:
    """Loads one process's share of the batch of any step.

    Args:
        sampler: What the batches are made of.
        features: Where their crops are.
        augmenter: What is done to them; None is nothing.
        config: How many batches are prepared ahead.
        rank: Number of this process.
        world_size: Number of processes that share each batch.

    Raises:
        ConfigError: If the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        sampler: Sampler,
        features: DeviceFeatures,
        augmenter: Augmenter | None = None,
        config: DataConfig | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._sampler = sampler
        self._features = features
        self._augmenter = augmenter
        self._rank = rank
        self._world_size = world_size
        self._depth = (config or DataConfig()).prefetch_batches
        device = features.device
        on_cuda = device.type == "cuda"
        if self._depth is None:
            self._depth = 2 if on_cuda else 0
        self._copies = torch.cuda.Stream(device) if on_cuda else None  # type: ignore[no-untyped-call]
        sampler.batch(0).for_rank(rank, world_size)

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        return self._finish(self._prepare(step))

    def batches(self, first_step: int, end_step: int) -> Iterator[Batch]:
        """The batches of steps first_step … end_step - 1; the thread ends when the iterator is closed."""
        if not self._depth:
            yield from map(self.batch, range(first_step, end_step))
            return
        steps = iter(range(first_step, end_step))
        pending: deque[Future[_Prepared]] = deque()
        with ThreadPoolExecutor(1, "batches", initializer=self._use_device) as thread:
            try:
                pending.extend(thread.submit(self._prepare, step) for step in _first(steps, self._depth))
                while pending:
                    prepared = pending.popleft().result()
                    pending.extend(thread.submit(self._prepare, step) for step in _first(steps, 1))
                    yield self._finish(prepared)
            finally:
                for future in pending:
                    future.cancel()

    def _use_device(self) -> None:
        """Makes the training's GPU this thread's, which would else take memory of GPU 0."""
        if self._copies is not None:
            torch.cuda.set_device(self._copies.device)

    def _plan(self, step: int) -> BatchPlan:
        return self._sampler.batch(step).for_rank(self._rank, self._world_size)

    def _prepare(self, step: int) -> _Prepared:
        """Plans and gathers; on a GPU beside the training, in a stream of its own."""
        plan = self._plan(step)
        if self._features.reads_ahead:
            self._features.read_ahead(self._plan(step + _READ_AHEAD))
        with torch.cuda.stream(self._copies):  # does nothing for None
            levels = self._features.levels(plan.rows, plan.first_frames, plan.crop_frames)
            labels = torch.from_numpy(plan.labels).to(self._features.device, non_blocking=True)
            draws: Mapping[str, PreparedDraw] = {}
            if self._augmenter is not None:
                draws = self._augmenter.prepare(self._augmenter.draw(plan), plan.crop_frames)
            ready = self._copies.record_event() if self._copies is not None else None
        return _Prepared(plan, levels, labels, draws, ready)

    def _finish(self, prepared: _Prepared) -> Batch:
        """Dequantises and augments, in the order of the training's own operations."""
        if prepared.ready is not None:
            training = torch.cuda.current_stream(self._features.device)
            training.wait_event(prepared.ready)
            for tensor in prepared.tensors():
                # Their memory belongs to the other stream, which must not reuse it before this one is done.
                tensor.record_stream(training)
        features = self._features.dequantise(prepared.levels)
        if self._augmenter is not None:
            features = self._augmenter.apply(features, prepared.draws)
        return Batch(prepared.plan, features.transpose(1, 2), prepared.labels)


def _first(steps: Iterator[int], count: int) -> Iterator[int]:
    for _, step in zip(range(count), steps, strict=False):
        yield step
