"""`gs://`: objects, and reading them whole whatever the network does."""

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gcs_requests import CONTENT, MEDIA, UPLOAD
from gcs_server import FaultKind, GcsServer
from voxsrc import storage
from voxsrc.errors import (
    ConfigError,
    NotFoundError,
    StorageError,
)
from voxsrc.storage import gcs, gcs_connection, gcs_media
from voxsrc.storage.backend import TEMP_PREFIX

pytestmark = pytest.mark.usefixtures("hurry", "short_deadline")


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
