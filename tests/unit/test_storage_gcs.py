import itertools
import json
import logging
import multiprocessing
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from gcs_server import FaultKind, GcsServer
from voxsrc import storage
from voxsrc.errors import (
    ConfigError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    StorageError,
)
from voxsrc.storage import gcs, gcs_connection, gcs_media
from voxsrc.storage.backend import TEMP_PREFIX

MEDIA = "/download/"
UPLOAD = "/upload/"
CONTENT = bytes(range(251)) * 40_000  # 10 MB, so that a shift by any power of two shows


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_connection, "FIRST_BACKOFF_S", 0.001)
    monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "20")


def test_write_read_stat_delete(bucket: str) -> None:
    uri = f"{bucket}/a/ü x?#%2F.bin"
    assert not storage.exists(uri)
    written = storage.write_bytes(uri, memoryview(b"0123456789"))
    assert storage.exists(uri)
    assert storage.read_bytes(uri) == b"0123456789"
    assert storage.stat(uri) == written
    assert (written.uri, written.size) == (uri, 10)
    assert written.crc32c == "KAwGng=="  # of "0123456789", as GCS writes it
    assert storage.write_bytes(uri, b"").size == 0
    assert storage.read_bytes(uri) == b""
    storage.delete(uri)
    assert not storage.exists(uri)
    storage.delete(uri, missing_ok=True)
    with pytest.raises(NotFoundError, match="no such object"):
        storage.delete(uri)


@pytest.mark.parametrize(
    ("start", "length", "found"),
    [(2, 3, b"234"), (8, 9, b"89"), (0, 10, b"0123456789"), (10, 1, b""), (99, 5, b""), (3, 0, b"")],
)
def test_read_range_is_clipped_at_the_end(bucket: str, start: int, length: int, found: bytes) -> None:
    storage.write_bytes(f"{bucket}/f", b"0123456789")
    assert storage.read_range(f"{bucket}/f", start, length) == found


def test_lists_pages_in_bytewise_order(
    bucket: str, gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "PAGE_OBJECTS", 3)
    names = ["run/a/c", "run/a-b", "run/a0", "run/a/b/z", "run/B", "run/ü", "run/b c"]
    for name in [*names, "run2/x", "run", f"run/{TEMP_PREFIX}0", "run/empty/"]:
        storage.write_bytes(f"{bucket}/{name}", name.encode())
    gcs_server.clear()
    gcs_server.fail("cut", path="pageToken", after=5)
    expected = [f"{bucket}/{name}" for name in sorted(names, key=str.encode)]
    for prefix in (f"{bucket}/run", f"{bucket}/run/"):
        found = list(storage.list_files(prefix))
        assert [info.uri for info in found] == expected
        assert all(info == storage.stat(info.uri) for info in found)
    assert gcs_server.pending_faults == 0
    assert [i.uri for i in storage.list_files(f"{bucket}/run", recursive=False)] == [
        f"{bucket}/run/{name}" for name in ["B", "a-b", "a0", "b c", "ü"]
    ]
    assert list(storage.list_files(f"{bucket}/nothing")) == []
    assert len(list(storage.list_files(bucket))) == len(names) + 2


@pytest.mark.parametrize(
    "call",
    [
        storage.exists,
        storage.stat,
        storage.read_bytes,
        storage.open_binary,
        storage.delete,
        lambda uri: storage.delete(uri, missing_ok=True),
        lambda uri: storage.read_range(uri, 0, 5),
        lambda uri: storage.write_bytes(uri, b"x"),
        lambda uri: storage.write_bytes(uri, b"x", if_generation_match=0),
        lambda uri: storage.write_bytes(uri, CONTENT),
        lambda uri: list(storage.list_files(uri)),
        lambda uri: list(storage.read_many([uri])),
    ],
)
def test_missing_bucket_is_named_with_the_remedy(
    gcs_server: GcsServer, call: Callable[[str], object]
) -> None:
    with pytest.raises(NotFoundError, match=r"gs://no-such-bucket: no such bucket.*buckets create"):
        call("gs://no-such-bucket/x")


