"""Frames of MPEG audio, layer III (mp3), told from their headers (ISO/IEC 11172-3 and 13818-3)."""

from voxsrc.audio_format import end_of_id3

# By the header's two bits for the version: 2.5, none, 2, 1.
_RATE_DIVISORS = (4, 0, 2, 1)
_RATES_HZ = (44_100, 48_000, 32_000)
_KBITS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_LAYER_3 = 1
_ID3V1_BYTES = 128
# An encoder's padding at the end, which a decoder need not read, is less.
_FRAMES_OF_AUDIO = 4


def mp3_goes_on(data: bytes, start: int) -> bool:
    """Whether frames with audio begin at `start`, be it behind tags."""
    if data.startswith(b"TAG", start):
        start += _ID3V1_BYTES
    position = end_of_id3(data, start)
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
