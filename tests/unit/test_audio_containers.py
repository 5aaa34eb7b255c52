"""The same codecs in other containers, and containers behind tags."""

import random
import struct

import numpy as np
import pytest

from audio_files import LOSSLESS, LOSSY, encode_with_ffmpeg, noise, reason_of
from voxsrc.audio import decode

ID3 = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
WITH_FOOTER = b"ID3\x04\x00\x10\x00\x00\x01\x00" + bytes(128) + b"3DI\x04\x00\x10\x00\x00\x01\x00"
OGG_FLAC = encode_with_ffmpeg(noise(1.0), 16_000, "ogg", "flac")


def ogg_page(number: int, kind: int, end_at: int, packet: bytes) -> bytes:
    """A page with one packet, and its CRC (RFC 3533, section 6); `end_at` is the number of samples so far."""
    page = struct.pack("<4sBBqIIIBB", b"OggS", 0, kind, end_at, 1, number, 0, 1, len(packet)) + packet
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C1_1DB7 if crc >> 31 else 0)) & 0xFFFF_FFFF
    return page[:22] + struct.pack("<I", crc) + page[26:]


def speex(num_frames: int) -> bytes:
    """Narrow band of 8 kbit/s (mode 3: 20 bytes for 160 samples), of chance."""
    chance = random.Random(0)
    fields = (1, 80, 8_000, 0, 4, 1, -1, 160, 0, 1, 0, 0, 0)
    pages = [
        ogg_page(0, 2, 0, struct.pack("<8s20s13i", b"Speex   ", b"1.2", *fields)),
        ogg_page(1, 0, 0, bytes(8)),
    ]
    for n in range(num_frames):
        kind = 4 if n == num_frames - 1 else 0
        packet = bytes([0b0001_1000 | chance.randrange(8)]) + chance.randbytes(19)
        pages.append(ogg_page(n + 2, kind, 160 * (n + 1), packet))
    return b"".join(pages)


def test_flac_in_ogg() -> None:
    recording = decode(OGG_FLAC)
    assert recording.waveform.shape == (16_000,)
    assert np.abs(recording.waveform - noise(1.0)).max() <= 1 / 32_768


def test_speex_in_ogg() -> None:
    recording = decode(speex(20), sample_rate_hz=8_000)
    assert (len(recording.waveform), recording.source_rate_hz) == (20 * 160, 8_000)


@pytest.mark.parametrize("data", [OGG_FLAC, speex(20)], ids=["flac", "speex"])
def test_cut_and_joined_files_in_ogg_are_rejected(data: bytes) -> None:
    for fraction in (0.1, 0.5, 0.8, 0.95):
        assert reason_of(data[: int(fraction * len(data))]) == "truncated"
    assert reason_of(data[:-1]) == "truncated"
    assert reason_of(data + data) == "undecodable"


@pytest.mark.parametrize("tags", [ID3, ID3 * 2, WITH_FOOTER], ids=["one", "two", "with-footer"])
def test_aac_behind_tags(tags: bytes) -> None:
    data = LOSSY["aac"](noise(0.5), 16_000)
    assert np.array_equal(decode(tags + data).waveform, decode(data).waveform)


def test_flac_of_undeclared_length_behind_a_tag() -> None:
    data = bytearray(LOSSLESS["flac"](noise(0.5), 16_000))
    data[21] &= 0xF0
    data[22:42] = bytes(20)
    assert len(decode(ID3 + bytes(data)).waveform) == 8_000


@pytest.mark.parametrize("size", [1, 3, 9, 10, 11, 100])
def test_a_tag_alone_is_no_audio(size: int) -> None:
    assert reason_of(ID3[:size]) == "undecodable"
