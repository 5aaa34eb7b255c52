"""Checkpoints below an output, local or in a bucket: saved atomically, verified, pruned; never two writers.

A save writes the content-named file, then the pointer on condition that nobody else wrote it since, and only
then removes what the pointer no longer names. A kill at any instant thus leaves the old pointer with its
files or the new one with its own, and at worst a file that no pointer names, which the next writer removes.

A writer that opens the output takes the lease, lists what is there, and rewrites the pointer under its own
id: from then on no earlier writer can publish anything, however late it comes back.
"""

import hashlib
import logging
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import torch

from trainer.checkpoint.errors import CheckpointError
from trainer.checkpoint.pointer import (
    POINTER_NAME,
    Entry,
    Pointer,
    entry_of_name,
    file_name,
    is_judged,
    list_folder,
    read_pointer,
)
from trainer.checkpoint.state_file import Snapshot, State, restore
from voxsrc import storage
from voxsrc.errors import NotFoundError, PermissionDeniedError, PreconditionFailedError, StorageError
from voxsrc.lease import Clock, Lease

FOLDER_NAME = "checkpoints"

_TRIES = 5  # against others who write in between, which happens once or never

_log = logging.getLogger("trainer.checkpoint")


@dataclass(frozen=True)
class SkippedCheckpoint:
    """A checkpoint that could not be loaded, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that was verified and loaded.

    Attributes:
        state: As it was saved.
        entry: Its name, step and metric.
        skipped: Newer ones that could not be loaded, newest first.
    """

    state: State
    entry: Entry
    skipped: tuple[SkippedCheckpoint, ...] = ()


