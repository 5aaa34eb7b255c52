"""Tells what a URI is - folder, tar, zip, or the first of several parts - and opens one or several."""

import os
import re
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from pathlib import Path

from voxsrc import storage
from voxsrc.errors import ConfigError, CorpusError
from voxsrc.sources.archive import TarSource, ZipSource
from voxsrc.sources.base import Source
from voxsrc.sources.folder import BucketFolderSource, LocalFolderSource
from voxsrc.sources.several import SeveralSources

# `split` names parts …aa, …ab, …; VoxCeleb's are vox2_dev_aac_partaa, _partab and so on.
_PART_NAME = re.compile(r"^(?P<stem>.*part)(?P<part>[a-z]{2})$")
_DIVIDER = re.compile(r"[;\n]")
_TAR_MAGIC_AT = 257


def audio_uris(values: Iterable[str]) -> tuple[str, ...]:
    """The sources that values of `--audio` name: `["a.zip; b.tar", "c/"]` → `("a.zip", "b.tar", "c")`.

    One value may hold several, divided by semicolons or line ends: Kubeflow has no lists of arguments.

    Raises:
        ConfigError: If there are none, or one is named twice, be it by two of its parts.
    """
    given = [uri for value in values for uri in _divided(value)]
    uris = tuple(uri.rstrip("/") or uri for uri in given)
    if not uris:
        raise ConfigError("--audio is empty; expected a folder, tar or zip, or several divided by semicolons")
    if len(uris) > 1:
        for first, second in combinations(uris, 2):
            if _whole(first) == _whole(second):
                raise ConfigError(
                    f"--audio names {first} and {second}, which are the same; name it once (of an archive in "
                    "parts, any one part)"
                )
    return uris


def open_sources(uris: str | Sequence[str]) -> Source | SeveralSources:
    """Opens one source or several, which are then read as if they were one.

    Raises:
        CorpusError, NotFoundError: See `open_source`.
    """
    if isinstance(uris, str):
        return open_source(uris)
    sources = [open_source(uri) for uri in uris]
    return sources[0] if len(sources) == 1 else SeveralSources(sources)


def open_source(uri: str) -> Source:
    """Opens a folder or an archive, local or in a bucket.

    Of an archive in parts (`…partaa`, `…partab`, …) give any part, or the name that all share up to
    `part` with `*` behind it; the parts are read as one file, without a copy.

    Raises:
        CorpusError: If the file is not an archive, or parts are missing.
        NotFoundError: If there is nothing at `uri`.
    """
    if storage.is_remote(uri):
        # A bucket has no folders: what is not an object is taken as the prefix of some. An object whose
        # name ends in a slash is a console's mark of an empty folder.
        if uri.endswith("/") or not storage.name(uri):
            return BucketFolderSource(uri)
        if not (uri.endswith("*") or _PART_NAME.match(storage.name(uri)) or storage.exists(uri)):
            return BucketFolderSource(uri)
    elif Path(storage.local_path(uri)).is_dir():
        return LocalFolderSource(uri)
    parts = _parts_of(uri)
    start = storage.read_range(parts[0], 0, 512)
    if start[:2] == b"PK":
        return ZipSource(uri, parts)
    if start[:2] == b"\x1f\x8b":
        return TarSource(uri, parts, "gz")
    if start[:4] == b"\x28\xb5\x2f\xfd":
        return TarSource(uri, parts, "zst")
    if start[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return TarSource(uri, parts, "")
    raise CorpusError(
        f"{uri} begins with {start[:8].hex(' ') or 'nothing'}; "
        "expected a folder, a tar (plain, gz, zst) or a zip"
    )


def _divided(value: str) -> list[str]:
    if not _DIVIDER.search(value):
        return [value]
    return [uri.strip() for uri in _DIVIDER.split(value) if uri.strip()]


def _whole(uri: str) -> str:
    """What all names of one source have in common: a real path, of an archive in parts without the part."""
    name = storage.name(uri)
    if match := _PART_NAME.match(name):
        uri = storage.join(storage.parent(uri), f"{match['stem']}*")
    return uri if storage.is_remote(uri) else os.path.realpath(storage.local_path(uri))


def _parts_of(uri: str) -> list[str]:
    """All parts of an archive, in order; one for an archive that is whole."""
    name = storage.name(uri).removesuffix("*")
    match = _PART_NAME.match(name)
    stem = match["stem"] if match else name
    if not match and not uri.endswith("*"):
        return [uri]
    folder = storage.parent(uri)
    found = {}
    for info in storage.list_files(folder, recursive=False):
        part = _PART_NAME.match(storage.name(info.uri))
        if part and part["stem"] == stem:
            found[part["part"]] = info.uri
    if not found:
        raise CorpusError(f"{uri}: {folder} has no files {stem}aa, {stem}ab, …")
    names = sorted(found)
    for before, after in pairwise(["", *names]):
        expected = _part_after(before)
        if after != expected:
            raise CorpusError(f"{uri}: part {stem}{expected} is missing; found {', '.join(names)}")
    return [found[part] for part in names]


def _part_after(part: str) -> str:
    if not part:
        return "aa"
    number = (ord(part[0]) - ord("a")) * 26 + ord(part[1]) - ord("a") + 1
    return chr(ord("a") + number // 26) + chr(ord("a") + number % 26)
