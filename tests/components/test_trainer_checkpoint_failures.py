"""Storage that refuses, is full, or ends at any single change: nothing of the checkpoints is lost."""

import errno
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from checkpoints import bits, checkpoint_files, later, snapshot_of, state_of, steps
from gcs_server import GcsServer
from trainer.checkpoint import CheckpointStore, Clock, LeaseLostError
from trainer.checkpoint.pointer import POINTER_NAME
from voxsrc import storage
from voxsrc.errors import PermissionDeniedError, StorageError

pytestmark = pytest.mark.usefixtures("hurry")


def test_a_bucket_without_the_right_to_write_is_refused_at_once(bucket: str, gcs_server: GcsServer) -> None:
    gcs_server.fail("status", method="POST", path="/upload/", status=403)
    with pytest.raises(
        PermissionDeniedError, match=r"writer\.json: cannot write: .*storage\.objects\.create"
    ):
        CheckpointStore(f"{bucket}/run").open_for_writing("a")


def test_a_bucket_without_the_right_to_replace_is_refused_at_once(bucket: str, gcs_server: GcsServer) -> None:
    gcs_server.fail("status", method="POST", path="ifGenerationMatch=1", status=403, times=99)
    with pytest.raises(PermissionDeniedError, match=r"writer\.json: cannot write"):
        CheckpointStore(f"{bucket}/run").open_for_writing("a")


def test_an_outage_fails_a_save_and_harms_nothing(
    bucket: str, gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CheckpointStore(f"{bucket}/run", keep_last=1).open_for_writing("a") as store:
        store.save(1, snapshot_of(1))
        monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "0.02")
        gcs_server.fail("status", method="POST", path="/upload/", status=503, times=1000)
        with pytest.raises(StorageError, match="nothing has moved"):
            store.save(2, snapshot_of(2))
        gcs_server.clear()
        # The pointer is written, but nobody learns of it.
        gcs_server.fail("lose_answer", method="POST", path="ifGenerationMatch=1")
        gcs_server.fail("status", method="POST", path="ifGenerationMatch=1", status=503, times=1000)
        with pytest.raises(StorageError, match="nothing has moved"):
            store.save(3, snapshot_of(3))
        gcs_server.clear()
        monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "20")
        for reader in (store, CheckpointStore(f"{bucket}/run")):
            loaded = reader.load()
            assert loaded is not None
            assert bits(loaded.state) == bits(state_of(loaded.entry.step))
        store.save(4, snapshot_of(4))
        assert steps(store) == steps(CheckpointStore(f"{bucket}/run")) == [4]
        assert checkpoint_files(store) == {store.entries[0].name}


