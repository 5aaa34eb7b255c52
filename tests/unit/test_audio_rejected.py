"""Recordings that are unusable, damaged, cut short or too long, and decoders that fail."""

import io
import random
import struct
import tracemalloc
from collections.abc import Callable
from typing import NoReturn

import av
import numpy as np
import pytest

from audio_files import (
    LOSSLESS,
    LOSSY,
    encode_with_ffmpeg,
    encode_with_libsndfile,
    m4a,
    noise,
    reason_of,
    tone,
    wav,
)
from voxsrc.audio import decode
from voxsrc.errors import AudioError

PCM16_STEP = 1 / 32_768


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"\x00", "undecodable"),
        (b"This is a letter, not a recording.\n" * 40, "undecodable"),
        (random.Random(1).randbytes(4_000), "undecodable"),
        (wav(np.zeros(16_000, np.float32)), "silent"),
        (wav(np.full(16_000, PCM16_STEP, np.float32)), "silent"),
        (wav(np.full(16_000, np.nan, np.float32), subtype="FLOAT"), "non_finite"),
        (wav(np.append(tone(0.5), np.float32(np.nan)), subtype="FLOAT"), "non_finite"),
        (wav(np.append(tone(0.5), np.float32(-np.inf)), subtype="FLOAT"), "non_finite"),
        (wav(32_768 * tone(0.5), subtype="FLOAT"), "out_of_range"),
        (wav(tone(0.05)), "too_short"),
        (wav(tone(0.05, 8_000), 8_000), "too_short"),
        (wav(np.empty(0, np.float32)), "too_short"),
        (m4a(tone(0.02)), "too_short"),
        (encode_with_ffmpeg(tone(0.5), 7, "mov", "pcm_f32le"), "undecodable"),
    ],
    ids=[
        "empty", "one-byte", "text", "random-bytes", "zeros", "one-bit", "nan", "one-nan", "infinity",
        "scale-of-16-bit", "50-ms", "50-ms-at-8-khz", "no-samples", "20-ms-of-aac", "rate-of-7-hz",
    ],
)  # fmt: skip
def test_unusable_recordings_are_rejected_with_their_reason(data: bytes, expected: str) -> None:
    assert reason_of(data) == expected


def test_the_shortest_duration_is_an_option() -> None:
    assert len(decode(wav(tone(0.05)), min_duration_s=0.05).waveform) == 800
    assert reason_of(wav(tone(0.05)), min_duration_s=0.051) == "too_short"
    assert reason_of(wav(np.empty(0, np.float32)), min_duration_s=0.0) == "too_short"


# libsndfile and FFmpeg read most of these without a complaint.
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("name", ["wav", "wav-24", "wav-float", "wav-rf64", "m4a", "m4a-moov-first"])
def test_cut_wav_and_mp4_files_are_truncated(name: str, fraction: float) -> None:
    data = {**LOSSLESS, **LOSSY}[name](noise(1.0), 16_000)
    assert reason_of(data[: int(fraction * len(data))]) == "truncated"


def test_a_file_cut_by_one_byte_is_truncated() -> None:
    for data in (wav(tone(0.5)), m4a(noise(0.5)), m4a(noise(0.5), moov_first=True)):
        assert reason_of(data[:-1]) == "truncated"


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("name", ["flac", "mp3", "ogg", "opus", "aac", "mka", "webm"])
def test_cut_files_of_other_formats_are_rejected(name: str, fraction: float) -> None:
    rate_hz = 48_000 if name == "webm" else 16_000
    data = {**LOSSLESS, **LOSSY}[name](noise(3.0, rate_hz), rate_hz)
    assert reason_of(data[: int(fraction * len(data))]) in ("truncated", "undecodable", "too_short")


def test_a_truncated_file_says_how_much_is_missing() -> None:
    with pytest.raises(AudioError, match=r"^truncated: 7956 bytes of 16000 that the wav header declares$"):
        decode(wav(tone(0.5))[:8_000])


def test_mp4_without_audio_is_undecodable() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        output.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(AudioError, match="undecodable: a mov file without an audio stream"):
        decode(file.getvalue())


def test_aac_whose_channels_change_is_undecodable() -> None:
    mono = encode_with_ffmpeg(noise(0.3), 16_000, "adts", "aac")
    stereo = encode_with_ffmpeg(np.stack([noise(0.3)] * 2, axis=1), 16_000, "adts", "aac")
    with pytest.raises(AudioError, match="undecodable: its number of channels changes within the file"):
        decode(mono + stereo)


