"""Downloads official files so that a kill at any instant costs nothing, and checks their MD5.

Beside a verified file `NAME` lies `NAME.md5` (in md5sum's form), by which a later run knows it without
hashing it again; an unfinished one is `NAME.partial`, and `NAME.partial.anew` while all of it is fetched a
second time (see `voxceleb_data.assembly`). Nothing unverified is ever named `NAME`. To a bucket, each file
goes through a local staging folder. Parts stay parts: who reads audio takes them as one archive.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxceleb_data.assembly import Assembly, chunks_of, progress_bar
from voxceleb_data.official import OfficialFile
from voxceleb_data.origins import BrokenTransferError, Origin
from voxsrc import storage
from voxsrc.errors import ConfigError, StorageError

PARTIAL = ".partial"
_RECORD = ".md5"
# Failures in a row, without a byte between them, before giving up: about five minutes of waiting.
_MAX_FAILURES = 9
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Transfer:
    """How files are fetched.

    Attributes:
        origin: Where from.
        output: Folder or bucket that receives them.
        staging: Local folder for files on their way to a bucket; unused when `output` is local.
        report: Receives one line for each event worth telling.
        pause: Waits the given seconds between attempts.
        show_progress: True or False for the bar, None to show it on a terminal only.
    """

    origin: Origin
    output: str
    staging: Path
    report: Callable[[str], None] = print
    pause: Callable[[float], None] = time.sleep
    show_progress: bool | None = None

    @property
    def folder(self) -> Path:
        """The local folder in which files are assembled."""
        return self.staging if storage.is_remote(self.output) else Path(storage.local_path(self.output))

    def download(self, files: Sequence[OfficialFile], *, rehash: bool = False) -> int:
        """Brings every file to `output`, verified.

        Args:
            files: What to fetch.
            rehash: Whether files recorded as verified are hashed again.

        Returns:
            How many were fetched; the others were there.

        Raises:
            StorageError: If the disk has no room, the origin fails for long, or sends something else (a page
                that asks to log in, a wrong MD5): then what was here before is kept.
        """
        for file in files:
            if self.origin.address(file.name) == storage.join(self.output, file.name):
                raise ConfigError(f"--from and --output are both {self.output}; use `verify` to check it")
        pending = [file for file in files if not self._is_there(file, rehash)]
        if pending:
            self.folder.mkdir(parents=True, exist_ok=True)
            sizes = {file: self._size_at_origin(file) for file in pending}
            self._check_free_space(sizes)
            for file, num_bytes in sizes.items():
                self._fetch(file, num_bytes)
                self.report(f"{file.name}: downloaded, MD5 as published")
        return len(pending)

    def _is_there(self, file: OfficialFile, rehash: bool) -> bool:
        uri = storage.join(self.output, file.name)
        if not storage.exists(uri):
            return False
        if not rehash and is_recorded(self.output, file):
            self.report(f"{file.name}: there, verified before")
            return True
        found = md5_of(uri, show_progress=self.show_progress)
        if found == file.md5:
            _record(self.output, file)
            self.report(f"{file.name}: there, MD5 as published")
            return True
        self.report(f"{file.name}: there, but its MD5 is {found}, expected {file.md5}; fetching it again")
        forget_record(self.output, file)
        if storage.is_remote(self.output):
            storage.delete(uri)
        else:
            wrong, partial = Path(uri), self._partial(file)
            # Perhaps it only ends too early: then the rest is enough.
            if _size(wrong) > _size(partial):
                wrong.replace(partial)
            else:
                wrong.unlink()
        return False

    def _size_at_origin(self, file: OfficialFile) -> int | None:
        if self._is_staged(file):
            return self._path(file).stat().st_size
        failures = 0
        while True:
            try:
                return self.origin.num_bytes(file.name)
            except BrokenTransferError as error:
                failures += 1
                self._pause_after(failures, error)

    def _check_free_space(self, sizes: Mapping[OfficialFile, int | None]) -> None:
        remaining = [
            num_bytes - max(_size(self._partial(file)), _size(self._path(file)))
            for file, num_bytes in sizes.items()
            if num_bytes is not None
        ]
        # To a bucket, only one file at a time lies here.
        self._require_room(max(remaining, default=0) if storage.is_remote(self.output) else sum(remaining))
        if len(remaining) < len(sizes):
            self.report("the server does not tell every size: whether the disk has room is not known")

    def _require_room(self, needed: int, further_remedy: str = "") -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            option = "--staging" if storage.is_remote(self.output) else "--output"
            raise StorageError(
                f"{self.folder} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed; "
                f"make room{further_remedy} or choose another {option}"
            )

    def _fetch(self, file: OfficialFile, num_bytes: int | None) -> None:
        if not self._is_staged(file):
            self._fetch_to_folder(file, num_bytes)
        if storage.is_remote(self.output):
            storage.upload(str(self._path(file)), storage.join(self.output, file.name))
            _record(self.output, file)
            forget_record(str(self.folder), file)
            self._path(file).unlink()

    def _fetch_to_folder(self, file: OfficialFile, num_bytes: int | None) -> None:
        assembly = Assembly(
            self.origin,
            file,
            self._partial(file),
            num_bytes,
            self._pause_after,
            self._require_room,
            self.report,
            self.show_progress,
        )
        assembly.fetch(self._path(file))
        _record(str(self.folder), file)

    def _pause_after(self, failures: int, error: BrokenTransferError) -> None:
        """Waits before the next attempt, or gives up."""
        if failures == _MAX_FAILURES:
            raise StorageError(f"{error}; gave up after {failures} attempts, run again to go on") from error
        self.pause(min(2.0 ** (failures - 1), _LONGEST_PAUSE_S))

    def _path(self, file: OfficialFile) -> Path:
        return self.folder / file.name

    def _partial(self, file: OfficialFile) -> Path:
        return self.folder / f"{file.name}{PARTIAL}"

    def _is_staged(self, file: OfficialFile) -> bool:
        """Whether a file for a bucket lies verified in the staging folder, as after a kill at the upload."""
        return storage.is_remote(self.output) and is_recorded(str(self.folder), file)


def is_recorded(folder: str, file: OfficialFile) -> bool:
    """Whether `folder` has the file and the record that its MD5 was found right."""
    record = storage.join(folder, f"{file.name}{_RECORD}")
    return (
        storage.exists(storage.join(folder, file.name))
        and storage.exists(record)
        and storage.read_bytes(record).split()[:1] == [file.md5.encode()]
    )


def md5_of(uri: str, *, show_progress: bool | None = None) -> str:
    """MD5 of a local file or an object, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    label = f"MD5 of {storage.name(uri)}"
    with (
        storage.open_binary(uri) as opened,
        progress_bar(label, storage.stat(uri).size, show_progress) as bar,
    ):
        for chunk in chunks_of(opened):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def forget_record(folder: str, file: OfficialFile) -> None:
    """Removes the record of a file, so that the next download looks at the file again."""
    storage.delete(storage.join(folder, f"{file.name}{_RECORD}"), missing_ok=True)


def _record(folder: str, file: OfficialFile) -> None:
    line = f"{file.md5}  {file.name}\n"
    storage.write_bytes(storage.join(folder, f"{file.name}{_RECORD}"), line.encode())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
