"""Cosine, mean distance and AS-norm against plain loops in float64; trials as rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voxsrc.corpus import TrialList
from voxsrc.errors import CorpusError
from voxsrc.scoring import (
    CohortStatistics,
    ScoringError,
    UnknownUtterancesError,
    as_norm,
    centred,
    cohort_statistics,
    cosine_scores,
    duplicated_trials,
    length_normalised,
    magnitudes,
    mean_distance_scores,
    mean_embedding,
    pairs_of,
    speaker_means,
)

seeds = st.integers(0, 2**32 - 1)


def embeddings(seed: int, *shape: int) -> NDArray[np.float32]:
    """Random vectors with a common offset, of different lengths, as networks make them."""
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal(shape) + generator.standard_normal(shape[-1])
    return (vectors * generator.uniform(0.1, 50, (*shape[:-1], 1))).astype(np.float32)


def pairs(seed: int, num_trials: int, num_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, num_rows, num_trials), generator.integers(0, num_rows, num_trials)


def unit(vector: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = vector.astype(np.float64)
    return exact / np.sqrt((exact * exact).sum())


def test_cosine_agrees_with_a_loop_whatever_the_block() -> None:
    vectors = embeddings(1, 60, 32)
    first, second = pairs(2, 500, 60)
    expected = [unit(vectors[a]) @ unit(vectors[b]) for a, b in zip(first, second, strict=True)]
    for block in (1, 7, 500, 10_000):
        scores = cosine_scores(vectors, first, second, block=block)
        assert scores.dtype == np.float64
        np.testing.assert_allclose(scores, expected, atol=1e-12)
    assert len(cosine_scores(vectors, [], [])) == 0


@settings(max_examples=30)
@given(seed=seeds, scale=st.floats(1e-30, 1e30))
def test_scores_know_neither_scale_nor_order(seed: int, scale: float) -> None:
    crops = embeddings(seed, 8, 3, 5)
    first, second = pairs(seed, 20, 8)
    scaled = crops.astype(np.float64) * scale
    for score, of, scaled_of in (
        (cosine_scores, crops[:, 0], scaled[:, 0]),
        (mean_distance_scores, crops, scaled),
    ):
        expected = score(of, first, second)
        np.testing.assert_allclose(score(scaled_of, first, second), expected, atol=1e-7)
        np.testing.assert_allclose(score(of, second, first), expected, atol=1e-12)
    # Rounding must not lead past the ends, where an arccosine or a square root would be NaN.
    itself = np.arange(8)
    assert (cosine_scores(crops[:, 0], itself, itself) <= 1).all()
    np.testing.assert_allclose(cosine_scores(crops[:, 0], itself, itself), 1, atol=1e-12)
    np.testing.assert_allclose(mean_distance_scores(crops[:, :1], itself, itself), 0, atol=1e-7)


def test_mean_distance_agrees_with_a_loop() -> None:
    crops = embeddings(3, 9, 4, 16)
    first, second = pairs(4, 70, 9)
    expected = [
        -np.mean([[np.linalg.norm(unit(x) - unit(y)) for y in crops[b]] for x in crops[a]])
        for a, b in zip(first, second, strict=True)
    ]
    for block in (1, 64):
        scores = mean_distance_scores(crops, first, second, block=block)
        np.testing.assert_allclose(scores, expected, atol=1e-7)


def as_norm_by_loop(
    vectors: NDArray[np.float32],
    cohort: NDArray[np.float64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    top_k: int,
) -> list[float]:
    statistics = []
    for vector in vectors:
        scores = sorted(float(unit(vector) @ (other / np.linalg.norm(other))) for other in cohort)[-top_k:]
        mean = sum(scores) / top_k
        statistics.append((mean, (sum((score - mean) ** 2 for score in scores) / top_k) ** 0.5))
    normalised = []
    for a, b in zip(first, second, strict=True):
        score = float(unit(vectors[a]) @ unit(vectors[b]))
        (mean_a, std_a), (mean_b, std_b) = statistics[a], statistics[b]
        normalised.append(0.5 * ((score - mean_a) / std_a + (score - mean_b) / std_b))
    return normalised


@pytest.mark.parametrize(("seed", "top_k"), [(5, 2), (6, 30), (7, 90)])
def test_as_norm_agrees_with_a_float64_loop(seed: int, top_k: int) -> None:
    vectors, training = embeddings(seed, 40, 64), embeddings(seed + 100, 400, 64)
    speaker_ids = [f"s{i % 90:03d}" for i in range(400)]
    cohort = speaker_means(training, speaker_ids)
    exact = np.array(
        [
            np.mean([unit(v) for v, s in zip(training, speaker_ids, strict=True) if s == speaker], axis=0)
            for speaker in sorted(set(speaker_ids))
        ]
    )
    np.testing.assert_allclose(cohort, exact, atol=1e-12)
    first, second = pairs(seed, 300, 40)
    expected = as_norm_by_loop(vectors, exact, first, second, top_k)
    raw = cosine_scores(vectors, first, second)
    for block, threads in ((1, 1), (7, 3), (1024, None)):
        statistics = cohort_statistics(vectors, cohort, top_k=top_k, block=block, num_threads=threads)
        scores = as_norm(raw, first, second, statistics)
        np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(as_norm(raw, second, first, statistics), scores, atol=1e-12)


def test_as_norm_agrees_at_full_size_of_embedding_and_cohort() -> None:
    vectors, cohort = embeddings(8, 12, 256), embeddings(9, 5994, 256)
    first, second = pairs(10, 60, 12)
    statistics = cohort_statistics(vectors, cohort)
    assert statistics.mean.dtype == statistics.std.dtype == np.float64
    scores = as_norm(cosine_scores(vectors, first, second), first, second, statistics)
    expected = as_norm_by_loop(vectors, cohort.astype(np.float64), first, second, 300)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=50)
@given(seed=seeds, slope=st.floats(0.01, 100), offset=st.floats(-10, 10))
def test_as_norm_undoes_an_affine_map_of_scores(seed: int, slope: float, offset: float) -> None:
    generator = np.random.default_rng(seed)
    scores, mean, std = generator.normal(size=30), generator.normal(size=6), generator.uniform(0.1, 2, 6)
    first, second = pairs(seed, 30, 6)
    expected = as_norm(scores, first, second, CohortStatistics(mean, std))
    mapped = CohortStatistics(slope * mean + offset, slope * std)
    np.testing.assert_allclose(
        as_norm(slope * scores + offset, first, second, mapped), expected, rtol=1e-6, atol=1e-6
    )


def test_speakers_may_come_in_any_order() -> None:
    training = embeddings(11, 9000, 4)
    speaker_ids = np.array([f"s{i}" for i in np.random.default_rng(1).integers(0, 50, 9000)])
    cohort = speaker_means(training, speaker_ids)
    shuffled = np.random.default_rng(2).permutation(9000)
    np.testing.assert_allclose(speaker_means(training[shuffled], speaker_ids[shuffled]), cohort, atol=1e-7)


def test_centring_and_lengths() -> None:
    vectors = embeddings(12, 30, 8)
    mean = mean_embedding(vectors)
    np.testing.assert_allclose(mean, vectors.astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(centred(vectors, mean).mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(magnitudes(vectors), np.linalg.norm(vectors, axis=1), rtol=1e-6)
    np.testing.assert_allclose(magnitudes(length_normalised(vectors)), 1, atol=1e-6)
    with pytest.raises(ScoringError, match=r"centre: found shape \(7,\), expected \(8,\)"):
        centred(vectors, mean[:7])


def test_bad_embeddings_are_refused_by_row() -> None:
    for value, message in (
        (0.0, "row 5 has length zero"),
        (np.nan, "row 5 holds NaN"),
        (np.inf, "row 5 holds"),
    ):
        vectors = embeddings(13, 3000, 4)
        vectors[5] = value
        for work in (
            lambda v=vectors: cosine_scores(v, [0], [1]),
            lambda v=vectors: speaker_means(v, ["s"] * 3000),
            lambda v=vectors: cohort_statistics(v, embeddings(1, 9, 4), top_k=2),
        ):
            with pytest.raises(ScoringError, match=f"embeddings: {message}"):
                work()
        with pytest.raises(ScoringError, match="cohort: row 5"):
            cohort_statistics(embeddings(1, 9, 4), vectors, top_k=2)
    crops = embeddings(14, 4, 3, 5)
    crops[2, 1] = 0
    with pytest.raises(ScoringError, match="row 2, crop 1, has length zero"):
        mean_distance_scores(crops, [0], [1])
    with pytest.raises(ScoringError, match=r"found shape \(0, 4\), expected 2 axes"):
        cosine_scores(np.empty((0, 4)), [], [])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0, 1], [0], "found \\(2,\\) first and \\(1,\\) second"),
        ([0, 3], [0, 1], "the first row of trial 1 is 3, expected one of the 3"),
        ([0, 1], [-1, 1], "the second row of trial 0 is -1"),
        ([0.5], [1], "type float64, expected whole numbers"),
    ],
)
def test_bad_trials_are_refused(first: list[int], second: list[int], message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        cosine_scores(embeddings(15, 3, 4), first, second)


def test_what_as_norm_refuses() -> None:
    vectors, cohort = embeddings(16, 5, 4), embeddings(17, 20, 4)
    with pytest.raises(ScoringError, match="top_k: found 21, expected 2 to 20"):
        cohort_statistics(vectors, cohort, top_k=21)
    with pytest.raises(ScoringError, match="top_k: found 1, expected 2"):
        cohort_statistics(vectors, cohort, top_k=1)
    with pytest.raises(ScoringError, match="cohort: found 3 dimensions, expected the embeddings' 4"):
        cohort_statistics(vectors, cohort[:, :3], top_k=5)
    with pytest.raises(ScoringError, match=r"row 0 scores .* \(5 such rows\)"):
        cohort_statistics(vectors, np.repeat(cohort[:1], 20, axis=0), top_k=5)
    with pytest.raises(ScoringError, match="block: found 0"):
        cohort_statistics(vectors, cohort, top_k=5, block=0)
    with pytest.raises(ScoringError, match="found 3, expected one for each of 5 utterances"):
        speaker_means(vectors, ["a", "b", "c"])
    statistics = cohort_statistics(vectors, cohort, top_k=5)
    with pytest.raises(ScoringError, match="found shape \\(2,\\), expected one for each of 1"):
        as_norm([0.1, 0.2], [0], [1], statistics)
    with pytest.raises(ScoringError, match="that of trial 0 is nan"):
        as_norm([np.nan], [0], [1], statistics)


def test_trials_become_rows() -> None:
    trials = TrialList(np.array([1, 0], np.int8), ["a", "c"], ["b", "a"])
    first, second = pairs_of(trials, ["c", "b", "a", "unused"])
    assert first.dtype == second.dtype == np.int64
    assert (first.tolist(), second.tolist()) == ([2, 0], [1, 2])
    with pytest.raises(CorpusError, match="1 utterances have several embeddings, the first 'a'"):
        pairs_of(trials, ["a", "b", "a", "c"])


def test_all_unknown_utterances_are_counted_and_known() -> None:
    enrollments = [f"new{i}" for i in range(14)] + ["a", "a"]
    trials = TrialList(None, enrollments, ["a"] * 14 + ["new3", "b"])
    with pytest.raises(UnknownUtterancesError) as caught:
        pairs_of(trials, ["a", "b"])
    assert caught.value.utterance_ids == [f"new{i}" for i in range(14)]
    assert caught.value.num_trials == 15
    message = str(caught.value)
    assert "15 of 16 trials name 14 utterances" in message
    assert "new9\n" in message and "new10" not in message
    assert "… and 4 more" in message
    with pytest.raises(UnknownUtterancesError) as caught:
        pairs_of(TrialList(None, ["x"], ["a"]), ["a"])
    assert str(caught.value).endswith("\nx")


def test_duplicated_trials_are_found_in_either_order() -> None:
    labels = np.array([1, 0, 1, 0, 0, 1], np.int8)
    trials = TrialList(labels, ["a", "a", "b", "c", "a", "d"], ["b", "c", "a", "a", "b", "e"])
    found = duplicated_trials(trials)
    assert [(d.enrollment, d.test, d.positions, d.labels) for d in found] == [
        ("a", "b", (0, 2, 4), (0, 1)),
        ("a", "c", (1, 3), (0,)),
    ]
    assert duplicated_trials(TrialList(None, ["a", "a"], ["b", "b"]))[0].labels == ()
    assert duplicated_trials(TrialList(labels[:2], ["a", "a"], ["b", "c"])) == []
