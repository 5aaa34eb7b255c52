from fractions import Fraction

import numpy as np
import pytest

from audio_files import (
    LOSSLESS,
    LOSSY,
    encode_with_ffmpeg,
    encode_with_libsndfile,
    m4a,
    noise,
    tone,
    wav,
)
from voxsrc.audio import change_speed, decode, resample

PCM16_STEP = 1 / 32_768

# AAC comes in frames of 1,024 samples; outside MP4 and Matroska nothing says that the first is a lead-in.
DECODED_LENGTHS = {"m4a": 16_384, "m4a-moov-first": 16_384, "mka": 16_384, "aac": 17_408}
LEAD_IN = {"aac": 1_024}


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def peak_frequency_hz(waveform: np.ndarray, rate_hz: int) -> float:
    windowed = waveform * np.hanning(len(waveform))
    return float(np.abs(np.fft.rfft(windowed)).argmax() * rate_hz / len(waveform))


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_give_the_samples(name: str) -> None:
    samples = noise(1.0)
    recording = decode(LOSSLESS[name](samples, 16_000))
    assert recording.waveform.dtype == np.float32
    assert recording.waveform.shape == (16_000,)
    step = {"wav-24": 2.0**-23, "wav-float": 0.0}.get(name, PCM16_STEP)
    assert np.abs(recording.waveform - samples).max() <= step
    assert (recording.source_rate_hz, recording.num_channels, recording.num_clipped) == (16_000, 1, 0)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_formats_give_the_signal_in_its_place(name: str) -> None:
    rate_hz = 48_000 if name == "webm" else 16_000  # FFmpeg's Opus knows no other rate
    recording = decode(LOSSY[name](noise(1.0, rate_hz), rate_hz))
    assert len(recording.waveform) == DECODED_LENGTHS.get(name, 16_000)
    first = LEAD_IN.get(name, 0)
    expected = noise(1.0, rate_hz)[:: rate_hz // 16_000]
    assert (
        correlation(recording.waveform[first : first + 16_000], expected) > 0.95
    )  # one sample of delay makes it 0.8
    assert (recording.source_rate_hz, recording.num_channels) == (rate_hz, 1)


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "GSM610"),
        ("AIFF", "GSM610"),
        ("W64", "GSM610"),
        ("WAV", "G721_32"),
        ("AU", "G721_32"),
        ("AU", "G723_24"),
        ("AU", "G723_40"),
        ("WAV", "NMS_ADPCM_16"),
        ("WAV", "NMS_ADPCM_32"),
    ],
)
def test_codecs_of_telephony_in_which_libsndfile_cannot_seek(container: str, subtype: str) -> None:
    samples = tone(1.2, 8_000)  # whole blocks of all of them
    data = encode_with_libsndfile(samples, 8_000, container, subtype)
    recording = decode(data, sample_rate_hz=8_000)
    assert len(recording.waveform) == 9_600
    assert correlation(recording.waveform, samples) > 0.9


@pytest.mark.parametrize("name", ["wav-24", "wav-float", "wav-rf64", "flac", "mp3", "ogg", "opus"])
def test_long_recordings_are_read_in_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {**LOSSLESS, **LOSSY}[name](np.stack([noise(1.0), noise(1.0, seed=1)], axis=1), 16_000)
    at_once = decode(data).waveform
    monkeypatch.setattr("voxsrc.audio._BLOCK_SAMPLES", 2_002)
    assert np.array_equal(decode(data).waveform, at_once)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_keeps_duration_frequency_and_level(rate_hz: int) -> None:
    recording = decode(wav(tone(1.0, rate_hz, frequency_hz=1_000.0), rate_hz))
    assert recording.source_rate_hz == rate_hz
    assert len(recording.waveform) == 16_000
    assert peak_frequency_hz(recording.waveform, 16_000) == 1_000.0
    inner = recording.waveform[1_000:-1_000]
    assert np.abs(inner - tone(1.0, frequency_hz=1_000.0)[1_000:-1_000]).max() < 0.003


def test_resampling_removes_what_the_new_rate_cannot_hold() -> None:
    above_8_khz = decode(wav(tone(1.0, 44_100, frequency_hz=12_000.0), 44_100))
    assert np.abs(above_8_khz.waveform[1_000:-1_000]).max() < 0.01


def test_another_target_rate() -> None:
    assert len(decode(wav(tone(0.5)), sample_rate_hz=8_000).waveform) == 4_000


def test_channels_are_averaged_and_counted() -> None:
    left, right = tone(0.5, frequency_hz=300.0), tone(0.5, frequency_hz=700.0)
    recording = decode(wav(np.stack([left, right], axis=1)))
    assert recording.num_channels == 2
    assert np.abs(recording.waveform - (left + right) / 2).max() <= PCM16_STEP


def test_stereo_aac_at_44_1_khz() -> None:
    both = np.stack([noise(1.0, 44_100, seed=1), noise(1.0, 44_100, seed=2)], axis=1)
    recording = decode(m4a(both, 44_100))
    assert (recording.source_rate_hz, recording.num_channels) == (44_100, 2)
    expected = resample(both.mean(axis=1), Fraction(16_000, 44_100))
    assert correlation(recording.waveform[: len(expected)], expected) > 0.95


def test_pcm_in_an_mp4_container_is_converted() -> None:
    samples = noise(0.5)
    as_mov = encode_with_ffmpeg(samples, 16_000, "mov", "pcm_f32le")
    assert np.array_equal(decode(as_mov).waveform, samples)


def test_overshoot_is_limited_and_counted() -> None:
    samples = tone(0.5)
    samples[100:110], samples[200] = 1.2, -1.5
    recording = decode(wav(samples, subtype="FLOAT"))
    assert recording.num_clipped == 11
    assert (recording.waveform.max(), recording.waveform.min()) == (1.0, -1.0)


def test_flac_of_undeclared_length_is_read_to_its_end() -> None:
    # What `ffmpeg … -f flac -` writes into a pipe: STREAMINFO without a number of samples and an MD5.
    samples = noise(1.0)
    data = bytearray(encode_with_libsndfile(samples, 16_000, "FLAC", "PCM_16"))
    data[21] &= 0xF0
    data[22:42] = bytes(20)
    assert np.abs(decode(bytes(data)).waveform - samples).max() <= PCM16_STEP


def test_wav_of_undeclared_length_is_read_to_its_end() -> None:
    data = bytearray(wav(tone(0.5)))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert len(decode(bytes(data)).waveform) == 8_000


def test_titles_in_another_encoding_do_no_harm() -> None:
    data = bytearray(m4a(noise(0.5)))
    written = data.index(b"Lavf")  # the encoder's name, as text
    data[written : written + 4] = "é".encode("latin-1") * 4
    assert len(decode(bytes(data)).waveform) == 8_192


@pytest.mark.parametrize(("speed", "frequency_hz"), [(Fraction(9, 10), 396.0), (Fraction(11, 10), 484.0)])
def test_speed_changes_duration_and_pitch(speed: Fraction, frequency_hz: float) -> None:
    faster = change_speed(tone(1.0, frequency_hz=440.0), speed)
    assert faster.dtype == np.float32
    assert len(faster) == -(-16_000 * speed.denominator // speed.numerator)
    assert peak_frequency_hz(faster, 16_000) == pytest.approx(frequency_hz, abs=1.0)
