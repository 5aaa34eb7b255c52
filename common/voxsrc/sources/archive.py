"""Tar and zip archives, read in place: whole or in parts, local or in a bucket."""

import gzip
import hashlib
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import BinaryIO, Self, cast

import zstandard

from voxsrc import storage
from voxsrc.errors import AudioError, CorpusError
from voxsrc.sources.base import Member, ReadResult, Scan, ScannedSource, stamp_of, too_large

_SKIP_BYTES = 1 << 20
# Names and pax records, which tarfile reads whole; a real one has some hundred bytes.
_MOST_TAR_HEADER_BYTES = 1 << 20
_TAR_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# What tarfile and the decompressors raise on damaged archives; of damaged numbers anything that Python does.
_TAR_ERRORS = (
    tarfile.TarError,
    EOFError,
    OSError,
    OverflowError,
    RecursionError,
    ValueError,
    zlib.error,
    zstandard.ZstdError,
)
_ZIP_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_ZIP_ENCRYPTED = 0x1
_ZIP_UTF8_NAME = 0x800
# Of a plan's columns; a damaged zip64 record may say more.
_MOST_INT64 = (1 << 63) - 1
_ZIP_LOCAL_HEADER = struct.Struct("<4s22xHH")


class _ForwardReader:
    """Position and forward skips on a stream that a decompressor gives."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != 0 or position < self._position:
            raise OSError(f"cannot go back from {self._position} to {position} in a compressed stream")
        while self._position < position:
            if not self.read(min(_SKIP_BYTES, position - self._position)):
                break
        return self._position

    def close(self) -> None:
        self._stream.close()


class _ArchiveSource(ScannedSource):
    """What tar and zip have in common.

    Args:
        uri: As given by the user, for messages.
        parts: The archive's parts, in order.
    """

    def __init__(self, uri: str, parts: Sequence[str]) -> None:
        super().__init__()
        self.uri = uri
        self._parts = parts
        self._open: BinaryIO | None = None

    def stamp(self, member: Member) -> int:
        """The archive's, whichever the member."""
        return self._stamp

    def close(self) -> None:
        """Closes the archive."""
        if self._open:
            self._open.close()
        self._open = None

    @cached_property
    def _infos(self) -> list[storage.ObjectInfo]:
        return [storage.stat(part) for part in self._parts]

    @cached_property
    def _stamp(self) -> int:
        """Made of all parts' sizes and stamps; not negative, of 63 bits."""
        stamps = [(info.size, stamp_of(info)) for info in self._infos]
        return int.from_bytes(hashlib.sha256(repr(stamps).encode()).digest()[:8]) >> 1


