"""The file of decoded frames: made once by however many processes, on a disk that may be full."""

import errno
import fcntl
import logging
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from feature_sets import make_feature_set
from voxsrc.errors import NotFoundError, StorageError
from voxsrc.feature_set import FeatureSet

LENGTHS = [[300, 200], [450]]
NUM_BYTES = 950 * 40

fork = multiprocessing.get_context("fork")


@pytest.fixture
def uri(tmp_path: Path) -> str:
    make_feature_set(tmp_path / "set", LENGTHS)
    return str(tmp_path / "set")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOXSRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Second:
    """Another opening of the set, in a thread, which finds the first one decoding."""

    def __init__(self, uri: str) -> None:
        self.frames: np.ndarray | None = None
        self._uri = uri
        self._thread = threading.Thread(target=self._open, daemon=True)
        self._waits = threading.Event()

    def start_and_wait(self) -> None:
        """Until it waits for the first one to finish, and says so at the level that programs show."""
        handler = logging.Handler()
        handler.emit = lambda record: self._waits.set()  # type: ignore[method-assign]
        logger = logging.getLogger("voxsrc.feature_set.cache")
        logger.addHandler(handler)
        self._thread.start()
        try:
            assert self._waits.wait(20), "it does not wait"
        finally:
            logger.removeHandler(handler)

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _open(self) -> None:
        self.frames = FeatureSet.open(self._uri, "mmap").frames


def test_of_several_that_open_a_set_one_decodes_it(
    uri: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_all, second, num_decoded = FeatureSet._decode_all, Second(uri), 0

    def decode_while_another_opens(self: FeatureSet, out: np.ndarray, num_threads: int) -> None:
        nonlocal num_decoded
        num_decoded += 1
        if num_decoded == 1:
            second.start_and_wait()
        decode_all(self, out, num_threads)

    monkeypatch.setattr(FeatureSet, "_decode_all", decode_while_another_opens)
    first = FeatureSet.open(uri, "mmap").frames
    second.join()
    assert num_decoded == 1
    np.testing.assert_array_equal(first, second.frames)
    assert [name[-3:] for name in names(cache)] == [".u8"]


def test_who_waits_goes_on_when_the_first_one_fails_though_its_child_lives(
    uri: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_all, second, num_decoded = FeatureSet._decode_all, Second(uri), 0
    released = fork.Event()
    child = fork.Process(target=released.wait, daemon=True)

    def fork_and_fail_at_first(self: FeatureSet, out: np.ndarray, num_threads: int) -> None:
        nonlocal num_decoded
        num_decoded += 1
        if num_decoded == 1:
            child.start()  # which inherits the lock
            second.start_and_wait()
            raise StorageError("gone")
        decode_all(self, out, num_threads)

    monkeypatch.setattr(FeatureSet, "_decode_all", fork_and_fail_at_first)
    with pytest.raises(StorageError, match="gone"):
        FeatureSet.open(uri, "mmap")
    second.join()
    released.set()
    child.join()
    assert second.frames is not None
    assert [name[-3:] for name in names(cache)] == [".u8"]


def test_a_lock_file_that_its_last_owner_removes_while_we_wait_is_not_ours(
    uri: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, decode_all, removed = fcntl.flock, FeatureSet._decode_all, []

    def last_owner_finishes_first(descriptor: int, operation: int) -> None:
        if not removed:
            removed.extend(cache.glob("*.lock"))
            removed[0].unlink()
        flock(descriptor, operation)

    def decode_under_lock(self: FeatureSet, out: np.ndarray, num_threads: int) -> None:
        with removed[0].open("rb") as found, pytest.raises(BlockingIOError):
            flock(found, fcntl.LOCK_SH | fcntl.LOCK_NB)
        decode_all(self, out, num_threads)

    monkeypatch.setattr(fcntl, "flock", last_owner_finishes_first)
    monkeypatch.setattr(FeatureSet, "_decode_all", decode_under_lock)
    assert FeatureSet.open(uri, "mmap").frames.shape == (950, 40)


def test_a_file_system_without_locks_has_a_cache_too(
    uri: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert FeatureSet.open(uri, "mmap").frames.shape == (950, 40)
    assert [name[-3:] for name in names(cache)] == [".u8"]


def test_the_blocks_are_taken_before_anything_is_decoded(
    uri: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def look(*_: object) -> None:
        taken.extend(path.stat().st_blocks * 512 for path in cache.glob(".voxsrc-tmp-*"))

    monkeypatch.setattr(FeatureSet, "_decode_all", look)
    FeatureSet.open(uri, "mmap")
    assert len(taken) == 1
    assert taken[0] >= NUM_BYTES


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_meanwhile_is_an_error_with_a_remedy(
    uri: str, cache: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"no room.*needs 0\.038 MB; set \$VOXSRC_CACHE.*mode='ram'"):
        FeatureSet.open(uri, "mmap")
    assert names(cache) == []


def test_without_fallocate_the_file_is_made_all_the_same(
    uri: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    np.testing.assert_array_equal(FeatureSet.open(uri, "mmap").frames, FeatureSet.open(uri, "ram").frames)


def _die_decoding(uri: str) -> None:
    def die(self: FeatureSet, out: np.ndarray, num_threads: int) -> None:
        out[:] = 1
        os.kill(os.getpid(), signal.SIGKILL)

    FeatureSet._decode_all = die  # type: ignore[method-assign]
    FeatureSet.open(uri, "mmap")


def test_what_a_killed_decoder_left_does_not_take_the_next_ones_room(
    uri: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = fork.Process(target=_die_decoding, args=(uri,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert sum(path.stat().st_size for path in cache.iterdir()) == NUM_BYTES

    def usage_of_a_small_disk(folder: Path) -> SimpleNamespace:
        used = sum(path.stat().st_size for path in Path(folder).iterdir())
        return SimpleNamespace(free=NUM_BYTES * 3 // 2 - used)

    monkeypatch.setattr(shutil, "disk_usage", usage_of_a_small_disk)
    mapped = FeatureSet.open(uri, "mmap")
    np.testing.assert_array_equal(mapped.frames, FeatureSet.open(uri, "ram").frames)
    assert [name[-3:] for name in names(cache)] == [".u8"]


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_cache_folder_that_cannot_be_made_is_named_with_the_variable(
    uri: str, tmp_path: Path, below: str
) -> None:
    (tmp_path / "afile").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"afile.*cannot make.*\$VOXSRC_CACHE") as caught:
        FeatureSet.open(uri, "mmap", cache_dir=f"{tmp_path}/afile{below}")
    # Which would mean that there is no set.
    assert not isinstance(caught.value, NotFoundError)


def test_a_cached_set_that_cannot_be_read_is_named_with_the_variable(uri: str, cache: Path) -> None:
    FeatureSet.open(uri, "mmap")
    [cached] = cache.iterdir()
    cached.unlink()
    cached.mkdir()
    with pytest.raises(StorageError, match=rf"{cached.name}: cannot read.*\$VOXSRC_CACHE"):
        FeatureSet.open(uri, "mmap")


def test_no_home_folder_is_an_error_with_a_remedy(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VOXSRC_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(StorageError, match=r"no home folder.*\$VOXSRC_CACHE"):
        FeatureSet.open(uri, "mmap")


def test_a_cached_set_opens_from_a_folder_that_nobody_may_write_to(
    uri: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FeatureSet.open(uri, "mmap")
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("a lock was made"))
    assert FeatureSet.open(uri, "mmap").frames.shape == (950, 40)
