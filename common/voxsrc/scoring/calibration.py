"""Calibration: from scores to log-likelihood ratios, by prior-weighted logistic regression.

Brümmer and Doddington, "Likelihood-ratio calibration using prior-weighted proper scoring rules" (Interspeech
2013). A calibrated score has one threshold for each application, known beforehand, and a probability.
Letters: N trials, K inputs (scores, quality measures).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxsrc.config import from_mapping, to_mapping
from voxsrc.errors import ConfigError
from voxsrc.scoring.errors import ScoringError
from voxsrc.scoring.vectors import FloatArray

_MAX_STEPS = 100


@dataclass(frozen=True)
class LogisticCalibration:
    """An affine map of K inputs to a log-likelihood ratio (natural logarithm).

    Attributes:
        inputs: K names.
        weights: K, the ratio's rise for 1 more of an input.
        bias: The ratio where all inputs are 0.
        num_scores: How many of the inputs, the first ones, are scores: higher for the same speaker.
        p_target: Prior probability of the same speaker at which it was fitted.
        fitted_on: What it was fitted on, for people: scoring, number of trials, speakers.
    """

    inputs: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float
    num_scores: int = 1
    p_target: float = 0.05
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ConfigError(f"inputs: found {list(self.inputs)}, expected at least one name, each once")
        if len(self.weights) != len(self.inputs):
            raise ConfigError(
                f"weights: found {len(self.weights)}, expected one for each of {len(self.inputs)} inputs"
            )
        if not all(map(math.isfinite, (*self.weights, self.bias))):
            raise ConfigError(f"weights and bias: found {self.weights} and {self.bias}, expected finite ones")
        if not 1 <= self.num_scores <= len(self.inputs):
            raise ConfigError(f"num_scores: found {self.num_scores}, expected 1 to {len(self.inputs)}")
        if not 0 < self.p_target < 1:
            raise ConfigError(f"p_target: found {self.p_target}, expected a probability between 0 and 1")

    @property
    def well_ordered(self) -> bool:
        """Whether the ratio rises with every score.

        If not, a single score is worse than chance (distances instead of scores? labels exchanged?); of
        several systems, one speaks against its own scores. Do not trust such a calibration.
        """
        return all(weight > 0 for weight in self.weights[: self.num_scores])

    @classmethod
    def fit(
        cls,
        inputs: ArrayLike,
        labels: ArrayLike,
        *,
        p_target: float = 0.05,
        l2: float = 1e-6,
        names: Sequence[str] | None = None,
        num_scores: int = 1,
        fitted_on: Mapping[str, Any] | None = None,
    ) -> "LogisticCalibration":
        """Minimises the cross-entropy at the prior `p_target`, whatever the share of target trials.

        Deterministic, and the same for inputs in any units: Newton's method, float64, standardised inputs.

        Args:
            inputs: (N,) or (N, K).
            labels: (N,) 1 for the same speaker, 0 for different ones.
            p_target: Weighs both kinds of trials, in (0, 1).
            l2: Half of it times the squared weights of standardised inputs is added to the cross-entropy (in
                nats), without which separable trials have infinite weights. The default changes others by
                less than one part in a thousand.
            names: K names of the inputs; `score`, or `input_0`, `input_1`, … of several.
            num_scores: See the class.
            fitted_on: See the class.

        Raises:
            ScoringError: If lengths differ, an input is not finite or the same in all trials, labels are not
                0 and 1, or one kind is missing.
        """
        matrix, target = _checked_data(inputs, labels)
        num_inputs = matrix.shape[1]
        if names is None:
            names = ["score"] if num_inputs == 1 else [f"input_{k}" for k in range(num_inputs)]
        if len(names) != num_inputs:
            raise ScoringError(f"names: found {list(names)}, expected one for each of {num_inputs} inputs")
        if not 0 < p_target < 1 or not l2 > 0:
            raise ScoringError(
                f"calibration: found p_target {p_target} and l2 {l2}, expected a probability between 0 and "
                "1 and a positive number"
            )
        centre, scale = matrix.mean(axis=0), matrix.std(axis=0)
        constant = np.flatnonzero(scale <= 1e-12 * np.maximum(np.abs(centre), 1e-300))
        if len(constant):
            raise ScoringError(
                f"input {names[constant[0]]!r}: found {matrix[0, constant[0]]} in every trial, expected it "
                "to differ; leave it out"
            )
        weights, bias = _minimised((matrix - centre) / scale, target, p_target, l2)
        weights = weights / scale
        return cls(
            inputs=tuple(names),
            weights=tuple(weights.tolist()),
            bias=float(bias - weights @ centre),
            num_scores=num_scores,
            p_target=p_target,
            fitted_on=dict(fitted_on or {}),
        )

    def llr(self, inputs: ArrayLike) -> FloatArray:
        """(N,) log-likelihood ratios, natural, of (N,) or (N, K) inputs.

        Raises:
            ScoringError: If the inputs are not as many as those it was fitted on, or not finite.
        """
        matrix = _checked_inputs(inputs)
        if matrix.shape[1] != len(self.inputs):
            raise ScoringError(
                f"calibration: found {matrix.shape[1]} inputs, expected {len(self.inputs)}: "
                f"{', '.join(self.inputs)}"
            )
        return np.asarray(matrix @ np.array(self.weights) + self.bias)

    def score_at(self, llr: float) -> float:
        """The score whose log-likelihood ratio is `llr`: with `threshold`, the score from which to accept.

        Raises:
            ScoringError: If there are several inputs, or the ratio does not rise with the score.
        """
        if len(self.inputs) > 1 or not self.well_ordered:
            raise ScoringError(
                f"calibration: found weights {self.weights} of {', '.join(self.inputs)}, expected one that "
                "is positive: no score is the threshold; compare log-likelihood ratios"
            )
        return (llr - self.bias) / self.weights[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or YAML; `from_dict` gives the calibration back."""
        return to_mapping(self)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], path: str = "calibration") -> "LogisticCalibration":
        """The calibration of `to_dict`; `path` is the mapping's key path, for errors.

        Raises:
            ConfigError: An unknown or missing key, a value of another type or beyond its range.
        """
        return from_mapping(cls, mapping, path)


