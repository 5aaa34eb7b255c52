"""Local files: atomic replacement, generations and preconditions by lock, listing in name order.

A write goes to a temporary file in the target's folder, is synced, and replaces the target by rename.
Temporary files are numbered slots, `.voxsrc-tmp-0` and so on, each held by a lock while its writer lives:
what a killed writer left is removed by the next one of the same user that comes to its slot (each looks from
the first on), so that they do not pile up. Renames in a folder happen under a lock on the folder, which makes
check-and-replace one step for all processes on the machine (and across machines where the file system's locks
are).
"""

import contextlib
import errno
import fcntl
import os
import stat as stat_module
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from voxsrc.errors import NotFoundError, PermissionDeniedError, PreconditionFailedError, StorageError
from voxsrc.storage.backend import TEMP_PREFIX, Backend, Data, ObjectInfo
from voxsrc.storage.links import is_repeated, leads_to
from voxsrc.storage.target import target_of
from voxsrc.storage.uri import local_path

COPY_BYTES = 4 << 20

# Error numbers of `flock` on a file system that has no locks.
LOCKS_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@contextmanager
def translated(path: str, action: str) -> Iterator[None]:
    """Turns an OSError into the matching StorageError that names the path, the action and a remedy."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{path}: cannot {action}: it does not exist; check the path") from error
    except PermissionError as error:
        raise PermissionDeniedError(
            f"{path}: cannot {action}: user {os.getuid()} may not; check its owner and mode, and its folders'"
        ) from error
    except IsADirectoryError as error:
        raise StorageError(f"{path}: cannot {action}: it is a folder; expected a file") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotFoundError(f"{path}: cannot {action}: its links lead in a circle; mend them") from error
        raise StorageError(f"{path}: cannot {action}: {error.strerror or error}") from error


def _info(uri: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(uri, status.st_size, status.st_mtime_ns, None)


@contextmanager
def _folder_lock(folder: Path, *, required: bool) -> Iterator[None]:
    """Holds the folder's exclusive lock; without lock support goes on, or raises if `required`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in LOCKS_UNSUPPORTED:
                raise
            if required:
                raise StorageError(
                    f"{folder}: its file system has no locks ({error.strerror}), which a conditional write "
                    "needs; use another disk or a bucket"
                ) from error
        try:
            yield
        finally:
            # Closing would not release it if a child forked meanwhile inherited the descriptor.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _claim_temp(folder: Path) -> tuple[int, Path]:
    """Makes the first slot that no living writer and no other user has: (descriptor, path), locked, empty."""
    slot = 0
    while True:
        path = folder / f"{TEMP_PREFIX}{slot}"
        opened = _open_slot(path)
        if opened is None:
            slot += 1
            continue
        descriptor, is_new = opened
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            slot += 1
            continue
        except OSError as error:
            os.close(descriptor)
            if error.errno not in LOCKS_UNSUPPORTED:
                raise
            path.unlink(missing_ok=True)
            path = folder / f"{TEMP_PREFIX}{os.urandom(8).hex()}"
            return os.open(path, _NEW_FILE, 0o666), path
        # Between our opening and our lock the last owner may have renamed this very file to its target.
        if is_at(descriptor, path):
            if is_new:
                return descriptor, path
            path.unlink()  # a new one has the mode that our umask gives
        os.close(descriptor)


def _open_slot(path: Path) -> tuple[int, bool] | None:
    """Opens a slot, or makes it. Returns (descriptor, whether it was made), or None if it is not this user's.

    Others' files may be written to where a group shares a folder, but not be given a time, nor be removed if
    the folder is sticky.
    """
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(path, _NEW_FILE, 0o666), True
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # published or removed just now
            continue
        except OSError as error:
            if isinstance(error, PermissionError) or error.errno == errno.ELOOP:
                return None
            raise
        # A file that was made by us may well have another owner: network file systems map users.
        if os.fstat(descriptor).st_uid == os.geteuid():
            return descriptor, False
        os.close(descriptor)
        return None


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still lies at `path`, neither removed nor renamed nor replaced."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _publish(descriptor: int, temp: Path, target: Path, if_generation_match: int | None) -> ObjectInfo:
    """Renames a synced temporary file to `target`, later in modification time than what it replaces."""
    with _folder_lock(target.parent, required=if_generation_match is not None):
        try:
            replaced: int | None = target.stat().st_mtime_ns
        except FileNotFoundError:
            replaced = None
        if if_generation_match is not None and if_generation_match != (replaced or 0):
            raise _precondition_failed(target, if_generation_match, replaced)
        # The kernel's own stamp is too coarse (up to 10 ms) to tell two writes apart.
        now = max(time.time_ns(), (replaced or 0) + 1)
        os.utime(descriptor, ns=(now, now))
        info = _info(str(target), os.fstat(descriptor))
        temp.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return info


def _precondition_failed(target: Path, expected: int, found: int | None) -> PreconditionFailedError:
    wanted = "no file yet" if expected == 0 else f"generation {expected}"
    present = "none exists" if found is None else f"found generation {found}"
    return PreconditionFailedError(
        f"{target}: expected {wanted}, {present}: somebody else wrote it first; read it again and decide anew"
    )


