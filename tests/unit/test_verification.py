"""Verification and identification: scores, calibrated decisions, and what is said about the audio."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest

from audio_files import noise, tone, wav
from tiny_models import EMBEDDING_DIM, make_model
from voxsrc.embedding.embedder import Embedder
from voxsrc.errors import ConfigError, CorpusError, NotFoundError
from voxsrc.identification import Enrollment, identify
from voxsrc.models.stored import ModelError, load_model
from voxsrc.scoring import LogisticCalibration, ScoringError
from voxsrc.verification import VerificationError, Verifier

CALIBRATION = LogisticCalibration(
    ("score",), (20.0,), -8.0, fitted_on={"scoring": "cosine of whole utterances", "trials": 1000}
)


@pytest.fixture
def model(tmp_path: Path) -> str:
    make_model(tmp_path / "model", calibration=CALIBRATION.to_dict())
    return str(tmp_path / "model")


@pytest.fixture
def verifier(model: str) -> Verifier:
    return Verifier.load(model)


@pytest.fixture
def uncalibrated(tmp_path: Path) -> Verifier:
    make_model(tmp_path / "uncalibrated")
    return Verifier.load(str(tmp_path / "uncalibrated"))


def recording(path: Path, *, seed: int = 0, seconds: float = 1.0, rate_hz: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav(noise(seconds, rate_hz, seed=seed), rate_hz))
    return path


def test_a_comparison_is_the_cosine_and_its_calibration(verifier: Verifier, tmp_path: Path) -> None:
    first = recording(tmp_path / "a.wav", seed=1)
    (tmp_path / "b.wav").write_bytes(wav(tone(0.8, frequency_hz=900.0)))
    a, b = verifier.embed(first).astype(float), verifier.embed(str(tmp_path / "b.wav")).astype(float)
    assert a.shape == (EMBEDDING_DIM,)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    answer = verifier.compare(first, tmp_path / "b.wav", prior=0.2)
    assert answer.score == pytest.approx(cosine)
    assert answer.score == pytest.approx(verifier.compare(tmp_path / "b.wav", first).score)
    llr = 20.0 * cosine - 8.0
    assert answer.llr == pytest.approx(llr)
    assert answer.probability == pytest.approx(1 / (1 + 4 * math.exp(-llr)))
    # Equal costs: accept from odds of one to one, a ratio of 4.
    assert answer.threshold == pytest.approx((math.log(4) + 8) / 20)
    assert answer.accepted == (answer.probability >= 0.5)
    same = verifier.compare(first, first)
    assert same.score == pytest.approx(1.0) and same.accepted


def test_prior_costs_and_a_given_score_move_the_threshold(verifier: Verifier, tmp_path: Path) -> None:
    pair = [recording(tmp_path / f"{seed}.wav", seed=seed) for seed in (1, 2)]
    even = verifier.compare(*pair)
    assert even.threshold == pytest.approx(0.4)
    assert verifier.compare(*pair, prior=0.05).threshold == pytest.approx(0.4 + math.log(19) / 20)
    assert verifier.compare(*pair, c_miss=10.0).threshold == pytest.approx(0.4 - math.log(10) / 20)
    assert verifier.compare(*pair, c_fa=10.0).threshold == pytest.approx(0.4 + math.log(10) / 20)
    for least in (even.score - 1e-6, even.score + 1e-6):
        given = verifier.compare(*pair, min_score=least)
        assert (given.threshold, given.accepted) == (least, least < even.score)
        assert given.probability == even.probability
    for prior in (0.0, 1.0, float("nan")):
        with pytest.raises(ScoringError, match="prior"):
            verifier.compare(*pair, prior=prior)
    with pytest.raises(ConfigError, match=r"threshold is 50; expected a cosine from -1 to 1"):
        verifier.compare(*pair, min_score=50)


def test_without_calibration_there_is_a_score_and_no_decision(uncalibrated: Verifier, tmp_path: Path) -> None:
    pair = [recording(tmp_path / f"{seed}.wav", seed=seed) for seed in (1, 2)]
    answer = uncalibrated.compare(*pair)
    assert -1 <= answer.score <= 1
    assert answer.llr is answer.probability is answer.threshold is answer.accepted is None
    assert uncalibrated.compare(*pair, min_score=-1.0).accepted is True


def test_telephone_audio_is_scored_with_a_warning(
    verifier: Verifier, model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    narrow, wide = recording(tmp_path / "8k.wav", rate_hz=8_000), recording(tmp_path / "16k.wav")
    recording(tmp_path / "48k.wav", rate_hz=48_000)
    answer = verifier.compare(narrow, wide)
    assert answer.probability is not None
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    for part in (
        "8k.wav has a sample rate of 8000 Hz",
        "above 4000 Hz",
        "at 16000 Hz",
        "unreliable",
        "give the",
    ):
        assert part in record.getMessage()
    said: list[str] = []
    Verifier.load(model, on_warning=said.append).compare(tmp_path / "48k.wav", narrow)
    assert [message.split()[0] for message in said] == [str(narrow)]


def test_several_channels_are_averaged_and_that_is_said(
    verifier: Verifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left, right = noise(1.0, seed=1), noise(1.0, seed=2)
    (tmp_path / "stereo.wav").write_bytes(wav(np.stack([left, right], axis=1), subtype="FLOAT"))
    (tmp_path / "mono.wav").write_bytes(wav((left + right) / 2, subtype="FLOAT"))
    score = verifier.compare(tmp_path / "stereo.wav", tmp_path / "mono.wav").score
    assert score == pytest.approx(1.0, abs=1e-5)
    [record] = caplog.records
    assert "stereo.wav has 2 channels, which are averaged" in record.getMessage()


def test_recordings_that_cannot_be_used(verifier: Verifier, tmp_path: Path) -> None:
    good = recording(tmp_path / "good.wav")
    (tmp_path / "silent.wav").write_bytes(wav(np.zeros(16_000, np.float32)))
    (tmp_path / "text.wav").write_bytes(b"not audio at all")
    recording(tmp_path / "short.wav", seconds=0.101)
    for name, reason in (("silent", "silent"), ("text", "undecodable"), ("short", "too_short")):
        with pytest.raises(VerificationError, match=rf"{name}.wav cannot be used: {reason}: "):
            verifier.compare(good, tmp_path / f"{name}.wav")
    with pytest.raises(NotFoundError, match=r"none\.wav"):
        verifier.compare(good, tmp_path / "none.wav")


def test_a_recording_of_hours_is_refused_before_it_fills_the_memory(model: str, tmp_path: Path) -> None:
    embedder = Embedder(load_model(model), max_frames=50)
    verifier = Verifier(embedder, None)
    recording(tmp_path / "podcast.wav", seconds=1.0)
    with pytest.raises(VerificationError) as caught:
        verifier.embed(tmp_path / "podcast.wav")
    message = str(caught.value)
    assert "podcast.wav cannot be used: too_long: 98 frames, at most 50" in message
    assert message.endswith("cut the recording") and "give a recording of speech" not in message
    assert verifier.embed(recording(tmp_path / "short.wav", seconds=0.4)).shape == (EMBEDDING_DIM,)


def test_calibrations_that_do_not_fit(tmp_path: Path) -> None:
    for name, fields, message in (
        ("unknown", {"weight": 1.0}, r"calibration.*weight"),
        (
            "falling",
            {**CALIBRATION.to_dict(), "weights": [-20.0]},
            "expected one positive weight, of a cosine",
        ),
        ("fused", {**CALIBRATION.to_dict(), "inputs": ["a", "b"], "weights": [1.0, 1.0]}, "inputs a, b"),
        ("plda", {**CALIBRATION.to_dict(), "fitted_on": {"scoring": "PLDA"}}, "fitted on scores by PLDA"),
    ):
        make_model(tmp_path / name, calibration=fields)
        with pytest.raises(ModelError, match=message):
            Verifier.load(str(tmp_path / name))


def test_the_enrolled_are_ranked_by_their_mean_cosine(verifier: Verifier, tmp_path: Path) -> None:
    for speaker, seeds in (("bob", (4,)), ("ann", (1, 2, 3)), ("eve", (5, 6))):
        for seed in seeds:
            recording(tmp_path / f"known/{speaker}/session/{seed}.wav", seed=seed, seconds=0.5 + 0.1 * seed)
    enrolled = verifier.enroll(str(tmp_path / "known"))
    assert enrolled.speaker_ids == ["ann", "bob", "eve"]
    assert enrolled.num_utterances == [3, 1, 2]
    assert enrolled.unusable == {}
    probe = recording(tmp_path / "probe.wav", seed=9)
    cosines = {
        speaker: np.mean(
            [verifier.compare(probe, path).score for path in (tmp_path / "known" / speaker).rglob("*.wav")]
        )
        for speaker in enrolled.speaker_ids
    }
    found = verifier.identify(probe, enrolled, prior=0.3)
    assert [c.speaker_id for c in found.candidates] == sorted(cosines, key=lambda s: -cosines[s])
    for candidate in found.candidates:
        assert candidate.score == pytest.approx(cosines[candidate.speaker_id], abs=1e-6)
    weights = {speaker: 0.1 * math.exp(20 * cosine - 8) for speaker, cosine in cosines.items()}
    total = sum(weights.values()) + 0.7
    for candidate in found.candidates:
        assert candidate.probability == pytest.approx(weights[candidate.speaker_id] / total, rel=1e-4)
    assert found.probability_of_none == pytest.approx(0.7 / total, rel=1e-4)
    assert found.threshold == pytest.approx((math.log(7) + 8) / 20)
    assert verifier.identify(probe, enrolled, top=1).candidates == [
        verifier.identify(probe, enrolled).candidates[0]
    ]


def test_a_stranger_is_none_of_these() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((4, 64)).astype(np.float32)
    enrolled = Enrollment.of(vectors, ["a", "b", "c", "a"], {})

    def answer(embedding: np.ndarray, least: float | None = None, calibrated: bool = True) -> str | None:
        calibration = CALIBRATION if calibrated else None
        return identify(embedding, enrolled, calibration, top=5, prior=0.5, min_score=least).speaker_id

    noisy = vectors[2] + 0.1 * rng.standard_normal(64).astype(np.float32)
    stranger = rng.standard_normal(64).astype(np.float32)
    assert answer(noisy) == "c" and answer(7 * noisy) == "c"
    assert answer(stranger) is None
    assert answer(stranger, least=-1.0) is not None
    assert answer(noisy, least=0.9999) is None
    assert answer(noisy, calibrated=False) is None
    assert answer(noisy, least=0.9, calibrated=False) == "c"


def test_the_threshold_rises_with_the_number_of_enrolled() -> None:
    vectors = np.random.default_rng(3).standard_normal((100, 16)).astype(np.float32)
    for count in (1, 10, 100):
        enrolled = Enrollment.of(vectors[:count], [f"s{n:03d}" for n in range(count)], {})
        found = identify(vectors[0], enrolled, CALIBRATION, top=3, prior=0.5, min_score=None)
        assert found.threshold == pytest.approx((math.log(count) + 8) / 20)
        assert len(found.candidates) == min(3, count)
    with pytest.raises(ConfigError, match="top is 0"):
        identify(vectors[0], enrolled, CALIBRATION, top=0, prior=0.5, min_score=None)


def test_enrolments_that_cannot_be_used(
    verifier: Verifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(VerificationError, match=r"empty has no recordings to enroll; give a folder"):
        verifier.enroll(str(tmp_path / "empty"))
    with pytest.raises(NotFoundError):
        verifier.enroll(str(tmp_path / "none"))
    recording(tmp_path / "flat/a.wav")
    with pytest.raises(CorpusError, match=r"flat: 'a.wav' is not speaker/\[session/\]file"):
        verifier.enroll(str(tmp_path / "flat"))
    recording(tmp_path / "bad/ann/a.wav").write_bytes(b"nothing")
    with pytest.raises(
        VerificationError,
        match=r"none of the 1 recordings of .*bad is usable \(1 undecodable\); give .*\nann/a.wav",
    ):
        verifier.enroll(str(tmp_path / "bad"))
    recording(tmp_path / "bad/bob/b.wav")
    caplog.clear()
    enrolled = verifier.enroll(str(tmp_path / "bad"))
    assert enrolled.speaker_ids == ["bob"]
    assert list(enrolled.unusable) == ["ann/a.wav"]
    assert (
        "1 of 2 recordings cannot be used and are left out, the first is ann/a.wav (undecodable"
        in caplog.text
    )


def test_enrolled_embeddings_are_kept(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording(tmp_path / "known/ann/a.wav")
    verifier = Verifier.load(model, cache_uri=str(tmp_path / "cache"))
    first = verifier.enroll(str(tmp_path / "known"))
    monkeypatch.setattr("voxsrc.embedding.audio_features.decode", None)
    np.testing.assert_array_equal(verifier.enroll(str(tmp_path / "known")).means, first.means)
