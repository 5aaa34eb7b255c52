"""Whether a file of audio is whole, told from the sizes that its container states.

Decoders read many a cut file without a word. Each function raises AudioError `truncated`, and returns if the
file is whole, is of another format, or does not say.
"""

import struct

from voxsrc.errors import AudioError

# What a wav file that was written into a pipe gives as a size.
UNKNOWN_WAV_SIZES = (0, 0xFFFF_FFFF, 0x7FFF_FFFF)

_OGG_LAST_PAGE = 0x04
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_LONGEST_EBML_NAME, _LONGEST_EBML_SIZE = 4, 8


def check_wav(data: bytes) -> None:
    """Compares the data chunk of a RIFF or RF64 file with the file's size."""
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        return
    position, long_size = 12, None
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"ds64" and position + 24 <= len(data):
            long_size = struct.unpack_from("<Q", data, position + 16)[0]
        if name == b"data":
            size = size if long_size is None else long_size
            if size not in UNKNOWN_WAV_SIZES and position + 8 + size > len(data):
                raise AudioError(
                    "truncated", f"{len(data) - position - 8} bytes of {size} that the wav header declares"
                )
            return
        position += 8 + size + size % 2
    raise AudioError("truncated", "the wav file ends before its data chunk")


def check_ogg(data: bytes) -> None:
    """Walks the pages to the one marked as the last."""
    position, is_last = 0, False
    while data[position : position + 4] == b"OggS":
        num_segments = data[position + 26] if position + 26 < len(data) else 0
        body = position + 27 + num_segments
        end = body + sum(data[position + 27 : body])
        if end > len(data):
            raise AudioError("truncated", f"{len(data)} bytes; the Ogg page at {position} needs {end}")
        position, is_last = end, bool(data[position + 5] & _OGG_LAST_PAGE)
    if position and not is_last:
        raise AudioError(
            "truncated", f"the last Ogg page, which ends at {position}, is not marked as the last"
        )


def check_mp4(data: bytes) -> None:
    """Walks the outermost boxes to the end of the file."""
    position = 0
    while position < len(data):
        size, name = struct.unpack_from(">I4s", data.ljust(position + 16, b"\0"), position)
        if size == 0:  # by definition: up to the end of the file
            return
        if size == 1:
            size = struct.unpack_from(">Q", data.ljust(position + 16, b"\0"), position + 8)[0]
        if size < 8 or position + size > len(data):
            box = name.decode("ascii", "replace")
            raise AudioError("truncated", f"{len(data)} bytes; the box {box!r} at {position} needs {size}")
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