def test_an_unknown_codec_is_undecodable() -> None:
    data = LOSSY["mka"](noise(0.5), 16_000)
    with pytest.raises(
        AudioError, match="undecodable: a matroska file whose audio codec FFmpeg does not know"
    ):
        decode(data.replace(b"A_AAC", b"A_XYZ", 1))


def test_a_header_that_declares_terabytes_costs_nothing() -> None:
    data = bytearray(encode_with_libsndfile(noise(0.5), 16_000, "FLAC", "PCM_16"))
    data[21] |= 0x0F  # the highest bits of STREAMINFO's number of samples
    with pytest.raises(
        AudioError, match=r"undecodable: the header declares 64424517440 samples in \d+ bytes"
    ):
        decode(bytes(data))


def declaring(data: bytes, num_samples: int) -> bytes:
    """A flac file whose STREAMINFO gives another number of samples."""
    changed = bytearray(data)
    changed[21] = changed[21] & 0xF0 | num_samples >> 32
    changed[22:26] = (num_samples & 0xFFFF_FFFF).to_bytes(4)
    return bytes(changed)


def test_memory_is_asked_for_as_samples_come_not_as_a_header_declares() -> None:
    data = encode_with_libsndfile(noise(1.0), 16_000, "FLAC", "PCM_16")
    damaged = declaring(data, 8_000 * len(data))
    tracemalloc.start()
    try:
        assert reason_of(damaged) == "truncated"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80e6 < 4 * 8_000 * len(data)


def test_a_recording_too_long_for_the_memory_is_refused_by_its_header() -> None:
    data = encode_with_libsndfile(noise(16.0), 16_000, "FLAC", "PCM_16")
    num_samples = 1 << 30
    assert reason_of(declaring(data, num_samples)) == "truncated"
    with pytest.raises(AudioError, match=r"undecodable: 1073741825 samples in all channels, .* 1073741824"):
        decode(declaring(data, num_samples + 1))


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_the_most_samples_of_all_channels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_hz = 48_000 if name == "webm" else 16_000
    data = {**LOSSLESS, **LOSSY}[name](np.stack([noise(0.5, rate_hz), noise(0.5, rate_hz)], axis=1), rate_hz)
    length = 2 * len(decode(data).waveform) * rate_hz // 16_000
    monkeypatch.setattr("voxsrc.whole_files.MOST_SAMPLES", length + 4 * 2_048)
    decode(data)
    monkeypatch.setattr("voxsrc.whole_files.MOST_SAMPLES", length - 4 * 2_048)
    assert reason_of(data) == "undecodable"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("a surprise"), r"^undecodable: ValueError: a surprise \(16044 bytes\)$"),
        (MemoryError(), r"^undecodable: not enough memory to decode its 16044 bytes$"),
    ],
)
def test_what_goes_wrong_in_a_decoder_is_that_recordings_fault(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxsrc.audio._decode", failing_with(error))
    with pytest.raises(AudioError, match=message) as caught:
        decode(wav(tone(0.5)))
    assert caught.value.__cause__ is error


def test_an_interrupt_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxsrc.audio._decode", failing_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        decode(wav(tone(0.5)))


def failing_with(error: BaseException) -> Callable[[bytes], NoReturn]:
    def fail(data: bytes) -> NoReturn:
        raise error

    return fail


def test_a_hostile_wav_chunk_does_not_loop() -> None:
    head = struct.pack("<4sI4s", b"RIFF", 100, b"WAVE") + struct.pack("<4sI", b"junk", 0xFFFF_FFF0)
    assert reason_of(head + bytes(64)) == "truncated"


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_damaged_files_are_decoded_or_rejected_never_more(name: str) -> None:
    rate_hz = 48_000 if name == "webm" else 16_000
    data = {**LOSSLESS, **LOSSY}[name](noise(0.3, rate_hz), rate_hz)
    chance = random.Random(name)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 1, 2, 8])):
            end = 600 if chance.random() < 0.8 else len(data)  # the headers, mostly
            damaged[chance.randrange(min(end, len(data)))] = chance.choice(
                [0, 0x7F, 0xFF, chance.randrange(256)]
            )
        try:
            waveform = decode(bytes(damaged)).waveform
        except AudioError as error:
            assert error.reason and error.detail
        else:
            assert np.isfinite(waveform).all()
            assert np.abs(waveform).max() <= 1.0
