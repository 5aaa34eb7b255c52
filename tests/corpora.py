"""Corpora in every form in which they may lie: folders and archives, whole or in parts."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import zstandard

from voxsrc import storage
from voxsrc.corpus import Utterance, session_of
from voxsrc.errors import AudioError
from voxsrc.sources import Matching, Readable

FORMS = ["folder", "tar", "tar.gz", "tar.zst", "zip", "zip-deflated", "zip-parts", "tar-parts"]


def write_files(folder: Path, members: Mapping[str, bytes]) -> None:
    """Writes files by their paths below `folder`."""
    for path, content in members.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


@dataclass(frozen=True)
class Corpus:
    """A folder of audio files and its list; their content by the path in the list."""

    audio: str
    list: str
    members: dict[str, bytes]


def write_corpus(folder: Path, members: dict[str, bytes]) -> Corpus:
    """Writes files named `speaker/…` below `folder/audio`, and `folder/list.txt`."""
    write_files(folder / "audio", members)
    lines = "".join(f"{path.split('/')[0]}\t{path}\n" for path in members)
    (folder / "list.txt").write_text(lines)
    return Corpus(str(folder / "audio"), str(folder / "list.txt"), members)


def tar_bytes(members: Mapping[str, bytes], compression: str = "") -> bytes:
    """A tar archive; `compression` is empty, `gz` or `zst`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz" if compression == "gz" else "w") as archive:
        for path, content in members.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return zstandard.compress(file.getvalue()) if compression == "zst" else file.getvalue()


def zip_bytes(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for path, content in members.items():
            archive.writestr(path, content)
    return file.getvalue()


def split_in_parts(name: str, content: bytes, num_parts: int) -> dict[str, bytes]:
    """Parts `{name}aa`, `{name}ab`, … of about equal size, as `split` makes them."""
    bounds = [len(content) * part // num_parts for part in range(num_parts + 1)]
    return {
        f"{name}a{chr(ord('a') + part)}": content[bounds[part] : bounds[part + 1]]
        for part in range(num_parts)
    }


def archive_bytes(form: str, members: Mapping[str, bytes]) -> bytes:
    """An archive of one of `FORMS` but `folder`; its parts together."""
    if form.startswith("tar"):
        return tar_bytes(members, form.removeprefix("tar").removeprefix(".").removesuffix("-parts"))
    return zip_bytes(members, zipfile.ZIP_DEFLATED if "deflated" in form else zipfile.ZIP_STORED)


def store_corpus(place: str, form: str, members: Mapping[str, bytes]) -> str:
    """Stores a corpus in one of `FORMS` below a folder, local or in a bucket; returns the URI to name."""
    if form == "folder":
        files, name = {f"corpus/{path}": content for path, content in members.items()}, "corpus"
    elif form.endswith("parts"):
        files = split_in_parts("corpus_part", archive_bytes(form, members), 5)
        name = "corpus_part*" if form.startswith("tar") else "corpus_partaa"
    else:
        name = f"corpus.{form}"
        files = {name: archive_bytes(form, members)}
    for path, content in files.items():
        storage.write_bytes(storage.join(place, path), content)
    return storage.join(place, name)


def listed(*paths: str) -> list[Utterance]:
    """Utterances as a list would name them, each of the speaker that its path begins with."""
    return [Utterance(path, path.split("/")[0], session_of(path)) for path in paths]


def contents_of(source: Readable, matching: Matching) -> dict[str, bytes | AudioError]:
    """What the source gives for each utterance found, read from front to back."""
    pairs = sorted(matching.pairs, key=lambda pair: pair[1].place)
    read = source.read_all(member for _, member in pairs)
    return {pair[0].utterance_id: content for pair, content in zip(pairs, read, strict=True)}
