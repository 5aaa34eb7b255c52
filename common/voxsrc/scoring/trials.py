"""Trials as rows of embeddings, and what is wrong with a list of trials. Letters: U utterances, N trials."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxsrc.corpus import TrialList
from voxsrc.errors import CorpusError
from voxsrc.scoring.vectors import IntArray

_LISTED = 10


class UnknownUtterancesError(CorpusError):
    """Trials name utterances that there are no embeddings of.

    Attributes:
        utterance_ids: All of them, in order of first appearance.
        num_trials: Trials that name at least one.
    """

    def __init__(self, utterance_ids: list[str], num_trials: int, of_trials: int) -> None:
        super().__init__(utterance_ids, num_trials, of_trials)
        self.utterance_ids = utterance_ids
        self.num_trials = num_trials
        self.of_trials = of_trials

    def __str__(self) -> str:
        more = len(self.utterance_ids) - _LISTED
        rest = f"\n… and {more:,} more" if more > 0 else ""
        return (
            f"{self.num_trials:,} of {self.of_trials:,} trials name {len(self.utterance_ids):,} utterances "
            "without an embedding; expected paths of the feature set or the list that was embedded: compare "
            "their spelling, or embed these too:\n" + "\n".join(self.utterance_ids[:_LISTED]) + rest
        )


@dataclass(frozen=True)
class DuplicatedTrial:
    """A pair that is listed more than once, in either order.

    Attributes:
        enrollment: Of its first appearance.
        test: Of its first appearance.
        positions: Where it stands in the list, counted from 0.
        labels: Its distinct labels, ascending: two if the list contradicts itself, none if it is blind.
    """

    enrollment: str
    test: str
    positions: tuple[int, ...]
    labels: tuple[int, ...]


def pairs_of(trials: TrialList, utterance_ids: Sequence[str]) -> tuple[IntArray, IntArray]:
    """The rows of each trial's utterances.

    Args:
        trials: N trials.
        utterance_ids: U, of the rows of the embeddings.

    Returns:
        (N,) rows of the enrollment utterances, and (N,) of the test utterances.

    Raises:
        UnknownUtterancesError: If a trial names another utterance; it knows all of them.
        CorpusError: If an utterance has two rows.
    """
    row_of = {utterance_id: row for row, utterance_id in enumerate(utterance_ids)}
    if len(row_of) < len(utterance_ids):
        twice = next(name for row, name in enumerate(utterance_ids) if row_of[name] != row)
        raise CorpusError(
            f"{len(utterance_ids) - len(row_of):,} utterances have several embeddings, the first {twice!r}; "
            "expected one of each: list each utterance once"
        )
    first, second = _numbers(trials.enrollments, row_of), _numbers(trials.tests, row_of)
    unknown = (first < 0) | (second < 0)
    if unknown.any():
        missing = [name for name in trials.utterance_ids() if name not in row_of]
        raise UnknownUtterancesError(missing, int(unknown.sum()), len(trials))
    return first, second


def duplicated_trials(trials: TrialList) -> list[DuplicatedTrial]:
    """The pairs that are listed more than once, in either order, by first appearance.

    A pair counts in every metric as often as it is listed; scores here do not depend on its order.
    """
    number_of = {name: number for number, name in enumerate(trials.utterance_ids())}
    first, second = _numbers(trials.enrollments, number_of), _numbers(trials.tests, number_of)
    keys = np.minimum(first, second) * len(number_of) + np.maximum(first, second)
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    positions_of: dict[int, list[int]] = {}
    for position in np.flatnonzero(counts[inverse] > 1).tolist():
        positions_of.setdefault(int(keys[position]), []).append(position)
    return [
        DuplicatedTrial(
            trials.enrollments[positions[0]],
            trials.tests[positions[0]],
            tuple(positions),
            () if trials.labels is None else tuple(sorted({int(trials.labels[p]) for p in positions})),
        )
        for positions in positions_of.values()
    ]


def _numbers(names: Sequence[str], number_of: dict[str, int]) -> IntArray:
    """(N,) the number of each name, -1 if it has none."""
    return np.fromiter((number_of.get(name, -1) for name in names), np.int64, len(names))