@contextmanager
def replacing(
    path: str, if_generation_match: int | None = None
) -> Iterator[tuple[BinaryIO, list[ObjectInfo]]]:
    """Yields a file to fill, and a list that receives the ObjectInfo once it has replaced `path`."""
    with translated(path, "write"):
        target = target_of(local_path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temp = _claim_temp(target.parent)
    written: list[ObjectInfo] = []
    try:
        try:
            file = open(descriptor, "wb", closefd=False, buffering=1 << 18)  # noqa: SIM115 - closed below
            try:
                yield file, written
                with translated(path, "write"):
                    file.flush()
            finally:
                # After a failed write the buffer is still full, and closing would fail on it once more.
                with contextlib.suppress(OSError):
                    file.close()
            with translated(path, "write"):
                os.fsync(descriptor)
                info = _publish(descriptor, temp, target, if_generation_match)
        except BaseException:
            # Why the write has failed is what matters, and the next writer removes what is left.
            with contextlib.suppress(OSError):
                if is_at(descriptor, temp):  # once renamed, the slot may be another writer's
                    temp.unlink()
            raise
        written.append(ObjectInfo(path, info.size, info.generation, None))
    finally:
        os.close(descriptor)


@contextmanager
def atomic_writer(path: str) -> Iterator[BinaryIO]:
    """A local file to write to; it replaces `path` at the end of the `with`, whole and synced to disk.

    Parent folders are created. If the block raises, `path` is as before and nothing is left behind. What is
    there and is no regular file (/dev/null, a named pipe) is refused: see `target_of`.
    """
    with replacing(path) as (file, _):
        yield file


class LocalBackend:
    """Files of this machine. The generation is the modification time in ns, which every write here raises."""

    def exists(self, uri: str) -> bool:
        """True for a file or a link to one."""
        return Path(local_path(uri)).is_file()

    def stat(self, uri: str) -> ObjectInfo:
        """Size and generation; raises NotFoundError, or StorageError for a folder."""
        path = local_path(uri)
        with translated(path, "read"):
            status = os.stat(path)  # noqa: PTH116 - a pathlib object costs as much as the call
        if stat_module.S_ISDIR(status.st_mode):
            raise StorageError(f"{path}: is a folder; expected a file")
        return _info(uri, status)

    def list_files(self, prefix_uri: str, *, recursive: bool) -> Iterator[ObjectInfo]:
        """Depth first, in bytewise order of the full names; sizes by one stat each."""
        root = local_path(prefix_uri)
        if not Path(root).is_dir():
            found = "is a file" if Path(root).exists() else "does not exist"
            raise NotFoundError(f"{root}: {found}; expected a folder: check the path")
        return self._walk(root.rstrip("/"), recursive, {os.path.realpath(root): None})

    def _walk(self, folder: str, recursive: bool, listed: dict[str, None]) -> Iterator[ObjectInfo]:
        with translated(folder or "/", "list"), os.scandir(folder or "/") as scan:
            # A folder sorts as if its name ended in "/": then depth first gives the order of full names.
            entries = sorted((os.fsencode(e.name) + (b"/" if leads_to(e.is_dir) else b""), e) for e in scan)
        for key, entry in entries:
            path = f"{folder}/{entry.name}"
            if key.endswith(b"/"):
                if recursive and not (entry.is_symlink() and is_repeated(path, listed)):
                    yield from self._walk(path, recursive, listed)
            elif leads_to(entry.is_file) and not entry.name.startswith(TEMP_PREFIX):
                with contextlib.suppress(FileNotFoundError):  # removed since the scan
                    yield _info(path, entry.stat())

    def read_bytes(self, uri: str) -> bytes:
        """The whole file."""
        path = local_path(uri)
        # For a small file, a pathlib object and a buffer cost as much as the read.
        with translated(path, "read"), open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.readall()

    def read_range(self, uri: str, start: int, length: int, *, generation: int | None = None) -> bytes:
        """Reads past the buffer, in one call."""
        path = local_path(uri)
        with translated(path, "read"), Path(path).open("rb", buffering=0) as file:
            if generation not in (None, found := os.fstat(file.fileno()).st_mtime_ns):
                raise StorageError(
                    f"{path}: changed while it was read (generation {generation}, now {found}); start again"
                )
            file.seek(start)
            pieces = []
            while length and (piece := file.read(length)):  # one read gives at most 2 GiB
                pieces.append(piece)
                length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write_bytes(self, uri: str, data: Data, *, if_generation_match: int | None = None) -> ObjectInfo:
        """Temporary file, sync, check and rename under the folder's lock, sync of the folder."""
        with replacing(uri, if_generation_match) as (file, written), translated(uri, "write"):
            file.write(data)
        return written[0]

    def upload(self, local_path: str, uri: str) -> ObjectInfo:
        """A copy."""
        return self.download(local_path, uri)

    def download(self, uri: str, local_path: str) -> ObjectInfo:
        """A copy."""
        with open_file(uri) as source, replacing(local_path) as (target, written):
            while piece := source.read(COPY_BYTES):
                with translated(local_path, "write"):
                    target.write(piece)
        return written[0]

    def delete(self, uri: str, *, missing_ok: bool) -> None:
        """Unlinks under the folder's lock, so that no conditional write sees it half gone."""
        path = Path(local_path(uri))
        if missing_ok and not path.parent.is_dir():
            return
        with translated(str(path), "delete"), _folder_lock(path.parent, required=False):
            path.unlink(missing_ok=missing_ok)


def open_file(uri: str) -> BinaryIO:
    """A plain local file, opened for reading; raises the errors of this module."""
    path = local_path(uri)
    with translated(path, "read"):
        return Path(path).open("rb", buffering=1 << 16)


BACKEND: Backend = LocalBackend()
