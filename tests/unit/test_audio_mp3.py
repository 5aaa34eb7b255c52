"""mp3 files that do not say how long they are, with tags: their frames are decoded, all and nothing else."""

import re

import numpy as np
import pytest

from audio_files import LOSSY, encode_with_ffmpeg, noise
from voxsrc.audio import decode
from voxsrc.errors import AudioError
from voxsrc.mp3_frames import frames_alone, states_length

ID3 = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
ID3_WITH_PICTURE = b"ID3\x03\x00\x00\x00\x01\x74\x00" + bytes(31_232)
APE = b"APETAGEX\xd0\x07\x00\x00" + bytes(500)
LYRICS = b"LYRICSBEGININD0000200000021LYRICS200TAG" + bytes(125)


def without_header(data: bytes) -> bytes:
    """An mp3 file (16 kHz) without tags in front and the frame that says how many follow."""
    header = re.search(b"Xing|Info", data)
    assert header is not None
    return data[data.index(b"\xff\xf3", header.start()) :]


CONSTANT = without_header(encode_with_ffmpeg(noise(0.5), 16_000, "mp3", "libmp3lame"))
LOUD_FIRST = without_header(LOSSY["mp3"](noise(0.5), 16_000))
QUIET_FIRST = without_header(LOSSY["mp3"](np.append(np.zeros(8_000, np.float32), noise(0.5)), 16_000))


@pytest.mark.parametrize("tag", [ID3, ID3_WITH_PICTURE])
def test_a_tag_in_front_does_not_count_as_audio(tag: bytes) -> None:
    decoded, bare = decode(tag + CONSTANT).waveform, decode(CONSTANT).waveform
    assert len(decoded) == len(bare)
    assert np.abs(decoded - bare).max() < 1e-5


@pytest.mark.parametrize("following", [b"\0", b"abc", bytes(4_096), LYRICS, APE, ID3, b"<html></html>"])
@pytest.mark.parametrize("data", [CONSTANT, LOUD_FIRST, QUIET_FIRST], ids=["constant", "loud", "quiet"])
def test_nor_does_what_follows_the_audio(data: bytes, following: bytes) -> None:
    decoded, bare = decode(data + following).waveform, decode(data).waveform
    assert len(decoded) == len(bare)
    assert np.abs(decoded - bare).max() < 1e-5


def test_a_quiet_beginning_does_not_make_a_file_too_short() -> None:
    assert 16_000 <= len(decode(QUIET_FIRST).waveform) < 16_000 + 4 * 576


def test_where_the_length_is_stated_less_is_truncated() -> None:
    for data in (
        LOSSY["mp3"](noise(0.5), 16_000),
        encode_with_ffmpeg(noise(0.5), 16_000, "mp3", "libmp3lame"),
    ):
        assert states_length(data)
        with pytest.raises(AudioError, match=r"truncated: \d+ samples of \d+ that the header declares"):
            decode(data[: len(data) * 3 // 4])


@pytest.mark.parametrize("tag", [ID3, b""])
def test_a_header_may_leave_the_length_open(tag: bytes) -> None:
    data = tag + LOSSY["mp3"](noise(0.5), 16_000)
    header = data.index(b"Xing")
    assert states_length(data)
    assert not states_length(data[: header + 7] + bytes([data[header + 7] & 0xFE]) + data[header + 8 :])
    assert not states_length(data[: header + 8] + bytes(4) + data[header + 12 :])
    assert not states_length(tag + CONSTANT)


def test_the_last_frame_may_be_cut() -> None:
    assert 0 < len(decode(CONSTANT).waveform) - len(decode(ID3 + CONSTANT[:-50]).waveform) <= 2 * 576


def test_frames_behind_something_else_are_not_lost_unsaid() -> None:
    second = without_header(LOSSY["mp3"](noise(0.5, seed=1), 16_000))
    for between in (APE, LYRICS, bytes(4_096)):
        with pytest.raises(AudioError, match=f"undecodable: .*byte {len(CONSTANT)} is no frame"):
            decode(CONSTANT + between + second)


def test_frames_alone() -> None:
    assert frames_alone(ID3 + CONSTANT + ID3 * 2 + b"TAG" + bytes(125) + CONSTANT + APE) == 2 * CONSTANT
    assert frames_alone(ID3 + bytes(20) + CONSTANT) == CONSTANT
    with pytest.raises(AudioError, match="no whole frame of MPEG audio, layer III"):
        frames_alone(ID3 + APE)
