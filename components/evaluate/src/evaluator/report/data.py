"""What a report shows: the trials, the systems that scored them, and what was computed elsewhere.

Letters: N trials.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluator.report.metric import METRICS
from voxsrc.errors import VoxsrcError

FloatArray = NDArray[np.float64]


class ReportError(VoxsrcError):
    """Data of which no report can be made."""


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; both ends are NaN where there is no interval."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class System:
    """One way to score the trials.

    Attributes:
        name: Short, unique within a report.
        scores: (N,) higher for the same speaker.
        llrs: (N,) calibrated natural-log likelihood ratios, if there are any.
        estimates: By keys of `METRICS`; metrics that were not computed are left out.
    """

    name: str
    scores: FloatArray
    llrs: FloatArray | None = None
    estimates: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """Something known of every trial, by which the trials are grouped.

    Attributes:
        name: "duration of the shorter side (s)", say.
        values: N strings, or N numbers, which are put into quantile bins. None, empty and NaN are "unknown".
        targets_only: Whether it divides target trials alone, as sessions do. Each group of them is then
            compared with all non-target trials, whose values do not matter.
    """

    name: str
    values: Sequence[str | None] | Sequence[float | None] | NDArray[Any]
    targets_only: bool = False


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two systems on the same trials.

    Attributes:
        system: Name of one.
        other: Name of the other.
        metric: A key of `METRICS`.
        difference: The metric of `system` minus that of `other`.
        p_value: Two-sided.
    """

    system: str
    other: str
    metric: str
    difference: Estimate
    p_value: float


def no_clips(utterance_ids: Sequence[str]) -> Mapping[str, bytes]:
    """No audio is at hand."""
    return {}


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that a report is made of.

    Attributes:
        title: Heading of the page.
        systems: The first is the main one, of which the errors are looked at.
        labels: (N,) 1 for target trials, 0 for non-target trials.
        enrollments: N utterance ids, the first of each pair.
        tests: N utterance ids, the second of each pair.
        speakers: N pairs: the speakers of enrollment and test; None, or empty names, if they are not known.
        p_target: Share of target trials that minDCF and actual DCF of the estimates assume.
        conditions: By what the trials are grouped.
        comparisons: Paired comparisons of systems.
        facts: What was evaluated, in the order to be shown.
        warnings: What a reader has to know before believing the numbers.
        clips: WAV, FLAC, Ogg or MP3 bytes of some seconds of each of these utterances, by id, without those
            of which there is no audio. Asked once, for all that the report would play.

    Raises:
        ReportError: On construction, if lengths differ, a score is not finite, a name is repeated or
            unknown, or one kind of trials is missing.
    """

    title: str
    systems: Sequence[System]
    labels: NDArray[Any]
    enrollments: Sequence[str]
    tests: Sequence[str]
    speakers: Sequence[tuple[str, str]] | None
    p_target: float = 0.05
    conditions: Sequence[Condition] = ()
    comparisons: Sequence[Comparison] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    clips: Callable[[Sequence[str]], Mapping[str, bytes]] = no_clips

    def __post_init__(self) -> None:
        """Checks everything that can be wrong, so that no half report is written."""
        if not self.systems:
            raise ReportError("systems: none; expected at least one")
        names = [system.name for system in self.systems]
        _require_unique("systems", names)
        _require_unique("conditions", [condition.name for condition in self.conditions])
        self._check_trials()
        for system in self.systems:
            _check_keys(f"estimates of system {system.name!r}", system.estimates)
            self._check_scores(f"scores of system {system.name!r}", system.scores)
            if system.llrs is not None:
                self._check_scores(f"llrs of system {system.name!r}", system.llrs)
        for condition in self.conditions:
            self._check_length(f"condition {condition.name!r}", condition.values)
        for comparison in self.comparisons:
            _check_keys("comparisons", (comparison.metric,))
            for name in (comparison.system, comparison.other):
                if name not in names:
                    raise ReportError(f"comparisons: system {name!r} is not in the report; it has {names}")

    @property
    def main(self) -> System:
        """The system of which the errors are looked at."""
        return self.systems[0]

    @property
    def is_target(self) -> NDArray[np.bool_]:
        """(N,) True for trials of one speaker."""
        target: NDArray[np.bool_] = np.asarray(self.labels) == 1
        return target

    def _check_trials(self) -> None:
        if not 0 < self.p_target < 1:
            raise ReportError(f"p_target: {self.p_target}; expected a share between 0 and 1")
        for name in ("enrollments", "tests", "speakers"):
            if getattr(self, name) is not None:
                self._check_length(name, getattr(self, name))
        target = self.is_target
        if not (target | (np.asarray(self.labels) == 0)).all():
            found = sorted(set(np.asarray(self.labels).tolist()))[:5]
            raise ReportError(f"labels: found {found}; expected 0 and 1")
        if target.all() or not target.any():
            raise ReportError(
                f"labels: {int(target.sum())} target and {int((~target).sum())} non-target trials; both "
                "kinds are needed"
            )

    def _check_scores(self, name: str, scores: FloatArray) -> None:
        self._check_length(name, scores)
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise ReportError(
                f"{name}: {len(bad)} of {len(scores)} are not finite, the first is number {bad[0]} "
                f"({self.enrollments[bad[0]]} {self.tests[bad[0]]}); leave these trials out and warn of them"
            )

    def _check_length(self, name: str, values: Any) -> None:
        if len(values) != len(self.labels):
            raise ReportError(
                f"{name}: {len(values)} values; expected one for each of {len(self.labels)} trials"
            )


def _require_unique(name: str, values: Sequence[str]) -> None:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ReportError(f"{name}: {repeated} are given more than once; expected distinct names")


def _check_keys(name: str, keys: Any) -> None:
    unknown = sorted(set(keys) - set(METRICS))
    if unknown:
        raise ReportError(f"{name}: unknown metrics {unknown}; expected some of {list(METRICS)}")
