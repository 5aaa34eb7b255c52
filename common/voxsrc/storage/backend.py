"""What a store must be able to do, and how one is found for a URI."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeAlias, cast

from voxsrc.storage.uri import BACKEND_MODULES, scheme

Data: TypeAlias = bytes | bytearray | memoryview

# Temporary files of `local.atomic_writer`; a killed process may leave one, and no listing shows it.
TEMP_PREFIX = ".voxsrc-tmp-"


@dataclass(frozen=True)
class ObjectInfo:
    """A file or object as it was found or written.

    Attributes:
        uri: As listed or given.
        size: Bytes.
        generation: Changes with every write: the bucket's generation, or the local modification time in ns.
        crc32c: Base64 of the big-endian checksum as GCS writes it; None where it is not stored (local files).
    """

    uri: str
    size: int
    generation: int | None
    crc32c: str | None


class Backend(Protocol):
    """One store. All raise the errors of `voxsrc.errors`; `voxsrc.storage` documents each operation."""

    def exists(self, uri: str) -> bool:
        """Whether the file or object is there."""

    def stat(self, uri: str) -> ObjectInfo:
        """Size and generation; raises NotFoundError."""

    def list_files(self, prefix_uri: str, *, recursive: bool) -> Iterator[ObjectInfo]:
        """The files below a folder in bytewise order of their names."""

    def read_bytes(self, uri: str) -> bytes:
        """The whole content, verified where a checksum is stored."""

    def read_range(self, uri: str, start: int, length: int, *, generation: int | None = None) -> bytes:
        """`length` bytes from `start`, clipped at the end; StorageError if it is not at `generation`."""

    def write_bytes(self, uri: str, data: Data, *, if_generation_match: int | None = None) -> ObjectInfo:
        """Replaces the content atomically; PreconditionFailedError if it is not at the given generation."""

    def upload(self, local_path: str, uri: str) -> ObjectInfo:
        """Copies a local file here, atomically."""

    def download(self, uri: str, local_path: str) -> ObjectInfo:
        """Copies to a local file, atomically."""

    def delete(self, uri: str, *, missing_ok: bool) -> None:
        """Removes the file or object."""


@cache
def _backend(scheme_name: str) -> Backend:
    return cast(Backend, importlib.import_module(BACKEND_MODULES[scheme_name]).BACKEND)


def backend_for(uri: str) -> Backend:
    """The store of a URI; its module is imported on first use."""
    return _backend(scheme(uri))
