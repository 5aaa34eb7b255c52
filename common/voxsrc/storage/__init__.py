"""Files, local and in buckets, by URI: the one place that knows where data live.

A URI is a local path (relative or absolute, `file://` accepted, `~` not expanded) or `gs://bucket/key`.
Everybody else passes URIs around and calls the functions below.

Guarantees:
- Writes are atomic: whoever reads, and whatever is left after SIGKILL at any instant, is the old or the new
  content, whole. Parent folders are created.
- Whole reads and writes of bucket objects are verified by CRC32C; a read by range is checked for its length
  and, in `open_binary`, for coming from the same generation as the reads before it.
- Every bucket operation is repeated with exponential back-off and jitter after 408, 429, 5xx, a broken or
  stalled connection or a truncated body, until nothing has moved for VOXSRC_STORAGE_DEADLINE_S seconds
  (default 600). A transfer goes on from the byte that it had reached. A connection is stalled when no byte
  arrives for VOXSRC_STORAGE_TIMEOUT_S seconds (default 60).
- Errors are `NotFoundError` (also for a bucket that does not exist, in every operation),
  `PermissionDeniedError`, `PreconditionFailedError`, or another `StorageError`; each says what to do.
- Clients are made on first use, once per process; all functions may be called from threads and after a fork.

`STORAGE_EMULATOR_HOST` sends gs:// to an emulator, without credentials. Another store is one module with a
`BACKEND` (see `voxsrc.storage.backend.Backend`) and one line in `voxsrc.storage.uri.BACKEND_MODULES`.
"""

from collections.abc import Iterator

from voxsrc.storage.backend import Data, ObjectInfo, backend_for
from voxsrc.storage.local import atomic_writer
from voxsrc.storage.reader import open_binary, read_many
from voxsrc.storage.uri import is_remote, join, local_path, name, parent

__all__ = [
    "ObjectInfo",
    "atomic_writer",
    "delete",
    "download",
    "exists",
    "is_remote",
    "join",
    "list_files",
    "local_path",
    "name",
    "open_binary",
    "parent",
    "read_bytes",
    "read_many",
    "read_range",
    "stat",
    "upload",
    "write_bytes",
]


def exists(uri: str) -> bool:
    """True for a file or object, False for a folder or nothing.

    Raises:
        NotFoundError: The bucket itself does not exist: a wrong name must not look like an empty start.
    """
    return backend_for(uri).exists(uri)


def stat(uri: str) -> ObjectInfo:
    """Size, generation and checksum of one file or object; raises NotFoundError."""
    return backend_for(uri).stat(uri)


def list_files(prefix_uri: str, *, recursive: bool = True) -> Iterator[ObjectInfo]:
    """The files below a folder, in bytewise order of their full names, without reading them.

    `prefix_uri` is a folder, with or without a final slash: `gs://b/run` does not list `gs://b/run2/x`. Each
    URI begins with it. Links to files are listed under their own name; links to folders are followed unless
    they lead into what is listed anyway. Left-over temporary files and special files are not listed.

    Raises:
        NotFoundError: No such local folder, or no such bucket. An empty bucket prefix gives nothing.
    """
    return backend_for(prefix_uri).list_files(prefix_uri, recursive=recursive)


def read_bytes(uri: str) -> bytes:
    """The whole content; from a bucket verified by CRC32C."""
    return backend_for(uri).read_bytes(uri)


def read_range(uri: str, start: int, length: int) -> bytes:
    """Exactly the bytes [start, start + length), clipped at the end of the file."""
    if start < 0 or length < 0:
        raise ValueError(f"read_range: start {start} and length {length} must not be negative")
    return backend_for(uri).read_range(uri, start, length)


def write_bytes(uri: str, data: Data, *, if_generation_match: int | None = None) -> ObjectInfo:
    """Replaces the content atomically, on condition of its present generation if asked.

    Args:
        uri: Where to; local parent folders are created.
        data: The new content.
        if_generation_match: 0: the file must not exist yet; n: it must still be at generation n (as `stat` or
            an earlier write returned it). Of any number of writers with one expectation, one succeeds. A
            write whose answer was lost and that is found done on repetition counts as done.

    Raises:
        PreconditionFailedError: Somebody else wrote or removed it first; nothing was changed. Or, in a
            bucket, the answer was lost and the write replaced before its repetition: the message says so.
    """
    return backend_for(uri).write_bytes(uri, data, if_generation_match=if_generation_match)


def upload(local_path: str, uri: str) -> ObjectInfo:
    """Copies a local file of any size to `uri` (which may be local); atomic, verified, resumed when cut."""
    return backend_for(uri).upload(local_path, uri)


def download(uri: str, local_path: str) -> ObjectInfo:
    """Copies `uri` (which may be local) to a local file; atomic, verified, resumed when cut."""
    return backend_for(uri).download(uri, local_path)


def delete(uri: str, *, missing_ok: bool = False) -> None:
    """Removes one file or object; raises NotFoundError if there is none, unless `missing_ok`."""
    backend_for(uri).delete(uri, missing_ok=missing_ok)