def test_missing_object_is_named(bucket: str, tmp_path: Path) -> None:
    for call in (storage.read_bytes, storage.stat, storage.open_binary):
        with pytest.raises(NotFoundError, match=f"{bucket}/x: no such object"):
            call(f"{bucket}/x")
    with pytest.raises(NotFoundError, match="no such object"):
        storage.download(f"{bucket}/x", str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match="names a bucket; expected an object"):
        storage.write_bytes(bucket, b"x")
    for uri in ("gs://_x/k", "gs://A b/k", "gs://b"):
        with pytest.raises(StorageError, match="is no bucket name"):
            list(storage.list_files(uri))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_transient_statuses_are_retried(bucket: str, gcs_server: GcsServer, status: int) -> None:
    uri = f"{bucket}/f"
    gcs_server.fail("status", method="POST", path=UPLOAD, times=2, status=status)
    gcs_server.fail("status", path=MEDIA, times=2, status=status)
    gcs_server.fail("status", path="/storage/v1/b/", times=2, status=status)
    gcs_server.fail("status", method="DELETE", path="/storage/v1/b/", times=2, status=status)
    storage.write_bytes(uri, b"content")
    assert storage.read_bytes(uri) == b"content"
    assert storage.stat(uri).size == 7
    storage.delete(uri)
    assert gcs_server.pending_faults == 0


@pytest.mark.parametrize("kind", ["cut", "reset", "corrupt", "lose_answer"])
@pytest.mark.parametrize("times", [1, 2])
def test_broken_bodies_are_read_whole(
    bucket: str, gcs_server: GcsServer, kind: FaultKind, times: int
) -> None:
    uri = f"{bucket}/f"
    storage.write_bytes(uri, CONTENT)
    gcs_server.fail(kind, path=MEDIA, times=times, after=3_000_000)
    assert storage.read_bytes(uri) == CONTENT
    assert gcs_server.pending_faults == 0


@pytest.mark.parametrize("kind", ["cut", "reset", "lose_answer"])
def test_a_broken_range_is_read_again(bucket: str, gcs_server: GcsServer, kind: FaultKind) -> None:
    storage.write_bytes(f"{bucket}/f", CONTENT)
    gcs_server.fail(kind, path=MEDIA, times=2, after=1000)
    assert storage.read_range(f"{bucket}/f", 12_345, 2_000_000) == CONTENT[12_345:2_012_345]
    assert gcs_server.pending_faults == 0


