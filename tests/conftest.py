"""Fixtures that several test modules use."""

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gcs_server import GcsServer

# A busy machine is no failure. What is not named here stays as Hypothesis has it, with CI's own profile too.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks so small gain nothing from a second thread, and wait for it if the machine is busy.

    Modules that compute have imported torch by now; others need not wait for it.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    """A Cloud Storage server on a loopback port; STORAGE_EMULATOR_HOST leads to it until the session ends."""
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    with GcsServer() as server:
        os.environ["STORAGE_EMULATOR_HOST"] = server.url
        yield server
        del os.environ["STORAGE_EMULATOR_HOST"]
    if before is not None:
        os.environ["STORAGE_EMULATOR_HOST"] = before


@pytest.fixture
def bucket(gcs_server: GcsServer) -> Iterator[str]:
    """`gs://` URI of a new, empty bucket; faults planned by the test end with it."""
    gcs_server.clear()
    yield gcs_server.create_bucket(f"test-{uuid.uuid4().hex[:12]}")
    gcs_server.clear()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed in a bucket is tried again at once."""
    monkeypatch.setattr("voxsrc.storage.gcs_connection.FIRST_BACKOFF_S", 0.001)


@pytest.fixture(params=["local", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, then a bucket: what holds for one must hold for the other."""
    return str(tmp_path) if request.param == "local" else str(request.getfixturevalue("bucket"))
