"""A folder of audio files, on a disk or in a bucket."""

import errno
import os
import stat as stat_module
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath

from voxsrc import storage
from voxsrc.corpus import AUDIO_SUFFIXES
from voxsrc.errors import AudioError, NotFoundError, PermissionDeniedError
from voxsrc.sources.base import (
    Member,
    ReadResult,
    Scan,
    ScannedSource,
    is_hidden,
    stamp_of,
    too_large,
    without_suffix,
)
from voxsrc.storage.links import is_repeated, leads_to
from voxsrc.storage.local import translated

# A bucket answers a small read in some 30 ms, in which a core decodes a minute and a half of audio.
_READS_AHEAD = 32
_PREFIX_DEPTH = 2
_FEW_FOLDERS = 8
# A shuffled list comes back to every folder, of which VoxCeleb2 has 150,000: some 100 bytes for each file.
_KEPT_FOLDERS = 1 << 18


class LocalFolderSource:
    """A folder on a disk: looked into where a list points, walked only if there is no list."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = Path(storage.local_path(uri))
        self._suffixes: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._names = lru_cache(maxsize=_KEPT_FOLDERS)(self._suffixes_by_stem)

    def scan(self) -> Scan:
        """Walks the folder, in bytewise order of the paths; passes over what is hidden or may not be read."""
        scan = Scan()
        self._walk("", scan, {os.path.realpath(self._root): None})
        return scan

    def find(self, path: str) -> Member | None:
        """The file with this path, or one that differs in its suffix alone."""
        folder, _, name = path.rpartition("/")
        stem = without_suffix(name)
        suffixes = self._names(folder).get(stem)
        if suffixes is None:
            return None
        listed = name[len(stem) :]
        found = stem + (listed if listed in suffixes else suffixes[0])
        relative = f"{folder}/{found}" if folder else found
        info = storage.stat(storage.join(self.uri, relative))
        return Member(relative, info.size, stamp=stamp_of(info))

    def find_prefixes(self, paths: Collection[str]) -> list[str]:
        """The folders, at most two levels down, below which any of the paths exists.

        Raises:
            PermissionDeniedError: If there is none, and one of the folders may not be looked into.
        """
        if any(self.find(path) for path in paths):
            return [""]
        below: dict[str, list[str]] = {}  # by their topmost folder
        for path in paths:
            top, slash, _ = path.partition("/")
            below.setdefault(top if slash else "", []).append(path)
        found: list[str] = []
        refused: list[PermissionDeniedError] = []
        level = [""]
        for _ in range(_PREFIX_DEPTH):
            deeper = []
            for above in level:
                try:
                    deeper += [f"{above}{name}/" for name in self._subfolders(above)]
                except PermissionDeniedError as error:
                    refused.append(error)
            level = deeper
            for prefix in level:
                try:
                    found += [prefix] if self._has_any(prefix, below) else []
                except PermissionDeniedError as error:
                    refused.append(error)
        if refused and not found:
            raise refused[0]
        return sorted(found)

    def read_all(self, members: Iterable[Member]) -> Iterator[ReadResult]:
        """The bytes of each member."""
        for member in members:
            yield _read(storage.join(self.uri, member.path), member)

    def stamp(self, member: Member) -> int:
        """The file's."""
        return stamp_of(storage.stat(storage.join(self.uri, member.path)))

    def close(self) -> None:
        """Nothing is open."""

    def _walk(self, folder: str, scan: Scan, listed: dict[str, None]) -> None:
        """Adds what lies below a folder, which is empty or ends in a slash.

        Args:
            folder: Relative to the root.
            scan: What is added to.
            listed: See `is_repeated`.
        """
        path = self._root / folder
        try:
            with translated(str(path), "list"), os.scandir(path) as entries:
                # A folder sorts as if its name ended in "/": then depth first gives the order of the paths.
                ordered = sorted((os.fsencode(e.name) + (b"/" if _is_folder(e) else b""), e) for e in entries)
        except PermissionDeniedError:
            if not folder:
                raise
            scan.skipped["unreadable"] += 1
            return
        for key, entry in ordered:
            relative = folder + entry.name
            if not key.endswith(b"/"):
                _add_file(relative, entry, scan)
            elif is_hidden(entry.name):
                scan.skipped["hidden"] += 1
            elif not (entry.is_symlink() and is_repeated(entry.path, listed)):
                self._walk(f"{relative}/", scan, listed)

    def _has_any(self, prefix: str, below: Mapping[str, Sequence[str]]) -> bool:
        """Whether one of the paths, given by their topmost folder, exists below `prefix`."""
        tops = set(below)
        if len(tops) > _FEW_FOLDERS:  # one look into the folder instead of one for each
            tops &= {"", *self._subfolders(prefix)}
        return any(self.find(prefix + path) for top in tops for path in below[top])

    def _subfolders(self, folder: str) -> list[str]:
        path = self._root / folder
        with translated(str(path), "list"), os.scandir(path) as entries:
            return sorted(e.name for e in entries if not is_hidden(e.name) and _is_folder(e))

    def _suffixes_by_stem(self, folder: str) -> dict[str, tuple[str, ...]]:
        """The suffixes under which a folder has an audio file, the preferred one first."""
        path = self._root / folder
        try:
            with translated(str(path), "list"), os.scandir(path) as entries:
                names = [
                    e.name
                    for e in entries
                    if e.name.lower().endswith(AUDIO_SUFFIXES)
                    and not is_hidden(e.name)
                    and leads_to(e.is_file)
                ]
        except NotFoundError:
            return {}
        by_stem: dict[str, tuple[str, ...]] = {}
        for name in sorted(names, key=lambda n: AUDIO_SUFFIXES.index(PurePosixPath(n).suffix.lower())):
            stem = without_suffix(name)
            suffixes = (*by_stem.get(stem, ()), name[len(stem) :])
            # Of most files equal: one object for all of them.
            by_stem[stem] = self._suffixes.setdefault(suffixes, suffixes)
        return by_stem