class CheckpointStore:
    """The checkpoints of one output. Anybody may load; to save, open it for writing (a context manager does).

    Args:
        output_uri: Where the run writes; the checkpoints are in the folder `checkpoints` below it.
        keep_last: How many of the newest are kept, beside the best.
        clock: For the lease.
    """

    def __init__(
        self,
        output_uri: str,
        *,
        keep_last: int = 3,
        clock: Clock | None = None,
    ) -> None:
        if keep_last < 1:
            raise CheckpointError(f"keep_last is {keep_last}; expected 1 or more")
        self.folder_uri = storage.join(output_uri, FOLDER_NAME)
        self._keep_last = keep_last
        self._clock = clock
        self._lease: Lease | None = None
        self._pointer = Pointer("", ())
        self._generation = 0
        self._damaged: set[str] = set()
        self._to_delete: set[str] = set()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The checkpoints that are kept, newest first; to a reader, as they are now."""
        return self._current()[0].entries

    @property
    def best(self) -> Entry | None:
        """The one with the best metric, which is the lowest; None if none has any."""
        return self._current()[0].best

    def open_for_writing(self, run_id: str, *, heartbeat: bool = True) -> Self:
        """Takes the lease, bars earlier writers, and removes files that a killed one left.

        Args:
            run_id: Names this run to others who try to write here.
            heartbeat: Give signs of life from a thread; without it, call `lease.beat` yourself.

        Raises:
            WriterActiveError: Another run is writing here.
            PermissionDeniedError: Files cannot be written or replaced here.
            StorageError: Anything else that makes writing impossible.
        """
        lease = Lease(self.folder_uri, run_id, self._clock)
        lease.acquire()
        try:
            # Listed before others are barred: what a still later writer makes cannot be in the list.
            present = [storage.name(info.uri) for info in list_folder(self.folder_uri)]
            self._bar_earlier_writers(lease)
            named = {entry.name for entry in self._pointer.entries}
            self._to_delete = {name for name in present if entry_of_name(name) and name not in named}
            self._lease = lease
            self._delete_superseded()
        except BaseException:
            self._lease = None
            lease.release()
            raise
        if heartbeat:
            lease.start_heartbeat()
        return self

    def _bar_earlier_writers(self, lease: Lease) -> None:
        for _ in range(_TRIES):
            found = read_pointer(self.folder_uri)
            if found.problem:
                _log.warning("%s", found.problem)
            pointer = replace(found.pointer, writer=lease.writer)
            try:
                self._write_pointer(pointer, found.generation)
                return
            except PreconditionFailedError:
                continue
        raise CheckpointError(
            f"{self.folder_uri}/{POINTER_NAME}: was changed by others {_TRIES} times in a row; "
            "is another run writing here?"
        )

    @property
    def lease(self) -> Lease:
        """The lease; raises CheckpointError if the store is not open for writing."""
        if self._lease is None:
            raise CheckpointError(f"{self.folder_uri}: not open for writing; call open_for_writing first")
        return self._lease

    def close(self) -> None:
        """Gives the lease back, so that the next run need not wait."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def save(self, step: int, copied: Snapshot, *, metric: float | None = None) -> Entry:
        """Writes file and pointer, then removes what is no longer kept.

        Args:
            step: Steps done. Kept checkpoints of this or a later step are replaced.
            copied: The state, of `snapshot`.
            metric: What "best" is judged by, the lower the better; NaN is never the best.

        Raises:
            LeaseLostError: Another run has taken over; nothing that counts was changed.
            StorageError: Not saved (disk full, no permission, no network); what was there still is.
        """
        self.lease.check()
        content = copied.content()
        sha256 = hashlib.sha256(content).hexdigest()
        name = file_name(step, sha256)
        entry = Entry(name, step, len(content), sha256, metric if is_judged(metric) else None)
        self._to_delete.add(name)  # unless the pointer comes to name it
        storage.write_bytes(storage.join(self.folder_uri, name), content)
        before = self._pointer
        pointer = before.without(self._damaged).with_entry(entry, self._keep_last)
        self._publish(pointer)
        self._damaged.clear()
        named = {kept.name for kept in pointer.entries}
        self._to_delete = (self._to_delete | {old.name for old in before.entries}) - named
        self._delete_superseded()
        return pointer.entries[0]

    def _publish(self, pointer: Pointer) -> None:
        uri = storage.join(self.folder_uri, POINTER_NAME)
        for _ in range(_TRIES):
            try:
                self._write_pointer(pointer, self._generation)
                return
            except PreconditionFailedError:
                found = read_pointer(self.folder_uri)
                if not found.generation:
                    self.lease.lose(f"{uri}: was removed")
                if found.pointer.writer != self.lease.writer:
                    self.lease.lose(f"{uri}: was written by somebody else")
                self._generation = found.generation  # an earlier write of ours was done, its answer lost
        raise StorageError(f"{uri}: changes without a write of this run's; what else writes there?")

    def _write_pointer(self, pointer: Pointer, generation: int) -> None:
        uri = storage.join(self.folder_uri, POINTER_NAME)
        info = storage.write_bytes(uri, pointer.to_json(), if_generation_match=generation)
        self._pointer, self._generation = pointer, info.generation or 0

    def _delete_superseded(self) -> None:
        """What cannot be removed is tried again after the next save."""
        for name in sorted(self._to_delete):
            uri = storage.join(self.folder_uri, name)
            try:
                storage.delete(uri, missing_ok=True)
            except StorageError as error:
                _log.warning("%s: a checkpoint that is no longer needed was not removed: %s", uri, error)
            else:
                self._to_delete.discard(name)

    def load(
        self, *, best: bool = False, map_location: torch.device | str = "cpu"
    ) -> LoadedCheckpoint | None:
        """Loads the newest checkpoint that is whole, or the best one; None if there is none at all.

        Args:
            best: The one with the best metric of those that are whole; the others count as none.
            map_location: Where the tensors go.

        Raises:
            CheckpointError: There are some, and none can be loaded: the message names them and the reasons.
            StorageError: The folder cannot be read.
        """
        for _ in range(_TRIES):
            pointer, generation = self._current()
            entries = pointer.judged if best else pointer.entries
            skipped: list[SkippedCheckpoint] = []
            for entry in entries:
                try:
                    state = self._read_state(entry, map_location)
                except PermissionDeniedError:
                    raise
                except (CheckpointError, StorageError) as error:
                    if isinstance(error, NotFoundError) and self._current()[1] != generation:
                        break  # pruned meanwhile by the writer: there is a newer one
                    skipped.append(SkippedCheckpoint(entry.name, str(error)))
                    continue
                for damaged in skipped:
                    _log.warning(
                        "checkpoint %s skipped, falling back to %s: %s",
                        damaged.name,
                        entry.name,
                        damaged.reason,
                    )
                self._damaged.update(damaged.name for damaged in skipped)
                return LoadedCheckpoint(state, entry, tuple(skipped))
            else:
                if not entries:
                    return None
                reasons = "; ".join(f"{damaged.name}: {damaged.reason}" for damaged in skipped)
                raise CheckpointError(
                    f"{self.folder_uri}: no checkpoint can be loaded; {reasons}; restore one of these files, "
                    "or choose another output"
                )
        raise CheckpointError(f"{self.folder_uri}: checkpoints vanish while they are read; try again")

    def _current(self) -> tuple[Pointer, int]:
        """The pointer and its generation: a writer's own, or the stored one as it is now."""
        if self._lease is not None:
            return self._pointer.without(self._damaged), self._generation
        found = read_pointer(self.folder_uri)
        if found.problem:
            _log.warning("%s", found.problem)
        return found.pointer, found.generation

    def _read_state(self, entry: Entry, map_location: torch.device | str) -> State:
        content = storage.read_bytes(storage.join(self.folder_uri, entry.name))
        sha256 = hashlib.sha256(content).hexdigest()
        if entry.bytes not in (None, len(content)) or not sha256.startswith(entry.sha256):
            raise CheckpointError(
                f"damaged: {len(content)} bytes with SHA-256 {sha256[:12]}…; "
                f"expected {entry.bytes or 'any number of'} with {entry.sha256[:12]}…"
            )
        return restore(content, map_location)
