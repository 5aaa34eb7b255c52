"""What every source of audio offers."""

import base64
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from voxsrc.corpus import AUDIO_SUFFIXES
from voxsrc.errors import AudioError
from voxsrc.storage import ObjectInfo

# Nine hours of 16-bit audio at 16 kHz. Files are read whole, and a damaged or hostile size may say anything.
MOST_BYTES = 1 << 30
UNKNOWN_STAMP = -1

_SLASH = re.compile("/")


@dataclass(frozen=True, slots=True)
class Member:
    """One audio file of a source.

    Attributes:
        path: Its path within the source, with forward slashes.
        size: Its bytes.
        offset: Where its stored form begins: the data in a tar, the local header in a zip.
        stored_size: Bytes of its stored form, without headers.
        method: `file`, `stored` or `deflated`.
        crc32: Checksum of its bytes where the source has one, otherwise -1.
        source: Which of several sources it is in, from 0; see `SeveralSources`.
        stamp: Another one means that its bytes may be others: see `stamp_of`; `UNKNOWN_STAMP` if not known.
    """

    path: str
    size: int
    offset: int = 0
    stored_size: int = 0
    method: str = "file"
    crc32: int = -1
    source: int = 0
    stamp: int = UNKNOWN_STAMP

    @property
    def place(self) -> tuple[int, int]:
        """Sorting by it gives source after source, each from front to back; files of folders stay put."""
        return self.source, self.offset


@dataclass
class Scan:
    """What a source holds.

    Attributes:
        members: Audio files by path, in the source's own order; of equal paths the last, as in a tar.
        skipped: How many entries were passed over, by reason; of a folder what is in it is not looked at.
        unsafe_paths: Entries with an absolute path or with `..`, which are never read.
    """

    members: dict[str, Member] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    unsafe_paths: list[str] = field(default_factory=list)

    def add(self, member: Member) -> None:
        """Takes in one regular file if it is audio and its path is safe, and counts it otherwise."""
        path = PurePosixPath(member.path)
        if not _is_utf8(member.path):  # neither index nor list could hold its name
            self.skipped["name_not_utf8"] += 1
        elif path.is_absolute() or ".." in path.parts:
            self.unsafe_paths.append(member.path)
            self.skipped["unsafe_path"] += 1
        elif any(map(is_hidden, path.parts)):  # the `.` of `./a/b.wav` is not among the parts
            self.skipped["hidden"] += 1
        elif path.suffix.lower() not in AUDIO_SUFFIXES:
            self.skipped["not_audio"] += 1
        else:
            if member.path in self.members:
                self.skipped["duplicate_path"] += 1
                del self.members[member.path]
            self.members[member.path] = member


# The bytes of a member, or why they cannot be had.
ReadResult = bytes | AudioError


def stamp_of(info: ObjectInfo) -> int:
    """The checksum of a bucket's object, the modification time in ns of a local file."""
    if info.crc32c is not None:
        return int.from_bytes(base64.b64decode(info.crc32c))
    return UNKNOWN_STAMP if info.generation is None else info.generation


def too_large(member: Member) -> AudioError | None:
    """Why a file is not read, if its bytes or their stored form are too many to be held in memory."""
    size = max(member.size, member.stored_size)
    if size <= MOST_BYTES:
        return None
    return AudioError("too_large", f"{size:,} bytes; at most {MOST_BYTES:,} are read: cut it into parts")


class Readable(Protocol):
    """Audio files that can be read. Used by one thread; closed by `close`."""

    uri: str

    def read_all(self, members: Iterable[Member]) -> Iterator[ReadResult]:
        """The bytes of each member, in the given order.

        Members of a compressed tar must be given in the order of their places; others are read
        fastest so.

        Raises:
            CorpusError: If the source as a whole is damaged.
            StorageError: If it cannot be reached.
        """

    def stamp(self, member: Member) -> int:
        """The stamp that the member would have now; may be called from threads.

        Raises:
            StorageError: If it is gone, or cannot be reached.
        """

    def close(self) -> None:
        """Closes what is open."""


class Source(Readable, Protocol):
    """Audio files in one place, that can be listed and looked for, too."""

    def scan(self) -> Scan:
        """Lists all audio files.

        Raises:
            CorpusError: If the source is damaged or not what it seems.
        """

    def find(self, path: str) -> Member | None:
        """The file with this path, or, if there is none, one that differs in its suffix alone."""

    def find_prefixes(self, paths: Collection[str]) -> list[str]:
        """The folders (with a closing slash) below which any of the paths exists, as `find` would find it.

        The source itself, `""`, is the only one if any exists as it is.
        """


def is_hidden(name: str) -> bool:
    """Whether a file or folder holds nobody's speech.

    Such are `.git`, `.Trash-1000`, macOS's attributes as `._name` and below `__MACOSX`, and the folder that
    each ext4 volume has at its root.
    """
    return name.startswith(".") or name in ("__MACOSX", "lost+found")


def without_suffix(path: str) -> str:
    """The path without an audio suffix: `a/b.wav` → `a/b`, `a/b.c` → `a/b.c`."""
    stem, dot, suffix = path.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in AUDIO_SUFFIXES else path


class ScannedSource(ABC):
    """`find` and `find_prefixes` for sources that must be scanned whole."""

    def __init__(self) -> None:
        self._scanned: Scan | None = None
        self._by_stem: dict[str, Member] = {}

    @abstractmethod
    def _scan_members(self) -> Scan:
        """Reads the whole listing."""

    def scan(self) -> Scan:
        """Lists all audio files, once."""
        if self._scanned is None:
            self._scanned = self._scan_members()
            # Of files that differ in suffix alone, the suffix listed first wins.
            ranked = sorted(self._scanned.members.values(), key=lambda m: -_suffix_rank(m.path))
            self._by_stem = {without_suffix(m.path): m for m in ranked}
        return self._scanned

    def find(self, path: str) -> Member | None:
        """The file with this path, or one that differs in its suffix alone."""
        return self.scan().members.get(path) or self._by_stem.get(without_suffix(path))

    def find_prefixes(self, paths: Collection[str]) -> list[str]:
        """The folders below which any of the paths exists."""
        self.scan()
        wanted = {without_suffix(path) for path in paths}
        if not wanted.isdisjoint(self._by_stem):
            return [""]
        return sorted(
            {
                stem[: slash.end()]
                for stem in self._by_stem
                for slash in _SLASH.finditer(stem)
                if stem[slash.end() :] in wanted
            }
        )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _suffix_rank(path: str) -> int:
    return AUDIO_SUFFIXES.index(PurePosixPath(path).suffix.lower())