def probability(llr: ArrayLike, prior: float) -> FloatArray:
    """(N,) probability of the same speaker, of log-likelihood ratios and the probability before listening.

    Raises:
        ScoringError: If `prior` is not between 0 and 1.
    """
    log_odds = np.asarray(llr, np.float64) + _logit(prior)
    return np.asarray(np.exp(-np.logaddexp(0.0, -log_odds)))


def threshold(p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
    """The log-likelihood ratio from which accepting costs less than rejecting (Bayes' decision).

    Args:
        p_target: Prior probability of the same speaker, in (0, 1).
        c_miss: Cost of rejecting the same speaker.
        c_fa: Cost of accepting another speaker.

    Raises:
        ScoringError: If the prior is not between 0 and 1 or a cost not positive.
    """
    if not (0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise ScoringError(f"costs: found c_miss {c_miss} and c_fa {c_fa}, expected positive ones")
    return math.log(c_fa / c_miss) - _logit(p_target)


def _logit(probability_: float) -> float:
    if not 0 < probability_ < 1:
        raise ScoringError(f"prior: found {probability_}, expected a probability between 0 and 1")
    return math.log(probability_) - math.log1p(-probability_)


def _checked_inputs(inputs: ArrayLike) -> FloatArray:
    """(N, K) of (N,) or (N, K)."""
    matrix = np.asarray(inputs, np.float64)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ScoringError(f"inputs: found shape {np.shape(inputs)}, expected (N,) or (N, K)")
    if not np.isfinite(matrix).all():
        trial, column = np.argwhere(~np.isfinite(matrix))[0]
        raise ScoringError(
            f"inputs: column {column} of trial {trial} is {matrix[trial, column]}, expected a finite number"
        )
    return matrix


def _checked_data(inputs: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, NDArray[np.bool_]]:
    matrix, label = _checked_inputs(inputs), np.asarray(labels)
    if label.shape != (len(matrix),):
        raise ScoringError(f"labels: found {label.shape}, expected one for each of {len(matrix)} trials")
    target = label == 1
    if not (target | (label == 0)).all():
        raise ScoringError(f"labels: found {sorted(set(label.tolist()))[:5]}, expected 0 and 1")
    if target.all() or not target.any():
        raise ScoringError(
            f"labels: found {int(target.sum())} target and {int((~target).sum())} non-target trials, "
            "expected both kinds; calibrate on labelled trials of held-out training speakers"
        )
    return matrix, target


def _minimised(
    inputs: FloatArray, target: NDArray[np.bool_], p_target: float, l2: float
) -> tuple[FloatArray, float]:
    """(K,) weights and the bias of least prior-weighted cross-entropy; convex, so a descent finds it."""
    num_targets = int(target.sum())
    share = np.where(target, p_target / num_targets, (1 - p_target) / (len(target) - num_targets))
    sign = np.where(target, 1.0, -1.0)
    columns = np.column_stack([inputs, np.ones(len(inputs))])
    ridge = np.append(np.full(inputs.shape[1], l2), 0.0)
    prior = _logit(p_target)

    def cost(solution: FloatArray) -> float:
        losses = np.logaddexp(0.0, -sign * (columns @ solution + prior))
        return float(share @ losses + 0.5 * ridge @ solution**2)

    solution = np.zeros(columns.shape[1])
    current = cost(solution)
    for _ in range(_MAX_STEPS):
        wrong = probability(-sign * (columns @ solution + prior), 0.5)
        gradient = ridge * solution - columns.T @ (share * sign * wrong)
        # Far out on separable data the curvature of the bias vanishes; 1e-12 keeps the system solvable.
        curvature = (columns * (share * wrong * (1 - wrong))[:, None]).T @ columns + np.diag(ridge + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        decrease, size = float(gradient @ step), 1.0
        if decrease < 1e-20:
            break
        while cost(solution - size * step) > current - 1e-4 * size * decrease and size > 1e-10:
            size /= 2
        if size <= 1e-10:  # Rounding is all that is left.
            break
        solution = solution - size * step
        current = cost(solution)
    return solution[:-1], float(solution[-1])
