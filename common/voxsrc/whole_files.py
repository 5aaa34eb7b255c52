"""Whether a file of audio is whole, one recording and not too long, told from what its container states.

Decoders read many a cut file without a word, and only the first of several that were joined (`cat a b > c`).
Each check raises AudioError `truncated` or `undecodable`, and returns if the file is whole, is of another
format, or does not say.
"""

import re
import struct

from voxsrc.audio_format import end_of_id3
from voxsrc.errors import AudioError

# Of all channels: 4 GiB of float32, 18.6 hours at 16 kHz or 3.1 of stereo at 48 kHz.
MOST_SAMPLES = 1 << 30
# What a wav file gives as a size that was written into a pipe, or by a recorder that was killed.
UNKNOWN_WAV_SIZES = (0, 0xFFFF_FFFF, 0x7FFF_FFFF)

_WAV_START = re.compile(rb"R(?:IFF|F64).{4}WAVE", re.DOTALL)
_OGG_FIRST_PAGE, _OGG_LAST_PAGE = 0x02, 0x04
# A block with STREAMINFO, always the first and of 34 bytes, follows; it may be the last block, too.
_FLAC_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_LONGEST_EBML_NAME, _LONGEST_EBML_SIZE = 4, 8


def check_length(num_samples: int) -> None:
    """Refuses more samples, those of all channels, than memory should be asked for."""
    if num_samples > MOST_SAMPLES:
        raise AudioError(
            "undecodable",
            f"{num_samples} samples in all channels, by a damaged header perhaps; at most {MOST_SAMPLES} "
            "are decoded: cut a longer recording into parts",
        )


def whole_wav(data: bytes) -> bytes:
    """Compares the data chunk of a RIFF or RF64 file with the file's size.

    Returns:
        The file; one with 0 as the size of its data, though they follow, has their true size.
    """
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        return data
    position, long_size = 12, None
    file_size = struct.unpack_from("<I", data, 4)[0]
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"ds64" and position + 24 <= len(data):
            file_size, long_size = struct.unpack_from("<QQ", data, position + 8)
        if name == b"data":
            size = size if long_size is None else long_size
            start, end = position + 8, position + 8 + size
            # If by the file's size other chunks follow one of no bytes, that is empty indeed.
            if size in UNKNOWN_WAV_SIZES and (size or not start < 8 + file_size <= len(data)):
                if another := _WAV_START.search(data, start):
                    raise _joined(another.start())
                if size or long_size is not None:
                    return data
                return data[: start - 4] + struct.pack("<I", len(data) - start) + data[start:]
            if end > len(data):
                raise AudioError(
                    "truncated", f"{len(data) - start} bytes of {size} that the wav header declares"
                )
            if end < len(data) and (another_at := next_wav(data, 8 + file_size, end)):
                raise _joined(another_at)
            return data
        position += 8 + size + size % 2
    raise AudioError("truncated", "the wav file ends before its data chunk")


def next_wav(data: bytes, file_end: int, data_end: int) -> int:
    """Where another RIFF or RF64 file begins, 0 if none does.

    Args:
        data: The file.
        file_end: Its end by the size of RIFF, which some writers leave open, or never set right.
        data_end: The end of its data chunk, which a byte of padding may follow.
    """
    for position in (file_end, data_end, data_end + 1):
        if _WAV_START.match(data[position : position + 12]):
            return position
    return 0


def check_flac(data: bytes, start: int = 0) -> None:
    """Looks for the beginning of another stream than the first, at `start` or behind."""
    start = max(start, end_of_id3(data) + 4)
    # To search for bytes is many times as fast as for a pattern.
    while (start := data.find(b"fLaC", start)) >= 0:
        if _FLAC_START.match(data, start):
            raise _joined(start)
        start += 4


def check_ogg(data: bytes) -> None:
    """Walks the pages to the one marked as the last; the first ones of all streams must come first."""
    position, is_first, is_last = 0, True, False
    while data[position : position + 4] == b"OggS":
        num_segments = data[position + 26] if position + 26 < len(data) else 0
        body = position + 27 + num_segments
        end = body + sum(data[position + 27 : body])
        if end > len(data):
            raise AudioError("truncated", f"{len(data)} bytes; the Ogg page at {position} needs {end}")
        kind = data[position + 5]
        if kind & _OGG_FIRST_PAGE and not is_first:
            raise _joined(position)
        position, is_first, is_last = end, bool(kind & _OGG_FIRST_PAGE), bool(kind & _OGG_LAST_PAGE)
    if position and not is_last:
        raise AudioError(
            "truncated", f"the last Ogg page, which ends at {position}, is not marked as the last"
        )


def check_mp4(data: bytes) -> None:
    """Walks the outermost boxes to the end of the file, of which one alone tells what is in it."""
    position, names = 0, set[bytes]()
    while position < len(data):
        size, name = struct.unpack_from(">I4s", data.ljust(position + 16, b"\0"), position)
        if size == 0:  # by definition: up to the end of the file
            return
        if size == 1:
            size = struct.unpack_from(">Q", data.ljust(position + 16, b"\0"), position + 8)[0]
        if size < 8 or position + size > len(data):
            box = name.decode("ascii", "replace")
            raise AudioError("truncated", f"{len(data)} bytes; the box {box!r} at {position} needs {size}")
        # Of fragments each may be told anew, but of what type the file is once only.
        if name in names and (name == b"ftyp" or (name == b"moov" and b"moof" not in names)):
            raise _joined(position)
        names.add(name)
        position += size


def check_matroska(data: bytes) -> None:
    """Walks the outermost elements to the end of the segment; one written into a pipe has no size."""
    position, name = 0, b""
    while position < len(data) and name != _MATROSKA_SEGMENT:
        head = data[position : position + _LONGEST_EBML_NAME + _LONGEST_EBML_SIZE].ljust(16, b"\0")
        # The zero bits before the first one tell how many bytes a name or a size has (RFC 8794, section 4).
        name_length = 9 - head[0].bit_length()
        size_length = 9 - head[name_length].bit_length()
        if name_length > _LONGEST_EBML_NAME or size_length > _LONGEST_EBML_SIZE:
            return
        name = head[:name_length]
        unknown = (1 << 7 * size_length) - 1
        size = int.from_bytes(head[name_length : name_length + size_length]) & unknown
        if size == unknown:
            return
        end = position + name_length + size_length + size
        if end > len(data):
            raise AudioError(
                "truncated", f"{len(data)} bytes; the element {name.hex()} at {position} needs {end}"
            )
        position = end


def _joined(position: int) -> AudioError:
    return AudioError(
        "undecodable",
        f"another recording begins at byte {position}: several files joined; store each as a file of its own",
    )
