"""PLDA against the densities of normal distributions, and on data drawn from its own model."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

from voxsrc.scoring import Plda, ScoringError
from voxsrc.scoring.plda_fit import SpeakerStatistics, expectation_maximisation

FloatArray = NDArray[np.float64]
WITHIN = np.array([[1.0, 0.3, 0.0], [0.3, 0.6, -0.1], [0.0, -0.1, 0.4]])
BETWEEN = np.array([[2.0, -0.5, 0.2], [-0.5, 1.0, 0.3], [0.2, 0.3, 0.7]])
MEAN = np.array([1.0, -2.0, 0.5])


def drawn(num_speakers: int, seed: int = 0, most: int = 9) -> tuple[FloatArray, NDArray[np.int64]]:
    """Utterances of the two-covariance model, 1 to `most` of each speaker, shuffled."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, most + 1, num_speakers)
    labels = generator.permutation(np.repeat(np.arange(num_speakers), counts))
    speakers = generator.multivariate_normal(MEAN, BETWEEN, num_speakers)
    return speakers[labels] + generator.multivariate_normal(np.zeros(3), WITHIN, len(labels)), labels


def small(seed: int = 1) -> tuple[FloatArray, list[str]]:
    """Ten-dimensional utterances of 40 speakers."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(40), 6))
    speakers = generator.normal(size=(40, 10)) * np.linspace(0.1, 3, 10)
    vectors = speakers[labels] + generator.normal(size=(240, 10)) + 5
    return vectors, [f"speaker-{label}" for label in labels]


@pytest.mark.parametrize("lda_dim", [None, 4])
def test_the_ratio_is_that_of_the_densities(lda_dim: int | None) -> None:
    vectors, speakers = small()
    plda = Plda.fit(vectors.astype(np.float32), speakers, lda_dim=lda_dim)
    assert len(plda.mean) == (lda_dim or 10)
    inverse = np.linalg.inv(plda.transform)
    within, between = inverse @ inverse.T, (inverse * plda.between) @ inverse.T
    total = between + within
    same = multivariate_normal(np.tile(plda.mean, 2), np.block([[total, between], [between, total]]))
    other = multivariate_normal(plda.mean, total)
    generator = np.random.default_rng(2)
    first, second = generator.integers(0, 240, 200), generator.integers(0, 240, 200)
    x, y = plda.project(vectors)[first], plda.project(vectors)[second]
    expected = same.logpdf(np.hstack([x, y])) - other.logpdf(x) - other.logpdf(y)
    for block in (1, 64, 1000):
        np.testing.assert_allclose(plda.llr(vectors, first, second, block=block), expected, atol=1e-8)
    np.testing.assert_allclose(plda.llr(vectors, second, first), expected, atol=1e-8)


def test_the_projection_centres_and_scales() -> None:
    vectors, speakers = small()
    plda = Plda.fit(vectors, speakers, lda_dim=4)
    np.testing.assert_allclose(plda.centre, vectors.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(plda.project(vectors), axis=1), 2.0)
    # The variance grows from the first to the last dimension, and LDA knows it.
    weights = np.abs(plda.lda).mean(axis=0)
    assert weights[-4:].min() > 1.5 * weights[:4].max()


def test_same_speakers_score_higher() -> None:
    vectors, speakers = small()
    plda = Plda.fit(vectors[:120], speakers[:120])
    first, second = np.triu_indices(120, 1)
    first, second = first + 120, second + 120
    same = np.array([speakers[a] == speakers[b] for a, b in zip(first, second, strict=True)])
    ratios = plda.llr(vectors, first, second)
    assert ratios[same].mean() > 3 > 0 > ratios[~same].mean()
    assert ((ratios > 0) == same).mean() > 0.9


def log_likelihood(
    vectors: FloatArray, labels: NDArray[np.int64], mean: FloatArray, within: FloatArray, between: FloatArray
) -> float:
    total = 0.0
    for speaker in np.unique(labels):
        own = vectors[labels == speaker]
        covariance = np.kron(np.eye(len(own)), within) + np.kron(np.ones((len(own), len(own))), between)
        total += multivariate_normal.logpdf(own.ravel(), np.tile(mean, len(own)), covariance)
    return total


def test_expectation_maximisation_climbs_and_finds_the_covariances() -> None:
    def fitted(num_speakers: int, iterations: int) -> tuple[FloatArray, FloatArray, FloatArray, float]:
        vectors, labels = drawn(num_speakers)
        statistics = SpeakerStatistics.of(vectors, labels.astype(str), lambda part, _: part)
        mean, transform, variances = expectation_maximisation(statistics, iterations)
        inverse = np.linalg.inv(transform)
        within, between = inverse @ inverse.T, (inverse * variances) @ inverse.T
        likelihood = log_likelihood(vectors, labels, mean, within, between) if num_speakers < 100 else 0.0
        return mean, within, between, likelihood

    climbed = [fitted(30, iterations)[3] for iterations in range(8)]
    assert all(after >= before - 1e-9 for before, after in pairwise(climbed[1:]))
    assert climbed[-1] > climbed[0]
    mean, within, between, _ = fitted(6000, 10)
    np.testing.assert_allclose(mean, MEAN, atol=0.08)
    np.testing.assert_allclose(within, WITHIN, atol=0.03)
    np.testing.assert_allclose(between, BETWEEN, atol=0.1)


def test_too_little_to_fit_is_refused() -> None:
    vectors, speakers = small()
    cases = [
        (vectors, ["one"] * 240, {}, "found 1 speaker, expected at least 2"),
        (vectors, [str(i) for i in range(240)], {}, "one utterance of each of 240 speakers"),
        (vectors[:12], ["a", "b"] * 3 + list("cdefgh"), {}, "12 utterances of 8 speakers do not fill 10"),
        (np.repeat(vectors[:40], 6, axis=0), np.repeat(np.arange(40), 6).astype(str), {}, "do not fill 10"),
        (vectors, speakers, {"lda_dim": 11}, "lda_dim: found 11, expected 1 to 10"),
        (
            vectors,
            ["a", "b", "c"] * 80,
            {"lda_dim": 3},
            "lda_dim: found 3, expected fewer than the 3 speakers",
        ),
        (vectors, speakers, {"iterations": -1}, "iterations: found -1"),
        (vectors, speakers[:5], {}, "found 5, expected one for each of 240"),
    ]
    for data, labels, options, message in cases:
        with pytest.raises(ScoringError, match=message):
            Plda.fit(data, labels, **options)


def test_what_cannot_be_projected_is_refused() -> None:
    vectors, speakers = small()
    plda = Plda.fit(vectors, speakers)
    with pytest.raises(ScoringError, match="found 9 dimensions, expected the PLDA model's 10"):
        plda.llr(vectors[:, :9], [0], [1])
    with pytest.raises(ScoringError, match="row 1 equals the centre"):
        plda.project(np.stack([vectors[0], plda.centre]))
