import fcntl
import multiprocessing
import os
import random
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from shared_counter import increment
from voxsrc import storage
from voxsrc.errors import NotFoundError, PermissionDeniedError, PreconditionFailedError, StorageError
from voxsrc.storage.backend import TEMP_PREFIX

fork = multiprocessing.get_context("fork")


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208


def test_write_read_stat_delete(tmp_path: Path) -> None:
    uri = str(tmp_path / "new folder" / "ü x.bin")
    written = storage.write_bytes(uri, b"0123456789")
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == storage.read_bytes(f"file://{uri}".replace(" ", "%20")) == b"0123456789"
    assert storage.stat(uri) == written
    assert written == storage.ObjectInfo(uri, 10, written.generation, None)
    assert entries(Path(uri).parent) == ["ü x.bin"]
    storage.delete(uri)
    assert not storage.exists(uri)
    storage.delete(uri, missing_ok=True)
    with pytest.raises(NotFoundError, match=r"ü x\.bin"):
        storage.delete(uri)


@pytest.mark.parametrize(
    ("start", "length", "found"), [(2, 3, b"234"), (8, 9, b"89"), (10, 1, b""), (99, 5, b""), (3, 0, b"")]
)
def test_read_range_is_clipped_at_the_end(tmp_path: Path, start: int, length: int, found: bytes) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    assert storage.read_range(str(tmp_path / "f"), start, length) == found
    with pytest.raises(ValueError, match="negative"):
        storage.read_range(str(tmp_path / "f"), -1, 5)


@pytest.mark.parametrize(
    "call",
    [
        storage.read_bytes,
        storage.stat,
        storage.open_binary,
        lambda uri: list(storage.list_files(uri)),
        lambda uri: storage.download(uri, f"{uri}.copy"),
    ],
)
def test_missing_path_is_named(tmp_path: Path, call: Callable[[str], object]) -> None:
    with pytest.raises(NotFoundError, match="nothing here"):
        call(str(tmp_path / "nothing here"))
    assert entries(tmp_path) == []


