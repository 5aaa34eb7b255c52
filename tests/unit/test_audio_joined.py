"""Several recordings in one file, as `cat a b > c` makes them: decoded whole, or rejected."""

import random
from typing import NoReturn

import numpy as np
import pytest

from audio_files import LOSSLESS, LOSSY, encode_with_ffmpeg, noise, reason_of, wav
from voxsrc.audio import decode
from voxsrc.errors import AudioError
from voxsrc.whole_files import check_mp4

ID3 = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)


def encoded(name: str, *, seed: int = 0, duration_s: float = 0.5) -> bytes:
    return {**LOSSLESS, **LOSSY}[name](noise(duration_s, seed=seed), 16_000)


@pytest.mark.parametrize(
    "name", ["wav", "wav-24", "wav-float", "wav-rf64", "flac", "ogg", "opus", "m4a", "m4a-moov-first"]
)
@pytest.mark.parametrize("following_s", [0.11, 2.0])
def test_joined_files_are_rejected(name: str, following_s: float) -> None:
    first, second = encoded(name), encoded(name, seed=1, duration_s=following_s)
    with pytest.raises(AudioError, match="undecodable: another recording begins at byte ") as caught:
        decode(first + second)
    position = int(caught.value.detail.split("byte ")[1].split(":")[0])
    assert len(first) <= position < len(first + second)
    assert "store each as a file of its own" in caught.value.detail


def test_a_flac_stream_of_unknown_length_and_another_are_rejected() -> None:
    data = bytearray(encoded("flac"))
    data[21] &= 0xF0
    data[22:42] = bytes(20)
    with pytest.raises(AudioError, match=f"another recording begins at byte {len(data)}:"):
        decode(bytes(data) + encoded("flac", seed=1))


@pytest.mark.parametrize("end", [8_192 + n for n in (-70, -9, -8, -7, -2, -1, 0, 1, 2, 7, 8, 9, 70)])
def test_joined_flac_streams_are_found_wherever_the_first_one_ends(end: int) -> None:
    """What is read ahead of the samples depends on it."""
    first, second = encoded("flac"), encoded("flac", seed=1, duration_s=0.11)
    num_zeros = (end - len(first) - 4) % 8_192
    padded = first[:42] + b"\x01" + num_zeros.to_bytes(3) + bytes(num_zeros) + first[42:]  # a PADDING block
    assert len(padded) % 8_192 == end % 8_192
    assert len(decode(padded).waveform) == 8_000
    for following in (second, 10 * second):
        with pytest.raises(AudioError, match=f"another recording begins at byte {len(padded)}:"):
            decode(padded + following)


@pytest.mark.parametrize("tags", [b"TAG" + bytes(125), ID3, ID3 * 2])
@pytest.mark.parametrize("name", ["flac", "mp3"])
def test_tags_are_no_second_recording(name: str, tags: bytes) -> None:
    assert len(decode(encoded(name) + tags).waveform) == 8_000
    if tags == ID3:
        assert len(decode(tags + encoded(name)).waveform) == 8_000


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 44_100, 48_000])
def test_joined_mp3_files_of_each_kind_of_frame(rate_hz: int) -> None:
    parts = [LOSSY["mp3"](noise(0.5, rate_hz, seed=seed), rate_hz) for seed in range(2)]
    assert len(decode(parts[0] + parts[1]).waveform) >= 16_000 - 1


@pytest.mark.parametrize("seed", range(3))
def test_pictures_behind_an_mp3_file_are_no_second_recording(seed: int) -> None:
    picture = random.Random(seed).randbytes(200_000)
    for data in (encoded("mp3"), encode_with_ffmpeg(noise(0.506), 16_000, "mp3", "libmp3lame")):
        tagged = data + b"APETAGEX" + picture
        assert np.array_equal(decode(tagged).waveform, decode(data).waveform)


@pytest.mark.parametrize("between", [b"", b"TAG" + bytes(125)])
def test_joined_mp3_files_are_decoded_to_the_end(between: bytes) -> None:
    joined = decode(encoded("mp3") + between + encoded("mp3", seed=1)).waveform
    assert 16_000 <= len(joined) < 16_000 + 4 * 576
    assert np.abs(joined[:8_000] - decode(encoded("mp3")).waveform).max() < 1e-5
    second = decode(encoded("mp3", seed=1)).waveform
    assert max(np.correlate(joined[8_000:], second, "valid")) > 0.9 * float(second @ second)


def test_joined_mp3_files_with_tags_in_front_of_each_are_decoded_to_the_end() -> None:
    tagged = encode_with_ffmpeg(noise(0.5), 16_000, "mp3", "libmp3lame")
    assert tagged.startswith(b"ID3")
    assert 16_000 <= len(decode(tagged + tagged).waveform) < 16_000 + 4 * 576


