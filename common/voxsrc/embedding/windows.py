"""Utterances a window at a time: those whose features are at hand together and can be sorted by length.

Letters: T frames, F mel bands.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from voxsrc.embedding.audio_features import HeardUtterance
from voxsrc.embedding.embeddings import Float32Array, Int64Array
from voxsrc.feature_set import FeatureSet

# Features of audio that wait to be sorted: 160 MB of 80 bands.
_WINDOW_FRAMES = 500_000


@dataclass(frozen=True)
class Window:
    """Some of the utterances asked for.

    Attributes:
        positions: Their places among those asked for.
        keys: Their ids in the cache.
        num_frames: Frames of each.
        read: Features (T, F) of the utterance at a place in this window.
    """

    positions: Int64Array
    keys: Sequence[str]
    num_frames: Int64Array
    read: Callable[[int], Float32Array]


def windows_of_set(features: FeatureSet, rows: Int64Array, positions: Int64Array) -> Iterator[Window]:
    """Windows of a feature set: its shards, of which none is then decoded twice; all of an opened array.

    Args:
        features: The set.
        rows: Row in the set's index of every utterance asked for.
        positions: Which of them are wanted.
    """
    wanted = rows[positions]
    group_of = features.index.shards[wanted] if features.mode == "by_shard" else np.zeros_like(wanted)
    for group in np.unique(group_of):
        inside = np.flatnonzero(group_of == group)
        yield _window_of_set(features, wanted[inside], positions[inside])


def _window_of_set(features: FeatureSet, rows: Int64Array, positions: Int64Array) -> Window:
    ids = [features.index.utterance_ids[row] for row in rows]
    return Window(positions, ids, features.index.num_frames[rows], lambda place: features.read(ids[place]))


def windows_of_audio(utterances: Iterable[HeardUtterance]) -> Iterator[Window]:
    """Windows of utterances with features, as they come."""
    waiting: list[tuple[HeardUtterance, Float32Array]] = []
    num_frames = 0
    for heard in utterances:
        if heard.features is not None:
            waiting.append((heard, heard.features))
            num_frames += len(heard.features)
        if num_frames >= _WINDOW_FRAMES:
            yield _window_of_audio(waiting)
            waiting, num_frames = [], 0
    if waiting:
        yield _window_of_audio(waiting)


def _window_of_audio(waiting: list[tuple[HeardUtterance, Float32Array]]) -> Window:
    return Window(
        np.array([heard.position for heard, _ in waiting], np.int64),
        [heard.key for heard, _ in waiting],
        np.array([len(features) for _, features in waiting], np.int64),
        lambda place: waiting[place][1],
    )