def test_folder_where_a_file_is_expected(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for call in (storage.read_bytes, storage.stat, storage.delete):
        with pytest.raises(StorageError, match="folder"):
            call(str(tmp_path / "d"))
    with pytest.raises(StorageError, match="folder"):
        storage.write_bytes(str(tmp_path / "d"), b"x")
    with pytest.raises(NotFoundError, match="is a file; expected a folder"):
        storage.write_bytes(str(tmp_path / "f"), b"x")
        storage.list_files(str(tmp_path / "f"))
    assert entries(tmp_path) == ["d", "f"]


@pytest.fixture
def plain_user() -> Iterator[None]:
    """Root may do everything; as somebody else it sees what users see."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_forbidden_folder(plain_user: None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "secret").write_bytes(b"x")
        (folder / "secret").chmod(0)
        folder.chmod(0o500)
        with pytest.raises(PermissionDeniedError, match="owner and mode"):
            storage.write_bytes(f"{folder}/f", b"x")
        with pytest.raises(PermissionDeniedError, match="secret: cannot read"):
            storage.read_bytes(f"{folder}/secret")
        folder.chmod(0o700)


def test_lists_in_bytewise_order_of_full_names(tmp_path: Path) -> None:
    names = ["a/c", "a-b", "a0", "a/b/z", "B", "ü", "a/.hidden", "b c"]
    for name in names:
        storage.write_bytes(storage.join(str(tmp_path), name), name.encode())
    (tmp_path / "a" / f"{TEMP_PREFIX}0").write_bytes(b"left by a killed writer")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    found = list(storage.list_files(f"{tmp_path}/"))
    assert [info.uri for info in found] == [f"{tmp_path}/{name}" for name in sorted(names, key=str.encode)]
    assert [info.size for info in found] == [len(name.encode()) for name in sorted(names, key=str.encode)]
    assert [i.uri for i in storage.list_files(str(tmp_path), recursive=False)] == [
        f"{tmp_path}/{name}" for name in ["B", "a-b", "a0", "b c", "ü"]
    ]


def test_listing_follows_folder_links_outwards_once(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "outside/spk/u.wav"), b"1")
    storage.write_bytes(str(tmp_path / "root/own/v.wav"), b"2")
    root = tmp_path / "root"
    (root / "again").symlink_to(root / "own")
    (root / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "x1").symlink_to(tmp_path / "outside")
    (root / "x2").symlink_to(tmp_path / "outside/spk")
    (tmp_path / "outside/spk/back").symlink_to(tmp_path / "outside")
    assert [i.uri for i in storage.list_files(str(root))] == [f"{root}/own/v.wav", f"{root}/x1/spk/u.wav"]


def test_relative_listing_keeps_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("out/x", b"1")
    storage.write_bytes("y", b"2")
    assert [i.uri for i in storage.list_files("out")] == ["out/x"]
    assert [i.uri for i in storage.list_files(".")] == ["./out/x", "./y"]


def test_atomic_writer_leaves_nothing_behind_when_the_block_raises(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stop"), storage.atomic_writer(str(target)) as file:
        file.write(b"new " * 100_000)
        assert target.read_bytes() == b"old"
        raise RuntimeError("stop")
    assert (entries(tmp_path), target.read_bytes()) == (["f"], b"old")
    with storage.atomic_writer(str(target)) as file:
        file.write(b"xxx tail")
        file.seek(0)
        file.write(b"new")
    assert (entries(tmp_path), target.read_bytes()) == (["f"], b"new tail")


def test_a_write_through_a_link_replaces_its_target(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    storage.write_bytes(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["named pipe", "socket", "character device"])
def test_what_is_no_regular_file_is_neither_replaced_nor_written_to(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "special"
    listener = socket.socket(socket.AF_UNIX)
    controller, terminal = os.openpty()
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "socket":
        listener.bind(str(path))
    else:
        # No file can be made beside a terminal, so that not even a broken check would do harm.
        path.symlink_to(os.ttyname(terminal))
    (tmp_path / "source").write_bytes(b"x")
    before = path.stat()
    for write in (
        lambda: storage.write_bytes(str(path), b"x"),
        lambda: storage.download(str(tmp_path / "source"), str(path)),
        lambda: storage.write_bytes(str(path), b"x", if_generation_match=0),
    ):
        with pytest.raises(StorageError, match=f"special: cannot write: it is a {kind}; expected a file"):
            write()
    after = path.stat()
    assert (after.st_mode, after.st_ino, after.st_rdev) == (before.st_mode, before.st_ino, before.st_rdev)
    assert entries(tmp_path) == ["source", "special"]
    listener.close()
    os.close(controller)
    os.close(terminal)


@pytest.mark.parametrize("form", ["/dev/fd/{}", "/proc/self/fd/{}", "/proc/{pid}/fd/{}", "{tmp}/link"])
def test_an_open_file_of_a_process_is_not_replaced(tmp_path: Path, form: str) -> None:
    with (tmp_path / "redirected").open("wb") as output:
        path = form.format(output.fileno(), pid=os.getpid(), tmp=tmp_path)
        (tmp_path / "link").symlink_to(f"/dev/fd/{output.fileno()}")
        with pytest.raises(StorageError, match=r"cannot write: it leads to /proc/.*open file of a process"):
            storage.write_bytes(path, b"x")
        output.write(b"said")
    assert (tmp_path / "redirected").read_bytes() == b"said"
    (tmp_path / "link").unlink()
    assert entries(tmp_path) == ["redirected"]


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StorageError, match="a: cannot write"):
        storage.write_bytes(str(tmp_path / "a"), b"x")
    assert entries(tmp_path) == ["a", "b"]


def test_new_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        storage.write_bytes(str(tmp_path / "f"), b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_several_writers_in_one_folder_take_separate_slots(tmp_path: Path) -> None:
    with (
        storage.atomic_writer(str(tmp_path / "a")) as a,
        storage.atomic_writer(str(tmp_path / "a")) as b,
    ):
        a.write(b"first opened, last closed")
        b.write(b"second")
        assert entries(tmp_path) == [f"{TEMP_PREFIX}0", f"{TEMP_PREFIX}1"]
    assert entries(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"first opened, last closed"


def test_a_left_over_slot_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / f"{TEMP_PREFIX}0").write_bytes(b"much longer than what comes now")
    storage.write_bytes(str(tmp_path / "f"), b"short")
    assert (entries(tmp_path), (tmp_path / "f").read_bytes()) == (["f"], b"short")


def test_a_slot_that_is_published_while_we_wait_for_its_lock_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, published = tmp_path / f"{TEMP_PREFIX}0", tmp_path / "published"
    slot.write_bytes(b"of the last owner")
    lock = fcntl.flock

    def last_owner_finishes_first(descriptor: int, operation: int) -> None:
        if not published.exists():
            slot.rename(published)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", last_owner_finishes_first)
    storage.write_bytes(str(tmp_path / "f"), b"ours")
    assert published.read_bytes() == b"of the last owner"
    assert (tmp_path / "f").read_bytes() == b"ours"


def test_every_write_raises_the_generation(tmp_path: Path) -> None:
    uri = str(tmp_path / "f")
    (tmp_path / "f").write_bytes(b"")
    os.utime(uri, ns=(2**62, 2**62))  # the clock was wrong once
    generations = [storage.write_bytes(uri, b"x").generation or 0 for _ in range(50)]
    assert generations[0] > 2**62
    assert sorted(set(generations)) == generations


def test_preconditions(tmp_path: Path) -> None:
    uri = str(tmp_path / "f")
    first = storage.write_bytes(uri, b"1", if_generation_match=0)
    with pytest.raises(PreconditionFailedError, match="expected no file yet"):
        storage.write_bytes(uri, b"2", if_generation_match=0)
    second = storage.write_bytes(uri, b"2", if_generation_match=first.generation)
    with pytest.raises(PreconditionFailedError, match=f"expected generation {first.generation}"):
        storage.write_bytes(uri, b"3", if_generation_match=first.generation)
    storage.delete(uri)
    with pytest.raises(PreconditionFailedError, match="none exists"):
        storage.write_bytes(uri, b"3", if_generation_match=second.generation)
    assert entries(tmp_path) == []


def test_precondition_needs_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    uri = str(tmp_path / "f")
    storage.write_bytes(uri, b"1")
    with pytest.raises(StorageError, match="no locks"):
        storage.write_bytes(uri, b"2", if_generation_match=0)
    assert (entries(tmp_path), storage.read_bytes(uri)) == (["f"], b"1")


def _create_once(uri: str, barrier: Barrier, number: int) -> None:
    barrier.wait()
    try:
        storage.write_bytes(uri, b"%d" % number, if_generation_match=0)
    except PreconditionFailedError:
        os._exit(1)
    os._exit(0)


def test_one_of_many_processes_creates_a_file(tmp_path: Path) -> None:
    for attempt in range(5):
        uri = str(tmp_path / f"lock{attempt}")
        barrier = fork.Barrier(6)
        racers = [fork.Process(target=_create_once, args=(uri, barrier, n)) for n in range(6)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        winners = [n for n, racer in enumerate(racers) if racer.exitcode == 0]
        assert len(winners) == 1
        assert storage.read_bytes(uri) == b"%d" % winners[0]


def test_counter_of_many_processes_loses_no_step(tmp_path: Path) -> None:
    uri = str(tmp_path / "counter")
    storage.write_bytes(uri, b"0")
    workers = [fork.Process(target=increment, args=(uri, 15)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert storage.read_bytes(uri) == b"60"


CONTENTS = (b"old " * 100_000, b"new! " * 60_000)


def _rewrite_for_ever(uri: str, started: int) -> None:
    os.write(started, b"x")
    while True:
        for content in CONTENTS:
            storage.write_bytes(uri, content)
            with storage.atomic_writer(uri) as file:
                for offset in range(0, len(content), 10_000):
                    file.write(content[offset : offset + 10_000])


def test_sigkill_at_any_instant_leaves_one_whole_content(tmp_path: Path) -> None:
    uri = str(tmp_path / "f")
    storage.write_bytes(uri, CONTENTS[0])
    draw = random.Random(1)
    leftovers = 0
    for turn in range(300):
        if turn >= 30 and leftovers:
            break
        reader, writer = os.pipe()
        child = fork.Process(target=_rewrite_for_ever, args=(uri, writer))
        child.start()
        os.read(reader, 1)
        wait([child.sentinel], timeout=draw.uniform(0.0, 0.03))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        os.close(reader)
        os.close(writer)
        assert storage.read_bytes(uri) in CONTENTS
        assert [info.uri for info in storage.list_files(str(tmp_path))] == [uri]
        assert set(entries(tmp_path)) <= {"f", f"{TEMP_PREFIX}0"}
        leftovers += len(entries(tmp_path)) - 1
    assert leftovers > 0  # else no kill has hit a write
    storage.write_bytes(uri, b"end")
    assert entries(tmp_path) == ["f"]


def test_upload_and_download_copy(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 40_000)
    info = storage.upload(str(tmp_path / "a"), str(tmp_path / "x/b"))
    assert (info.uri, info.size) == (str(tmp_path / "x/b"), 256 * 40_000)
    storage.download(str(tmp_path / "x/b"), str(tmp_path / "c"))
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()
