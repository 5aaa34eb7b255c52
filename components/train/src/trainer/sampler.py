"""Which utterances, and which crop of each, make up the batch of a global step.

The batch of step t is a pure function of (seed, t): it does not depend on the batches before, on a
restart, or on how many processes share it. Letters: B crops in a batch, N speakers, M utterances of each.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainer.epochs import GroupEpochs, PlaceArray, UtteranceEpochs
from trainer.repetitions import told_repetitions
from trainer.utterances import TrainingUtterances, crop_offsets
from voxsrc.errors import ConfigError
from voxsrc.randomness import RandomStream
from voxsrc.recipes import CROP_FRAMES

_T = TypeVar("_T")

_EPOCHS_KEPT = 2
# Batches are planned so many at a time: one alone costs as much as gathering its crops.
_STEPS_PLANNED = 64
_PLANS_KEPT = 2


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How batches are made of utterances.

    Attributes:
        utterances_per_speaker: M. 1: a batch is the next B utterances of a random order of all. 2 or
            more: a batch is B / M distinct speakers with M utterances each, as metric losses need it.
        crop_frames: Frames of each crop.
        max_utterances_per_speaker: At most so many of a speaker's utterances in one epoch, others in the
            next (voxceleb_trainer's max_seg_per_spk); None is all.
        short_utterances: An utterance shorter than the crop is looped (`wrap`) or an error (`refuse`).
        few_utterances: A speaker of fewer than M utterances is an error (`refuse`) or gives several crops
            of the same utterance (`repeat`).
    """

    utterances_per_speaker: int = 1
    crop_frames: int = CROP_FRAMES
    max_utterances_per_speaker: int | None = None
    short_utterances: Literal["wrap", "refuse"] = "wrap"
    few_utterances: Literal["refuse", "repeat"] = "refuse"

    def __post_init__(self) -> None:
        """Raises ConfigError, naming the field, on a value that cannot be used."""
        for name in ("utterances_per_speaker", "crop_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        most = self.max_utterances_per_speaker
        if most is not None and most < self.utterances_per_speaker:
            raise ConfigError(
                f"max_utterances_per_speaker is {most}; expected at least "
                f"utterances_per_speaker, {self.utterances_per_speaker}"
            )
        for name, choices in (
            ("short_utterances", ("wrap", "refuse")),
            ("few_utterances", ("refuse", "repeat")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected {' or '.join(choices)}")


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """What to load for one step: the whole batch, or one process's share of it.

    With M utterances per speaker, those of one speaker stand together: (B, …) is (N, M, …).

    Attributes:
        step: The global step.
        rows: (B,) int64, the utterances' rows in the feature set's index.
        first_frames: (B,) int64, where each crop begins in the frames of the whole set; where its
            utterance ends, it goes on at the utterance's beginning.
        labels: (B,) int64, the speakers.
        crop_frames: Frames of each crop.
        group_size: M.
        batch_size: Crops of the whole batch.
        first_sample: Place of this share's first crop in the whole batch.
    """

    step: int
    rows: NDArray[np.int64]
    first_frames: NDArray[np.int64]
    labels: NDArray[np.int64]
    crop_frames: int
    group_size: int
    batch_size: int
    first_sample: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def share(self) -> slice:
        """The places of these crops in the whole batch."""
        return slice(self.first_sample, self.first_sample + len(self))

    def for_rank(self, rank: int, world_size: int) -> "BatchPlan":
        """The share of one of `world_size` processes; the shares in order of rank are this batch.

        Raises:
            ConfigError: If the groups cannot be shared out evenly, or there is no such rank.
        """
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} of {world_size} processes; expected 0 to {world_size - 1}")
        check_batch_size(self.batch_size, self.group_size, world_size)
        share = self.batch_size // world_size
        part = slice(rank * share, (rank + 1) * share)
        return replace(
            self,
            rows=self.rows[part],
            first_frames=self.first_frames[part],
            labels=self.labels[part],
            first_sample=self.first_sample + rank * share,
        )


def check_batch_size(batch_size: int, group_size: int, num_processes: int = 1) -> None:
    """Raises ConfigError if a batch cannot be cut evenly, whole groups of a speaker's crops to a process."""
    unit = group_size * num_processes
    if batch_size < 1 or batch_size % unit:
        of_processes = "" if num_processes == 1 else f"{unit}: {num_processes} processes × "
        raise ConfigError(
            f"batch_size is {batch_size}; expected a multiple of {of_processes}"
            f"sampler.utterances_per_speaker, {group_size}"
        )


class Sampler:
    """Makes the batch of any step; it keeps nothing but the order of the last epochs asked for.

    Args:
        utterances: What to train on.
        config: How.
        batch_size: Crops B in a batch of all processes together.
        seed: Seed of all draws.

    Attributes:
        steps_per_epoch: Steps in which every utterance has been used, unless
            `max_utterances_per_speaker` leaves some to another epoch. Without groups the order runs on
            across batches: the last batch of an epoch takes the first utterances of the next one.

    Raises:
        ConfigError: If such batches cannot be made of these utterances; the message says what to set.
    """

    def __init__(
        self, utterances: TrainingUtterances, config: SamplerConfig, *, batch_size: int, seed: int
    ) -> None:
        self.utterances = utterances
        self.config = config
        self.batch_size = batch_size
        self._check()
        labels, most = utterances.labels, config.max_utterances_per_speaker
        self._epochs: UtteranceEpochs | GroupEpochs
        order: Callable[[int], PlaceArray]
        if config.utterances_per_speaker == 1:
            self._epochs = UtteranceEpochs(labels, max_per_speaker=most, seed=seed)
            self.steps_per_epoch = -(-self._epochs.num_utterances // batch_size)
            order = self._epochs.order
        else:
            self._epochs = GroupEpochs(
                labels,
                num_speakers=batch_size // config.utterances_per_speaker,
                group_size=config.utterances_per_speaker,
                max_per_speaker=most,
                seed=seed,
            )
            self.steps_per_epoch = self._epochs.num_batches
            order = self._epochs.batches
        self._order = _Recent(order, _EPOCHS_KEPT)
        self._plans = _Recent(self._plan, _PLANS_KEPT)
        self._places_in_batch = RandomStream(seed, "places_in_batch")
        self._crop_starts = RandomStream(seed, "crop_starts")

    def batch(self, step: int) -> BatchPlan:
        """The whole batch of global step `step`, from 0. Threads may call it at the same time.

        Raises:
            ValueError: If the step is negative.
        """
        if step < 0:
            raise ValueError(f"step {step}; expected 0 or more")
        block, place = divmod(step, _STEPS_PLANNED)
        rows, first_frames, labels = self._plans(block)[:, place]
        return BatchPlan(
            step=step,
            rows=rows,
            first_frames=first_frames,
            labels=labels,
            crop_frames=self.config.crop_frames,
            group_size=self.config.utterances_per_speaker,
            batch_size=self.batch_size,
        )

    def _plan(self, block: int) -> NDArray[np.int64]:
        """(3, K, B) rows, first frames and labels of the K successive steps of a block."""
        utterances, shape = self.utterances, (_STEPS_PLANNED, self.batch_size)
        places = self._places(block)
        offsets = crop_offsets(
            utterances.num_frames[places], self.config.crop_frames, self._crop_starts.uniforms(block, shape)
        )
        return np.stack(
            [utterances.rows[places], utterances.first_frames[places] + offsets, utterances.labels[places]]
        )

    def _places(self, block: int) -> PlaceArray:
        """(K, B) places in `utterances` of the steps of a block; epochs may end within it."""
        if not isinstance(self._epochs, GroupEpochs):
            count = _STEPS_PLANNED * self.batch_size
            return self._successive(block * count, count, self._epochs.num_utterances).reshape(
                _STEPS_PLANNED, -1
            )
        groups = self._successive(block * _STEPS_PLANNED, _STEPS_PLANNED, self._epochs.num_batches)
        # A speaker stands in the same row of an epoch's table: without this in the same process, too.
        words = self._places_in_batch.words(block, groups.shape[0] * groups.shape[1])
        shuffled = np.argsort(words.reshape(groups.shape[:2]), axis=1, kind="stable")
        places: PlaceArray = np.take_along_axis(groups, shuffled[:, :, None], axis=1)
        return places.reshape(_STEPS_PLANNED, -1)

    def _successive(self, first: int, count: int, epoch_length: int) -> PlaceArray:
        """Items `first` … of the epochs' orders, one epoch after the other: utterances or whole batches."""
        parts = []
        end = first + count
        while first < end:
            epoch, begin = divmod(first, epoch_length)
            parts.append(self._order(epoch)[begin : begin + end - first])
            first += len(parts[-1])
        return np.concatenate(parts)

    @cached_property
    def num_short(self) -> int:
        """Utterances that are shorter than the crop."""
        return int(np.count_nonzero(self.utterances.num_frames < self.config.crop_frames))

    def describe(self, num_processes: int = 1) -> str:
        """One line: what an epoch is made of, and what is repeated, looped or left out in it.

        Args:
            num_processes: Those that share a batch; one that is advised can be shared, too.
        """
        utterances, most = self.utterances, self.config.max_utterances_per_speaker
        parts = [f"{len(utterances):,} utterances of {utterances.num_speakers:,} speakers"]
        if isinstance(self._epochs, GroupEpochs):
            group_size = self.config.utterances_per_speaker
            parts.append(f"batches of {self.batch_size // group_size} speakers × {group_size}")
            repetitions = told_repetitions(
                np.bincount(utterances.labels),
                batch_size=self.batch_size,
                group_size=group_size,
                max_per_speaker=most,
                num_processes=num_processes,
            )
            if repetitions:
                parts.append(repetitions)
        else:
            parts.append(f"batches of {self.batch_size}")
        parts.append(f"{self.steps_per_epoch:,} steps an epoch")
        if self.num_short:
            parts.append(f"{self.num_short:,} utterances under {self.config.crop_frames} frames are looped")
        if most is not None:
            left = int(np.maximum(np.bincount(utterances.labels) - most, 0).sum())
            parts.append(f"{left:,} utterances above {most} per speaker wait for another epoch")
        return "; ".join(parts)

    def _check(self) -> None:
        config, counts = self.config, np.bincount(self.utterances.labels)
        group_size, num_speakers = config.utterances_per_speaker, self.utterances.num_speakers
        check_batch_size(self.batch_size, group_size)
        if num_speakers < 2:
            raise ConfigError(
                f"the training set has {num_speakers} speaker; speakers are told apart from two on: "
                "give a feature set with more, or hold out fewer for validation"
            )
        if config.short_utterances == "refuse" and self.num_short:
            raise ConfigError(
                f"{self.num_short:,} of {len(self.utterances):,} utterances are shorter than "
                f"sampler.crop_frames, {config.crop_frames} (the shortest has "
                f"{self.utterances.num_frames.min()}); set sampler.crop_frames lower, or "
                "sampler.short_utterances to wrap, which loops them"
            )
        if group_size == 1:
            return
        if self.batch_size // group_size > num_speakers:
            raise ConfigError(
                f"batch_size {self.batch_size} is {self.batch_size // group_size} speakers with "
                f"{group_size} utterances each; the training set has {num_speakers}: set batch_size to at "
                f"most {num_speakers * group_size}, or sampler.utterances_per_speaker higher"
            )
        few = np.flatnonzero(counts < group_size)
        if len(few) and config.few_utterances == "refuse":
            names = ", ".join(f"{self.utterances.speaker_ids[s]} has {counts[s]}" for s in few[:5])
            names += ", …" if len(few) > 5 else ""
            raise ConfigError(
                f"{len(few):,} of {num_speakers:,} speakers have fewer than "
                f"sampler.utterances_per_speaker, {group_size} ({names}); set it "
                "lower (1 for losses over classes), leave these speakers out, or set sampler.few_utterances "
                "to repeat, which takes several crops of the same utterance"
            )


class _Recent(Generic[_T]):
    """The last few results of a function of one integer; safe between threads."""

    def __init__(self, function: Callable[[int], _T], num_kept: int) -> None:
        self._function = function
        self._num_kept = num_kept
        self._results: OrderedDict[int, _T] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, argument: int) -> _T:
        with self._lock:
            if argument not in self._results:
                self._results[argument] = self._function(argument)
                if len(self._results) > self._num_kept:
                    self._results.popitem(last=False)
            self._results.move_to_end(argument)
            return self._results[argument]
