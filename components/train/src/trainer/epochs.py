"""The order in which an epoch visits the utterances: a pure function of (seed, epoch), in NumPy alone.

Letters: U utterances, S speakers, K batches in an epoch, N speakers in a batch, M utterances of each.
"""

import numpy as np
from numpy.typing import NDArray

from voxsrc.randomness import RandomStream

# Utterances as their place in `TrainingUtterances`: half the memory of int64, enough for 2 billion.
PlaceArray = NDArray[np.int32]


class SpeakerShuffle:
    """The utterances of each speaker in a random order, of which an epoch uses the first so many.

    A speaker that has more than `max_per_speaker` goes through all of them in successive epochs: each
    takes the next so many of a fixed random order, and shuffles these.

    Args:
        labels: (U,) the speaker of each utterance, in [0, S).
        max_per_speaker: Utterances of one speaker in one epoch; None is all.
        seed: Seed of the order.

    Attributes:
        starts: (S,) where each speaker begins in the order.
        num_used: (S,) how many utterances of each speaker an epoch uses.
    """

    def __init__(self, labels: NDArray[np.int64], max_per_speaker: int | None, seed: int) -> None:
        self._labels = labels
        counts = np.bincount(labels)
        self.starts = np.cumsum(counts) - counts
        self.num_used = counts if max_per_speaker is None else np.minimum(counts, max_per_speaker)
        self._stream = RandomStream(seed, "utterances_of_speaker")
        self._counts_of_utterances = counts[labels]
        self._turns: NDArray[np.int64] | None = None
        if max_per_speaker is not None and int(counts.max()) > max_per_speaker:
            keys = RandomStream(seed, "turns_of_utterances").words(0, len(labels))
            self._turns = np.empty(len(labels), np.int64)
            self._turns[np.lexsort((keys, labels))] = _count_up(counts)

    def __call__(self, epoch: int) -> PlaceArray:
        """(U,) places sorted by speaker; those of speaker s begin at `starts[s]`."""
        keys = self._stream.words(epoch, len(self._labels))
        if self._turns is None:
            return np.lexsort((keys, self._labels)).astype(np.int32)
        used = self.num_used[self._labels]
        waits = (self._turns - epoch * used) % self._counts_of_utterances >= used
        return np.lexsort((keys, waits, self._labels)).astype(np.int32)


class UtteranceEpochs:
    """Epochs in which each utterance (or `max_per_speaker` of each speaker) comes once, in random order.

    Attributes:
        num_utterances: How many in each epoch.
    """

    def __init__(self, labels: NDArray[np.int64], *, max_per_speaker: int | None, seed: int) -> None:
        self._shuffle = SpeakerShuffle(labels, max_per_speaker, seed)
        self._stream = RandomStream(seed, "utterances_of_epoch")
        self._num_total = len(labels)
        self.num_utterances = int(self._shuffle.num_used.sum())

    def order(self, epoch: int) -> PlaceArray:
        """(num_utterances,) places."""
        order = self._stream.permutation(epoch, self.num_utterances)
        if self.num_utterances == self._num_total:
            return order.astype(np.int32)
        used, starts = self._shuffle.num_used, self._shuffle.starts
        places: PlaceArray = self._shuffle(epoch)[np.repeat(starts, used) + _count_up(used)][order]
        return places


