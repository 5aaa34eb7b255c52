"""Trials among training speakers who are held out: models are chosen and scores calibrated on these.

They are a function of the feature set and the recipe's `validation.fraction`, so that whoever has both finds
the speakers that a model never saw. Letters: U utterances, N trials.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxsrc.errors import CorpusError
from voxsrc.feature_set.index import UtteranceIndex
from voxsrc.metrics import cllr, equal_error_rate, error_rates
from voxsrc.randomness import RandomStream
from voxsrc.scoring.calibration import LogisticCalibration

# Trials are chosen by this seed, not the recipe's, so that runs with other seeds can be compared.
_SEED = 0

MAX_UTTERANCES = 2_000
MAX_TRIALS = 20_000
# With fewer target pairs of different sessions, those of one session are taken, too.
_FEWEST_ACROSS_SESSIONS = 30


@dataclass(frozen=True, eq=False)
class HeldOutTrials:
    """As many target as non-target pairs of the utterances of some speakers, always the same.

    Attributes:
        rows: (U,) int64, the utterances' rows in the feature set's index, ascending.
        speaker_ids: U speakers.
        first: (N,) int64, places in `rows`.
        second: (N,) int64, places in `rows`.
        labels: (N,) int8, 1 for the same speaker.
        in_session: (N,) bool, target trials within one session: a microphone and a room in common make them
            easier than what a model is used for, so there are none as long as enough others are left.
    """

    rows: NDArray[np.int64]
    speaker_ids: list[str]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    labels: NDArray[np.int8]
    in_session: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        index: UtteranceIndex,
        speaker_ids: Iterable[str],
        *,
        copies: Container[str],
        max_utterances: int = MAX_UTTERANCES,
        max_trials: int = MAX_TRIALS,
    ) -> Self:
        """The trials of these speakers (`voxsrc.corpus.split_speakers` makes the choice).

        Args:
            index: Utterances of the feature set.
            speaker_ids: The held-out speakers.
            copies: Speed-perturbed copies (`voxsrc.corpus.speed_copies`), which are left out.
            max_utterances: At most so many utterances, chosen by hash.
            max_trials: At most so many target trials and as many non-target trials.

        Raises:
            CorpusError: If their utterances make no trials of both kinds.
        """
        # Nobody in a trial speaks like a speed-perturbed copy.
        wanted = sorted(name for name in set(speaker_ids) if name not in copies)
        found = np.flatnonzero(np.isin(np.array(index.speaker_ids, dtype=np.str_), wanted))
        order = RandomStream(_SEED, "validation_utterances").permutation(0, len(found))
        rows = found[np.sort(order[:max_utterances])]
        speakers = [index.speaker_ids[row] for row in rows]
        _, codes = np.unique(np.array(speakers, dtype=np.str_), return_inverse=True)
        first, second = np.triu_indices(len(rows), k=1)
        is_same = codes[first] == codes[second]
        _, sessions = np.unique([index.session_ids[row] for row in rows], return_inverse=True)
        in_session = is_same & (sessions[first] == sessions[second])
        across = is_same & ~in_session
        is_target = across if across.sum() >= _FEWEST_ACROSS_SESSIONS else is_same
        is_other = ~is_same
        num_each = min(max_trials, int(is_target.sum()), int(is_other.sum()))
        if not num_each:
            raise CorpusError(
                f"the {len(rows)} held-out utterances of {len(wanted)} speakers make no trials of both "
                "kinds; raise validation.fraction, or set it to 0 to train without validation"
            )
        parts = []
        for counter, kind in enumerate((is_target, is_other)):
            places = np.flatnonzero(kind)
            order = RandomStream(_SEED, "validation_trials").permutation(counter, len(places))
            parts.append(np.sort(places[order[:num_each]]))
        chosen = np.concatenate(parts)
        return cls(
            rows,
            speakers,
            first[chosen],
            second[chosen],
            is_target[chosen].astype(np.int8),
            in_session[chosen],
        )

    def among(self, usable: NDArray[np.bool_]) -> Self:
        """The trials whose utterances are both usable.

        Args:
            usable: (U,) which utterances are.

        Raises:
            CorpusError: If no trials of both kinds are left.
        """
        kept = usable[self.first] & usable[self.second]
        place = np.cumsum(usable) - 1
        labels = self.labels[kept]
        if not 0 < labels.sum() < len(labels):
            raise CorpusError(
                f"of {len(usable)} held-out utterances {int(usable.sum())} can be used, which make no trials "
                "of both kinds"
            )
        return replace(
            self,
            rows=self.rows[usable],
            speaker_ids=[
                speaker for speaker, is_usable in zip(self.speaker_ids, usable, strict=True) if is_usable
            ],
            first=place[self.first[kept]],
            second=place[self.second[kept]],
            labels=labels,
            in_session=self.in_session[kept],
        )

    def calibration(
        self, inputs: ArrayLike, scoring: str, *, names: Sequence[str] | None = None, p_target: float = 0.05
    ) -> LogisticCalibration:
        """The calibration of scores of these trials, with what it was fitted on.

        Args:
            inputs: (N,) scores, or (N, K) with quality measures after them.
            scoring: How they came about, in words.
            names: K names of the inputs.
            p_target: Prior of the same speaker that the fit is made for.

        Raises:
            ScoringError: If the inputs cannot be calibrated; see `LogisticCalibration.fit`.
        """
        fitted = LogisticCalibration.fit(inputs, self.labels, names=names, p_target=p_target)
        llrs = fitted.llr(inputs)
        facts = {
            "scoring": scoring,
            "speakers": len(set(self.speaker_ids)),
            "utterances": len(self.rows),
            "trials": len(self.labels),
            "targets": int(self.labels.sum()),
            "targets_within_a_session": int(self.in_session.sum()),
            "eer": equal_error_rate(error_rates(llrs, self.labels)),
            "cllr": cllr(llrs, self.labels),
        }
        return replace(fitted, fitted_on=facts)
