"""Rights and credentials for `gs://`, and the one client of a process."""

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gcs_requests import CONTENT
from gcs_server import GcsServer
from voxsrc import storage
from voxsrc.errors import (
    PermissionDeniedError,
)
from voxsrc.storage import gcs_connection

pytestmark = pytest.mark.usefixtures("hurry", "short_deadline")


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