def test_a_stalled_body_times_out_and_is_resumed(
    bucket: str, gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(f"{bucket}/f", CONTENT)
    attempt = gcs_media._Download.attempt

    def impatient_until_it_stalls(self: gcs_media._Download) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if gcs_server.pending_faults:
                patch.setenv("VOXSRC_STORAGE_TIMEOUT_S", "0.3")
            attempt(self)

    monkeypatch.setattr(gcs_media._Download, "attempt", impatient_until_it_stalls)
    gcs_server.fail("stall", path=MEDIA, after=5_000_000)
    assert storage.read_bytes(f"{bucket}/f") == CONTENT
    assert gcs_server.pending_faults == 0


def test_a_cut_download_goes_on_from_where_it_stopped(
    bucket: str, gcs_server: GcsServer, tmp_path: Path
) -> None:
    uri, target = f"{bucket}/f", tmp_path / "sub" / "f"
    info = storage.write_bytes(uri, CONTENT)
    gcs_server.clear()
    for after in (4_000_000, 3_000_000):
        gcs_server.fail("cut", path=MEDIA, after=after)
    assert storage.download(uri, str(target)) == info
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == ["f"]
    ranges = [seen.headers.get("Range") for seen in gcs_server.seen("GET", MEDIA)]
    assert ranges[0] is None
    starts = [int((text or "").removeprefix("bytes=").removesuffix("-")) for text in ranges[1:]]
    assert 2_900_000 < starts[0] <= 4_000_000
    assert 2_900_000 < starts[1] - starts[0] <= 3_000_000


def test_wrong_bytes_are_never_returned(bucket: str, gcs_server: GcsServer, tmp_path: Path) -> None:
    uri = f"{bucket}/f"
    storage.write_bytes(uri, b"right")
    gcs_server.fail("corrupt", path=MEDIA, times=100)
    with pytest.raises(StorageError, match=r"CRC32C .* expected .*, 3 times"):
        storage.read_bytes(uri)
    with pytest.raises(StorageError, match="CRC32C"):
        storage.download(uri, str(tmp_path / "f"))
    assert list(tmp_path.iterdir()) == []


def test_a_range_that_is_the_whole_object_is_verified(bucket: str, gcs_server: GcsServer) -> None:
    storage.write_bytes(f"{bucket}/f", b"right")
    gcs_server.fail("corrupt", path=MEDIA)
    assert storage.read_range(f"{bucket}/f", 0, 5) == b"right"
    gcs_server.fail("corrupt", path=MEDIA, times=1000)
    with pytest.raises(StorageError, match="CRC32C"):
        storage.read_range(f"{bucket}/f", 0, 100)


def test_damage_behind_a_cut_is_found(bucket: str, gcs_server: GcsServer) -> None:
    storage.write_bytes(f"{bucket}/f", CONTENT)
    gcs_server.clear()
    gcs_server.fail("cut", path=MEDIA, after=4_000_000)
    gcs_server.fail("corrupt", path=MEDIA)
    assert storage.read_bytes(f"{bucket}/f") == CONTENT
    assert len(gcs_server.seen("GET", MEDIA)) == 3


def test_an_object_replaced_during_a_download_is_read_anew(bucket: str, gcs_server: GcsServer) -> None:
    uri = f"{bucket}/f"
    storage.write_bytes(uri, CONTENT)
    replaced = threading.Event()
    forget = gcs_media._Download.attempt

    def replace_after_the_first_cut(self: gcs_media._Download) -> None:
        try:
            forget(self)
        finally:
            if not replaced.is_set():
                replaced.set()
                storage.write_bytes(uri, CONTENT[::-1])

    gcs_server.fail("cut", path=MEDIA, after=4_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcs_media._Download, "attempt", replace_after_the_first_cut)
        assert storage.read_bytes(uri) == CONTENT[::-1]


def test_gives_up_at_the_deadline_with_the_last_failure(
    bucket: str, gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "0.1")
    gcs_server.fail("status", path=MEDIA, times=10_000, status=503)
    with pytest.raises(StorageError, match=r"nothing has moved for 0\.1 s.*503.*VOXSRC_STORAGE_DEADLINE_S"):
        storage.read_bytes(f"{bucket}/f")


def test_the_deadline_counts_from_the_last_progress(
    bucket: str, gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(f"{bucket}/f", CONTENT)
    clock = itertools.count(step=15)  # each look at it finds 15 s gone, of 20
    fake_time = SimpleNamespace(monotonic=lambda: next(clock), sleep=time.sleep)
    gcs_server.fail("cut", path=MEDIA, times=3, after=2_500_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcs_connection, "time", fake_time)
        assert storage.read_bytes(f"{bucket}/f") == CONTENT
        gcs_server.fail("cut", path=MEDIA, times=3, after=0)
        with pytest.raises(StorageError, match="nothing has moved for 20 s"):
            storage.read_bytes(f"{bucket}/f")


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_bad_deadline_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", text)
    with pytest.raises(ConfigError, match="VOXSRC_STORAGE_DEADLINE_S"):
        storage.read_bytes(f"{bucket}/f")


def test_back_off_grows_and_is_logged(
    bucket: str, gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bounds: list[float] = []

    def longest(_: float, high: float) -> float:
        bounds.append(high)
        return 0.0

    monkeypatch.setattr(random, "uniform", longest)
    monkeypatch.setattr(gcs_connection, "FIRST_BACKOFF_S", 0.25)
    storage.write_bytes(f"{bucket}/f", b"x")
    gcs_server.fail("status", path=MEDIA, times=9, status=503)
    with caplog.at_level(logging.WARNING, "voxsrc.storage"):
        assert storage.read_bytes(f"{bucket}/f") == b"x"
    assert bounds == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0]
    assert len(caplog.records) == 9


# Writing


def test_preconditions(bucket: str) -> None:
    uri = f"{bucket}/f"
    first = storage.write_bytes(uri, b"1", if_generation_match=0)
    with pytest.raises(PreconditionFailedError, match="somebody else"):
        storage.write_bytes(uri, b"2", if_generation_match=0)
    storage.write_bytes(uri, b"2", if_generation_match=first.generation)
    with pytest.raises(PreconditionFailedError):
        storage.write_bytes(uri, b"2", if_generation_match=first.generation)
    storage.delete(uri)
    with pytest.raises(PreconditionFailedError):
        storage.write_bytes(uri, b"3", if_generation_match=first.generation)
    assert not storage.exists(uri)


@pytest.mark.parametrize("expected_generation", [0, None])
def test_a_write_whose_answer_was_lost_is_recognised(
    bucket: str, gcs_server: GcsServer, expected_generation: int | None
) -> None:
    uri = f"{bucket}/f"
    gcs_server.fail("lose_answer", method="POST", path=UPLOAD)
    written = storage.write_bytes(uri, b"mine", if_generation_match=expected_generation)
    assert gcs_server.pending_faults == 0
    assert storage.stat(uri) == written
    gcs_server.fail("lose_answer", method="POST", path=UPLOAD)
    again = storage.write_bytes(uri, b"mine", if_generation_match=written.generation)
    assert storage.stat(uri) == again != written


def test_an_equal_write_of_somebody_else_is_not_taken_for_our_own(bucket: str, gcs_server: GcsServer) -> None:
    uri = f"{bucket}/lock"
    storage.write_bytes(uri, b"locked", if_generation_match=0)
    gcs_server.fail("status", method="POST", path=UPLOAD, times=1)
    with pytest.raises(PreconditionFailedError):
        storage.write_bytes(uri, b"locked", if_generation_match=0)


def test_a_write_that_was_done_unheard_and_replaced_is_told_apart(bucket: str, gcs_server: GcsServer) -> None:
    uri = f"{bucket}/f"
    first = storage.write_bytes(uri, b"1")
    pause = random.uniform

    def replace_meanwhile(low: float, high: float) -> float:
        storage.write_bytes(uri, b"somebody else's")
        return pause(low, high)

    gcs_server.fail("lose_answer", method="POST", path=UPLOAD)
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(PreconditionFailedError, match="may have been done"),
    ):
        patch.setattr(random, "uniform", replace_meanwhile)
        storage.write_bytes(uri, b"2", if_generation_match=first.generation)
    assert storage.read_bytes(uri) == b"somebody else's"


def test_counter_of_many_threads_loses_no_step_under_faults(bucket: str, gcs_server: GcsServer) -> None:
    uri = f"{bucket}/counter"
    storage.write_bytes(uri, b"0")

    def increment(times: int) -> None:
        while times:
            generation = storage.stat(uri).generation
            value = int(storage.read_bytes(uri))
            try:
                storage.write_bytes(uri, b"%d" % (value + 1), if_generation_match=generation)
                times -= 1
            except PreconditionFailedError:
                pass

    gcs_server.fail("lose_answer", method="POST", path=UPLOAD, times=4)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increment, [5] * 4))
    # A write may be done, its answer lost, and be replaced before its repetition: then it counts as failed.
    assert 20 <= int(storage.read_bytes(uri)) <= 20 + 4