def test_joined_mp3_files_of_several_sample_rates_are_rejected() -> None:
    parts = [LOSSY["mp3"](noise(0.5, rate_hz), rate_hz) for rate_hz in (44_100, 16_000)]
    for first, second in (parts, parts[::-1]):
        with pytest.raises(
            AudioError, match=r"undecodable: .*its sample rate changes .* files joined, store each as a file"
        ):
            decode(first + second)


def test_an_mp3_file_whose_bit_rate_changes_without_a_header_that_says_so_is_read_to_its_end() -> None:
    data = encoded("mp3", duration_s=1.0)
    frame = data.index(b"\xff\xf3", data.index(b"Xing"))
    assert 16_000 <= len(decode(data[frame:]).waveform) < 16_000 + 4 * 576


def test_padding_at_the_end_of_an_mp3_file_is_no_other_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes, demuxer: str) -> NoReturn:
        raise AssertionError("libsndfile has read all that counts")

    monkeypatch.setattr("voxsrc.audio.decode_with_ffmpeg", refuse)
    for duration_s in np.arange(0.5, 0.54, 0.003):  # one of them ends just before a frame of padding
        assert len(decode(encoded("mp3", duration_s=duration_s)).waveform) == round(16_000 * duration_s)
        decode(encode_with_ffmpeg(noise(duration_s), 16_000, "mp3", "libmp3lame"))


@pytest.mark.parametrize("rates_hz", [(16_000, 44_100), (44_100, 16_000)])
def test_aac_whose_sample_rate_changes_is_rejected(rates_hz: tuple[int, int]) -> None:
    first, second = (LOSSY["aac"](noise(0.3, rate_hz), rate_hz) for rate_hz in rates_hz)
    with pytest.raises(AudioError, match="undecodable: its sample rate changes within the file"):
        decode(first + second)


def test_joined_aac_streams_are_decoded_to_the_end() -> None:
    parts = [encoded("aac", seed=seed) for seed in range(2)]
    for joined in (b"".join(parts), ID3 + parts[0] + ID3 + parts[1]):
        assert len(decode(joined).waveform) == sum(len(decode(part).waveform) for part in parts)


def test_fragments_may_each_tell_anew_what_is_in_them() -> None:
    box = b"\x00\x00\x00\x08"
    check_mp4(box + b"ftyp" + (box + b"moov" + box + b"moof") * 2)
    with pytest.raises(AudioError, match="another recording"):
        check_mp4(box + b"ftyp" + box + b"moov" + box + b"moov")
    with pytest.raises(AudioError, match="another recording begins at byte 24:"):
        check_mp4((box + b"ftyp" + box + b"moov" + box + b"moof") * 2)


def test_chunks_behind_the_audio_are_no_second_recording() -> None:
    data = wav(noise(0.5))
    listed = data[:4] + (len(data) + 8).to_bytes(4, "little") + data[8:] + b"LIST\x08\x00\x00\x00RIFFWAVE"
    assert len(decode(listed).waveform) == 8_000
    assert reason_of(listed + data) == "undecodable"


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("file_size", [0, 36, 10**7, 0xFFFF_FFFF])
def test_wav_files_of_a_wrong_size_and_another_are_rejected(subtype: str, file_size: int) -> None:
    first, second = wav(noise(0.5), subtype=subtype), wav(noise(0.5, seed=1), subtype=subtype)
    first = first[:4] + file_size.to_bytes(4, "little") + first[8:]
    assert np.array_equal(decode(first).waveform, decode(wav(noise(0.5), subtype=subtype)).waveform)
    with pytest.raises(AudioError, match=f"undecodable: another recording begins at byte {len(first)}:"):
        decode(first + second)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize(
    ("file_size", "data_size"), [(0, 0), (36, 0), (10**7, 0), (0xFFFF_FFFF, 0), (0xFFFF_FFFF, 0xFFFF_FFFF)]
)
def test_a_wav_file_without_sizes_is_read_to_its_end_unless_another_follows(
    subtype: str, file_size: int, data_size: int
) -> None:
    whole = wav(noise(0.5), subtype=subtype)
    at = whole.index(b"data") + 4
    piped = bytearray(whole)
    piped[4:8], piped[at : at + 4] = file_size.to_bytes(4, "little"), data_size.to_bytes(4, "little")
    assert np.array_equal(decode(bytes(piped)).waveform, decode(whole).waveform)
    with pytest.raises(AudioError, match=f"undecodable: another recording begins at byte {len(whole)}:"):
        decode(bytes(piped) + whole)


def test_a_wav_file_that_says_that_it_is_empty_is_empty() -> None:
    empty, listed = wav(noise(0.5)[:0]), b"LIST" + (8_000).to_bytes(4, "little") + bytes(range(250)) * 32
    data = empty[:4] + (len(empty) + len(listed) - 8).to_bytes(4, "little") + empty[8:] + listed
    assert reason_of(data) == "too_short"
