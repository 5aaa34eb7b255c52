"""`checkpoints/latest.json`: the one small file that says which checkpoint files count."""

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Self

from trainer.checkpoint.errors import CheckpointError
from voxsrc import storage
from voxsrc.errors import NotFoundError
from voxsrc.storage import ObjectInfo

POINTER_NAME = "latest.json"
FORMAT_VERSION = 1

# No other file ends so: gcp-cluster/lifecycle.json deletes by it.
_SUFFIX = ".checkpoint.safetensors"
_FILE_NAME = re.compile(rf"step-(\d{{9,}})-([0-9a-f]{{12}}){re.escape(_SUFFIX)}")


@dataclass(frozen=True)
class Entry:
    """One checkpoint file.

    Attributes:
        name: `step-000001234-<first 12 of the SHA-256>.checkpoint.safetensors`: by its name alone it can be
            verified.
        step: Steps done.
        bytes: Its size; None if only the name is known.
        sha256: Hexadecimal; the first 12 digits if only the name is known.
        metric: What "best" is judged by, the lower the better; None if this step was not judged.
    """

    name: str
    step: int
    bytes: int | None
    sha256: str
    metric: float | None = None


def file_name(step: int, sha256: str) -> str:
    """The file's name, which depends on the content: a file is never replaced by another content."""
    return f"step-{step:09d}-{sha256[:12]}{_SUFFIX}"


def entry_of_name(name: str) -> Entry | None:
    """What a file's name tells; None for other files."""
    match = _FILE_NAME.fullmatch(name)
    return Entry(name, int(match[1]), None, match[2]) if match else None


@dataclass(frozen=True)
class Pointer:
    """What the file says.

    Attributes:
        writer: Id of the lease under which it was written.
        entries: Newest first.
    """

    writer: str
    entries: tuple[Entry, ...]

    @property
    def best(self) -> Entry | None:
        """The entry with the best metric, of equal ones the earliest; None without metrics."""
        return next(iter(self.judged), None)

    @property
    def judged(self) -> tuple[Entry, ...]:
        """The entries that have a metric, the best first, of equal ones the earliest."""
        judged = [entry for entry in self.entries if is_judged(entry.metric)]
        return tuple(sorted(judged, key=lambda entry: (entry.metric or 0.0, entry.step)))

    def with_entry(self, entry: Entry, keep_last: int) -> Self:
        """With a new checkpoint: the newest `keep_last` and the best.

        Later entries are of an abandoned continuation and go; one of the same step leaves its metric.
        """
        same = next((old for old in self.entries if old.step == entry.step), entry)
        if entry.metric is None:
            entry = replace(entry, metric=same.metric)
        grown = replace(self, entries=(entry, *(old for old in self.entries if old.step < entry.step)))
        best = grown.best
        kept = [old for index, old in enumerate(grown.entries) if index < keep_last or old is best]
        return replace(self, entries=tuple(kept))

    def without(self, names: set[str]) -> Self:
        """Without the entries of these names."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.name not in names))

    def to_json(self) -> bytes:
        """The file's content."""
        best = self.best
        fields = {
            "format_version": FORMAT_VERSION,
            "writer": self.writer,
            "best": best.name if best else None,
            "lower_is_better": True,  # earlier versions of the program read it
            "checkpoints": [asdict(entry) for entry in self.entries],
        }
        return (json.dumps(fields, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes, uri: str) -> Self | None:
        """Reads the file's content; None if it is damaged.

        Raises:
            CheckpointError: It is of another format version.
        """
        try:
            fields = json.loads(content)
            version = fields["format_version"]
            if version == FORMAT_VERSION:
                entries = [Entry(**entry) for entry in fields["checkpoints"]]
                if all(entry_of_name(entry.name) for entry in entries):
                    entries.sort(key=lambda entry: -entry.step)
                    return cls(str(fields["writer"]), tuple(entries))
                return None
        except (KeyError, TypeError, ValueError):
            return None
        raise CheckpointError(
            f"{uri}: has format version {version!r}; expected {FORMAT_VERSION}: use the version that wrote it"
        )


def is_judged(metric: float | None) -> bool:
    """Whether a metric takes part in the choice of the best: NaN does not."""
    return metric is not None and math.isfinite(metric)


@dataclass(frozen=True)
class FoundPointer:
    """A pointer as it was found.

    Attributes:
        pointer: Made from the files' names if the stored one is missing or damaged.
        generation: Of the stored one, 0 if there is none: a write on condition of it replaces what was read.
        problem: What was wrong with the stored one.
    """

    pointer: Pointer
    generation: int
    problem: str | None = None


def read_pointer(folder_uri: str) -> FoundPointer:
    """The pointer of a checkpoint folder, which may be empty or not exist yet.

    Raises:
        CheckpointError: It is of another format version.
        StorageError: It cannot be read.
    """
    uri = storage.join(folder_uri, POINTER_NAME)
    generation, problem = 0, "missing"
    if storage.exists(uri):  # which raises for a bucket that does not exist
        # The generation first: if somebody writes in between, a write on condition of it fails.
        generation = storage.stat(uri).generation or 0
        stored = Pointer.from_json(storage.read_bytes(uri), uri)
        if stored is not None:
            return FoundPointer(stored, generation)
        problem = "damaged"
    found = [entry for info in list_folder(folder_uri) if (entry := entry_of_name(storage.name(info.uri)))]
    found.sort(key=lambda entry: -entry.step)
    if problem == "missing" and not found:
        return FoundPointer(Pointer("", ()), generation)
    message = f"{uri} is {problem}: going by the names of the {len(found)} checkpoint files beside it"
    return FoundPointer(Pointer("", tuple(found)), generation, message)


def list_folder(folder_uri: str) -> list[ObjectInfo]:
    """The files of the folder itself; none if it does not exist."""
    try:
        return list(storage.list_files(folder_uri, recursive=False))
    except NotFoundError:
        if storage.is_remote(folder_uri):  # the bucket is missing
            raise
        return []
