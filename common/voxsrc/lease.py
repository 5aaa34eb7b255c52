"""One writer per folder, local or in a bucket: a lease with a heartbeat, its file `writer.json`.

Who finds a sign of life refuses; who finds none takes over:
- the holder released it, or ran in this very machine and PID namespace and is dead: at once;
- the last heartbeat is older than LEASE_S by the clocks: at once;
- otherwise it is watched: a change means that the holder lives (found within HEARTBEAT_S, whatever the
  clocks say), none until its age has reached LEASE_S that it is gone. A Spot pod that starts again on another
  host 30 s after its end thus waits 15 s at most.

A holder that was cut off and comes back, or one whose clock is more than LEASE_S behind, may find itself
replaced at any time: before it changes what others read, it asks by `confirm`, or writes on a condition.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from voxsrc import storage
from voxsrc.errors import PreconditionFailedError, StorageError, VoxsrcError
from voxsrc.processes import pid_scope, process_started

LEASE_NAME = "writer.json"
LEASE_S = 45.0
HEARTBEAT_S = 10.0
POLL_S = 1.0

_log = logging.getLogger(__name__)


class WriterActiveError(VoxsrcError):
    """Another run is writing to the same output."""


class LeaseLostError(VoxsrcError):
    """Another run has taken over the output; this one must not write any more."""


@dataclass(frozen=True)
class Clock:
    """Where time comes from: seconds since the epoch, seconds of a clock that never jumps, and a pause."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class LeaseRecord:
    """What the file says.

    Attributes:
        writer: Id of this lease.
        run_id: The run, for messages.
        host: The holder's host name, for messages.
        pid: The holder's process.
        pid_scope: Boot id and PID namespace, within which `pid` means a process; "" if unknown.
        pid_started: When the process started, in ticks since boot, as a PID may be used again.
        started: Seconds since the epoch.
        heartbeat: Seconds since the epoch, by the holder's clock.
        released: The holder has ended in an orderly way.
    """

    writer: str
    run_id: str
    host: str
    pid: int
    pid_scope: str
    pid_started: str
    started: float
    heartbeat: float
    released: bool = False

    def to_json(self) -> bytes:
        """The file's content."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self | None:
        """Reads the file's content; None if it is damaged."""
        try:
            return cls(**json.loads(content))
        except (TypeError, ValueError):
            return None

    def holder(self) -> str:
        """For messages."""
        since = datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds")
        return f"run {self.run_id!r} on host {self.host}, process {self.pid}, since {since}"

    def is_alive(self) -> bool | None:
        """Whether the holder's process runs; None if that cannot be seen from here."""
        if not self.pid_scope or self.pid_scope != pid_scope():
            return None
        return process_started(self.pid) == self.pid_started


