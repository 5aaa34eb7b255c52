"""One official file, assembled from what is here and what an origin sends, without ever losing what is here.

What a server sends cannot be trusted before its MD5 is known: it may be a page that asks to log in, with
status 200. So the partial file only grows, and a download that begins at the first byte goes to a second file
beside it, which takes its place when its MD5 is right.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from tqdm import tqdm

from voxceleb_data.official import OfficialFile
from voxceleb_data.origins import CHUNK_BYTES, BrokenTransferError, Origin, Stream
from voxsrc.errors import StorageError
from voxsrc.storage.local import is_at

# How a web page begins. Its declared type is no sign: scripts send archives as text/html by mistake.
_PAGE_BEGINS = (b"<!doctype", b"<html", b"<head", b"<body", b"<script", b"<!--")
_BEFORE_A_PAGE = b"\xef\xbb\xbf \t\r\n"
_LOGIN_HINT = "it may be a page that asks to log in or says that a key has expired: check the credentials"


class WrongContentError(StorageError):
    """The origin has something else than the file."""


@dataclass(frozen=True)
class Assembly:
    """How one file is put together.

    Attributes:
        origin: Where from.
        file: What.
        partial: The local file that grows; it is `file` as soon as its MD5 is right.
        num_bytes: Size of the whole, None if the origin does not say.
        pause_after: Waits after so many failures in a row, the last of them given, or raises.
        require_room: Raises StorageError if the disk of `partial` lacks so many bytes; the text is a remedy.
        report: Receives one line for each event worth telling.
        show_progress: True or False for the bar, None to show it on a terminal only.
    """

    origin: Origin
    file: OfficialFile
    partial: Path
    num_bytes: int | None
    pause_after: Callable[[int, BrokenTransferError], None]
    require_room: Callable[[int, str], None]
    report: Callable[[str], None]
    show_progress: bool | None

    def fetch(self, final: Path) -> None:
        """Brings the whole file, verified and synced to disk, to `final`; then `partial` is gone.

        Raises:
            WrongContentError: If the origin has something else: what was here before is kept.
            StorageError: If another download writes the file, the disk has no room, or the origin fails.
        """
        with _locked(self.partial) as assembled:
            begun = _size_of(assembled)
            found = self._append(assembled, may_restart=False)
            if found == self.file.md5:
                _sync(assembled)
                anew_path(self.partial).unlink(missing_ok=True)
            elif found is not None and not begun:
                assembled.truncate(0)
                raise self._wrong_sum(found)
            else:
                what = (
                    "the server sends from the first byte only"
                    if found is None
                    else f"the whole has MD5 {found}"
                )
                self.report(f"{self.file.name}: {what}; fetching all of it, beside what is here")
                try:
                    self._fetch_anew()
                except WrongContentError:
                    if found is not None:  # what this origin has appended is no better
                        assembled.truncate(begun)
                    raise
            self.partial.replace(final)

    def _fetch_anew(self) -> None:
        anew = anew_path(self.partial)
        with _locked(anew) as assembled:
            if self.num_bytes is not None:
                self.require_room(self.num_bytes - _size_of(assembled), f" or delete {self.partial.name}")
            found = self._append(assembled, may_restart=True)
            if found != self.file.md5:
                assembled.truncate(0)
                raise self._wrong_sum(found)
            _sync(assembled)
            anew.replace(self.partial)

    def _append(self, assembled: BinaryIO, *, may_restart: bool) -> str | None:
        """Appends what is missing and returns the whole's MD5.

        If the origin sends from the first byte only, what is here is discarded, or, unless `may_restart`,
        kept and None returned.
        """
        position = _size_of(assembled)
        if self.num_bytes is not None and position > self.num_bytes:
            raise WrongContentError(
                f"{self._address} has {self.num_bytes:,} bytes, but {position:,} are here already: "
                f"{_LOGIN_HINT}. What is here is kept; if it is wrong, delete {assembled.name}"
            )
        digest = hashlib.md5(usedforsecurity=False)
        assembled.seek(0)
        for chunk in chunks_of(assembled):
            digest.update(chunk)
        failures, farthest = 0, position
        with progress_bar(self.file.name, self.num_bytes, self.show_progress, initial=position) as bar:
            while self._lacks_bytes(position, digest.hexdigest()):
                try:
                    stream = self.origin.open(self.file.name, position)
                    self._refuse_another_size(stream)
                    starts_over = stream.offset != position
                    if starts_over and not may_restart:
                        return None
                    for chunk in stream.chunks:
                        if starts_over or position == 0:
                            self._refuse_page(chunk)
                        if starts_over:
                            starts_over = False
                            assembled.truncate(0)
                            digest = hashlib.md5(usedforsecurity=False)
                            position = 0
                            bar.reset(self.num_bytes)
                        assembled.write(chunk)
                        digest.update(chunk)
                        position += len(chunk)
                        # A server that always starts over, and always fails, gets nowhere.
                        if position > farthest:
                            failures, farthest = 0, position
                        bar.update(len(chunk))
                    if self.num_bytes is None:
                        break
                    if position < self.num_bytes:
                        raise BrokenTransferError(f"{self._address} ended at byte {position:,}")
                except BrokenTransferError as error:
                    failures += 1
                    assembled.flush()
                    self.pause_after(failures, error)
        return digest.hexdigest()

    @property
    def _address(self) -> str:
        return self.origin.address(self.file.name)

    def _lacks_bytes(self, position: int, md5: str) -> bool:
        return md5 != self.file.md5 if self.num_bytes is None else position < self.num_bytes

    def _refuse_another_size(self, stream: Stream) -> None:
        if None not in (self.num_bytes, stream.num_bytes) and stream.num_bytes != self.num_bytes:
            raise WrongContentError(
                f"{self._address} has {stream.num_bytes:,} bytes now, {self.num_bytes:,} before: "
                f"{_LOGIN_HINT}. What is here is kept; run again to go on"
            )

    def _refuse_page(self, begin: bytes) -> None:
        if begin.lstrip(_BEFORE_A_PAGE)[:16].lower().startswith(_PAGE_BEGINS):
            raise WrongContentError(
                f"{self._address} sent a web page instead of the file: {_LOGIN_HINT}. What is here is kept; "
                "run again to go on"
            )

    def _wrong_sum(self, found: str | None) -> WrongContentError:
        return WrongContentError(
            f"{self._address}: MD5 {found}, expected {self.file.md5}; the bytes that it sent were removed. "
            "Run again; if it stays so, the source is damaged or asks you to log in"
        )


def anew_path(partial: Path) -> Path:
    """Where a download from the first byte goes while `partial` is kept."""
    return partial.with_name(f"{partial.name}.anew")


def chunks_of(opened: BinaryIO) -> Iterator[bytes]:
    """What is left of a file, a MiB at a time."""
    while chunk := opened.read(CHUNK_BYTES):
        yield chunk


def progress_bar(label: str, total: int | None, show: bool | None, *, initial: int = 0) -> "tqdm[NoReturn]":
    """A bar that counts bytes."""
    return tqdm(
        desc=label,
        total=total,
        initial=initial,
        unit="B",
        unit_scale=True,
        disable=None if show is None else not show,
    )


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """A file to append to, which no other download has; if it ends up empty, it is removed."""
    with path.open("a+b") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(f"{path} is being written by another download; wait for it") from None
        if not is_at(opened.fileno(), path):
            raise StorageError(f"{path} was finished by another download just now; run again")
        try:
            yield opened
        finally:
            if _size_of(opened) == 0 and is_at(opened.fileno(), path):
                path.unlink()


def _size_of(opened: BinaryIO) -> int:
    opened.flush()
    return os.fstat(opened.fileno()).st_size


def _sync(opened: BinaryIO) -> None:
    opened.flush()
    os.fsync(opened.fileno())
