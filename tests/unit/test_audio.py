import io
import random
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from audio_files import LOSSLESS, LOSSY, encode_with_ffmpeg, encode_with_libsndfile, m4a, noise, tone, wav
from voxsrc.audio import change_speed, decode, resample
from voxsrc.errors import AudioError

PCM16_STEP = 1 / 32_768

# AAC comes in frames of 1,024 samples; outside MP4 and Matroska nothing says that the first is a lead-in.
DECODED_LENGTHS = {"m4a": 16_384, "m4a-moov-first": 16_384, "mka": 16_384, "aac": 17_408}
LEAD_IN = {"aac": 1_024}


def reason_of(data: bytes, **options: float) -> str:
    with pytest.raises(AudioError) as caught:
        decode(data, **options)  # type: ignore[arg-type]
    return caught.value.reason


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


@pytest.mark.parametrize(("speed", "frequency_hz"), [(Fraction(9, 10), 396.0), (Fraction(11, 10), 484.0)])
def test_speed_changes_duration_and_pitch(speed: Fraction, frequency_hz: float) -> None:
    faster = change_speed(tone(1.0, frequency_hz=440.0), speed)
    assert faster.dtype == np.float32
    assert len(faster) == -(-16_000 * speed.denominator // speed.numerator)
    assert peak_frequency_hz(faster, 16_000) == pytest.approx(frequency_hz, abs=1.0)
