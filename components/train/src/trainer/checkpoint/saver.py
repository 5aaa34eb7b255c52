"""Saving beside the training loop, which waits only while the state is copied."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from trainer.checkpoint.pointer import is_judged
from trainer.checkpoint.state_file import Snapshot, State, snapshot
from voxsrc.errors import StorageError

_log = logging.getLogger("trainer.checkpoint")


class SnapshotStore(Protocol):
    """What the saver needs of a `CheckpointStore`."""

    def save(self, step: int, copied: Snapshot, *, metric: float | None = None) -> object:
        """Writes a snapshot; raises StorageError if that may succeed another time."""


@dataclass(frozen=True)
class SaveReport:
    """One save that has ended.

    Attributes:
        step: Steps done.
        copy_s: How long the training loop waited, seconds.
        write_s: How long the file took beside it, seconds.
        num_bytes: Size of the file.
        error: Why it was not saved; what was there before still is. None: saved.
    """

    step: int
    copy_s: float
    write_s: float
    num_bytes: int
    error: StorageError | None


@dataclass(frozen=True)
class _Task:
    step: int
    copied: Snapshot
    metric: float | None
    copy_s: float


def _rank(task: _Task) -> tuple[float, int]:
    """The best first, of equal ones the earliest."""
    return task.metric or 0.0, task.step


class AsyncSaver:
    """Copies states at once and saves them in a thread, one at a time.

    A state that still waits when the next comes is replaced by it, unless it may be the best: at most two
    wait. The thread lives only while there is something to save, and a Python process does not end before it
    has, so an ordinary exit loses nothing.

    A save that storage refuses (disk full, no permission, no network) is warned of and reported; training
    goes on, and the next save tries again. Any other failure, above all LeaseLostError, is raised by the next
    `submit` or `wait`. To be used from one thread.

    Args:
        store: Open for writing.
        monotonic: Seconds, for the reports.
    """

    def __init__(
        self,
        store: SnapshotStore,
        *,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store = store
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._waiting: list[_Task] = []
        self._thread: threading.Thread | None = None
        self._spare: Snapshot | None = None
        self._reports: list[SaveReport] = []
        self._last: SaveReport | None = None
        self._failure: BaseException | None = None

    def submit(self, step: int, state: State, *, metric: float | None = None) -> float:
        """Copies the state; it is saved when those before it are. Returns the seconds that this took.

        Raises:
            CheckpointError: The state holds what cannot be saved.
            LeaseLostError: Another run has taken over the output.
        """
        self._raise_failure()
        began = self._monotonic()
        with self._lock:
            spare, self._spare = self._spare, None
        copied = snapshot(state, spare)
        copy_s = self._monotonic() - began
        with self._lock:
            self._wait_in_line(_Task(step, copied, metric, copy_s))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoint-save")
                self._thread.start()
        return copy_s

    def _wait_in_line(self, task: _Task) -> None:
        """Of those that wait, keeps the one that may be the best: which is kept must not depend on timing."""
        judged = [waiting for waiting in self._waiting if is_judged(waiting.metric)]
        best = min(judged, key=_rank, default=None)
        if best is not None and is_judged(task.metric) and _rank(task) < _rank(best):
            best = None
        for replaced in self._waiting:
            if replaced is not best:
                self._spare = replaced.copied
        self._waiting = [task] if best is None else [best, task]

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                task = self._waiting.pop(0)
            began = self._monotonic()
            error: StorageError | None = None
            try:
                self._store.save(task.step, task.copied, metric=task.metric)
            except StorageError as refused:
                error = refused
                _log.warning("checkpoint of step %d not saved, training goes on: %s", task.step, refused)
            except BaseException as failure:
                with self._lock:
                    self._failure, self._waiting, self._thread = failure, [], None
                return
            write_s = self._monotonic() - began
            report = SaveReport(task.step, task.copy_s, write_s, task.copied.num_bytes, error)
            with self._lock:
                self._spare = task.copied
                self._last = report
                self._reports.append(report)

    def take_reports(self) -> list[SaveReport]:
        """The saves that have ended since the last call, oldest first."""
        with self._lock:
            reports, self._reports = self._reports, []
        return reports

    def wait(self) -> SaveReport | None:
        """Returns once nothing is left to save, with the report of the last save, if there was any.

        Raises:
            LeaseLostError: Another run has taken over the output.
        """
        self._join()
        self._raise_failure()
        return self._last

    def _join(self) -> None:
        thread = self._thread
        if thread is not None:
            thread.join()

    def _raise_failure(self) -> None:
        with self._lock:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._join()
        if error is None:
            self._raise_failure()
        elif self._failure is not None:  # must not hide what has ended the training
            _log.warning("the last checkpoint was not saved: %s", self._failure)
