"""Which decoder is to read a file of audio, told from its first bytes, never from its name."""

_ID3_HEADER_BYTES = 10
_ID3_HAS_FOOTER = 0x10
# Where the first packet begins: the first page of a stream in Ogg holds one packet of less than 255 bytes.
_OGG_PACKET_AT = 28


def ffmpeg_demuxer(data: bytes) -> str | None:
    """FFmpeg's demuxer for these bytes, or None if libsndfile is to read them."""
    if data[:4] in (b"RIFF", b"RF64"):
        return None
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return "mov"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    # libsndfile reads Vorbis and Opus alone in Ogg.
    if data[:4] == b"OggS" and data.startswith((b"\x7fFLAC", b"Speex   "), _OGG_PACKET_AT):
        return "ogg"
    start = end_of_id3(data) if data[:3] == b"ID3" else 0
    # A flac stream whose header leaves its length open, which libsndfile cannot read to its end.
    length = data[start + 21 : start + 26]
    if data.startswith(b"fLaC", start) and len(length) == 5 and length[0] & 0x0F == 0 and not any(length[1:]):
        return "flac"
    # An ADTS header has the two layer bits at 0, where MPEG audio's (mp3) are not.
    if len(data) > start + 1 and data[start] == 0xFF and data[start + 1] & 0xF6 == 0xF0:
        return "aac"
    return None


def end_of_id3(data: bytes, position: int = 0) -> int:
    """Where the ID3v2 tags end that begin at `position`; segments of HTTP live streams have one each."""
    while data.startswith(b"ID3", position) and len(data) >= position + _ID3_HEADER_BYTES:
        size = 0
        for seven_bits in data[position + 6 : position + 10]:
            size = size << 7 | seven_bits & 0x7F
        has_footer = data[position + 5] & _ID3_HAS_FOOTER
        position += _ID3_HEADER_BYTES * (2 if has_footer else 1) + size
    return position
