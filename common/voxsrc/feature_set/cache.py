"""Files of decoded frames for `mode="mmap"`: each made once on a machine, mapped by all its processes."""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from voxsrc import storage
from voxsrc.errors import StorageError
from voxsrc.feature_set.encoding import Uint8Array
from voxsrc.storage.local import LOCKS_UNSUPPORTED, is_at

_CACHE_ENV = "VOXSRC_CACHE"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger(__name__)


def open_decoded(
    content: bytes, shape: tuple[int, int], decode: Callable[[Uint8Array], None], folder: str | None = None
) -> BinaryIO:
    """Opens a set's file of decoded frames, and makes it if there is none.

    Of several processes that want to make it, one does and the others wait. What a killed one left makes
    room for the next.

    Args:
        content: What the set is, as bytes: sets that differ in it have separate files.
        shape: Frames of the whole set, mel bands; not 0.
        decode: Fills an array of this shape.
        folder: Of the files; by default $VOXSRC_CACHE, else ~/.cache/voxsrc.

    Raises:
        StorageError: If the folder cannot be made, read or written, or its disk has no room.
    """
    place = _place(folder)
    path, num_bytes = place / f"{hashlib.sha256(content).hexdigest()[:20]}.u8", shape[0] * shape[1]
    opened = _whole(path, num_bytes)
    if opened is None:
        with _lock_beside(path):
            opened = _whole(path, num_bytes)
            if opened is None:
                _write(path, shape, decode)
                opened = path.open("rb")
    return opened


def _place(folder: str | None) -> Path:
    named = folder or os.environ.get(_CACHE_ENV)
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "voxsrc"
    except RuntimeError as error:
        raise StorageError(
            f"no home folder to keep a decoded set in ({error}); set ${_CACHE_ENV} to a folder"
        ) from error


def _whole(path: Path, num_bytes: int) -> BinaryIO | None:
    try:
        opened = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(path, "read", error) from error
    if os.fstat(opened.fileno()).st_size == num_bytes:
        return opened
    opened.close()
    return None


def _unusable(path: Path, action: str, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot {action} the decoded set: {error.strerror or error}; set ${_CACHE_ENV} to a folder "
        "that you may write to, or open the set with mode='ram'"
    )


@contextmanager
def _lock_beside(path: Path) -> Iterator[None]:
    """Holds the lock file of `path`; it is removed at the end, after a kill by whoever comes next."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(lock)
    except OSError as error:
        raise _unusable(path, "make", error) from error
    try:
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):  # without locks, another may be done before
                lock.unlink()
            # Closing would not release it if a child forked meanwhile inherited the descriptor.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _locked(lock: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning("%s: another process decodes this set, waiting for it", lock)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in LOCKS_UNSUPPORTED:
                os.close(descriptor)
                raise
            return descriptor
        # The last owner may have removed this very file between our open and our lock.
        if is_at(descriptor, lock):
            return descriptor
        os.close(descriptor)


def _write(path: Path, shape: tuple[int, int], decode: Callable[[Uint8Array], None]) -> None:
    num_bytes = shape[0] * shape[1]
    # The writer comes first: it empties what a killed one left, which would count as used.
    with storage.atomic_writer(str(path)) as file:
        free = shutil.disk_usage(path.parent).free
        if free < num_bytes:
            raise _no_room(path, f"{_amount(free)} free", num_bytes)
        try:
            _allocate(file.fileno(), num_bytes)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise _unusable(path, "make", error) from error
            raise _no_room(path, f"no room ({error.strerror})", num_bytes) from error
        frames = np.memmap(file, np.uint8, mode="r+", shape=shape)
        decode(frames)
        frames.flush()


def _allocate(descriptor: int, num_bytes: int) -> None:
    """Takes the blocks now: a memory map onto a hole of a full disk ends the process by SIGBUS."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, num_bytes)
    else:
        os.ftruncate(descriptor, num_bytes)


def _no_room(path: Path, found: str, num_bytes: int) -> StorageError:
    return StorageError(
        f"{path.parent} has {found}, the decoded set needs {_amount(num_bytes)}; set ${_CACHE_ENV} (in a "
        "training: data.cache_dir) to a folder on a larger disk, or take mode='ram' (data.placement=ram)"
    )


def _amount(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.4g} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.4g} MB"