def test_upload_of_a_large_file_survives_cuts(
    bucket: str, gcs_server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_media, "UPLOAD_CHUNK_BYTES", 1 << 20)
    (tmp_path / "f").write_bytes(CONTENT)
    gcs_server.clear()
    gcs_server.fail("status", method="POST", path=UPLOAD, times=1)
    gcs_server.fail("status", method="PUT", path=UPLOAD, times=2)
    gcs_server.fail("lose_answer", method="PUT", path=UPLOAD, times=5)
    info = storage.upload(str(tmp_path / "f"), f"{bucket}/f")
    assert info == storage.stat(f"{bucket}/f")
    assert storage.read_bytes(f"{bucket}/f") == CONTENT
    assert gcs_server.pending_faults == 0
    chunks = [r for r in gcs_server.seen("PUT", UPLOAD) if "*" not in r.headers["Content-Range"]]
    assert len(chunks) == 1 + 10  # the first was refused; whatever arrived is not sent again
    with pytest.raises(NotFoundError, match="no file here"):
        storage.upload(str(tmp_path / "no file here"), f"{bucket}/g")


def test_a_lost_upload_session_is_begun_again(bucket: str, gcs_server: GcsServer) -> None:
    gcs_server.fail("status", method="PUT", path=UPLOAD, status=410)
    storage.write_bytes(f"{bucket}/f", CONTENT)
    assert storage.read_bytes(f"{bucket}/f") == CONTENT
    gcs_server.fail("status", method="PUT", path=UPLOAD, times=100, status=410)
    with pytest.raises(StorageError, match="410"):
        storage.write_bytes(f"{bucket}/f", CONTENT)


