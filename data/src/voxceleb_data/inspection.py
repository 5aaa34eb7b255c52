"""Checks official files that lie in a folder or bucket against their published sums."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from voxceleb_data import transfer, trials
from voxceleb_data.official import ARCHIVES, LISTS, Archive, OfficialFile
from voxsrc import storage
from voxsrc.errors import CorpusError


@dataclass(frozen=True)
class Finding:
    """What was found of one official file; `detail` is for people."""

    name: str
    state: Literal["ok", "damaged", "missing"]
    detail: str


def verify(uri: str, archives: Iterable[str] = ()) -> Iterator[Finding]:
    """Hashes every official file below `uri`, whatever an earlier run recorded.

    A damaged file's record is removed, so that `download` fetches the file again.

    Args:
        uri: Folder or bucket to look into.
        archives: Names of archives that must be there. Without any, those of which something is there.

    Raises:
        CorpusError: If nothing official is there and no archive was named.
        StorageError: If a file cannot be read.
    """
    named = list(archives)
    wanted = [ARCHIVES[name] for name in named] if named else [a for a in ARCHIVES.values() if _begun(uri, a)]
    lists = [item for item in LISTS.values() if _exists(uri, item.output_name)]
    if not wanted and not lists:
        known = ", ".join(file.name for archive in ARCHIVES.values() for file in archive.parts[:1])
        raise CorpusError(f"{uri} has no official file of VoxCeleb (such as {known}); check the folder")
    for archive in wanted:
        for file in _files_to_check(uri, archive):
            yield _check(uri, file)
    for item in lists:
        problem = trials.problem_of(storage.read_bytes(storage.join(uri, item.output_name)), item)
        if problem:
            yield Finding(item.output_name, "damaged", problem)
        else:
            yield Finding(item.output_name, "ok", f"{item.num_lines:,} lines, as published")


def _files_to_check(uri: str, archive: Archive) -> tuple[OfficialFile, ...]:
    """The joined zip if it is there, and the parts if they are or if it is not."""
    if archive.joined is None or not _exists(uri, archive.joined.name):
        return archive.parts
    return (archive.joined, *(file for file in archive.parts if _exists(uri, file.name)))


def _check(uri: str, file: OfficialFile) -> Finding:
    if not _exists(uri, file.name):
        begun = (
            f"; {file.name}{transfer.PARTIAL} is there" if _exists(uri, file.name + transfer.PARTIAL) else ""
        )
        return Finding(file.name, "missing", f"run `voxceleb-data download`{begun}")
    found = transfer.md5_of(storage.join(uri, file.name))
    if found == file.md5:
        return Finding(file.name, "ok", "MD5 as published")
    transfer.forget_record(uri, file)
    return Finding(file.name, "damaged", f"MD5 {found}, expected {file.md5}; download it again")


def _begun(uri: str, archive: Archive) -> bool:
    names = [file.name for file in (*archive.parts, *((archive.joined,) if archive.joined else ()))]
    return any(_exists(uri, name) or _exists(uri, name + transfer.PARTIAL) for name in names)


def _exists(uri: str, name: str) -> bool:
    return storage.exists(storage.join(uri, name))