class _StrictTarInfo(tarfile.TarInfo):
    """Entries of a tar that must end as one ends; tarfile takes any damaged header for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.size < 0 or (entry.type in _TAR_HEADERS and entry.size > _MOST_TAR_HEADER_BYTES):
            raise tarfile.HeaderError(f"bad size {entry.size}")
        return entry

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset}, no end mark before it") from error


class TarSource(_ArchiveSource):
    """A tar archive: plain (read by range) or compressed (one pass forward).

    Args:
        uri: As given by the user, for messages.
        parts: The archive's parts, in order.
        compression: `gz`, `zst` or empty.
    """

    def __init__(self, uri: str, parts: Sequence[str], compression: str) -> None:
        super().__init__(uri, parts)
        self._compression = compression

    def _scan_members(self) -> Scan:
        scan, stamp = Scan(), self._stamp
        self.close()
        try:
            with tarfile.open(fileobj=self._stream(), mode="r:", tarinfo=_StrictTarInfo) as archive:
                for entry in archive:
                    if entry.size < 0:  # by a pax record; the next entry would be sought before this one
                        raise tarfile.ReadError(f"bad size {entry.size} of {entry.name}")
                    if entry.isfile() and not entry.issparse():
                        path, size = entry.name.removeprefix("./"), entry.size
                        scan.add(Member(path, size, entry.offset_data, size, "stored", stamp=stamp))
                    elif entry.islnk() and (linked := scan.members.get(entry.linkname.removeprefix("./"))):
                        scan.add(replace(linked, path=entry.name.removeprefix("./")))
                    elif not entry.isdir():
                        scan.skipped["not_a_file"] += 1
                    # tarfile remembers every entry it has seen; a million of them would fill the memory.
                    archive.members = []  # type: ignore[attr-defined]
            # The checksum of a compressed stream stands at its very end; of a plain tar mere padding follows.
            while behind := self._stream().read(_SKIP_BYTES):
                if behind.strip(b"\0"):
                    raise CorpusError(
                        f"{self.uri}: more follows the end of the tar; of several tars joined by `cat` only "
                        "the first would be read: name each as an audio of its own, or join them by "
                        "`tar --concatenate`"
                    )
        except _TAR_ERRORS as error:
            raise CorpusError(f"{self.uri} is not a whole tar archive ({error}); fetch it again") from error
        self.close()
        return scan

    def read_all(self, members: Iterable[Member]) -> Iterator[ReadResult]:
        """The bytes of each member."""
        read_at, data = -1, b""
        for member in members:
            if problem := too_large(member):
                yield problem
                continue
            if member.offset == read_at:  # hard links; a compressed stream would have to begin anew
                yield data
                continue
            stream = self._stream()
            if self._compression and stream.tell() > member.offset:
                self.close()
                stream = self._stream()
            try:
                stream.seek(member.offset)
                data = stream.read(member.size)
            except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
                raise CorpusError(f"{self.uri} is damaged before {member.path} ({error})") from error
            if len(data) != member.size:
                raise CorpusError(f"{self.uri} ends within {member.path}: {len(data)} bytes of {member.size}")
            read_at = member.offset
            yield data

    def _stream(self) -> BinaryIO:
        if self._open is None:
            stored = storage.open_binary(self._parts)
            if self._compression == "gz":
                self._open = cast(BinaryIO, _ForwardReader(cast(BinaryIO, gzip.GzipFile(fileobj=stored))))
            elif self._compression == "zst":
                decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
                reader = decompressor.stream_reader(stored, read_across_frames=True)
                self._open = cast(BinaryIO, _ForwardReader(cast(BinaryIO, reader)))
            else:
                self._open = stored
        return self._open


class ZipSource(_ArchiveSource):
    """A zip archive: its directory is read once, at planning; then each member by its offset."""

    def _scan_members(self) -> Scan:
        scan, stamp = Scan(), self._stamp
        try:
            with zipfile.ZipFile(self._stream()) as archive:
                entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
            raise CorpusError(
                f"{self.uri} is not a whole zip archive ({error}; {len(self._parts)} part(s) read); "
                "are all its parts there?"
            ) from error
        for entry in entries:
            method = _ZIP_METHODS.get(entry.compress_type)
            if not entry.filename or entry.is_dir():
                continue
            if method is None or entry.flag_bits & _ZIP_ENCRYPTED:
                scan.skipped["encrypted" if method else "unknown_compression"] += 1
                continue
            scan.add(
                Member(
                    _zip_name(entry).removeprefix("./"),
                    min(entry.file_size, _MOST_INT64),
                    min(entry.header_offset, _MOST_INT64),
                    min(entry.compress_size, _MOST_INT64),
                    method,
                    entry.CRC,
                    stamp=stamp,
                )
            )
        return scan

    def read_all(self, members: Iterable[Member]) -> Iterator[ReadResult]:
        """The bytes of each member, checked against the archive's CRC-32."""
        for member in members:
            yield too_large(member) or self._read(member)

    def _stream(self) -> BinaryIO:
        if self._open is None:
            self._open = storage.open_binary(self._parts)
        return self._open

    def _read(self, member: Member) -> ReadResult:
        stream, end = self._stream(), sum(info.size for info in self._infos)
        header = b""
        if 0 <= member.offset <= end:  # a damaged directory may say anything
            stream.seek(member.offset)
            header = stream.read(_ZIP_LOCAL_HEADER.size)
        if len(header) < _ZIP_LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise CorpusError(
                f"{self.uri} has no zip entry at {member.offset} for {member.path}; was it replaced?"
            )
        _, name_length, extra_length = _ZIP_LOCAL_HEADER.unpack(header)
        start = member.offset + _ZIP_LOCAL_HEADER.size + name_length + extra_length
        if start + member.stored_size > end:
            return AudioError("damaged", f"zip entry needs {member.stored_size} bytes from {start} of {end}")
        stream.seek(start)
        data = stream.read(member.stored_size)
        if member.method == "deflated":
            try:
                # No more than one byte too much, whatever a hostile entry would inflate to.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
            except zlib.error as error:
                return AudioError("damaged", f"zip entry does not inflate ({error})")
        if len(data) != member.size or zlib.crc32(data) != member.crc32:
            return AudioError("damaged", "zip entry does not match its CRC-32")
        return data


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """The name of a zip's entry, which need not say how it is encoded.

    zipfile then takes code page 437, as the format has it; Info-ZIP without a UTF-8 locale, and other tools,
    write the bytes of the file system, nearly always UTF-8. What is not valid as such stays as it is.
    """
    if entry.flag_bits & _ZIP_UTF8_NAME:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode()
    except UnicodeError:
        return entry.filename
