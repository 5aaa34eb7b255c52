"""Embeddings straight from audio: as of the features of it, and what is wrong with a file is said."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from audio_files import m4a, noise, wav
from tiny_models import EMBEDDING_DIM
from voxsrc import storage
from voxsrc.audio import decode
from voxsrc.embedding import CROPS, EmbeddingError
from voxsrc.embedding.embedder import Embedder
from voxsrc.errors import CorpusError
from voxsrc.features.scipy_log_mel import LogMelExtractor
from voxsrc.models.stored import StoredModel

SECONDS = {"a/s/1.wav": 0.9, "b/s/2.wav": 1.3, "a/s/3.wav": 0.9, "c/t/4.wav": 0.7}


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    for seed, (name, seconds) in enumerate(SECONDS.items()):
        put(tmp_path / "audio" / name, wav(noise(seconds, seed=seed)))
    return tmp_path / "audio"


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def expected(model: StoredModel, content: bytes) -> np.ndarray:
    extract = LogMelExtractor(model.description.spec)
    return Embedder(model).embed_features(extract(decode(content).waveform))


@pytest.mark.parametrize("where", ["folder", "tar.gz", "bucket"])
def test_any_source_gives_the_embeddings_of_its_features(
    where: str, model: StoredModel, audio: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    uri = str(audio)
    if where == "tar.gz":
        uri = str(tmp_path / "audio.tar.gz")
        with tarfile.open(uri, "w:gz") as archive:
            archive.add(audio, "wav")
    elif where == "bucket":
        uri = f"{request.getfixturevalue('bucket')}/audio"
        for name in SECONDS:
            storage.write_bytes(f"{uri}/{name}", (audio / name).read_bytes())
    # Backwards: a compressed tar is read forwards all the same.
    ids = list(SECONDS)[::-1]
    found, report = Embedder(model).embed_audio(uri, ids)
    assert found.utterance_ids == ids
    for row, name in enumerate(ids):
        vector = expected(model, (audio / name).read_bytes())
        np.testing.assert_allclose(found.vectors[row], vector, rtol=0, atol=1e-5 * np.abs(vector).max())
        assert found.num_frames[row] == model.description.spec.num_frames(round(16_000 * SECONDS[name]))
    assert report.reasons == {} and report.notes(model.description.spec) == []


def test_small_windows_change_nothing(
    model: StoredModel, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = Embedder(model).embed_audio(str(audio), list(SECONDS))
    monkeypatch.setattr("voxsrc.embedding.windows._WINDOW_FRAMES", 100)
    parts, _ = Embedder(model).embed_audio(str(audio), list(SECONDS))
    np.testing.assert_allclose(parts.vectors, whole.vectors, rtol=0, atol=1e-5)


def test_crops_of_short_audio_are_looped(model: StoredModel, audio: Path) -> None:
    put(audio / "d/s/5.wav", wav(noise(0.12, seed=9)))
    found, _ = Embedder(model, mode=CROPS).embed_audio(str(audio), ["d/s/5.wav"])
    assert found.vectors.shape == (1, 10, EMBEDDING_DIM)
    assert np.ptp(found.vectors, axis=1).max() < 1e-5


def test_all_unusable_files_are_named_with_the_reason(model: StoredModel, audio: Path) -> None:
    least = model.description.spec.hop_samples * (model.encoder.min_frames - 2) + 400
    put(audio / "d/s/short.wav", wav(noise(least / 16_000, seed=5)))
    put(audio / "d/s/cut.wav", (audio / "a/s/1.wav").read_bytes()[:-100])
    put(audio / "d/s/silent.wav", wav(np.zeros(16_000, np.float32)))
    bad = {"d/s/short.wav": "too_short", "d/s/cut.wav": "truncated", "d/s/silent.wav": "silent"}
    with pytest.raises(EmbeddingError) as caught:
        Embedder(model).embed_audio(str(audio), [*bad, *SECONDS])
    assert {name: reason.split(":")[0] for name, reason in caught.value.reasons.items()} == bad
    assert "3 of 7 utterances" in str(caught.value)
    assert "(1 silent, 1 too_short, 1 truncated)" in str(caught.value)


def test_a_recording_that_is_too_long_is_named_with_the_reason(model: StoredModel, audio: Path) -> None:
    with pytest.raises(EmbeddingError) as caught:
        Embedder(model, max_frames=100).embed_audio(str(audio), list(SECONDS))
    frames = model.description.spec.num_frames(round(16_000 * 1.3))
    [(name, reason)] = caught.value.reasons.items()
    assert (name, reason.partition(",")[0]) == ("b/s/2.wav", f"too_long: {frames} frames")
    found, report = Embedder(model, mode=CROPS, max_frames=100).embed_audio(str(audio), list(SECONDS))
    assert len(found) == 4 and report.reasons == {}


def test_missing_files_are_all_named_before_any_is_read(model: StoredModel, audio: Path) -> None:
    (audio / "a/s/1.wav").write_bytes(b"never read")
    with pytest.raises(EmbeddingError, match=r"2 of 6 utterances .* \(2 missing\)") as caught:
        Embedder(model).embed_audio(str(audio), [*SECONDS, "x/s/1.wav", "y/s/1.wav"])
    assert list(caught.value.reasons) == ["x/s/1.wav", "y/s/1.wav"]
    with pytest.raises(CorpusError, match="none of the first 1 listed utterances"):
        Embedder(model).embed_audio(str(audio), ["x/s/1.wav"])
    with pytest.raises(EmbeddingError, match="1 repeated"):
        Embedder(model).embed_audio(str(audio), ["c/t/4.wav", "c/t/4.wav"])


def test_other_rates_and_channels_are_reported(model: StoredModel, audio: Path) -> None:
    put(audio / "e/s/8k.wav", wav(noise(1.0, 8_000), 8_000))
    put(audio / "e/s/44k.m4a", m4a(np.stack([noise(1.0, 44_100)] * 2, axis=1), 44_100))
    found, report = Embedder(model).embed_audio(str(audio), ["e/s/8k.wav", "e/s/44k.wav"])
    assert len(found) == 2
    low, high, stereo = report.notes(model.description.spec)
    assert "1 utterances resampled from 8000 to 16000 Hz; they have no energy above 4000 Hz" in low
    assert "unreliable" in low
    assert high == "1 utterances resampled from 44100 to 16000 Hz"
    assert stereo == "1 utterances of several channels averaged to one"


def test_kept_embeddings_go_by_the_audio_and_not_by_its_name(
    model: StoredModel, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder(model, cache_uri=str(tmp_path / "cache"))
    first, _ = embedder.embed_audio(str(audio), list(SECONDS))
    (audio / "a/s/1.wav").rename(audio / "a/s/renamed.wav")
    put(audio / "b/s/2.wav", wav(noise(1.3, seed=77)))
    decoded: list[int] = []
    monkeypatch.setattr(
        "voxsrc.embedding.audio_features.decode",
        lambda data, **options: (decoded.append(len(data)), decode(data, **options))[1],
    )
    ids = ["a/s/renamed.wav", "b/s/2.wav", "c/t/4.wav"]
    second, _ = embedder.embed_audio(str(audio), ids)
    assert len(decoded) == 1
    np.testing.assert_array_equal(second.vectors[[0, 2]], first.vectors[[0, 3]])
    assert second.num_frames.tolist() == first.num_frames[[0, 1, 3]].tolist()
    changed = expected(model, (audio / "b/s/2.wav").read_bytes())
    np.testing.assert_allclose(second.vectors[1], changed, rtol=0, atol=1e-5 * np.abs(changed).max())