def test_preconditions_of_large_writes(bucket: str, gcs_server: GcsServer) -> None:
    uri = f"{bucket}/f"
    gcs_server.fail("lose_answer", method="PUT", path=UPLOAD)
    written = storage.write_bytes(uri, CONTENT, if_generation_match=0)
    assert storage.stat(uri) == written
    assert "ifGenerationMatch=0" in gcs_server.seen("POST", UPLOAD)[0].path
    # The fake does not check the precondition of a resumable upload: its refusal is played.
    gcs_server.fail("status", method="POST", path=UPLOAD, status=412)
    with pytest.raises(PreconditionFailedError):
        storage.write_bytes(uri, CONTENT, if_generation_match=0)


class _ResumableServer:
    """Plays the protocol's server side for `_Upload`: keeps only a part of what comes, and loses answers."""

    def __init__(self, total: int) -> None:
        self.kept = bytearray()
        self.total = total
        self.rounds = 0

    def put(self, chunk: bytes, content_range: str) -> "_Answer":
        self.rounds += 1
        if chunk:
            span = content_range.removeprefix("bytes ").split("/")[0]
            assert int(span.split("-")[0]) == len(self.kept)
            self.kept += chunk[: len(chunk) * 2 // 3 + 1]
            if self.rounds % 3 == 0:
                raise ConnectionResetError("answer lost")
        else:
            assert content_range == f"bytes */{self.total}"
        if len(self.kept) < self.total:
            return _Answer(308, {"range": f"bytes=0-{len(self.kept) - 1}"} if self.kept else {})
        return _Answer(200, {})


class _Answer:
    def __init__(self, status_code: int, headers: dict[str, str]) -> None:
        self.status_code = status_code
        self.headers = headers

    def json(self) -> object:
        return json.loads('{"generation": "1"}')


def test_resumable_upload_goes_on_from_what_the_server_has_kept(
    gcs_server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = CONTENT[:100_003]
    (tmp_path / "f").write_bytes(content)
    peer = _ResumableServer(len(content))
    monkeypatch.setattr(gcs_media, "UPLOAD_CHUNK_BYTES", 10_000)
    monkeypatch.setattr(gcs_media._Upload, "_begin", lambda self, here: "session")
    monkeypatch.setattr(gcs_media._Upload, "_put", lambda self, here, chunk, span: peer.put(chunk, span))
    with (tmp_path / "f").open("rb") as source:
        assert gcs_media.upload_resumable("gs://b/f", source, len(content), {}) == {"generation": "1"}
    assert peer.kept == content


def test_upload_from_and_download_to_another_store(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 1000)
    storage.upload(str(tmp_path / "small"), f"{bucket}/small")
    storage.download(f"{bucket}/small", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"x" * 1000


# Rights and credentials


@pytest.mark.parametrize(
    ("method", "call", "right"),
    [
        ("GET", storage.read_bytes, r"storage\.objects\.get"),
        ("GET", lambda uri: list(storage.list_files(uri)), r"storage\.objects\.list"),
        ("POST", lambda uri: storage.write_bytes(uri, b"x"), r"storage\.objects\.create"),
        ("DELETE", storage.delete, r"storage\.objects\.delete"),
    ],
)
def test_403_names_the_right_that_is_needed(
    bucket: str, gcs_server: GcsServer, method: str, call: Callable[[str], object], right: str
) -> None:
    gcs_server.fail("status", method=method, status=403)
    with pytest.raises(PermissionDeniedError, match=right):
        call(f"{bucket}/f")
    assert len(gcs_server.seen(method, "/b/")) == 1


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    """A machine without credentials: no emulator, no files, nobody who listens as the metadata server.

    The socket has its port, so that nobody else gets it.
    """
    for variable in (
        "STORAGE_EMULATOR_HOST",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "KUBERNETES_SERVICE_HOST",
        "NO_GCE_CHECK",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{silent.getsockname()[1]}")
        yield silent


def test_no_credentials_are_reported_at_once(nowhere: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, asked = socket.socket.connect, []

    def counted(self: socket.socket, address: object) -> None:
        asked.append(address)
        connect(self, address)  # type: ignore[arg-type]

    # The libraries' own connections, too: google.auth would ask again and again.
    monkeypatch.setattr(socket.socket, "connect", counted)
    with pytest.raises(PermissionDeniedError, match=r"application-default login.*Workload Identity"):
        storage.read_bytes("gs://some-bucket/x")
    assert asked == [nowhere.getsockname()]


@pytest.mark.usefixtures("nowhere")
def test_missing_credentials_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/key.json")
    with pytest.raises(PermissionDeniedError, match=r"/no/such/key\.json"):
        storage.read_bytes("gs://some-bucket/x")


def test_a_new_pod_waits_for_its_metadata_server(
    nowhere: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    connect = socket.create_connection
    attempts = 0

    def listen_on_third(address: tuple[str, int], timeout: float) -> socket.socket:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            nowhere.listen()
        return connect(address, timeout)

    monkeypatch.setattr(socket, "create_connection", listen_on_third)
    assert gcs_connection._credentials_in_sight()
    assert attempts == 3


# One client per process


def test_a_fork_gets_its_own_connection(bucket: str) -> None:
    storage.write_bytes(f"{bucket}/f", CONTENT)
    before = gcs_connection.connection()
    reader, writer = os.pipe()

    def child() -> None:
        same = gcs_connection.connection() is before
        right = all(content == CONTENT for content in storage.read_many([f"{bucket}/f"] * 4))
        os.write(writer, b"%d%d" % (same, right))

    processes = [multiprocessing.get_context("fork").Process(target=child) for _ in range(2)]
    for process in processes:
        process.start()
    assert all(content == CONTENT for content in storage.read_many([f"{bucket}/f"] * 4))
    for process in processes:
        process.join()
        assert os.read(reader, 2) == b"01"
    assert gcs_connection.connection() is before
    os.close(reader)
    os.close(writer)


def test_threads_share_one_connection(bucket: str) -> None:
    barrier = threading.Barrier(8)

    def connect(_: int) -> gcs_connection.Connection:
        barrier.wait()
        return gcs_connection.connection()

    gcs_connection._connections.clear()
    with ThreadPoolExecutor(8) as pool:
        assert len({id(connection) for connection in pool.map(connect, range(8))}) == 1
