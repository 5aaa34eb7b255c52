"""Which speakers are confused, and which trials are decided worst.

Letters: N trials, S speakers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluator.report.data import FloatArray

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class SpeakerIndex:
    """The speakers of the trials as numbers.

    Attributes:
        names: S names, sorted.
        pairs: (N, 2) positions in `names` of the speakers of enrollment and test.
    """

    names: list[str]
    pairs: NDArray[np.int64]

    @classmethod
    def of(cls, speakers: Sequence[tuple[str, str]]) -> "SpeakerIndex":
        """Numbers N pairs of names."""
        names = sorted({name for pair in speakers for name in pair})
        position = {name: index for index, name in enumerate(names)}
        numbers = (position[name] for pair in speakers for name in pair)
        return cls(names, np.fromiter(numbers, np.int64, 2 * len(speakers)).reshape(-1, 2))


@dataclass(frozen=True)
class SpeakerErrors:
    """How often the trials of one speaker, or of a pair of speakers, are decided wrongly.

    Attributes:
        speakers: One name, or two in alphabetical order.
        errors: Wrong decisions.
        trials: Of so many.
    """

    speakers: tuple[str, ...]
    errors: int
    trials: int

    @property
    def rate(self) -> float:
        """Wrong decisions per trial."""
        return self.errors / self.trials


def confused_pairs(
    index: SpeakerIndex, is_target: BoolArray, is_accepted: BoolArray, limit: int
) -> list[SpeakerErrors]:
    """The pairs of different speakers with the most false accepts, whoever of the two was enrolled.

    At equal numbers the higher rate comes first, then alphabetical order. Pairs without errors are left out.
    """
    others = ~is_target
    size = len(index.names)
    pairs = index.pairs[others].min(axis=1) * size + index.pairs[others].max(axis=1)
    return [
        SpeakerErrors((index.names[pair // size], index.names[pair % size]), errors, trials)
        for pair, errors, trials in _most_errors(pairs, is_accepted[others], limit)
    ]


def rejected_speakers(
    index: SpeakerIndex, is_target: BoolArray, is_accepted: BoolArray, limit: int
) -> list[SpeakerErrors]:
    """The speakers with the most false rejects, ordered as `confused_pairs`."""
    return [
        SpeakerErrors((index.names[speaker],), errors, trials)
        for speaker, errors, trials in _most_errors(index.pairs[is_target, 0], ~is_accepted[is_target], limit)
    ]


def _most_errors(keys: NDArray[np.int64], is_error: BoolArray, limit: int) -> list[tuple[int, int, int]]:
    """Key, errors and trials of the keys with the most errors."""
    found, inverse = np.unique(keys, return_inverse=True)
    trials = np.bincount(inverse, minlength=len(found))
    errors = np.bincount(inverse[is_error], minlength=len(found))
    order = np.lexsort((found, -errors / trials, -errors))[:limit]
    return [(int(found[i]), int(errors[i]), int(trials[i])) for i in order if errors[i]]


def worst_false_accepts(
    scores: FloatArray, is_target: BoolArray, is_accepted: BoolArray, limit: int
) -> list[int]:
    """Numbers of the non-target trials that were accepted with the highest scores, the worst first."""
    wrong = np.flatnonzero(~is_target & is_accepted)
    return [int(i) for i in wrong[np.argsort(-scores[wrong], kind="stable")[:limit]]]


def worst_false_rejects(
    scores: FloatArray, is_target: BoolArray, is_accepted: BoolArray, limit: int
) -> list[int]:
    """Numbers of the target trials that were rejected with the lowest scores, the worst first."""
    wrong = np.flatnonzero(is_target & ~is_accepted)
    return [int(i) for i in wrong[np.argsort(scores[wrong], kind="stable")[:limit]]]
