"""The utterances that are trained on: a choice of rows of a feature set, with a label for each speaker."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from voxsrc.errors import ConfigError
from voxsrc.feature_set.index import UtteranceIndex
from voxsrc.randomness import integers_below

_NAMED = 5


@dataclass(frozen=True, eq=False)
class TrainingUtterances:
    """U utterances of S speakers; frames are not copied, a subset is a choice of rows.

    Attributes:
        rows: (U,) int64, rows in the feature set's index, ascending.
        labels: (U,) int64 in [0, S), the place of the speaker in `speaker_ids`.
        first_frames: (U,) int64, where each begins in the frames of the whole set.
        num_frames: (U,) int64.
        speaker_ids: S speakers, sorted.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    first_frames: NDArray[np.int64]
    num_frames: NDArray[np.int64]
    speaker_ids: list[str]

    @classmethod
    def of(cls, index: UtteranceIndex, speaker_ids: Iterable[str] | None = None) -> Self:
        """The utterances of these speakers (`voxsrc.corpus.split_speakers` makes the choice), or all.

        Raises:
            ConfigError: If a speaker has no utterance in the set, or there are none at all.
        """
        found, codes = np.unique(np.array(index.speaker_ids, dtype=np.str_), return_inverse=True)
        speakers = found.tolist() if speaker_ids is None else sorted(set(speaker_ids))
        missing = sorted(set(speakers) - set(found.tolist()))
        if missing:
            raise ConfigError(
                f"{len(missing)} of {len(speakers)} speakers have no utterance in the feature set "
                f"({_named(missing)}); choose among its {len(found)} speakers"
            )
        if not speakers:
            raise ConfigError("no speakers were chosen; training needs at least two")
        label_of_code = np.full(len(found), -1)
        label_of_code[np.searchsorted(found, speakers)] = np.arange(len(speakers))
        labels = label_of_code[codes]
        rows = np.flatnonzero(labels >= 0)
        return cls(rows, labels[rows], index.first_frames[rows], index.num_frames[rows], speakers)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_speakers(self) -> int:
        """Number S of speakers."""
        return len(self.speaker_ids)


def crop_offsets(
    num_frames: NDArray[np.int64], crop_frames: int, uniforms: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Where crops begin within their utterances, made of uniform numbers of [0, 1).

    An utterance that is shorter than the crop is looped, and the crop begins anywhere in it.
    """
    return integers_below(
        np.where(num_frames >= crop_frames, num_frames - crop_frames + 1, num_frames), uniforms
    )


def _named(speakers: list[str]) -> str:
    return ", ".join(speakers[:_NAMED]) + (", …" if len(speakers) > _NAMED else "")
