"""This project's way: the trainer's own loader and loop, with the seams that they have."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from training_material import synthetic_features

from trainer.batches import BatchLoader
from trainer.checkpoint import AsyncSaver, CheckpointStore, SaveReport, SaveSchedule, State, StopRequest
from trainer.data import DeviceFeatures
from trainer.devices import keep_freed_memory, prepare_device
from trainer.distributed import joined_world
from trainer.meter import Meter
from trainer.placement import DataConfig
from trainer.recipe import Recipe
from trainer.sampler import Sampler, SamplerConfig
from trainer.training import Training
from trainer.utterances import TrainingUtterances
from voxsrc.device import chosen_device

if TYPE_CHECKING:
    from training_child import Turns

_T = TypeVar("_T")

_NO_END = 10**9


def crops(what: dict[str, Any], turns: "Turns") -> None:
    """Batches of log-mel crops in the training's order, planning included."""
    keep_freed_memory()  # as any training on the CPU
    data = DataConfig(placement=what["placement"], cache_dir=what["cache"])
    features = DeviceFeatures.open(what["features"], "cpu", data)
    config = SamplerConfig(utterances_per_speaker=2, crop_frames=what["crop_frames"], few_utterances="repeat")
    utterances = TrainingUtterances.of(features.index)
    sampler = Sampler(utterances, config, batch_size=what["batch_size"], seed=0)
    batches = BatchLoader(sampler, features, None, data).batches(0, _NO_END)
    for count in turns:
        for _ in islice(batches, count):
            pass


def steps(what: dict[str, Any], turns: "Turns") -> None:
    """Steps of the trainer's loop; a turn begins where the loop asks for a batch."""
    recipe = Recipe.load(what["recipe"], [*what["overrides"], f"num_steps={_NO_END}"])
    device = chosen_device(recipe.device)
    with joined_world(device.type) as world, ExitStack() as stack:
        device = prepare_device(device, recipe, world)
        if "synthetic" in what:
            features = synthetic_features(device=device, **what["synthetic"])
        else:
            features = DeviceFeatures.open(what["features"], device, recipe.data)
        training = Training(recipe, features, "synthetic", what["output"], world)
        stop = stack.enter_context(StopRequest())
        store = saver = None
        if what.get("saves"):
            store = stack.enter_context(CheckpointStore(what["output"]).open_for_writing("benchmark"))
            saver = stack.enter_context(_EverySecondStep(store))
        with TurnMeter(turns, device, saver) as meter:
            training.run(0, store, saver, stop, meter)


class TurnMeter(Meter):
    """A training's meter that lets the loop go on only in turns, and times what the loop tells it."""

    def __init__(self, turns: "Turns", device: torch.device, saver: "_EverySecondStep | None") -> None:
        super().__init__(0, _NO_END, None, show=False)
        self._turns = turns
        self._device = device
        self._saver = saver
        self._schedule = SaveSchedule()
        self._step_done_at = 0.0

    def waiting(self, batches: Iterable[_T]) -> Iterator[_T]:
        """The batches; between the end of a step and the next turn nothing runs."""
        iterator = iter(batches)
        for count in self._turns:
            loading_s = saving_s = 0.0
            for _ in range(count):
                began = time.perf_counter()
                batch = next(iterator)
                loading_s += time.perf_counter() - began
                yield batch
                # The loop reports a step, saves it if that is due, and asks for the next batch.
                saving_s += time.perf_counter() - self._step_done_at
            self._turns.figures |= {"loading_s": loading_s, "saving_s": saving_s, **self._extra()}

    def step_done(self, num_crops: int, row: Any = None) -> None:
        """Notes when the step was done."""
        super().step_done(num_crops, row)
        self._step_done_at = time.perf_counter()

    def _extra(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        if self._device.type == "cuda":
            figures["peak_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        if self._saver is not None:
            for report in self._saver.ended:
                if report.error is not None:
                    raise report.error
                self._schedule.measured(report)
                figures |= {"write_s": report.write_s, "num_bytes": report.num_bytes}
            self._saver.ended.clear()
            figures |= {"submitted": self._saver.submitted, "interval_s": self._schedule.interval_s}
        return figures


class _EverySecondStep(AsyncSaver):
    """Saves every second step, so that steps with and without a save can be told apart.

    Attributes:
        submitted: Whether the last step was saved.
        ended: Reports of saves that have ended, for the meter to take.
    """

    def __init__(self, store: CheckpointStore) -> None:
        super().__init__(store)
        self.submitted = False
        self.ended: list[SaveReport] = []

    def submit(self, step: int, state: State, *, metric: float | None = None) -> float:
        """Saves even steps."""
        self.submitted = step % 2 == 0
        return super().submit(step, state, metric=metric) if self.submitted else 0.0

    def take_reports(self) -> list[SaveReport]:
        """As the loop asks for them."""
        reports = super().take_reports()
        self.ended += reports
        return reports
