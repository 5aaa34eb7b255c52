"""Sums over the utterances of each speaker, over embeddings that are read a block at a time.

Letters: U utterances, C speakers, D embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxsrc.scoring.errors import ScoringError
from voxsrc.scoring.vectors import FloatArray, Floats, IntArray, blocks

_BLOCK = 4096


@dataclass(frozen=True)
class Speakers:
    """Which utterances are whose.

    Attributes:
        names: C speakers, sorted.
        counts: (C,) utterances of each.
        of_row: (U,) index of the speaker of each utterance.
    """

    names: list[str]
    counts: IntArray
    of_row: IntArray

    @classmethod
    def of(cls, speaker_ids: Sequence[str] | NDArray[np.str_], num_utterances: int) -> "Speakers":
        """From the speaker of each utterance.

        Raises:
            ScoringError: If there are not as many as utterances.
        """
        if len(speaker_ids) != num_utterances:
            raise ScoringError(
                f"speakers: found {len(speaker_ids)}, expected one for each of {num_utterances} utterances"
            )
        names, of_row, counts = np.unique(
            np.asarray(speaker_ids, np.str_), return_inverse=True, return_counts=True
        )
        return cls(names.tolist(), counts.astype(np.int64), of_row.astype(np.int64).reshape(-1))

    def blocks(self, vectors: Floats) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
        """The utterances in order of their speaker, a block at a time.

        Yields:
            (n,) rows, (n,) the speaker of each, rising, and (n, D) their vectors as float64.
        """
        order = np.argsort(self.of_row, kind="stable")
        for part in blocks(len(order), _BLOCK):
            rows = order[part]
            yield rows, self.of_row[rows], vectors[rows].astype(np.float64)


def add_by_speaker(sums: FloatArray, speakers: IntArray, vectors: FloatArray) -> None:
    """Adds to `sums` (C, D) the `vectors` (n, D) of a block, whose `speakers` (n,) rise."""
    starts = np.flatnonzero(np.append(True, np.diff(speakers) != 0))
    sums[speakers[starts]] += np.add.reduceat(vectors, starts, axis=0)
