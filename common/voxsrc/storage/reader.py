"""Reading larger things: one file over several parts by ranges, and many small files in parallel."""

import io
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from voxsrc.errors import StorageError
from voxsrc.storage.backend import ObjectInfo, backend_for
from voxsrc.storage.local import open_file
from voxsrc.storage.uri import is_remote

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# The first read after a jump; each read that follows on asks for four times more, up to `read_ahead`.
FIRST_WINDOW_BYTES = 256 << 10

_BUFFER_BYTES = 64 << 10


def open_binary(uris: str | Sequence[str], *, read_ahead: int = 8 << 20) -> BinaryIO:
    """Opens a file, or several as one (the parts of a split archive in order), for buffered reading.

    The file is seekable: `zipfile` and `tarfile` can read it in place. A local file is opened plainly. From a
    bucket, each refill is one ranged read; sequential reading fetches the next block in the background, jumps
    fetch little, and a part that is replaced meanwhile raises StorageError.

    Args:
        uris: One URI or a sequence of them.
        read_ahead: Largest block, in bytes; at most about three blocks are in memory.
    """
    names = [uris] if isinstance(uris, str) else list(uris)
    if not names:
        raise StorageError("open_binary: got no URI; expected at least one")
    if len(names) == 1 and not is_remote(names[0]):
        return open_file(names[0])
    return io.BufferedReader(
        _RangeReader([backend_for(uri).stat(uri) for uri in names], read_ahead), _BUFFER_BYTES
    )


class _RangeReader(io.RawIOBase):
    """The concatenation of `parts`, read in blocks: one in hand, and while reading goes on one under way."""

    def __init__(self, parts: Sequence[ObjectInfo], read_ahead: int) -> None:
        super().__init__()
        self.name = parts[0].uri
        self._parts = parts
        self._ends = list(accumulate(part.size for part in parts))
        self._size = self._ends[-1]
        self._read_ahead = max(read_ahead, 1)
        self._window = min(FIRST_WINDOW_BYTES, self._read_ahead)
        self._prefetches = any(is_remote(part.uri) for part in parts)
        self._position = 0
        self._start, self._block = 0, b""
        self._coming: tuple[int, int, Future[bytes]] | None = None  # start, process id, block

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self.name}: cannot seek to {base + offset}, before the start")
        self._position = base + offset
        return self._position

    def readall(self) -> bytes:
        pieces = []
        while piece := self.read(self._read_ahead):
            pieces.append(piece)
        return b"".join(pieces)

    def readinto(self, buffer: "WriteableBuffer") -> int:
        if self.closed:
            raise ValueError(f"{self.name}: read from a closed file")
        target = memoryview(buffer).cast("B")
        if not len(target) or self._position >= self._size:
            return 0
        if not self._start <= self._position < self._start + len(self._block):
            self._refill(len(target))
        offset = self._position - self._start
        count = min(len(target), len(self._block) - offset)
        target[:count] = memoryview(self._block)[offset : offset + count]
        self._position += count
        return count

    def close(self) -> None:
        self._block, self._coming = b"", None
        super().close()

    def _refill(self, wanted: int) -> None:
        """Makes the block that holds the position the one in hand, and orders the next if reading goes on."""
        position = self._position
        goes_on = position == self._start + len(self._block)
        self._window = min(
            self._window * 4 if goes_on and self._block else FIRST_WINDOW_BYTES, self._read_ahead
        )
        coming, self._coming = self._coming, None
        self._block = b""  # freed before the next one arrives
        if coming is not None and coming[0] == position and coming[1] == os.getpid():
            self._block = coming[2].result()
        else:  # nothing under way, or a thread that a fork has left behind
            self._block = self._fetch(position, max(self._window, min(wanted, self._read_ahead)))
        self._start = position
        following = position + len(self._block)
        if self._prefetches and goes_on and following < self._size:
            self._coming = (following, os.getpid(), self._fetch_in_background(following, self._window))

    def _fetch_in_background(self, start: int, length: int) -> Future[bytes]:
        future: Future[bytes] = Future()

        def run() -> None:
            try:
                future.set_result(self._fetch(start, length))
            except BaseException as error:  # raised again where the block is used
                future.set_exception(error)

        # A daemon: a reader that is abandoned must not hold up the end of the process.
        threading.Thread(target=run, name="voxsrc-read-ahead", daemon=True).start()
        return future

    def _fetch(self, start: int, length: int) -> bytes:
        """Bytes [start, start + length) of the concatenation, clipped at its end."""
        pieces = []
        end = min(start + length, self._size)
        for part, part_end in zip(self._parts, self._ends, strict=True):
            first = max(start, part_end - part.size)
            count = min(end, part_end) - first
            if count <= 0:
                continue
            offset = first - (part_end - part.size)
            piece = backend_for(part.uri).read_range(part.uri, offset, count, generation=part.generation)
            if len(piece) != count:
                raise StorageError(
                    f"{part.uri}: got {len(piece)} of {count} bytes from byte {offset}; start again"
                )
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_many(uris: Iterable[str], *, max_workers: int = 8) -> Iterator[bytes]:
    """The contents of many files, read in parallel, in the order given.

    At most `max_workers` files are being read or waiting to be taken at any time, which bounds the memory.
    """
    if max_workers < 1:
        raise ValueError(f"read_many: max_workers is {max_workers}; expected at least 1")
    pool = ThreadPoolExecutor(max_workers, thread_name_prefix="voxsrc-read")
    waiting: deque[Future[bytes]] = deque()
    try:
        for uri in uris:
            if len(waiting) == max_workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(backend_for(uri).read_bytes, uri))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