class GroupEpochs:
    """Epochs of batches of N distinct speakers with M utterances each, in which nothing is discarded.

    A speaker's shuffled utterances are cut into groups of M; the last group is filled up from the first.
    K = max(⌈groups / N⌉, most groups of one speaker) batches hold them all; the N·K - groups places that
    are left go, as further groups, to the speakers that have fewest. The groups, speaker after speaker in
    random order, fill an N × K table row by row, and a batch takes one group of each row: each row's
    columns are permuted at random. A speaker has at most K groups, so it lies within one row, where its
    columns differ anyway, or across two successive ones, where the part in the second row is given
    columns other than those of the first. So any two speakers meet by chance, and never one itself.

    Args:
        labels: (U,) the speaker of each utterance, in [0, S), S ≥ N.
        num_speakers: N.
        group_size: M. A speaker of fewer utterances has the same one several times in its group.
        max_per_speaker: Utterances of one speaker in one epoch; None is all.
        seed: Seed of the order.

    Attributes:
        num_batches: K.
        num_groups: Groups that the utterances make; the others of the K·N are repetitions.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        *,
        num_speakers: int,
        group_size: int,
        max_per_speaker: int | None,
        seed: int,
    ) -> None:
        self._shuffle = SpeakerShuffle(labels, max_per_speaker, seed)
        self._speakers = RandomStream(seed, "speakers_of_epoch")
        self._columns = RandomStream(seed, "batches_of_epoch")
        self._shape = (num_speakers, group_size)
        groups = -(-self._shuffle.num_used // group_size)
        self.num_groups = int(groups.sum())
        self.num_batches = _num_batches(groups, num_speakers)
        self._groups, self._num_extra = _level_up(groups, self.num_batches * num_speakers)

    def batches(self, epoch: int) -> PlaceArray:
        """(K, N, M) places."""
        num_speakers, group_size = self._shape
        order = self._speakers.permutation(epoch, len(self._groups))
        groups = self._groups.copy()
        fewest = order[groups[order] == groups.min()]
        groups[fewest[: self._num_extra]] += 1
        speaker = np.repeat(order, groups[order])
        ordinal = _count_up(groups[order])
        shape = (num_speakers, self.num_batches)
        slots = np.empty(shape, np.int64)
        columns = self._distinct_columns(speaker.reshape(shape), epoch)
        np.put_along_axis(slots, columns, np.arange(speaker.size).reshape(shape), axis=1)
        slots = slots.T
        speaker, ordinal = speaker[slots], ordinal[slots]
        within = ordinal[..., None] * group_size + np.arange(group_size)
        within %= self._shuffle.num_used[speaker][..., None]
        within += self._shuffle.starts[speaker][..., None]
        places: PlaceArray = self._shuffle(epoch)[within]
        return places

    def _distinct_columns(self, speakers_NK: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """A permutation of the columns of each row, such that no speaker has one column twice."""
        num_rows, num_columns = speakers_NK.shape
        words = self._columns.words(epoch, 2 * speakers_NK.size).reshape(2, num_rows, num_columns)
        columns, others = np.argsort(words, axis=2, kind="stable")
        for row in range(1, num_rows):
            speaker = speakers_NK[row, 0]
            if speakers_NK[row - 1, -1] != speaker:
                continue
            taken = np.zeros(num_columns, bool)
            taken[columns[row - 1][speakers_NK[row - 1] == speaker]] = True
            num_first = np.count_nonzero(speakers_NK[row] == speaker)
            first = columns[row][~taken[columns[row]]][:num_first]
            taken[:] = False
            taken[first] = True
            # The rest in the order of `others`: in that of `columns` the avoided ones would come early.
            columns[row] = np.concatenate([first, others[row][~taken[others[row]]]])
        return np.asarray(columns, np.int64)


def repeated_share(
    counts: NDArray[np.int64], num_speakers: int, group_size: int, max_per_speaker: int | None
) -> float:
    """The part of the groups of `GroupEpochs` that are repetitions; (S,) utterances of each speaker."""
    used = counts if max_per_speaker is None else np.minimum(counts, max_per_speaker)
    groups = -(-used // group_size)
    return 1.0 - int(groups.sum()) / (_num_batches(groups, num_speakers) * num_speakers)


def _num_batches(groups: NDArray[np.int64], num_speakers: int) -> int:
    return max(-(-int(groups.sum()) // num_speakers), int(groups.max()))


def _count_up(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 … counts[0] - 1, 0 … counts[1] - 1, …"""
    ends = np.cumsum(counts)
    return np.arange(ends[-1]) - np.repeat(ends - counts, counts)


def _level_up(counts: NDArray[np.int64], total: int) -> tuple[NDArray[np.int64], int]:
    """Raises the smallest counts to one level, the highest at which the sum is not above `total`.

    Returns:
        The counts, and how many are still missing: fewer than there are counts at the level.
    """
    low, high = 0, total // len(counts)
    high = max(high, int(counts.max()))
    while low < high:
        level = (low + high + 1) // 2
        if int(np.maximum(counts, level).sum()) <= total:
            low = level
        else:
            high = level - 1
    levelled = np.maximum(counts, low)
    return levelled, total - int(levelled.sum())
