"""Frames of MPEG audio, layer III (mp3), told from their headers (ISO/IEC 11172-3 and 13818-3)."""

import re

from voxsrc.audio_format import end_of_id3
from voxsrc.errors import AudioError

# By the header's two bits for the version: 2.5, none, 2, 1.
_RATE_DIVISORS = (4, 0, 2, 1)
_RATES_HZ = (44_100, 48_000, 32_000)
_KBITS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_LAYER_3 = 1
# Sync, version and layer III; then bit and sample rate, of which the greatest numbers mean none.
_LIKE_A_FRAME = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xeb]")
# A name; flags, the lowest of which says that the number of frames follows, or ten other bytes; that number.
_NUM_FRAMES = re.compile(rb"(?:(?:Xing|Info)...(.)|VBRI.{10})(.{4})", re.DOTALL)
_ID3V1_BYTES = 128
# An encoder's padding at the end, which a decoder need not read, is less.
_FRAMES_OF_AUDIO = 4


def begins_mp3(data: bytes) -> bool:
    """Whether the file, behind its tags, begins with frames of audio."""
    return _begins_audio(data, _end_of_tags(data, 0))


def states_length(data: bytes) -> bool:
    """Whether the first frame says how many follow; if not, a decoder guesses by the file's size."""
    start = _first_frame(data)
    stated = _NUM_FRAMES.search(data, start, start + _frame_bytes(data[start : start + 4]))
    return stated is not None and any(stated[2]) and (stated[1] is None or bool(stated[1][0] & 1))


def mp3_goes_on(data: bytes, start: int) -> bool:
    """Whether frames with audio begin at `start` or behind."""
    return _next_audio(data, start) < len(data)


def frames_alone(data: bytes) -> bytes:
    """All whole frames, without the tags in front of them, between and behind.

    Raises:
        AudioError: `undecodable`: there is none, or something else lies between them.
    """
    position, frames = _first_frame(data), bytearray()
    while length := _frame_bytes(data[position : position + 4]):
        if position + length <= len(data):
            frames += data[position : position + length]
        position = _end_of_tags(data, position + length)
    if not frames:
        raise AudioError("undecodable", "no whole frame of MPEG audio, layer III")
    if mp3_goes_on(data, position):
        raise AudioError("undecodable", f"what begins at byte {position} is no frame, and frames follow")
    return bytes(frames)


def _first_frame(data: bytes) -> int:
    """Where it begins, be it behind tags and what else a decoder passes over; the end if there is none."""
    start = _end_of_tags(data, 0)
    return start if _frame_bytes(data[start : start + 4]) else _next_audio(data, start)


def _next_audio(data: bytes, start: int) -> int:
    """Where the next frames with audio begin, at `start` or behind; the end if there are none."""
    found = (match.start() for match in _LIKE_A_FRAME.finditer(data, start))
    return next((position for position in found if _begins_audio(data, position)), len(data))


def _end_of_tags(data: bytes, position: int) -> int:
    """Where the ID3 tags end, of versions 1 and 2, that begin at `position`."""
    end = end_of_id3(data, position)
    while data.startswith(b"TAG", end):
        end = end_of_id3(data, end + _ID3V1_BYTES)
    return end


def _begins_audio(data: bytes, position: int) -> bool:
    for _ in range(_FRAMES_OF_AUDIO):
        length = _frame_bytes(data[position : position + 4])
        if not length:
            return False
        position += length
    return True


def _frame_bytes(header: bytes) -> int:
    """The length of the frame with this header, 0 if it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0 or header[1] >> 1 & 3 != _LAYER_3:
        return 0
    divisor = _RATE_DIVISORS[header[1] >> 3 & 3]
    kbits, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if not divisor or not 1 <= kbits <= len(_KBITS_1) or rate >= len(_RATES_HZ):
        return 0
    bits_per_s = 1_000 * (_KBITS_1 if divisor == 1 else _KBITS_2)[kbits - 1]
    num_samples = 1_152 if divisor == 1 else 576
    return num_samples // 8 * bits_per_s * divisor // _RATES_HZ[rate] + padding