class Lease:
    """The right to write to a folder; as a context manager it gives signs of life until its end.

    Args:
        folder_uri: The folder.
        run_id: For other runs' messages.
        clock: Where time comes from.
    """

    def __init__(self, folder_uri: str, run_id: str, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._uri = storage.join(folder_uri, LEASE_NAME)
        now = self._clock.now()
        self._record = LeaseRecord(
            writer=uuid.uuid4().hex,
            run_id=run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_scope=pid_scope(),
            pid_started=process_started(os.getpid()),
            started=now,
            heartbeat=now,
        )
        self._generation = 0
        self._lost: str | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def writer(self) -> str:
        """Id of this lease."""
        return self._record.writer

    def acquire(self) -> None:
        """Takes the lease; waits up to LEASE_S to see whether an unseen holder lives.

        Raises:
            WriterActiveError: Another run holds it.
            StorageError: The folder cannot be written.
        """
        watched: tuple[int, float] | None = None  # a generation, and until when it is watched
        while True:
            found = self._read()
            generation, record = found if found is not None else (0, None)
            if record is not None and not record.released and record.is_alive() is not False:
                if record.writer == self.writer:  # our write was done, but its answer lost
                    self._generation = generation
                    break
                watched = watched or (generation, self._clock.monotonic() + self._to_wait_s(record))
                left_s = watched[1] - self._clock.monotonic()
                if generation != watched[0] or (left_s > 0 and record.is_alive()):
                    raise WriterActiveError(
                        f"{self._uri}: {record.holder()} is writing here (last sign of life "
                        f"{self._age_s(record):.0f} s ago); expected no other run: stop that one, or choose "
                        "another output"
                    )
                if left_s > 0:
                    self._clock.sleep(min(POLL_S, left_s))
                    continue
            try:
                self._write(self._beating(), generation)
                break
            except PreconditionFailedError:
                continue  # another one was first, and is judged now
        # Replacing needs another right in a bucket than creating does: better missed now than later.
        self.confirm()

    def _age_s(self, record: LeaseRecord) -> float:
        """Seconds since the last sign of life; 0 if the holder's clock is ahead."""
        return max(self._clock.now() - record.heartbeat, 0.0)

    def _to_wait_s(self, record: LeaseRecord) -> float:
        """How long a lease must be seen unchanged before it counts as abandoned."""
        wait_s = max(LEASE_S - self._age_s(record), 0.0)
        if wait_s and not record.is_alive():
            _log.warning(
                "%s: held by %s, last sign of life %.0f s ago: watching it for up to %.0f s",
                self._uri,
                record.holder(),
                self._age_s(record),
                wait_s,
            )
        return wait_s

    def _beating(self) -> LeaseRecord:
        return replace(self._record, heartbeat=self._clock.now())

    def _read(self) -> tuple[int, LeaseRecord | None] | None:
        """Generation and content; None if there is none."""
        if not storage.exists(self._uri):
            return None
        # The generation first: if the holder writes in between, our conditional write fails.
        generation = storage.stat(self._uri).generation or 0
        return generation, LeaseRecord.from_json(storage.read_bytes(self._uri))

    def _write(self, record: LeaseRecord, generation: int) -> None:
        info = storage.write_bytes(self._uri, record.to_json(), if_generation_match=generation)
        self._generation, self._record = info.generation or 0, record

    def beat(self) -> None:
        """Gives a sign of life; if another run has taken over, `check` will say so.

        Raises:
            StorageError: The sign could not be given.
        """
        with self._lock:
            if self._lost is None:
                self._replace(self._beating())

    def _replace(self, record: LeaseRecord) -> None:
        try:
            self._write(record, self._generation)
        except PreconditionFailedError:
            found = self._read()
            if found is None:
                self._lost = f"{self._uri}: was removed by somebody else"
            elif found[1] is not None and found[1].writer == self.writer:
                self._generation = found[0]  # our write was done, but its answer lost
            else:
                by = found[1].holder() if found[1] is not None else "an unknown run"
                self._lost = f"{self._uri}: {by} has taken over"

    def check(self) -> None:
        """Raises LeaseLostError if another run is known to have taken over."""
        if self._lost is not None:
            raise LeaseLostError(
                f"{self._lost}; expected it to stay with {self._record.holder()}: this run writes nothing "
                "any more and must end; what was written stands"
            )

    def confirm(self) -> None:
        """Gives a sign of life, and raises LeaseLostError if another run has taken over by now.

        Raises:
            LeaseLostError: See there.
            StorageError: The sign could not be given.
        """
        self.beat()
        self.check()

    def lose(self, reason: str) -> None:
        """Notes that the lease is lost, as seen elsewhere, and says so by LeaseLostError."""
        found = self._read()
        by = f" ({found[1].holder()})" if found and found[1] and found[1].writer != self.writer else ""
        with self._lock:
            self._lost = self._lost or f"{reason}{by}"
        self.check()

    def start_heartbeat(self) -> None:
        """Gives a sign of life every HEARTBEAT_S from a thread, which ends with the process."""
        self._thread = threading.Thread(target=self._run, name="lease-heartbeat", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        failed = False
        while self._lost is None and not self._ended.wait(HEARTBEAT_S):
            try:
                self.beat()
                failed = False
            except StorageError as error:
                if not failed:
                    _log.warning("the heartbeat failed and will be tried again: %s", error)
                failed = True

    def release(self) -> None:
        """Lets the next run start without waiting; a lease that was lost is left alone."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=HEARTBEAT_S)
            if self._thread.is_alive():
                _log.warning("%s: not released, as storage does not answer: the next run may wait", self._uri)
                return
        with self._lock:
            if self._lost is None:
                try:
                    self._replace(replace(self._record, released=True))
                except StorageError as error:
                    _log.warning("%s: not released, the next run may wait: %s", self._uri, error)
                self._lost = f"{self._uri}: was released"

    def __enter__(self) -> Self:
        self.acquire()
        self.start_heartbeat()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
