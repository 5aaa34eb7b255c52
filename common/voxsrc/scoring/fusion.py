"""Fusion: one log-likelihood ratio of the scores of several systems, by logistic regression.

Letters: N trials, S systems.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from voxsrc.corpus import TrialList
from voxsrc.scoring.calibration import LogisticCalibration
from voxsrc.scoring.errors import ScoringError
from voxsrc.scoring.vectors import FloatArray, checked_scores

# What an evaluation leaves for fusion beside its scores.
HELD_OUT_TRIALS_NAME = "held_out_trials.txt"
HELD_OUT_SCORES_NAME = "held_out_scores.txt"


@dataclass(frozen=True, eq=False)
class SystemScores:
    """The scores of one system.

    Attributes:
        name: Of the system.
        trials: N trials.
        scores: (N,) in their order.
    """

    name: str
    trials: TrialList
    scores: ArrayLike


def fit_fusion(systems: Sequence[SystemScores], *, p_target: float = 0.05) -> LogisticCalibration:
    """A calibration whose inputs are the systems, by name; on trials that are not those of the test.

    Args:
        systems: S, of the same labelled trials in the same order.
        p_target: See `LogisticCalibration.fit`.

    Raises:
        ScoringError: If systems share a name, were scored on other trials, or the trials have no labels; and
            as `LogisticCalibration.fit`.
    """
    columns = _columns(systems)
    labels = systems[0].trials.labels
    if labels is None:
        raise ScoringError("fusion: found trials without labels, expected labelled ones to fit the weights")
    names = [system.name for system in systems]
    return LogisticCalibration.fit(
        columns,
        labels,
        p_target=p_target,
        names=names,
        num_scores=len(names),
    )


def fuse(fusion: LogisticCalibration, systems: Sequence[SystemScores]) -> FloatArray:
    """(N,) fused log-likelihood ratios, natural.

    Args:
        fusion: Of `fit_fusion`.
        systems: Those that it was fitted on, in any order, all of the same trials in the same order.

    Raises:
        ScoringError: If a system is missing or unknown to the fusion, or the trials differ.
    """
    names, columns = [system.name for system in systems], _columns(systems)
    if sorted(names) != sorted(fusion.inputs):
        raise ScoringError(
            f"fusion: found the systems {sorted(names)}, expected those it was fitted on: "
            f"{sorted(fusion.inputs)}"
        )
    return fusion.llr(columns[:, [names.index(name) for name in fusion.inputs]])


def _columns(systems: Sequence[SystemScores]) -> FloatArray:
    """(N, S) scores of systems of the same trials."""
    names = [system.name for system in systems]
    if not names or len(set(names)) < len(names):
        raise ScoringError(f"fusion: found the systems {names}, expected at least one, each name once")
    reference = systems[0]
    for system in systems[1:]:
        _check_same_trials(reference, system)
    return np.column_stack(
        [checked_scores(s.scores, len(s.trials), f"scores of system {s.name!r}") for s in systems]
    )


def _check_same_trials(reference: SystemScores, system: SystemScores) -> None:
    both = f"fusion: the systems {reference.name!r} and {system.name!r}"
    remedy = "score both on one trial list"
    if len(reference.trials) != len(system.trials):
        raise ScoringError(
            f"{both} have {len(reference.trials):,} and {len(system.trials):,} trials, expected the same; "
            f"{remedy}"
        )
    ours = list(zip(reference.trials.enrollments, reference.trials.tests, strict=True))
    theirs = list(zip(system.trials.enrollments, system.trials.tests, strict=True))
    differing = [n for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    if differing:
        n = differing[0]
        raise ScoringError(
            f"{both} differ in {len(differing):,} of {len(ours):,} trials, the first at {n}: "
            f"{' '.join(ours[n])} and {' '.join(theirs[n])}, expected the same in the same order; {remedy}"
        )
    labels = reference.trials.labels, system.trials.labels
    if labels[0] is not None and labels[1] is not None and (labels[0] != labels[1]).any():
        raise ScoringError(
            f"{both} have other labels in {int((labels[0] != labels[1]).sum()):,} trials; {remedy}"
        )
