"""Which local file a write replaces. What is not a regular file is refused: replacing would remove it."""

import os
import stat
from pathlib import Path

from voxsrc.errors import StorageError

# As many links in a row as Linux follows.
_MAX_LINKS = 40
_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
}


def target_of(path: str) -> Path:
    """The regular file, there or not yet, that a write to `path` replaces; a link at `path` stays a link.

    Raises:
        StorageError: If there is something else, such as /dev/null or a named pipe, or if `path` leads to an
            open file of a process, as /dev/stdout and /dev/fd/1 do: whoever has that open would not see the
            file that takes its place.
        OSError: If it cannot be looked at.
    """
    if os.path.islink(path):  # noqa: PTH114 - a pathlib object costs as much as the call
        _refuse_open_files(Path(path))
    target = Path(os.path.realpath(path))
    try:
        kind = stat.S_IFMT(target.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return target
    if kind != stat.S_IFREG:
        raise StorageError(
            f"{path}: cannot write: it is a {_KINDS.get(kind, 'special file')}; expected a file, or a new "
            "name in a folder"
        )
    return target


def _refuse_open_files(path: Path) -> None:
    link = path
    for _ in range(_MAX_LINKS):
        if not link.is_symlink():
            return
        folder = os.path.realpath(link.parent)
        if folder.startswith("/proc/"):
            raise StorageError(
                f"{path}: cannot write: it leads to {folder}/{link.name}, an open file of a process, which "
                "cannot be replaced by a finished one; name a file"
            )
        link = folder / link.readlink()