def test_what_could_not_be_removed_is_removed_later(
    output: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(uri: str, *, missing_ok: bool = False) -> None:
        raise PermissionDeniedError(f"{uri}: cannot delete")

    with CheckpointStore(output, keep_last=1).open_for_writing("a") as store:
        store.save(1, snapshot_of(1))
        with monkeypatch.context() as patch:
            patch.setattr(storage, "delete", refuse)
            store.save(2, snapshot_of(2))
        assert "no longer needed was not removed" in caplog.text
        assert len(checkpoint_files(store)) == 2
        store.save(3, snapshot_of(3))
        assert checkpoint_files(store) == {store.entries[0].name}


def test_each_single_change_of_a_save_may_be_refused(output: str) -> None:
    for refused in range(4):  # file, pointer, and the removal of two files
        with CheckpointStore(f"{output}-{refused}", keep_last=2).open_for_writing("a") as store:
            for step in (1, 2, 3):
                store.save(step, snapshot_of(step))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(storage, "delete", _refused)
                store.save(4, snapshot_of(4))  # so that two removals are due with the next
            with pytest.MonkeyPatch.context() as patch:
                Refusing(patch, refused)
                if refused < 2:
                    with pytest.raises(StorageError, match="refused"):
                        store.save(5, snapshot_of(5))
                else:
                    store.save(5, snapshot_of(5))
            loaded = CheckpointStore(f"{output}-{refused}").load()
            assert loaded is not None
            assert (loaded.entry.step, loaded.skipped) == (4 if refused < 2 else 5, ())
            store.save(6, snapshot_of(6))
            assert steps(store) == ([6, 4] if refused < 2 else [6, 5])
            assert checkpoint_files(store) == {entry.name for entry in store.entries}


def _refused(*args: Any, **options: Any) -> None:
    raise StorageError("refused")


class Refusing:
    """Storage that refuses its n-th change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
        self._left = refused
        for name in ("write_bytes", "delete"):
            monkeypatch.setattr(storage, name, self._wrapped(getattr(storage, name)))

    def _wrapped(self, change: Any) -> Any:
        def refusing(*args: Any, **options: Any) -> Any:
            self._left -= 1
            return (_refused if self._left == -1 else change)(*args, **options)

        return refusing


def check_that_a_full_disk_harms_nothing(store: CheckpointStore, free: Any) -> None:
    """Of a store with step 1 on a full disk; `free` makes room."""
    with pytest.raises(StorageError, match="No space left on device"):
        store.save(2, snapshot_of(2))
    loaded = CheckpointStore(store.folder_uri.removesuffix("/checkpoints")).load()
    assert loaded is not None
    assert bits(loaded.state) == bits(state_of(1))
    free()
    store.save(2, snapshot_of(2))
    assert steps(store) == [2, 1]
    assert checkpoint_files(store) == {entry.name for entry in store.entries}


def test_no_space_in_any_write_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with CheckpointStore(str(tmp_path)).open_for_writing("a") as store:
        store.save(1, snapshot_of(1))
        with monkeypatch.context() as patch:
            patch.setattr("voxsrc.storage.local.os.fsync", full)
            check_that_a_full_disk_harms_nothing(store, patch.undo)


def test_a_full_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        with CheckpointStore(str(disk)).open_for_writing("a") as store:
            store.save(1, snapshot_of(1))
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(4096))
            check_that_a_full_disk_harms_nothing(store, filler.unlink)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Ends at any instant


class Killed(BaseException):
    """As SIGKILL: nothing runs after it."""


@dataclass
class Mortal:
    """Storage that ends its process before or after its n-th change."""

    monkeypatch: pytest.MonkeyPatch
    end_at: int = -1
    after: bool = False
    changes: int = 0
    dead: bool = field(default=False)

    def __post_init__(self) -> None:
        for name in ("write_bytes", "delete"):
            self.monkeypatch.setattr(storage, name, self.wrapped(getattr(storage, name)))

    def wrapped(self, change: Any) -> Any:
        def mortal(*args: Any, **options: Any) -> Any:
            if self.dead:
                raise Killed
            index, self.changes = self.changes, self.changes + 1
            if index == self.end_at and not self.after:
                self.dead = True
                raise Killed
            done = change(*args, **options)
            if index == self.end_at:
                self.dead = True
                raise Killed
            return done

        return mortal


def run_of_saves(output: str, saved: list[int], clock: Clock | None = None) -> None:
    with CheckpointStore(output, keep_last=2, clock=clock).open_for_writing("a", heartbeat=False) as store:
        loaded = store.load()
        first = loaded.entry.step + 1 if loaded else 1
        for step in range(first, first + 5):
            store.save(step, snapshot_of(step), metric=float(-step if step < 3 else step))
            saved.append(step)


@pytest.fixture
def changes_of_a_run(tmp_path: Path) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        mortal = Mortal(patch)
        run_of_saves(str(tmp_path / "whole"), [])
    yield mortal.changes


def test_an_end_at_every_single_change_of_storage(tmp_path: Path, changes_of_a_run: int) -> None:
    assert changes_of_a_run >= 15
    for end_at in range(changes_of_a_run):
        for after in (False, True):
            output = str(tmp_path / f"{end_at}-{after}")
            saved: list[int] = [0]
            with pytest.MonkeyPatch.context() as patch:
                Mortal(patch, end_at, after)
                with pytest.raises(Killed):
                    run_of_saves(output, saved)
            loaded = CheckpointStore(output).load()
            step = loaded.entry.step if loaded is not None else 0
            assert step in (saved[-1], saved[-1] + 1)
            if loaded is not None:
                assert loaded.skipped == ()
                assert bits(loaded.state) == bits(state_of(step))
            run_of_saves(output, saved, later())
            assert saved[-1] == step + 5
            store = CheckpointStore(output)
            assert checkpoint_files(store) == {entry.name for entry in store.entries}
            assert store.best is not None
            assert store.best.step == 2


def test_who_was_taken_over_publishes_and_removes_nothing_more(output: str) -> None:
    first = CheckpointStore(output, keep_last=2).open_for_writing("first", heartbeat=False)
    first.save(1, snapshot_of(1))
    second = CheckpointStore(output, keep_last=2, clock=later()).open_for_writing("second", heartbeat=False)
    # The second has not saved yet: only that it rewrote the pointer keeps the first from doing so.
    with pytest.raises(LeaseLostError, match=r"latest\.json: was written by somebody else \(run 'second'"):
        first.save(2, snapshot_of(2))
    with pytest.raises(LeaseLostError):
        first.save(3, snapshot_of(3))
    assert steps(second) == steps(CheckpointStore(output)) == [1]
    for step in (2, 3, 4):
        second.save(step, snapshot_of(step))
        with pytest.raises(LeaseLostError):
            first.save(step, snapshot_of(step))
    loaded = CheckpointStore(output).load()
    assert loaded is not None
    assert (loaded.entry.step, steps(second)) == (4, [4, 3])
    first.close()
    second.save(5, snapshot_of(5))
    second.close()


def test_a_removed_pointer_ends_the_writer(output: str) -> None:
    with CheckpointStore(output).open_for_writing("a") as store:
        store.save(1, snapshot_of(1))
        storage.delete(storage.join(store.folder_uri, POINTER_NAME))
        with pytest.raises(LeaseLostError, match=r"latest\.json: was removed"):
            store.save(2, snapshot_of(2))
