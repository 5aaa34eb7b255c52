"""A folder of audio files, on a disk or in a bucket."""

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath

from voxsrc import storage
from voxsrc.corpus import AUDIO_SUFFIXES
from voxsrc.errors import AudioError, NotFoundError
from voxsrc.sources.base import Member, ReadResult, Scan, ScannedSource, without_suffix
from voxsrc.storage.local import translated

# A bucket answers a small read in some 30 ms, in which a core decodes a minute and a half of audio.
_READS_AHEAD = 32
_PREFIX_DEPTH = 2
_FEW_FOLDERS = 8


class LocalFolderSource:
    """A folder on a disk: looked into where a list points, walked only if there is no list."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = Path(storage.local_path(uri))
        self._names = lru_cache(maxsize=256)(self._names_by_stem)

    def scan(self) -> Scan:
        """Walks the folder, in bytewise order of the paths."""
        scan = Scan()
        for info in storage.list_files(self.uri):
            scan.add(Member(os.path.relpath(info.uri, self._root), info.size))
        return scan

    def find(self, path: str) -> Member | None:
        """The file with this path, or one that differs in its suffix alone."""
        folder, _, name = path.rpartition("/")
        candidates = self._names(folder).get(without_suffix(name), [])
        found = name if name in candidates else next(iter(candidates), None)
        if found is None:
            return None
        relative = f"{folder}/{found}" if folder else found
        return Member(relative, storage.stat(storage.join(self.uri, relative)).size)

    def find_prefixes(self, paths: Collection[str]) -> list[str]:
        """The folders, at most two levels down, below which any of the paths exists."""
        if any(self.find(path) for path in paths):
            return [""]
        below: dict[str, list[str]] = {}  # by their topmost folder
        for path in paths:
            top, slash, _ = path.partition("/")
            below.setdefault(top if slash else "", []).append(path)
        found: list[str] = []
        level = [""]
        for _ in range(_PREFIX_DEPTH):
            level = [f"{above}{name}/" for above in level for name in self._subfolders(above)]
            found += [prefix for prefix in level if self._has_any(prefix, below)]
        return sorted(found)

    def read_all(self, members: Iterable[Member]) -> Iterator[ReadResult]:
        """The bytes of each member."""
        for member in members:
            yield _read(storage.join(self.uri, member.path), member)

    def close(self) -> None:
        """Nothing is open."""

    def _has_any(self, prefix: str, below: Mapping[str, Sequence[str]]) -> bool:
        """Whether one of the paths, given by their topmost folder, exists below `prefix`."""
        tops = set(below)
        if len(tops) > _FEW_FOLDERS:  # one look into the folder instead of one for each
            tops &= {"", *self._subfolders(prefix)}
        return any(self.find(prefix + path) for top in tops for path in below[top])

    def _subfolders(self, folder: str) -> list[str]:
        with os.scandir(self._root / folder) as entries:
            # Hidden ones, such as a trash, hold nothing that counts; see `Scan.add`.
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))

    def _names_by_stem(self, folder: str) -> dict[str, list[str]]:
        path = self._root / folder
        try:
            with translated(str(path), "list"), os.scandir(path) as entries:
                names = [e.name for e in entries if e.is_file() and e.name.lower().endswith(AUDIO_SUFFIXES)]
        except NotFoundError:
            return {}
        by_stem: dict[str, list[str]] = {}
        for name in sorted(names, key=lambda n: AUDIO_SUFFIXES.index(PurePosixPath(n).suffix.lower())):
            by_stem.setdefault(without_suffix(name), []).append(name)
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
            scan.add(Member(info.uri[len(root) :], info.size))
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

    def close(self) -> None:
        """Nothing is open."""


def _read(uri: str, member: Member) -> ReadResult:
    try:
        return storage.read_bytes(uri)
    except NotFoundError:
        return AudioError("missing", f"{uri} was there when the plan was made")