class BucketFolderSource(ScannedSource):
    """A folder in a bucket: listed once, read many objects ahead."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self.uri = uri

    def _scan_members(self) -> Scan:
        scan = Scan()
        root = storage.join(self.uri, "")
        for info in storage.list_files(self.uri):
            scan.add(Member(info.uri[len(root) :], info.size, stamp=stamp_of(info)))
        if not scan.members and not scan.skipped:
            raise NotFoundError(f"{self.uri}: no such object, and no objects below it; check the name")
        return scan

    def read_all(self, members: Iterable[Member]) -> Iterator[ReadResult]:
        """The bytes of each member."""
        remaining = iter(members)
        with ThreadPoolExecutor(_READS_AHEAD) as pool:

            def start(member: Member) -> Future[ReadResult]:
                return pool.submit(_read, storage.join(self.uri, member.path), member)

            under_way = deque(start(member) for member in islice(remaining, _READS_AHEAD))
            try:
                while under_way:
                    result = under_way.popleft().result()
                    under_way.extend(start(member) for member in islice(remaining, 1))
                    yield result
            finally:
                for future in under_way:
                    future.cancel()

    def stamp(self, member: Member) -> int:
        """The object's."""
        return stamp_of(storage.stat(storage.join(self.uri, member.path)))

    def close(self) -> None:
        """Nothing is open."""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one, as far as may be known."""
    try:
        return leads_to(entry.is_dir)
    except PermissionError:
        return False


def _add_file(relative: str, entry: os.DirEntry[str], scan: Scan) -> None:
    try:
        status = entry.stat()
    except FileNotFoundError:  # removed since the folder was listed, or a link to nothing
        return
    except PermissionError:
        scan.skipped["unreadable"] += 1
        return
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link in a circle
            return
        raise
    if stat_module.S_ISREG(status.st_mode):
        scan.add(Member(relative, status.st_size, stamp=status.st_mtime_ns))


def _read(uri: str, member: Member) -> ReadResult:
    if problem := too_large(member):
        return problem
    try:
        return storage.read_bytes(uri)
    except NotFoundError:
        return AudioError("missing", f"{uri} was there when the plan was made")
